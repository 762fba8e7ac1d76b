"""Projections of rows: an author's columns, checked, with bad rows set apart. The same rule online and offline.

A projection is stateless: it maps each row by itself, keeps their number and their order. So a batch that fails, or
comes back in the wrong shape, can be cut in two until the rows that fail are alone; their computed columns are null, on
both sides of every comparison. What becomes of a row never depends on how many rows, good or bad, stand beside it: a
projection that takes no row at all fails on each of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import pyarrow as pa

from volano.errors import AuthorCodeError, MissingExtraError

_SAMPLE: Final = 3


class FailedRow(NamedTuple):
    """A row that a projection could not take: its place in the batch, and what the author's code raised."""

    row: int
    error: AuthorCodeError


class Projected(NamedTuple):
    """The computed columns, in the order declared; null in the rows that failed."""

    columns: pa.Table
    failed: list[FailedRow]


def project(
    rows: pa.Table, compute: Callable[[pa.Table], pa.Table], columns: Mapping[str, pa.DataType], *, view: str
) -> Projected:
    """Compute columns of some rows. A row fails when the author's code raises on it, a declared column is missing or
    has another type, or the number of rows differs.

    Args:
        rows: of the source.
        compute: the author's projection; gives as many rows in the same order.
        columns: the declared columns with their types; one that it does not give is the source's of that name.
        view: named in errors.

    >>> rows = pa.table({"x": [1, 2]})
    >>> double = lambda rows: rows.append_column("y", pa.array([2 * x for x in rows["x"].to_pylist()]))
    >>> project(rows, double, {"y": pa.int64()}, view="Twice").columns["y"].to_pylist()
    [2, 4]
    """
    schema = pa.schema(list(columns.items()))
    failed: list[FailedRow] = []
    parts: list[pa.Table] = []
    todo = [(0, rows.num_rows)] if rows.num_rows else []
    while todo:
        start, stop = todo.pop()
        part = rows.slice(start, stop - start)
        try:
            parts.append(_checked(compute(part), part, schema, view))
        except AuthorCodeError as error:
            if stop - start > 1:
                middle = (start + stop) // 2
                todo += [(middle, stop), (start, middle)]
                continue
            failed.append(FailedRow(start, error))
            parts.append(_nulls(schema, 1))
    return Projected(pa.concat_tables(parts) if parts else schema.empty_table(), failed)


def to_frame(rows: pa.Table, frame: str) -> Any:
    """Rows in the shape that an author's function takes: arrow, pandas (Arrow-backed), polars, or narwhals over Arrow.

    pandas columns are Arrow-backed because NumPy ones change their type with the nulls of the batch.

    Raises:
        MissingExtraError: the library is not installed.
    """
    match frame:
        case "arrow":
            return rows
        case "pandas":
            pandas = _library("pandas")
            return rows.to_pandas(types_mapper=pandas.ArrowDtype)
        case "polars":
            return _library("polars").from_arrow(rows)
        case "narwhals":
            return _library("narwhals").from_native(rows, eager_only=True)
        case _:
            raise ValueError(f"there is no frame {frame!r}")


def from_frame(result: Any, *, view: str) -> pa.Table:
    """What an author's function returned, as Arrow.

    Raises:
        AuthorCodeError: it is no frame.
    """
    if isinstance(result, pa.Table):
        return result
    if isinstance(result, pa.RecordBatch):
        return pa.Table.from_batches([result])
    kind = type(result)
    if kind.__module__.startswith("pandas") and kind.__name__ == "DataFrame":
        try:
            return pa.Table.from_pandas(result, preserve_index=False)
        except pa.ArrowException as error:
            raise AuthorCodeError(
                f"The projection of view {view!r} returned a DataFrame that is no table: {error}",
                where=f"view {view}",
                mend="give every column values of one type",
            ) from error
    if kind.__module__.startswith(("polars", "narwhals")) and kind.__name__ == "DataFrame":
        return result.to_arrow()
    raise AuthorCodeError(
        f"The projection of view {view!r} returned {kind.__name__}.",
        where=f"view {view}",
        mend="return a pyarrow.Table, or a pandas, Polars or Narwhals DataFrame, with the declared columns",
    )


def _library(name: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise MissingExtraError(
            f"A projection works on {name}, which is not installed.",
            mend=f"pip install 'volano[{'polars' if name == 'narwhals' else name}]'",
        ) from error


def _nulls(schema: pa.Schema, n: int) -> pa.Table:
    return pa.Table.from_arrays([pa.nulls(n, field.type) for field in schema], schema=schema)


def _checked(computed: pa.Table, rows: pa.Table, schema: pa.Schema, view: str) -> pa.Table:
    if computed.num_rows != rows.num_rows:
        raise AuthorCodeError(
            f"The projection of view {view!r} returned {computed.num_rows} rows for {rows.num_rows}.",
            where=f"view {view}",
            mend="keep every row in its order; leave rows out with where= of the features",
        )
    arrays = []
    for field in schema:
        given = computed if field.name in computed.column_names else rows
        if given.column_names.count(field.name) != 1:
            n = given.column_names.count(field.name) or "no"
            raise AuthorCodeError(
                f"The projection of view {view!r} returned {n} column{'' if n == 'no' else 's'} {field.name!r}.",
                where=f"view {view}, column {field.name}",
                mend=f"return it once; there were: {', '.join(computed.column_names)}",
            )
        column = given[field.name].combine_chunks()
        arrays.append(column if column.type == field.type else _cast(column, field, rows, view))
    return pa.Table.from_arrays(arrays, schema=schema)


def _cast(column: pa.Array, field: pa.Field, rows: pa.Table, view: str) -> pa.Array:
    """Cast where no meaning is lost: widths, units, dictionaries, whole numbers to floats."""
    given, wanted = column.type, field.type
    if pa.types.is_dictionary(given):
        given = given.value_type
    fits = (
        pa.types.is_null(given)
        or (pa.types.is_integer(given) and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)))
        or (pa.types.is_floating(given) and pa.types.is_floating(wanted))
        or (_is_text(given) and _is_text(wanted))
        or (pa.types.is_timestamp(given) and pa.types.is_timestamp(wanted) and given.tz is not None)
        or (pa.types.is_list(given) and pa.types.is_list(wanted))
    )
    if fits:
        try:
            return column.cast(wanted)
        except pa.ArrowException:
            pass
    sample = rows.slice(0, _SAMPLE).to_pylist()
    raise AuthorCodeError(
        f"Column {field.name!r} of view {view!r} is declared {wanted} and came back as {column.type}.",
        where=f"view {view}, column {field.name}",
        mend=f"return the declared type, or declare the other; first rows: {sample}",
    )


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
