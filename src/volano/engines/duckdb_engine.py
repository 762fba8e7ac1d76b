"""DuckDB behind `SqlEngine`: authors' SQL and authors' tables. Stateless; loads no extension and reaches no network.

Results carry the logical types of `values.schema`: integers are int64, other numbers float64, dictionaries their
values, instants timestamp[us, UTC]. A timestamp without a zone is taken as UTC; nanoseconds are cut off downwards.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import deltalake
import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError

from volano.engines.duckdb_views import ask_views
from volano.errors import AuthorCodeError, TableUnreadableError, UnknownNameError, UnsupportedError
from volano.values.instants import Instant

INSTANT: Final = pa.timestamp("us", "UTC")

_ALL_READ_BYTES: Final = 1 << 30
"""A larger file is known by size, time of change and its two ends instead of all its bytes."""
_END_BYTES: Final = 1 << 20

_CLOSED: Final = {
    "autoinstall_known_extensions": "false",
    "autoload_known_extensions": "false",
    "allow_community_extensions": "false",
    "python_enable_replacements": "false",  # a relation is what was passed, never a variable that happens to be near
}


class DuckDbEngine:
    """Runs SQL in this process. Threads may share it: each has connections of its own.

    Args:
        folder: the project's; relative addresses start there.
        threads: how many DuckDB uses a query; its default when None.

    >>> engine = DuckDbEngine(".")
    >>> engine.query("SELECT sum(x) AS total FROM t", {"t": pa.table({"x": [1, 2]})}).to_pylist()
    [{'total': 3}]
    """

    def __init__(self, folder: Path | str, *, threads: int | None = None) -> None:
        self._folder = Path(folder).absolute()
        self._threads = threads
        self._local = threading.local()

    def query(self, sql: str, relations: Mapping[str, pa.Table]) -> pa.Table:
        """The result of one SELECT over named relations, which is all that it can read.

        Raises:
            AuthorCodeError: the engine refuses the SQL; the message is the engine's.
        """
        connection = self._connection("closed", {"enable_external_access": "false"})
        registered: list[str] = []
        try:
            _only_select(sql)
            for name, table in relations.items():
                connection.register(name, table)
                registered.append(name)
            return _normal_table(connection.sql(sql).to_arrow_table())
        except duckdb.Error as error:
            raise AuthorCodeError(
                f"DuckDB refuses the SQL: {error}",
                where=sql,
                mend=f"correct the SQL; it may read {', '.join(sorted(relations)) or 'no relation'}",
            ) from error
        finally:
            for name in registered:
                connection.unregister(name)

    def read_table(
        self,
        address: str,
        *,
        columns: Sequence[str] | None = None,
        between: tuple[str, Instant | None, Instant | None] | None = None,
    ) -> pa.Table:
        """Rows of an author's table.

        Args:
            address: a path that ends in `.parquet` or `.csv` (`.csv.gz`), which may hold `*`; `delta:PATH`; or
                `duckdb:SELECT ...`, where file names start in the project's folder.
            columns: which; those that the table lacks are left out; all when None.
            between: a column of instants and a half-open range; Parquet and Delta read that range only.

        Raises:
            TableUnreadableError: it cannot be read.
        """
        kind, rest = _parse(address)
        try:
            match kind:
                case "parquet":
                    found = self._paths(address, rest)
                    if len(found) == 1 and columns is None and between is None:
                        table = pq.read_table(found[0])
                    else:
                        table = _part(ds.dataset(found), columns, between)
                case "csv":
                    table = self._csv(self._reader(), self._paths(address, rest)).to_arrow_table()
                case "delta":
                    table = _part(self._delta(rest).to_pyarrow_dataset(), columns, between)
                case _:
                    _only_select(rest)
                    table = self._reader().sql(rest).to_arrow_table()
            if columns is not None:
                table = table.select([name for name in columns if name in table.column_names])
            return _normal_table(table)
        except (OSError, pa.ArrowException, duckdb.Error, DeltaError) as error:
            raise self._unreadable(address, error) from error

    def scan(self, address: str) -> pa.Table | ds.Dataset:
        """An author's table as it is, for `ask`: Parquet and Delta in place, anything else read.

        Raises:
            TableUnreadableError: it cannot be read.
        """
        kind, rest = _parse(address)
        try:
            match kind:
                case "parquet":
                    return ds.dataset(self._paths(address, rest))
                case "delta":
                    return self._delta(rest).to_pyarrow_dataset()
        except (OSError, pa.ArrowException, DeltaError) as error:
            raise self._unreadable(address, error) from error
        return self.read_table(address)

    def ask(
        self,
        sql: str,
        relations: Mapping[str, pa.Table | ds.Dataset],
        views: Sequence[tuple[str, str, str]],
        *,
        known: Sequence[str],
        limit: int | None = None,
    ) -> pa.Table:
        """The result of one SELECT of a person over views; see `SqlEngine.ask`.

        Raises:
            UnknownNameError: a table is not known; says which are.
            AuthorCodeError: the engine refuses the SQL; says where.
        """
        settings: dict[str, Any] = dict(_CLOSED)
        if self._threads is not None:
            settings["threads"] = self._threads
        return ask_views(sql, relations, views, config=settings, known=known, limit=limit)

    def scan_table(
        self,
        address: str,
        *,
        columns: Sequence[str] | None = None,
        between: tuple[str, Instant | None, Instant | None] | None = None,
        rows_at_once: int = 100_000,
    ) -> Iterator[pa.Table]:
        """The same rows as `read_table` gives, so many at a time; at least one table, which may be empty.

        Raises:
            TableUnreadableError: it cannot be read.
        """
        kind, rest = _parse(address)
        try:
            match kind:
                case "parquet":
                    batches = _scan(ds.dataset(self._paths(address, rest)), columns, between, rows_at_once)
                case "delta":
                    dataset = self._delta(rest).to_pyarrow_dataset()
                    batches = _scan(dataset, columns, between, rows_at_once)
                case _:
                    batches = self._selected(kind, address, rest, columns, rows_at_once)
            for rows in batches:
                yield _normal_table(rows)
        except (OSError, pa.ArrowException, duckdb.Error, DeltaError) as error:
            raise self._unreadable(address, error) from error

    def _selected(
        self, kind: str, address: str, rest: str, columns: Sequence[str] | None, rows_at_once: int
    ) -> Iterator[pa.Table]:
        """What a query gives, or CSV files, some rows at a time."""
        # A connection of its own: one result streams from it while others are asked for.
        with self._connect({"file_search_path": str(self._folder)}) as connection:
            if kind == "csv":
                relation = self._csv(connection, self._paths(address, rest))
            else:
                _only_select(rest)
                relation = connection.sql(rest)
            reader = relation.to_arrow_reader(rows_at_once)
            names = [name for name in columns or reader.schema.names if name in reader.schema.names]
            yield from _some(reader, reader.schema, names)

    def snapshot(self, address: str) -> str:
        """A token that changes when the table's content does.

        Files: a SHA-256 over their bytes; a file beyond 1 GiB counts by size, time of change and its first and last
        MiB (a Parquet footer is there). Delta: the table's id and version. `duckdb:`: row count, column types and a
        digest of the rows that does not depend on their order.

        Raises:
            TableUnreadableError: it cannot be read.
        """
        kind, rest = _parse(address)
        try:
            match kind:
                case "parquet" | "csv":
                    state = hashlib.sha256()
                    for path in self._paths(address, rest):
                        state.update(_file_digest(Path(path)))
                    return f"sha256:{state.hexdigest()}"
                case "delta":
                    table = self._delta(rest)
                    return f"delta:{table.metadata().id}:{table.version()}"
                case _:
                    _only_select(rest)
                    return f"rows:{self._rows_digest(rest)}"
        except (OSError, pa.ArrowException, duckdb.Error, DeltaError) as error:
            raise self._unreadable(address, error) from error

    def _connection(self, name: str, config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
        """This thread's connection of a kind; each is a database in memory of its own."""
        connection: duckdb.DuckDBPyConnection | None = getattr(self._local, name, None)
        if connection is None:
            connection = self._connect(config)
            setattr(self._local, name, connection)
        return connection

    def _connect(self, config: Mapping[str, str]) -> duckdb.DuckDBPyConnection:
        settings: dict[str, Any] = {**_CLOSED, **config}
        if self._threads is not None:
            settings["threads"] = self._threads
        connection = duckdb.connect(config=settings)
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET lock_configuration = true")
        return connection

    def _csv(self, connection: duckdb.DuckDBPyConnection, paths: list[str]) -> duckdb.DuckDBPyRelation:
        return connection.sql(
            "SELECT * FROM read_csv($paths, sample_size = -1, union_by_name = $many)",
            params={"paths": paths, "many": len(paths) > 1},
        )

    def _reader(self) -> duckdb.DuckDBPyConnection:
        return self._connection("reader", {"file_search_path": str(self._folder)})

    def _delta(self, rest: str) -> deltalake.DeltaTable:
        return deltalake.DeltaTable(self._folder / rest)

    def _paths(self, address: str, rest: str) -> list[str]:
        path = self._folder / rest
        if "*" in rest:
            found = sorted(str(match) for match in self._folder.glob(rest))
        else:
            found = [str(path)] if path.is_file() else []
        if not found:
            raise TableUnreadableError(
                f"The table {address!r} does not exist.",
                where=str(path),
                mend=f"put the file there, or correct the address {address!r}",
            )
        return found

    def _rows_digest(self, sql: str) -> str:
        connection = self._reader()
        types = [(name, str(dtype)) for name, dtype in _columns(connection.sql(sql))]
        row = connection.execute(
            "SELECT count(*), sum(md5_number_lower(volano_row::VARCHAR)::HUGEINT), "
            "sum(md5_number_upper(volano_row::VARCHAR)::HUGEINT) "
            f"FROM ({sql.strip().rstrip(';')}\n) volano_row"
        ).fetchone()
        return hashlib.sha256(repr((types, row)).encode()).hexdigest()

    def _unreadable(self, address: str, error: Exception) -> TableUnreadableError:
        return TableUnreadableError(
            f"The table {address!r} cannot be read: {str(error).rstrip('.')}.",
            where=str(self._folder),
            mend=f"check the file or the query of the address {address!r}",
        )


