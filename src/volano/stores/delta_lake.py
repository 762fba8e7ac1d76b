"""The lake as Delta tables in a folder: one table a subfolder, read and written beside any other Delta client.

Exactly-once is the Delta transaction of (writer, sequence): a repeated sequence is skipped, and a commit that lost a
race reads the log again before it tries the next version. Commits are synced (`stores.delta_log`).
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
from deltalake.exceptions import DeltaError, TableNotFoundError

from volano.errors import StateMismatchError, StoreError, UnknownNameError, VolanoError
from volano.protocols.lake import Compacted, Contents, Vacuumed
from volano.stores import delta_log, delta_vacuum
from volano.stores.delta_layout import ENOUGH_FILES, groups_to_merge
from volano.stores.delta_shadow import remove_stale, shadow_of
from volano.stores.delta_view import (
    Range,
    View,
    bound_of,
    condition_of,
    in_schema,
    known_of,
    normal_schema,
    prune,
    view_of,
)
from volano.stores.os_errors import from_os_error

_CHECKPOINT_EVERY: Final = 100
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_N_OLD: Final = 8
_BOUNDED: Final = ("event_time", "decided_at", "applied_at", "computed_at")
"""Instants that people ask for ranges of."""


class _Head:
    """The newest state that this process has committed to or read."""

    def __init__(self, view: View) -> None:
        self.version = view.version
        self.schema = view.schema
        self.partition_by = view.partition_by
        self.committed: dict[str, int] = {}


class DeltaLake:
    """Delta tables below a folder. Threads may share it; several processes may read, one should write a table.

    Args:
        folder: holds a subfolder a table; created by the first `create`.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     lake = DeltaLake(Path(folder))
    ...     lake.create("clicks", pa.schema([("ad", pa.string())]))
    ...     for _ in range(2):
    ...         version = lake.append("clicks", pa.table({"ad": ["a"]}), writer="committer", sequence=1)
    ...     lake.read("clicks").num_rows, version
    (1, 1)
    """

    def __init__(self, folder: Path | str) -> None:
        self._folder = Path(folder)
        self._mutex = threading.RLock()
        self._handles: dict[str, deltalake.DeltaTable] = {}
        self._views: dict[str, View] = {}
        self._old: dict[tuple[str, int], View] = {}
        self._heads: dict[str, _Head] = {}
        self._known: dict[str, int] = {}
        self._mended: set[str] = set()
        self._merged_at: dict[str, int] = {}

    # --- reading ----------------------------------------------------------------------------------

    def tables(self) -> list[str]:
        """The names of all tables, sorted."""
        if not self._folder.exists():
            return []
        return sorted(
            path.name
            for path in self._folder.iterdir()
            if _NAME.fullmatch(path.name) and self.version(path.name) is not None
        )

    def version(self, table: str) -> int | None:
        """The newest version of a table, or None when there is no such table."""
        with self._mutex:
            newest = delta_log.newest_version(self._path(table), self._known.get(table))
            if newest is not None:
                self._known[table] = newest
            return newest

    def files(self, table: str, *, version: int | None = None) -> list[str]:
        """Paths of the Parquet files of a version; they lack the columns that the table is partitioned by."""
        if self.version(table) is None:
            return []
        view = self._view(table, version)
        return [self._file(table, path) for path in view.files.column("path").to_pylist()]

    def read(
        self,
        table: str,
        *,
        columns: Sequence[str] | None = None,
        where: Mapping[str, Range] | None = None,
        version: int | None = None,
    ) -> pa.Table:
        """Rows of a table (see `LakeReader.read`). Ranges prune files first, then row groups, then rows."""
        view = self._view(table, version)
        names = view.schema.names if columns is None else list(columns)
        held = [name for name in names if name in view.schema.names]
        rows = self._rows(table, view, held, in_schema(where or {}, view.schema))
        if len(held) == len(names):
            return rows
        nulls = pa.nulls(rows.num_rows)
        return pa.table(
            [rows.column(name) if name in view.schema.names else nulls for name in names], names=names
        )

    def contents(self, table: str) -> Contents:
        """How much the newest version of a table holds (see `LakeReader.contents`)."""
        view = self._view(table, None)
        files = view.files
        bounds = {
            name: (int(pc.min(low).as_py()), int(pc.max(high).as_py()))
            for name in view.schema.names
            if (low := bound_of(files, f"min.{name}")) is not None
            and (high := bound_of(files, f"max.{name}")) is not None
        }
        return Contents(
            version=view.version,
            n_rows=sum(files["num_records"].to_pylist()),
            n_files=files.num_rows,
            n_bytes=sum(files["size_bytes"].to_pylist()),
            partition_by=view.partition_by,
            bounds=bounds,
        )

    def dataset(self, table: str, *, version: int | None = None) -> ds.Dataset:
        """The rows of a version of a table, read lazily (see `LakeReader.dataset`)."""
        view = self._view(table, version)
        return self._dataset(table, view, view.files.to_pylist(), bounded=_BOUNDED)

    # --- writing ----------------------------------------------------------------------------------

    def create(self, table: str, schema: pa.Schema, *, partition_by: Sequence[str] = ()) -> None:
        """Create a table, or widen it (see `LakeWriter.create`). Columns are nullable, instants µs in UTC.

        Raises:
            StateMismatchError: a column changes its type, or the table is partitioned otherwise.
        """
        wanted = normal_schema(schema)
        with self._mutex:
            path = self._writable(table)
            try:
                while not self._created(table, wanted, partition_by):
                    continue  # somebody else has committed meanwhile: look again
            except DeltaError as error:
                raise self._from_delta(error, table) from error
            except OSError as error:
                raise from_os_error(error, path) from error

    def _created(self, table: str, wanted: pa.Schema, partition_by: Sequence[str]) -> bool:
        """Write the entry that creates or widens a table, if it needs one; False when somebody else was faster."""
        path = self._path(table)
        newest = self.version(table)
        missing: list[pa.Field] = []
        if newest is not None:
            missing, wider = _widening(table, wanted, tuple(partition_by), self._view(table, None))
            if wider:
                return self._retyped(table, wider) and not missing
            if not missing:
                return True
        try:
            with shadow_of(path) as shadow:
                if newest is None:
                    deltalake.DeltaTable.create(
                        shadow.folder, wanted, partition_by=list(partition_by) or None
                    )
                    shadow.publish_entry(0)
                else:
                    handle = deltalake.DeltaTable(shadow.folder)
                    newest = handle.version()
                    handle.alter.add_columns([deltalake.Field.from_arrow(field) for field in missing])
                    shadow.publish_entry(newest + 1)
        except FileExistsError:
            return False
        return True

    def append(self, table: str, rows: pa.Table | Iterable[pa.Table], *, writer: str, sequence: int) -> int:
        """Append rows in one atomic, synced commit (see `LakeWriter.append`). Absent columns become null.

        Raises:
            UnknownNameError: there is no such table.
            StateMismatchError: the rows have a column that the table lacks, or of another type.
            StoreFullError, StoreReadOnlyError: nothing was appended.
        """
        with self._mutex:
            path = self._writable(table)
            head = self._head(table)
            if sequence <= self._committed(table, head, writer):
                return head.version
            parts: list[delta_log.Part] = []
            try:
                for some in (rows,) if isinstance(rows, pa.Table) else rows:
                    fitting = _fit(table, some, head.schema)
                    for values, part_rows in _partitions(fitting, head.partition_by):
                        parts.append(delta_log.write_part(path, part_rows, values))
                actions = [delta_log.add_action(part, data_change=True) for part in parts]
                actions.append(delta_log.transaction_action(writer, sequence))
                while not self._commit(table, head, "WRITE", "Append", actions):
                    head = self._head(table)
                    if sequence <= self._committed(table, head, writer):
                        delta_log.remove_parts(path, parts)
                        return head.version
            except OSError as error:
                delta_log.remove_parts(path, parts)
                raise from_os_error(error, path) from error
            except VolanoError:
                delta_log.remove_parts(path, parts)
                raise
            head.committed[writer] = sequence
            if head.version % _CHECKPOINT_EVERY == 0:
                self._checkpoint(table)
            return head.version

    def committed(self, table: str, writer: str) -> int:
        """The newest sequence that `writer` committed to the table; 0 when none, also without a table."""
        with self._mutex:
            if self.version(table) is None:
                return 0
            return self._committed(table, self._head(table), writer)

    def compact(self, table: str, *, cluster_by: str | None = None, eager: bool = True) -> Compacted:
        """Merge small files, rows in the order of a column, and checkpoint the log (see `LakeWriter.compact`).

        Files of earlier versions stay for their readers until they are vacuumed. A group of files is one commit, which
        is given up when somebody else has merged one of them meanwhile.
        """
        path = self._writable(table)
        n_before = n_after = n_bytes = 0
        try:
            with self._mutex:
                newest = self.version(table) or 0
                if not eager and newest - self._merged_at.get(table, -ENOUGH_FILES) < ENOUGH_FILES:
                    return Compacted(
                        0, 0, 0
                    )  # so few commits since the last look cannot have made enough files
                view = self._view(table, None)
                groups = list(
                    groups_to_merge(
                        view.files, partition_by=view.partition_by, cluster_by=cluster_by, eager=eager
                    )
                )
            for files in groups:
                part = self._merge(table, view, files, cluster_by)
                if self._replace(table, view, files, part):
                    n_before, n_after, n_bytes = (
                        n_before + files.num_rows,
                        n_after + 1,
                        n_bytes + part.n_bytes,
                    )
                else:
                    delta_log.remove_parts(path, [part])
            with self._mutex:
                if n_after:
                    self._checkpoint(table)
                self._merged_at[table] = self.version(table) or 0
        except OSError as error:
            raise from_os_error(error, path) from error
        return Compacted(n_before, n_after, n_bytes)

    def _merge(self, table: str, view: View, files: pa.Table, cluster_by: str | None) -> delta_log.Part:
        """Write the rows of some files as one; outside the lock, so that appends go on."""
        rows = self._rows(table, view._replace(files=files), list(view.schema.names), {})
        if cluster_by in view.schema.names:
            rows = rows.take(pc.sort_indices(rows, [(cluster_by, "ascending")]))
        first = files.slice(0, 1).to_pylist()[0]
        values = {name: first[f"partition.{name}"] for name in view.partition_by}
        return delta_log.write_part(self._path(table), rows.drop_columns(list(view.partition_by)), values)

    def _replace(self, table: str, view: View, files: pa.Table, part: delta_log.Part) -> bool:
        """Commit one file in place of several; False when one of them is no part of the table any more."""
        actions = [delta_log.add_action(part, data_change=False)]
        actions += [
            delta_log.remove_action(old["path"], old["size_bytes"], part.partition)
            for old in files.to_pylist()
        ]
        gone = set(files.column("path").to_pylist())
        with self._mutex:
            head = self._head(table)
            while True:
                if head.version != view.version:
                    view = self._view(table, None)
                    if not gone <= set(view.files.column("path").to_pylist()):
                        return False
                if self._commit(table, head, "OPTIMIZE", "", actions):
                    return True
                head = self._head(table)

    def vacuum(
        self, table: str, *, pinned: Collection[int] = (), retain_us: int, dry_run: bool = False
    ) -> Vacuumed:
        """Remove the files that no version needs that counts (see `LakeWriter.vacuum`)."""
        path = self._writable(table)
        cutoff = delta_vacuum.cutoff_of(retain_us)
        try:
            with self._mutex:
                self._checkpoint(table)  # old entries may go only behind one
                view = self._view(table, None)
                log = delta_vacuum.read_log(path)
                readable = [each for each in pinned if each in log.entries and each <= view.version]
                needed: set[str] = set()
                for each in (view, *(self._view(table, version) for version in readable)):
                    needed.update(map(unquote, each.files.column("path").to_pylist()))
                removed = delta_vacuum.removed_files(path, log, cutoff)
            files = delta_vacuum.unneeded_files(path, needed, removed, cutoff)
            entries = delta_vacuum.unneeded_log(path, log, readable, cutoff)
            for gone in () if dry_run else (*(file for file, _ in files), *entries):
                gone.unlink(missing_ok=True)
            remove_stale(self._folder, cutoff)
        except OSError as error:
            raise from_os_error(error, path) from error
        return Vacuumed(len(files), sum(n_bytes for _, n_bytes in files), len(entries))

    def _retyped(self, table: str, wider: dict[str, pa.DataType]) -> bool:
        """Write the files of a table again with wider types, in one commit; earlier versions keep theirs.

        Returns:
            False when somebody else has committed meanwhile; then nothing was done.
        """
        path, head, view = self._path(table), self._head(table), self._view(table, None)
        schema = pa.schema([pa.field(f.name, wider.get(f.name, f.type)) for f in view.schema])
        parts: list[delta_log.Part] = []
        actions = [_schema_action(self._handle(table), schema)]
        try:
            for at in range(view.files.num_rows):
                file = view.files.slice(at, 1)
                (old,) = file.to_pylist()
                rows = _fit(
                    table, self._rows(table, view._replace(files=file), view.schema.names, {}), schema
                )
                values = {name: old[f"partition.{name}"] for name in view.partition_by}
                part = delta_log.write_part(path, rows.drop_columns(list(view.partition_by)), values)
                parts.append(part)
                actions.append(delta_log.add_action(part, data_change=False))
                actions.append(delta_log.remove_action(old["path"], old["size_bytes"], part.partition))
            if self._commit(table, head, "CHANGE COLUMN", "", actions):
                self._heads.pop(table, None)
                return True
        except BaseException:  # removes what no commit names, then raises it again
            delta_log.remove_parts(path, parts)
            raise
        delta_log.remove_parts(path, parts)
        return False

    # --- the log ----------------------------------------------------------------------------------

    def _path(self, table: str) -> Path:
        if not _NAME.fullmatch(table):
            raise UnknownNameError(
                f"{table!r} cannot be the name of a table.", mend="use letters, digits, `_`, `-` and `.`"
            )
        return self._folder / table

    def _writable(self, table: str) -> Path:
        """The folder of a table that is about to be written, mended once a process."""
        path = self._path(table)
        if table not in self._mended:
            try:
                delta_log.mend(path)
            except OSError as error:
                raise from_os_error(error, path) from error
            self._mended.add(table)
        return path

    def _file(self, table: str, path: str) -> str:
        return str(self._folder / table / unquote(path))

    def _handle(self, table: str) -> deltalake.DeltaTable:
        """delta-rs's handle at the newest version."""
        newest = self.version(table)
        if newest is None:
            names = ", ".join(self.tables()) or "none"
            raise UnknownNameError(
                f"There is no table named {table!r} in the lake.",
                where=str(self._folder),
                mend=f"known tables: {names}",
            )
        try:
            handle = self._handles.get(table)
            if handle is None:
                handle = self._handles[table] = deltalake.DeltaTable(self._path(table))
            if handle.version() < newest:
                handle = self._handles[table] = _updated(handle)
        except DeltaError as error:
            raise self._from_delta(error, table) from error
        return handle

    def _view(self, table: str, version: int | None) -> View:
        with self._mutex:
            handle = self._handle(table)
            newest = handle.version()
            if version is None or version == newest:
                view = self._views.get(table)
                if view is None or view.version != newest:
                    view = self._views[table] = view_of(handle)
                return view
            view = self._old.get((table, version))
            if view is None:
                try:
                    view = view_of(deltalake.DeltaTable(self._path(table), version=version))
                except DeltaError as error:
                    raise UnknownNameError(
                        f"The table {table!r} has no version {version}.",
                        where=str(self._path(table)),
                        mend=f"versions 0 to {newest} exist, unless their log was cleaned up",
                    ) from error
                while len(self._old) >= _N_OLD:
                    del self._old[next(iter(self._old))]
                self._old[table, version] = view
            return view

    def _head(self, table: str) -> _Head:
        """The newest state for writing; reads the log only when somebody else has committed."""
        head = self._heads.get(table)
        if head is None or self.version(table) != head.version:
            head = self._heads[table] = _Head(self._view(table, None))
        return head

    def _committed(self, table: str, head: _Head, writer: str) -> int:
        known = head.committed.get(writer)
        if known is None:
            known = head.committed[writer] = self._handle(table).transaction_version(writer) or 0
        return known

    def _commit(
        self, table: str, head: _Head, operation: str, mode: str, actions: Sequence[dict[str, Any]]
    ) -> bool:
        """Commit the next version; False when somebody else has taken it."""
        try:
            delta_log.commit(self._path(table), head.version + 1, operation, mode, actions)
        except FileExistsError:
            return False
        head.version += 1
        self._known[table] = head.version
        return True

    def _checkpoint(self, table: str) -> None:
        try:
            with shadow_of(self._path(table)) as shadow:
                handle = deltalake.DeltaTable(shadow.folder)
                handle.create_checkpoint()
                shadow.publish_checkpoint(handle.version())
        except FileNotFoundError:
            return  # somebody else vacuums the log, who has just made one
        except DeltaError as error:
            raise self._from_delta(error, table) from error

    def _rows(
        self, table: str, view: View, columns: Sequence[str], where: Mapping[str, Range | None]
    ) -> pa.Table:
        if any(bounds is None for bounds in where.values()):
            return view.schema.empty_table().select(columns)
        dataset = self._dataset(table, view, prune(view, where).to_pylist())
        try:
            return dataset.to_table(columns=list(columns), filter=condition_of(view.schema, where))
        except (OSError, pa.ArrowException) as error:
            raise StoreError(
                f"The table {table!r} cannot be read: {error}.",
                where=str(self._path(table)),
                mend="restore the missing or damaged file from a backup",
            ) from error

    def _dataset(
        self,
        table: str,
        view: View,
        files: Sequence[Mapping[str, Any]],
        *,
        bounded: Collection[str] = (),
    ) -> ds.FileSystemDataset:
        """The rows of some files; what the log says of the bounds of columns spares a reader files."""
        disk = pyarrow.fs.LocalFileSystem()
        parquet = ds.ParquetFileFormat()
        fragments = [
            parquet.make_fragment(
                self._file(table, file["path"]),
                filesystem=disk,
                partition_expression=known_of(file, view, bounded),
            )
            for file in files
        ]
        return ds.FileSystemDataset(fragments, view.schema, parquet, disk)

    def _from_delta(self, error: DeltaError, table: str) -> StoreError | UnknownNameError:
        path = str(self._path(table))
        if isinstance(error, TableNotFoundError):
            return UnknownNameError(f"There is no table named {table!r} in the lake.", where=path)
        return StoreError(
            f"The table {table!r} failed: {error}.", where=path, mend="check the table's log and the disk"
        )


