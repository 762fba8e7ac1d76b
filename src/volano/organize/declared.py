"""An author's table in the types of its event: whole, or row by row where some rows do not fit. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import RequestError
from volano.kernels.columns import combined
from volano.plan.definitions import CompiledSource
from volano.values.arrow import ARROW_TYPES
from volano.values.schema import Field

_SAMPLE: Final = 3


class FittingRows(NamedTuple):
    """What fits an event of a table, and what does not.

    Args:
        rows: those that fit, in the types of the event.
        misfits: the others as events: what could not be read is there as it stands in the table.
    """

    rows: pa.Table
    misfits: list[dict[str, Any]]


def fitting_rows(source: CompiledSource, table: pa.Table, address: str) -> FittingRows:
    """The rows of an author's table that fit the event, and those that do not.

    A row does not fit that lacks what is declared never to be null, or where the text of a CSV file cannot be read as
    the column's type.

    Raises:
        RequestError: a column is missing, of another type, or fits in no row: declaration and table do not agree.
    """
    where = f"source {source.name}, table {address}"
    is_text = address.split("?")[0].endswith((".csv", ".csv.gz"))
    columns: dict[str, pa.Array] = {}
    wrong: dict[str, NDArray[np.bool_]] = {}
    for field in source.schema.fields:
        wanted = ARROW_TYPES[field.dtype]
        column, unread = _read(table, field.name, wanted, where, is_text=is_text)
        if _never_null(source, field):
            unread = unread | column.is_null().to_numpy(zero_copy_only=False)
            if len(unread) and unread.all() and column.null_count == len(column):
                _refuse_nulls(table, field.name, column, where)
        columns[field.name], wrong[field.name] = column, unread
    rows = pa.table(columns)
    bad = np.logical_or.reduce([np.zeros(rows.num_rows, bool), *wrong.values()])
    if not bad.any():
        return FittingRows(rows, [])
    places = np.flatnonzero(bad)
    misfits = rows.take(pa.array(places)).to_pylist()
    raw = table.select(list(columns)).take(pa.array(places)).to_pylist()
    for event, place, given in zip(misfits, places.tolist(), raw, strict=True):
        event |= {name: given[name] for name in columns if wrong[name][place]}
    return FittingRows(rows.filter(pa.array(~bad)), misfits)


def declared_table(
    source: CompiledSource, table: pa.Table, where: str, fields: Sequence[Field] | None = None
) -> pa.Table:
    """An author's table with the columns of the event, or some of them, in its types.

    Raises:
        RequestError: a column is missing, of another type, or null where it must not be; names it and shows rows.
    """
    wanted = source.schema.fields if fields is None else fields
    columns = {field.name: _declared(table, field.name, ARROW_TYPES[field.dtype], where) for field in wanted}
    for field in wanted:
        if _never_null(source, field) and columns[field.name].null_count:
            _refuse_nulls(table, field.name, columns[field.name], where)
    return pa.table(columns)


def _never_null(source: CompiledSource, field: Field) -> bool:
    return field.name in source.id_columns or field.name == source.event_time or not field.nullable


def _read(
    table: pa.Table, name: str, wanted: pa.DataType, where: str, *, is_text: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column as its declared type, and where its text could not be read."""
    text = combined(table[name]) if is_text and name in table.column_names else None
    if text is None or pa.types.is_string(wanted) or not pa.types.is_string(text.type):
        return _declared(table, name, wanted, where), np.zeros(table.num_rows, bool)
    coded = text.dictionary_encode()
    values = [_value_of(each, wanted) for each in coded.dictionary.to_pylist()]
    column = pa.array(values, wanted).take(coded.indices)
    unread: NDArray[np.bool_] = pc.and_(text.is_valid(), column.is_null()).to_numpy(zero_copy_only=False)
    if unread.any() and unread.sum() + text.null_count == len(text):
        _declared(table, name, wanted, where)  # nothing can be read: it is refused with a sample
    return column, unread


def _value_of(text: str, wanted: pa.DataType) -> Any:
    """What a text says in a type; None when it says nothing of it."""
    try:
        if pa.types.is_timestamp(wanted):
            instant = datetime.fromisoformat(text)
            return None if instant.tzinfo is None else instant
        if pa.types.is_integer(wanted):
            return int(text)
        if pa.types.is_floating(wanted):
            return float(text)
        if pa.types.is_boolean(wanted):
            return {"true": True, "false": False}.get(text.lower())
    except (ValueError, OverflowError):
        return None
    return None


def _declared(table: pa.Table, name: str, wanted: pa.DataType, where: str) -> pa.Array:
    """A column of an author's table as its declared type, where no meaning is lost."""
    if name not in table.column_names:
        raise RequestError(
            f"The table has no column {name!r}.",
            where=where,
            mend=f"add it, or take it out of the event; there are: {', '.join(table.column_names)}",
        )
    column = combined(table[name])
    given = column.type
    if pa.types.is_dictionary(given):
        column = column.cast(given.value_type)
        given = column.type
    if given == wanted:
        return column
    if pa.types.is_timestamp(wanted) and pa.types.is_timestamp(given) and given.tz is None:
        raise RequestError(
            f"Column {name!r} holds timestamps without a time zone.",
            where=where,
            mend="write them with a zone: which instant they mean must not be guessed",
        )
    fits = (
        pa.types.is_null(given)
        or (pa.types.is_integer(given) and (pa.types.is_integer(wanted) or pa.types.is_floating(wanted)))
        or (pa.types.is_floating(given) and pa.types.is_floating(wanted))
        or (pa.types.is_timestamp(given) and pa.types.is_timestamp(wanted))
        or (pa.types.is_large_string(given) and pa.types.is_string(wanted))
        or (pa.types.is_string_view(given) and pa.types.is_string(wanted))
        or (pa.types.is_list(given) and pa.types.is_list(wanted))
    )
    try:
        if fits:
            return column.cast(wanted)
    except pa.ArrowInvalid:
        pass
    raise RequestError(
        f"Column {name!r} is declared {wanted} and holds {given}.",
        where=where,
        mend=f"declare what it holds, or convert it; such as {_misfits(column, wanted)}",
    )


def _misfits(column: pa.Array, wanted: pa.DataType) -> str:
    """The first values that are none of a type, with their rows; the first values when text hides only numbers."""
    found = []
    for row, value in enumerate(column.to_pylist(), start=1):
        if value is not None and not _reads_as(value, wanted):
            found.append(f"{value!r} in row {row}")
            if len(found) == _SAMPLE:
                break
    return ", ".join(found) or ", ".join(repr(value) for value in column.slice(0, _SAMPLE).to_pylist())


def _reads_as(value: object, wanted: pa.DataType) -> bool:
    try:
        if pa.types.is_timestamp(wanted):
            datetime.fromisoformat(value)  # type: ignore[arg-type]
        elif pa.types.is_integer(wanted):
            return float(value) == int(float(value))  # type: ignore[arg-type]
        elif pa.types.is_floating(wanted):
            float(value)  # type: ignore[arg-type]
        else:
            return False
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _refuse_nulls(table: pa.Table, name: str, column: pa.Array, where: str) -> None:
    rows = table.take(pc.indices_nonzero(column.is_null())).slice(0, _SAMPLE).to_pylist()
    raise RequestError(
        f"Column {name!r} is null in {column.null_count} rows and is declared never to be.",
        where=where,
        mend=f"declare it as `... | None`, or clean the table; first rows: {rows}",
    )
