"""An author's table in the types of its event: whole, or row by row where some rows do not fit. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import RequestError
from volano.kernels.columns import combined
from volano.plan.definitions import CompiledSource
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import SECOND_US, YEAR_1, YEAR_10000, from_datetime
from volano.values.keys import MOST_KEY_TEXT
from volano.values.schema import DType, Field

_SAMPLE: Final = 3
_SHOWN: Final = 200
_INT64: Final = range(-(2**63), 2**63)
_CALENDAR: Final = range(YEAR_1, YEAR_10000)
_UNITS_US: Final = {"s": SECOND_US, "ms": 1_000, "us": 1}


class FittingRows:
    """Some rows of a table: those that fit the event, and what is wrong with the others.

    Args:
        typed: every row in the types of the event; null where a value cannot be read.
        given: the same rows as they stand in the table.
        wrong: by column, which rows do not fit for its sake.
    """

    def __init__(self, typed: pa.Table, given: pa.Table, wrong: dict[str, NDArray[np.bool_]]) -> None:
        self._typed, self._given = typed, given
        self._wrong = {name: bad for name, bad in wrong.items() if bad.any()}
        self._bad = np.logical_or.reduce([np.zeros(typed.num_rows, bool), *self._wrong.values()])

    @property
    def n_rows(self) -> int:
        """How many rows there are, fitting or not."""
        return len(self._bad)

    @property
    def n_misfits(self) -> int:
        """How many do not fit."""
        return int(self._bad.sum())

    @property
    def n_wrong(self) -> dict[str, int]:
        """How many do not fit for the sake of each column, where any do."""
        return {name: int(bad.sum()) for name, bad in self._wrong.items()}

    @property
    def rows(self) -> pa.Table:
        """Those that fit, in the types of the event."""
        return self._typed.filter(pa.array(~self._bad)) if self._wrong else self._typed

    def misfits(self) -> list[dict[str, Any]]:
        """The others as events: what could not be read is there as it stands in the table."""
        places = pa.array(np.flatnonzero(self._bad))
        events: list[dict[str, Any]] = self._typed.take(places).to_pylist()
        raw = _rows_of(self._given.select(self._typed.column_names).take(places))
        for event, place, given in zip(events, places.to_pylist(), raw, strict=True):
            event |= {name: given[name] for name, bad in self._wrong.items() if bad[place]}
        return events

    def typed_misfits(self) -> pa.Table:
        """The same in the types of the event, null where a value cannot be read."""
        return self._typed.filter(pa.array(self._bad))

    def sample(self, name: str) -> list[dict[str, Any]]:
        """The first rows, as they stand in the table but for the ends of long texts, that do not fit for the sake of a
        column."""
        places = np.flatnonzero(self._wrong[name])[:_SAMPLE]
        rows = _rows_of(self._given.take(pa.array(places)))
        return [{key: _shown(value) for key, value in row.items()} for row in rows]


def _shown(value: Any) -> Any:
    return f"{value[:_SHOWN]}..." if isinstance(value, str) and len(value) > _SHOWN else value


class Fitness:
    """What was seen of a table, part by part: whether some column fits in no row at all, so that it is not the rows
    that are wrong but the declaration.

    >>> from volano.plan.definitions import CompiledSource
    >>> from volano.values.schema import DType, Schema
    >>> source = CompiledSource("s", "S", Schema((Field("n", DType.INT64),)), ("n",), "n", "ops")
    >>> part = FittingRows(pa.table({"n": [1, None]}), pa.table({"n": [1, None]}), {"n": np.array([False, True])})
    >>> seen = Fitness(source, "t.csv")
    >>> seen.see(part)
    >>> seen.refuse_columns()
    >>> seen.n_rows, seen.n_misfits
    (2, 1)
    """

    def __init__(self, source: CompiledSource, address: str) -> None:
        self._source = source
        self._where = f"source {source.name}, table {address}"
        self.n_rows = 0
        self.n_misfits = 0
        self._n_wrong: Counter[str] = Counter()
        self._samples: dict[str, list[dict[str, Any]]] = {}

    def see(self, fitting: FittingRows) -> None:
        """Count some rows."""
        self.n_rows += fitting.n_rows
        self.n_misfits += fitting.n_misfits
        for name, n_wrong in fitting.n_wrong.items():
            self._n_wrong[name] += n_wrong
            self._samples.setdefault(name, fitting.sample(name))

    @property
    def n_wrong(self) -> dict[str, int]:
        """How many rows do not fit for the sake of each column, where any do."""
        return dict(self._n_wrong)

    def refuse_columns(self) -> None:
        """Raise RequestError when a column fits in no row of what was seen; names it and shows rows."""
        for name, n_wrong in self._n_wrong.items():
            if n_wrong == self.n_rows:
                field = self._source.schema.find(name)
                assert field is not None
                raise RequestError(
                    f"Column {name!r} is declared {ARROW_TYPES[field.dtype]} and fits in none of {n_wrong} rows.",
                    where=self._where,
                    mend=f"declare what it holds, or mend the table; first rows: {self._samples[name]}",
                )

    def say(self) -> str:
        """One sentence on the rows that did not fit; empty when all did."""
        if not self.n_misfits:
            return ""
        columns = ", ".join(f"{name} in {n}" for name, n in sorted(self._n_wrong.items()))
        sample = str(next(iter(self._samples.values()))[0])
        return f"{self.n_misfits} of {self.n_rows} rows do not fit ({columns}) and are in quarantine, such as {sample}"


def fitting_rows(source: CompiledSource, table: pa.Table, address: str) -> FittingRows:
    """Which rows of an author's table fit the event.

    A row does not fit that lacks what is declared never to be null, where the text of a CSV file cannot be read as the
    column's type, where a number is too large for it, where an instant lies outside the years 1 to 9999, or where an
    entity's key is too long.

    Args:
        table: some of its rows; whether a column fits in any is for the caller to see (`Fitness`).

    Raises:
        RequestError: a column is missing, or of another type: declaration and table do not agree.
    """
    where = f"source {source.name}, table {address}"
    is_text = address.split("?")[0].endswith((".csv", ".csv.gz"))
    columns: dict[str, pa.Array] = {}
    wrong: dict[str, NDArray[np.bool_]] = {}
    for field in source.schema.fields:
        column, unread = _read(table, field.name, ARROW_TYPES[field.dtype], where, is_text=is_text)
        if _never_null(source, field) and column.null_count:
            unread = unread | column.is_null().to_numpy(zero_copy_only=False)
        if field.entity is not None and field.dtype is DType.STRING:
            unread = unread | _is_long_key(column)
        columns[field.name], wrong[field.name] = column, unread
    return FittingRows(pa.table(columns), table, wrong)


def declared_table(
    source: CompiledSource, table: pa.Table, where: str, fields: Sequence[Field] | None = None
) -> pa.Table:
    """An author's table with the columns of the event, or some of them, in its types.

    Raises:
        RequestError: a column is missing, of another type, or null where it must not be; names it and shows rows.
    """
    wanted = source.schema.fields if fields is None else fields
    columns = {
        field.name: _one_nan(_declared(table, field.name, ARROW_TYPES[field.dtype], where))
        for field in wanted
    }
    for field in wanted:
        if _never_null(source, field) and columns[field.name].null_count:
            _refuse_nulls(table, field.name, columns[field.name], where)
    return pa.table(columns)


def _is_long_key(column: pa.Array) -> NDArray[np.bool_]:
    long = pc.fill_null(pc.greater(pc.utf8_length(column), MOST_KEY_TEXT), False)
    found: NDArray[np.bool_] = long.to_numpy(zero_copy_only=False)
    return found


def _never_null(source: CompiledSource, field: Field) -> bool:
    return field.name in source.id_columns or field.name == source.event_time or not field.nullable


def _read(
    table: pa.Table, name: str, wanted: pa.DataType, where: str, *, is_text: bool
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """A column as its declared type, and where a value could not be read."""
    given = combined(table[name]) if name in table.column_names else None
    if given is not None and _holds_numbers(given.type) and _holds_numbers(wanted):
        return _of_numbers(given, wanted, table, name, where)
    if given is not None and pa.types.is_timestamp(wanted) and (outside := _outside(given)).any():
        inside = pc.if_else(pa.array(outside), pa.scalar(None, given.type), given)
        return _declared(pa.table({name: inside}), name, wanted, where), outside
    if given is None or not is_text or pa.types.is_string(wanted) or not pa.types.is_string(given.type):
        return _one_nan(_declared(table, name, wanted, where)), np.zeros(table.num_rows, bool)
    coded = given.dictionary_encode()
    values = [_value_of(each, wanted) for each in coded.dictionary.to_pylist()]
    column = pa.array(values, wanted).take(coded.indices)
    unread: NDArray[np.bool_] = pc.and_(given.is_valid(), column.is_null()).to_numpy(zero_copy_only=False)
    return _one_nan(column), unread


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))


def _of_numbers(
    given: pa.Array, wanted: pa.DataType, table: pa.Table, name: str, where: str
) -> tuple[pa.Array, NDArray[np.bool_]]:
    """Numbers as numbers of another type; those that would change are not read."""
    try:
        column = _declared(table, name, wanted, where)
        return _one_nan(column), np.zeros(len(column), bool)
    except RequestError:
        if not pa.types.is_integer(given.type):
            raise  # fractions where whole numbers are declared: the column is of another type
    loose = given.cast(wanted, safe=False)
    changed = pc.fill_null(pc.not_equal(loose.cast(given.type, safe=False), given), False)
    column = pc.if_else(changed, pa.scalar(None, wanted), loose)
    unread: NDArray[np.bool_] = changed.to_numpy(zero_copy_only=False)
    return column, unread


def _outside(given: pa.Array) -> NDArray[np.bool_]:
    """Where the instants of a column lie outside the calendar. Nanoseconds reach from 1677 to 2262 and never do."""
    if not pa.types.is_timestamp(given.type) or given.type.tz is None or given.type.unit == "ns":
        return np.zeros(len(given), bool)
    step = _UNITS_US[given.type.unit]
    ticks = given.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
    outside: NDArray[np.bool_] = (ticks < YEAR_1 // step) | (ticks >= YEAR_10000 // step)
    return outside


def _one_nan(column: pa.Array) -> pa.Array:
    """NaN in one form: what is equal must have equal bits wherever it lies."""
    if not pa.types.is_floating(column.type):
        return column
    is_nan = pc.fill_null(pc.is_nan(column), False)
    return pc.if_else(is_nan, pa.scalar(np.nan, column.type), column) if pc.any(is_nan).as_py() else column


def _value_of(text: str, wanted: pa.DataType) -> Any:
    """What a text says in a type; None when it says nothing of it."""
    try:
        if pa.types.is_timestamp(wanted):
            instant = datetime.fromisoformat(text)
            return instant if instant.tzinfo is not None and from_datetime(instant) in _CALENDAR else None
        if _holds_numbers(wanted) and ("_" in text or not text.isascii()):
            return None  # Python reads 1_000 and the digits of every script
        if pa.types.is_integer(wanted):
            return number if (number := int(text)) in _INT64 else None
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
    if pa.types.is_timestamp(wanted) and (outside := _outside(column)).any():
        raise RequestError(
            f"Column {name!r} holds instants outside the years 1 to 9999.",
            where=where,
            mend=f"mend the table; such as {_cells(column.filter(pa.array(outside)).slice(0, _SAMPLE))}",
        )
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
    for row, value in enumerate(_cells(column), start=1):
        if value is not None and not _reads_as(value, wanted):
            found.append(f"{value!r} in row {row}")
            if len(found) == _SAMPLE:
                break
    return ", ".join(found) or ", ".join(repr(value) for value in _cells(column.slice(0, _SAMPLE)))


def _rows_of(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as they stand in an author's table."""
    columns = [_cells(column) for column in table.columns]
    return [dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True)]


def _cells(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """The values of a column, as texts where some have no place in Python's calendar."""
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        if pa.types.is_timestamp(column.type) and column.type.tz is not None:
            column = column.cast(pa.timestamp(column.type.unit, "UTC"))
        values = column.cast(pa.string()).to_pylist()
    return values


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
    rows = _rows_of(table.take(pc.indices_nonzero(column.is_null())).slice(0, _SAMPLE))
    raise RequestError(
        f"Column {name!r} is null in {column.null_count} rows and is declared never to be.",
        where=where,
        mend=f"declare it as `... | None`, or clean the table; first rows: {rows}",
    )