def _updated(handle: deltalake.DeltaTable) -> deltalake.DeltaTable:
    """A handle at the newest version: brought up to it, or opened anew where entries in between were vacuumed."""
    try:
        handle.update_incremental()
    except DeltaError:
        return deltalake.DeltaTable(handle.table_uri)
    return handle


def _widening(
    table: str, wanted: pa.Schema, partition_by: tuple[str, ...], present: View
) -> tuple[list[pa.Field], dict[str, pa.DataType]]:
    """The fields that a table lacks, and the wider types of columns that it has."""
    changed, wider = [], {}
    for field in wanted:
        held = present.schema.field(field.name).type if field.name in present.schema.names else field.type
        if (held, field.type) == (pa.int64(), pa.float64()):
            wider[field.name] = field.type
        elif held != field.type and (held, field.type) != (pa.float64(), pa.int64()):
            changed.append(f"{field.name}: {held} → {field.type}")
    if partition_by != present.partition_by:
        changed.append(f"partitions: {present.partition_by} → {partition_by}")
    if changed:
        raise StateMismatchError(
            f"The table {table!r} holds other columns than asked for ({'; '.join(changed)}).",
            where=table,
            mend="give the changed column a new name, or start a new table",
        )
    return [field for field in wanted if field.name not in present.schema.names], wider