def _parse(address: str) -> tuple[str, str]:
    """The kind of an address, and what is left of it."""
    kind, colon, rest = address.partition(":")
    if colon and kind in ("delta", "duckdb"):
        return kind, rest.strip()
    if address.endswith(".parquet"):
        return "parquet", address
    if address.endswith((".csv", ".csv.gz")):
        return "csv", address
    raise UnknownNameError(
        f"{address!r} is not the address of a table.",
        where=f"table={address!r}",
        mend="write a path to a .parquet or .csv file, delta:PATH or duckdb:SELECT ...",
    )


def _only_select(sql: str) -> None:
    """Refuse what is more than one SELECT, before anything runs."""
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise duckdb.InvalidInputException("one SELECT is expected, and nothing else")


def _part(
    dataset: ds.Dataset,
    columns: Sequence[str] | None,
    between: tuple[str, Instant | None, Instant | None] | None,
) -> pa.Table:
    """Some columns of the rows in a range; whole where the column holds no instants."""
    names = None if columns is None else [name for name in columns if name in dataset.schema.names]
    return dataset.to_table(columns=names, filter=_in_range(dataset, between))


def _scan(
    dataset: ds.Dataset,
    columns: Sequence[str] | None,
    between: tuple[str, Instant | None, Instant | None] | None,
    rows_at_once: int,
) -> Iterator[pa.Table]:
    """The same, some rows at a time; nothing is read ahead but the next ones."""
    names = (
        dataset.schema.names
        if columns is None
        else [name for name in columns if name in dataset.schema.names]
    )
    scanner = dataset.scanner(
        columns=names,
        filter=_in_range(dataset, between),
        batch_size=rows_at_once,
        batch_readahead=1,
        fragment_readahead=1,
    )
    yield from _some(scanner.to_batches(), scanner.projected_schema, names)


