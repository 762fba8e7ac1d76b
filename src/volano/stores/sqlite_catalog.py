"""Catalog and ledger in SQL. SQLite in a file here; `SqlCatalog` takes any SQLAlchemy URL, PostgreSQL's among them.

Correct at any isolation: documents are compared and set by their revision in the UPDATE itself, ledger entries by the
primary key (stream, sequence), so of two racing writers one wins and the other one is told. Knows no kinds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError, SQLAlchemyError

from volano.errors import (
    ConflictError,
    CorruptionError,
    StateMismatchError,
    StoreBusyError,
    StoreError,
    StoreFullError,
    StoreReadOnlyError,
)
from volano.protocols.catalog import Document, LedgerEntry
from volano.stores.local_files import LocalFiles
from volano.stores.os_errors import from_os_error
from volano.values.instants import Instant

HEAD: Final = "0001"
"""The newest migration."""

_BUSY_TIMEOUT_MS: Final = 10_000
_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_TRIES: Final = 100

_METADATA: Final = sa.MetaData()
_DOCUMENT: Final = sa.Table(
    "document",
    _METADATA,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_LEDGER: Final = sa.Table(
    "ledger",
    _METADATA,
    sa.Column("stream", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("body", sa.LargeBinary, nullable=False),
)
_ALEMBIC: Final = sa.Table("alembic_version", _METADATA, sa.Column("version_num", sa.String(32)))

_KIND: Final = sa.bindparam("b_kind", type_=sa.Text())
_NAME: Final = sa.bindparam("b_name", type_=sa.Text())
_STREAM: Final = sa.bindparam("b_stream", type_=sa.Text())
_AFTER: Final = sa.bindparam("b_after", type_=sa.BigInteger())
_OLD: Final = sa.bindparam("b_old", type_=sa.BigInteger())
_NEW: Final = sa.bindparam("b_new", type_=sa.BigInteger())
_BODY: Final = sa.bindparam("b_body", type_=sa.LargeBinary())
_FIND: Final = sa.select(_DOCUMENT).where(_DOCUMENT.c.kind == _KIND, _DOCUMENT.c.name == _NAME)
_LIST: Final = sa.select(_DOCUMENT).where(_DOCUMENT.c.kind == _KIND)
_ENTRIES: Final = (
    sa.select(_LEDGER)
    .where(_LEDGER.c.stream == _STREAM, _LEDGER.c.sequence > _AFTER)
    .order_by(_LEDGER.c.sequence)
)
_LAST: Final = (
    sa.select(_LEDGER).where(_LEDGER.c.stream == _STREAM).order_by(_LEDGER.c.sequence.desc()).limit(1)
)
_UPDATE: Final = (
    sa.update(_DOCUMENT)
    .where(_DOCUMENT.c.kind == _KIND, _DOCUMENT.c.name == _NAME, _DOCUMENT.c.revision == _OLD)
    .values(revision=_NEW, body=_BODY)
)


class SqlCatalog:
    """A catalog behind an SQLAlchemy URL. Threads may share it; brings its schema up to date when it is opened.

    Args:
        url: of the database.
        where: what errors call it.

    Raises:
        StateMismatchError: the schema is newer than this version of Volano.
    """

    def __init__(self, url: sa.URL | str, *, where: str = "") -> None:
        self._where = where or sa.make_url(url).render_as_string(hide_password=True)
        self._engine = sa.create_engine(url, max_overflow=-1)  # a reading thread keeps its connection
        self._reads = threading.local()
        self._readers: list[sa.Connection] = []
        self._prepare()
        try:
            self._migrate()
        except BaseException:  # closes what was opened, then raises it again
            self.close()
            raise

    def find(self, kind: str, name: str) -> Document | None:
        """The document, or None."""
        row = self._read(_FIND, {"b_kind": kind, "b_name": name}).first()
        return None if row is None else _document(row)

    def documents(self, kind: str) -> list[Document]:
        """All documents of a kind, by name (in code point order, whatever the database's collation)."""
        found = [_document(row) for row in self._read(_LIST, {"b_kind": kind})]
        return sorted(found, key=lambda document: document.name)

    def entries(self, stream: str, *, after: int = 0) -> list[LedgerEntry]:
        """Entries of a stream above a sequence, in order."""
        return [_entry(row) for row in self._read(_ENTRIES, {"b_stream": stream, "b_after": after})]

    def last_entry(self, stream: str) -> LedgerEntry | None:
        """The newest entry of a stream, or None."""
        row = self._read(_LAST, {"b_stream": stream}).first()
        return None if row is None else _entry(row)

    def put(self, kind: str, name: str, body: bytes, *, expected: int | None = None) -> int:
        """Write a document; returns its revision (see `CatalogWriter.put`)."""
        for _ in range(_TRIES):
            with self._write() as connection:
                row = connection.execute(_FIND, {"b_kind": kind, "b_name": name}).first()
                present = 0 if row is None else int(row.revision)
                if expected is not None and expected != present:
                    raise ConflictError(
                        f"The {kind} {name!r} is at revision {present}, not {expected}.",
                        where=self._where,
                        mend="read it again and repeat the change",
                    )
                if self._set(connection, kind, name, body, present):
                    return present + 1
        raise self._contended()

    def append(
        self, stream: str, bodies: Sequence[bytes], *, at: Instant, expected: int | None = None
    ) -> int:
        """Append entries; returns the last sequence (see `CatalogWriter.append`)."""
        for _ in range(_TRIES):
            with self._write() as connection:
                row = connection.execute(_LAST, {"b_stream": stream}).first()
                last = 0 if row is None else int(row.sequence)
                if expected is not None and expected != last:
                    raise ConflictError(
                        f"The stream {stream!r} is at sequence {last}, not {expected}.",
                        where=self._where,
                        mend="read the newer entries and decide again",
                    )
                if not bodies:
                    return last
                rows = [
                    {"stream": stream, "sequence": last + n, "at": at, "body": body}
                    for n, body in enumerate(bodies, 1)
                ]
                try:
                    connection.execute(sa.insert(_LEDGER), rows)
                    return last + len(bodies)
                except IntegrityError:
                    connection.rollback()  # another writer was faster: look again
        raise self._contended()

    def trim(self, stream: str, *, before: int) -> None:
        """Remove the older entries of a stream (see `CatalogWriter.trim`)."""
        with self._write() as connection:
            row = connection.execute(_LAST, {"b_stream": stream}).first()
            if row is not None:
                below = _LEDGER.c.sequence < min(before, int(row.sequence))
                connection.execute(sa.delete(_LEDGER).where(_LEDGER.c.stream == stream, below))

    def close(self) -> None:
        """Close every connection."""
        for connection in self._readers:
            connection.close()
        self._readers.clear()
        self._engine.dispose()

    def _prepare(self) -> None:
        """What a dialect needs before its first connection."""

    def _set(self, connection: sa.Connection, kind: str, name: str, body: bytes, present: int) -> bool:
        """Move a document on from a revision; False when another writer was faster."""
        if present:
            moved = {"b_kind": kind, "b_name": name, "b_old": present, "b_new": present + 1, "b_body": body}
            return connection.execute(_UPDATE, moved).rowcount == 1
        try:
            connection.execute(
                sa.insert(_DOCUMENT), {"kind": kind, "name": name, "revision": 1, "body": body}
            )
        except IntegrityError:
            connection.rollback()
            return False
        return True

    def _read(self, statement: sa.Executable, parameters: dict[str, Any]) -> sa.Result[Any]:
        """Run a SELECT on this thread's own connection, which commits by itself, so it sees the newest state."""
        try:
            connection: sa.Connection | None = getattr(self._reads, "connection", None)
            if connection is None or connection.closed:
                connection = self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")
                self._reads.connection = connection
                self._readers.append(connection)
            return connection.execute(statement, parameters)
        except SQLAlchemyError as error:
            raise self._from_sql(error) from error

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise self._from_sql(error) from error

    def _migrate(self) -> None:
        """Bring the schema up to date, once, whoever comes first. Alembic costs 0.3 s, so ask without it."""
        if self._schema_version() == HEAD:
            return
        from alembic.config import Config  # noqa: PLC0415
        from alembic.runtime.environment import EnvironmentContext  # noqa: PLC0415
        from alembic.script import ScriptDirectory  # noqa: PLC0415
        from alembic.util.exc import CommandError  # noqa: PLC0415

        scripts: Any = ScriptDirectory(str(_MIGRATIONS))

        def upgrade(revision: Any, _: Any) -> Any:
            return scripts._upgrade_revs("head", revision)

        try:
            with (
                self._write() as connection,
                EnvironmentContext(Config(), scripts, fn=upgrade) as environment,
            ):
                environment.configure(connection=connection, fn=upgrade, transactional_ddl=True)
                environment.run_migrations()
        except CommandError as error:
            raise StateMismatchError(
                f"The catalog was written by another version of Volano: {error}.",
                where=self._where,
                mend="upgrade Volano",
            ) from error

    def _schema_version(self) -> str | None:
        with self._write() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            return connection.execute(sa.select(_ALEMBIC.c.version_num)).scalar()

    def _contended(self) -> StoreBusyError:
        return StoreBusyError(
            "Other writers were always faster.", where=self._where, mend="call again in a moment"
        )

    def _from_sql(self, error: SQLAlchemyError) -> StoreError:
        """The database's errors as ours."""
        said = str(error.orig if isinstance(error, DBAPIError) else error)
        where = self._where
        match said.lower():
            case text if "full" in text or "no space" in text or "disk i/o error" in text:
                return StoreFullError(
                    f"The catalog cannot grow: {said}.",
                    where=where,
                    mend="free space on the disk and call again",
                )
            case text if "locked" in text or "busy" in text:
                return StoreBusyError(
                    f"The catalog is in use: {said}.", where=where, mend="call again in a moment"
                )
            case text if "readonly" in text or "unable to open" in text or "permission denied" in text:
                return StoreReadOnlyError(
                    f"The catalog cannot be written: {said}.",
                    where=where,
                    mend="make the data folder writable for this user",
                )
            case text if "malformed" in text or "not a database" in text:
                return CorruptionError(
                    f"The catalog's file is damaged: {said}.", where=where, mend="restore it from a backup"
                )
            case _:
                return StoreError(f"The catalog failed: {said}.", where=where, mend="check the database")


class SqliteCatalog(SqlCatalog):
    """A catalog in one SQLite file. Every write is synced before it returns.

    Args:
        folder: holds `catalog.sqlite`; created when missing.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     catalog = SqliteCatalog(Path(folder))
    ...     catalog.put("project", "flights", b"{}"), catalog.append("release", [b"{}"], at=7)
    ...     catalog.close()
    (1, 1)
    """

    def __init__(self, folder: Path | str) -> None:
        path = Path(folder) / "catalog.sqlite"
        try:
            LocalFiles().make_folder(path.parent)
        except OSError as error:
            raise from_os_error(error, path.parent) from error
        super().__init__(sa.URL.create("sqlite", database=str(path)), where=str(path))

    def _prepare(self) -> None:
        sa.event.listen(self._engine, "connect", _configure)
        sa.event.listen(self._engine, "begin", _begin)


def _configure(connection: Any, _: Any) -> None:
    connection.isolation_level = None  # the driver must not open transactions by itself: `_begin` does
    for pragma in (
        f"busy_timeout={_BUSY_TIMEOUT_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin(connection: sa.Connection) -> None:
    if connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":
        return
    # IMMEDIATE: a transaction that reads first and then writes would fail without waiting if another wrote between.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _document(row: Any) -> Document:
    return Document(row.kind, row.name, row.revision, bytes(row.body))


def _entry(row: Any) -> LedgerEntry:
    return LedgerEntry(row.stream, row.sequence, row.at, bytes(row.body))