def _schema_action(handle: deltalake.DeltaTable, schema: pa.Schema) -> dict[str, Any]:
    known = handle.metadata()
    kept = {
        "id": str(known.id),
        "name": known.name,
        "description": known.description,
        "partitionColumns": list(known.partition_columns),
        "configuration": dict(known.configuration),
        "createdTime": known.created_time,
    }
    return delta_log.schema_action(kept, deltalake.Schema.from_arrow(schema).to_json())


def _fit(table: str, rows: pa.Table, schema: pa.Schema) -> pa.Table:
    """The rows in the table's columns, order and types."""
    unknown = [name for name in rows.column_names if name not in schema.names]
    if unknown:
        raise StateMismatchError(
            f"The table {table!r} has no column {', '.join(map(repr, unknown))}.",
            where=table,
            mend="call `create` with the wider schema first",
        )
    columns = []
    for field in schema:
        if field.name not in rows.column_names:
            columns.append(pa.nulls(rows.num_rows, field.type))
            continue
        try:
            columns.append(rows.column(field.name).cast(field.type))
        except pa.ArrowException as error:
            raise StateMismatchError(
                f"Column {field.name!r} of {table!r} is {field.type}: {error}.",
                where=table,
                mend=f"cast the column to {field.type} without loss",
            ) from error
    return pa.table(columns, schema=schema)


def _partitions(rows: pa.Table, partition_by: Sequence[str]) -> list[tuple[dict[str, Any], pa.Table]]:
    """The rows by partition, without the columns that they are partitioned by; nothing for no rows."""
    if rows.num_rows == 0:
        return []
    if not partition_by:
        return [({}, rows)]
    found = []
    for values in rows.select(partition_by).group_by(list(partition_by)).aggregate([]).to_pylist():
        fits = [
            pc.is_null(rows.column(name)) if value is None else pc.equal(rows.column(name), value)
            for name, value in values.items()
        ]
        chosen = fits[0]
        for fit in fits[1:]:
            chosen = pc.and_kleene(chosen, fit)
        found.append((values, rows.filter(chosen).drop_columns(list(partition_by))))
    return found