def _some(batches: Iterable[pa.RecordBatch], schema: pa.Schema, names: Sequence[str]) -> Iterator[pa.Table]:
    """The batches that hold rows; one empty table when none does."""
    is_empty = True
    for batch in batches:
        if batch.num_rows:
            is_empty = False
            yield pa.Table.from_batches([batch]).select(names)
    if is_empty:
        yield schema.empty_table().select(names)


def _in_range(
    dataset: ds.Dataset, between: tuple[str, Instant | None, Instant | None] | None
) -> ds.Expression | None:
    condition = None
    if between is not None and between[0] in dataset.schema.names:
        name, low, high = between
        kind = dataset.schema.field(name).type
        if pa.types.is_timestamp(kind):
            instant = pa.timestamp("us", kind.tz)
            if low is not None:
                condition = ds.field(name) >= pa.scalar(low, instant)
            if high is not None:
                below = ds.field(name) < pa.scalar(high, instant)
                condition = below if condition is None else condition & below
    return condition


def _columns(relation: duckdb.DuckDBPyRelation) -> list[tuple[str, Any]]:
    return list(zip(relation.columns, relation.types, strict=True))


def _file_digest(path: Path) -> bytes:
    status = path.stat()
    state = hashlib.sha256()
    with path.open("rb") as file:
        if status.st_size <= _ALL_READ_BYTES:
            return hashlib.file_digest(file, "sha256").digest()
        state.update(f"{status.st_size}:{status.st_mtime_ns}".encode())
        state.update(file.read(_END_BYTES))
        file.seek(-_END_BYTES, 2)
        state.update(file.read())
    return state.digest()


def _normal_table(table: pa.Table) -> pa.Table:
    """The table in the types of `values.schema`."""
    columns = [_normal_column(column) for column in table.columns]
    return pa.table(columns, names=table.column_names)


def _normal_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        return _normal_column(column.cast(dtype.value_type))
    if pa.types.is_timestamp(dtype):
        if dtype.unit == "ns":
            column = pc.floor_temporal(column, unit="microsecond")
        unit = column.cast(pa.timestamp("us", dtype.tz), safe=False)
        return unit.cast(INSTANT) if dtype.tz else pc.assume_timezone(unit, "UTC")
    target = _normal_type(dtype)
    if target == dtype:
        return column
    if pa.types.is_decimal(dtype) and dtype.scale == 0:
        # Sums of integers are 128 bits wide in DuckDB; what fits stays whole.
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid:
            return column.cast(pa.float64())
    try:
        return column.cast(target)
    except pa.ArrowException as error:
        raise UnsupportedError(
            f"A column of type {dtype} does not fit {target}: {error}.", mend="cast it in the SQL"
        ) from error


def _normal_type(dtype: pa.DataType) -> pa.DataType:
    if pa.types.is_integer(dtype):
        return pa.int64()
    if pa.types.is_floating(dtype) or pa.types.is_decimal(dtype):
        return pa.float64()
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype):
        return pa.binary()
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return pa.list_(_normal_type(dtype.value_type))
    return dtype
