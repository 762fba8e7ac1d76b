"""Events of a source as typed Python objects: decoded, checked, identified. Compiled once a source from its schema.

Strict: a number is no text, a timestamp carries its zone, an unknown field is a mistake. A field that may be null may
also be left out, so that old producers keep working.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple, TypeAlias

import msgspec

from volano.collect.moments import instant_of, instants_of
from volano.errors import VolanoError
from volano.plan.definitions import CompiledSource
from volano.records.journal import Operation
from volano.values import json_floats
from volano.values.event_ids import event_id
from volano.values.instants import YEAR_1, YEAR_10000, Instant
from volano.values.keys import MOST_KEY_TEXT
from volano.values.schema import DType, Field, Scalar

Problem: TypeAlias = tuple[str, str, str]
"""Code, field and message of why an event does not fit."""

_TYPES: Final[dict[DType, Any]] = {
    DType.BOOL: bool,
    DType.INT64: Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)],
    DType.FLOAT64: float,
    DType.STRING: str,
    DType.TIMESTAMP: Annotated[datetime, msgspec.Meta(tz=True)],
    DType.LIST_FLOAT64: list[float],
    DType.LIST_INT64: list[int],
    DType.LIST_STRING: list[str],
}
MOST_TEXT: Final = 1 << 20
"""How many characters a text, and how many items a list of an event may have."""
MOST_ID: Final = 1_000
"""How many characters may identify an event."""
_BOUNDED: Final = msgspec.Meta(max_length=MOST_TEXT)
_AT_THE_DOOR: Final[dict[DType, Any]] = _TYPES | {
    DType.STRING: Annotated[str, _BOUNDED],
    DType.LIST_FLOAT64: Annotated[list[float], _BOUNDED],
    DType.LIST_INT64: Annotated[list[int], _BOUNDED],
    DType.LIST_STRING: Annotated[list[Annotated[str, _BOUNDED]], _BOUNDED],
}
_KEYS: Final = _AT_THE_DOOR | {DType.STRING: Annotated[str, msgspec.Meta(max_length=MOST_KEY_TEXT)]}
"""The types of columns that hold an entity's key: state is kept under it."""
_EXACT: Final = 2.0**53
"""Every whole number up to here is a float64."""
_JSON: Final = msgspec.json.Encoder()
_CANONICAL: Final = msgspec.msgpack.Encoder()
_AT: Final = re.compile(r" - at `\$\.?([^`]*)`")
_MOST: Final = re.compile(r"of length <= (\d+)")
_NAMED: Final = re.compile(r"field `([^`]*)`")


class Misfit(VolanoError):
    """An event does not fit its schema. Never leaves `collect`; the door journals it as a problem."""

    code = "misfit"

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(problem[2])


class Fitted(NamedTuple):
    """An event that fits: its JSON, what its payload hash is taken over, and what identifies it."""

    payload: bytes
    canonical: bytes
    event_id: str
    event_time: Instant | None


class FittedColumns(NamedTuple):
    """The same of many events, as columns; their JSON is as it came."""

    canonical: list[bytes]
    event_ids: list[str]
    event_times: list[Instant]


class SourceSchema:
    """Decodes and checks the events of one source.

    A retraction has to carry only the id columns. Without an event time it is never too late.

    Args:
        keys: columns that hold an entity's key, beside those that are marked so.
    """

    def __init__(self, source: CompiledSource, keys: Collection[str] = ()) -> None:
        self.source = source
        self.names = source.schema.names
        # By name: what is hashed must not depend on the order in which somebody declares fields.
        by_name = sorted(source.schema.fields, key=lambda field: field.name)
        kinds = [
            (field, _KEYS if field.entity is not None or field.name in keys else _AT_THE_DOOR)
            for field in by_name
        ]
        full = _struct(source.name, [_field(field, types) for field, types in kinds])
        slim = _struct(
            source.name,
            [_field(field, types, required=field.name in source.id_columns) for field, types in kinds],
        )
        self._widened = source.widened
        self._types = {operation: full for operation in Operation} | {
            Operation.RETRACT: slim,
            Operation.END: slim,
        }
        self._decoders = {
            operation: msgspec.json.Decoder(struct) for operation, struct in self._types.items()
        }
        # What was accepted stays readable when the schema has grown or shrunk since.
        lenient = _struct(
            source.name,
            [_field(field, _TYPES, required=False) for field in source.schema.fields],
            strict=False,
        )
        self._reader = msgspec.json.Decoder(lenient)
        self.time_at = self.names.index(source.event_time)
        self._timestamps = tuple(
            at for at, field in enumerate(source.schema.fields) if field.dtype is DType.TIMESTAMP
        )
        floats = (DType.FLOAT64, DType.LIST_FLOAT64)
        self._floats = tuple(field.name for field in source.schema.fields if field.dtype in floats)
        self._id_of = attrgetter(*source.id_columns)
        self._time_of = attrgetter(source.event_time)
        only = source.schema.find(source.id_columns[0]) if len(source.id_columns) == 1 else None
        self._id_is_text = only is not None and only.dtype is DType.STRING

    def fit(self, event: Mapping[str, Any] | bytes, operation: Operation) -> Fitted:
        """Check one event as its sender gave it.

        Raises:
            Misfit: it does not fit; says why.
        """
        try:
            try:
                if isinstance(event, bytes):
                    row = self._decoders[operation].decode(event)
                else:
                    row = msgspec.convert(event, self._types[operation])
            except msgspec.ValidationError:
                row = self._unspelled(event, self._types[operation])
            if isinstance(event, bytes):
                payload = event
            elif all(json_floats.is_finite(getattr(row, name)) for name in self._floats):
                payload = _JSON.encode(row)
            else:
                payload = json_floats.encode(row)
                row = self._unspelled(payload, self._types[operation])  # with one NaN
        except msgspec.ValidationError as error:
            raise Misfit(_problem(str(error))) from None
        except (msgspec.DecodeError, UnicodeError) as error:
            raise Misfit(("malformed", "", f"{error}; send one JSON object an event")) from None
        except RecursionError:
            raise Misfit(
                ("malformed", "", "the event is nested too deeply; send a flat JSON object")
            ) from None
        moment = self._time_of(row)
        event_time: Instant | None = None
        if moment is not None:
            event_time = instant_of(moment)
        elif operation is not Operation.RETRACT:
            raise Misfit(("missing_field", self.source.event_time, "an event needs the time it happened"))
        identity = self._join(self._id_of(row))
        if len(identity) > MOST_ID:
            message = (
                f"what identifies an event has at most {MOST_ID:,} characters; this has {len(identity):,}"
            )
            raise Misfit(("too_long", self.source.id_columns[0], message))
        try:
            canonical = _CANONICAL.encode(self._as_narrow(row) if self._widened else row)
        except OverflowError:
            raise Misfit(self._out_of_range(row)) from None
        return Fitted(payload, canonical, identity, event_time)

    def fit_all(self, events: Sequence[bytes], operation: Operation) -> FittedColumns | None:
        """Many events at once; None where one of them does not fit, or has no event time: then look at each."""
        try:
            rows = list(map(self._decoders[operation].decode, events))
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            return None
        times = instants_of(list(map(self._time_of, rows)))
        known = [time for time in times if time is not None]
        if len(known) < len(times):
            return None
        try:
            hashed = map(self._as_narrow, rows) if self._widened else rows
            canonical = list(map(_CANONICAL.encode, hashed))
        except OverflowError:
            return None
        ids: list[Any] = list(map(self._id_of, rows))
        if not self._id_is_text:
            ids = list(map(self._join, ids))
        if max(map(len, ids), default=0) > MOST_ID:
            return None
        return FittedColumns(canonical, ids, known)

    def salvage_id(self, event: Mapping[str, Any] | bytes) -> str:
        """The event id of an event that does not fit, as far as it can be read; empty otherwise."""
        try:
            loose = msgspec.json.decode(event) if isinstance(event, bytes) else event
            values = [loose[column] for column in self.source.id_columns]
            if not all(isinstance(value, str | int) for value in values):
                return ""
            joined = event_id(values)
            joined.encode()
        except (msgspec.MsgspecError, UnicodeError, RecursionError, LookupError, TypeError):
            return ""
        return joined if len(joined) <= MOST_ID else ""

    def values(self, payload: bytes) -> tuple[Scalar, ...]:
        """The columns of an event that fitted at the door, in schema order; timestamps as instants.

        Columns that the schema did not have then are null.

        Raises:
            Misfit: a column has changed its type since.
        """
        row: tuple[Any, ...] = msgspec.structs.astuple(self._read(payload))
        if not self._timestamps:
            return row
        cells = list(row)
        for at in self._timestamps:
            moment = cells[at]
            if moment is not None:
                cells[at] = instant_of(moment)
        return tuple(cells)

    def columns(self, payloads: Sequence[bytes]) -> list[list[Scalar]]:
        """`values` of many events, column by column.

        Raises:
            Misfit: a column has changed its type since.
        """
        try:
            rows = list(map(self._reader.decode, payloads))
        except msgspec.MsgspecError:
            rows = list(map(self._read, payloads))
        columns: list[list[Any]] = [list(map(attrgetter(name), rows)) for name in self.names]
        for at in self._timestamps:
            columns[at] = instants_of(columns[at])
        return columns

    def _read(self, payload: bytes) -> Any:
        """An event that fitted at the door."""
        try:
            try:
                return self._reader.decode(payload)
            except msgspec.ValidationError:
                return self._unspelled(payload, self._reader.type)
        except msgspec.MsgspecError as error:
            raise Misfit(_problem(str(error))) from None

    def _unspelled(self, event: Mapping[str, Any] | bytes, kind: Any) -> Any:
        """An event whose NaN and infinities are texts (`values.json_floats`).

        Raises:
            msgspec.ValidationError: it does not fit for another reason.
        """
        loose = msgspec.json.decode(event) if isinstance(event, bytes) else event
        if not isinstance(loose, Mapping):
            return msgspec.convert(loose, kind)
        found = {name: json_floats.number_of(loose[name]) for name in self._floats if name in loose}
        return msgspec.convert({**loose, **found}, kind)

    def _join(self, found: Any) -> str:
        if self._id_is_text:
            text: str = found
            return text
        values = found if len(self.source.id_columns) > 1 else (found,)
        return event_id([instant_of(value) if isinstance(value, datetime) else value for value in values])

    def _as_narrow(self, row: Any) -> Any:
        """A row with whole numbers as such in columns that held only those once: sent again it has the same hash."""
        whole = {
            name: int(value)
            for name in self._widened
            if (value := getattr(row, name)) is not None and value.is_integer() and abs(value) <= _EXACT
        }
        return msgspec.structs.replace(row, **whole) if whole else row

    def _out_of_range(self, row: Any) -> Problem:
        """The first timestamp that has no place in the calendar of UTC."""
        for at in self._timestamps:
            name = self.names[at]
            moment = getattr(row, name)
            if moment is not None and not YEAR_1 <= instant_of(moment) < YEAR_10000:
                return "out_of_range", name, f"{moment.isoformat()} lies outside the years 1 to 9999 in UTC"
        raise AssertionError(f"{row} can be written")


def raw_bytes(event: Mapping[str, Any] | bytes) -> bytes:
    """An event that does not fit as bytes, for quarantine: as sent, or as near to JSON as it goes."""
    if isinstance(event, bytes):
        return event
    try:
        return json_floats.encode(event, unknown=repr)
    except (TypeError, ValueError, RecursionError, OverflowError):
        return repr(event).encode("utf-8", "backslashreplace")


def _field(
    field: Field, types: Mapping[DType, Any], *, required: bool = True
) -> tuple[str, Any] | tuple[str, Any, Any]:
    kind = types[field.dtype]
    return (field.name, kind) if required and not field.nullable else (field.name, kind | None, None)


def _struct(name: str, fields: list[Any], *, strict: bool = True) -> Any:
    return msgspec.defstruct(
        name, fields, kw_only=True, frozen=True, forbid_unknown_fields=strict, omit_defaults=True, gc=False
    )


def _problem(message: str) -> Problem:
    """A problem of msgspec's message: what it says, with the field taken out."""
    if found := _AT.search(message):
        field, text = found[1], message[: found.start()]
    elif found := _NAMED.search(message):
        field, text = found[1], message
    else:
        field, text = "", message
    if (most := _MOST.search(text)) is not None:
        return "too_long", field, f"{field!r} is longer than {int(most[1]):,} characters or items"
    if "missing required" in text:
        return "missing_field", field, f"the field {field!r} is missing"
    if "unknown field" in text:
        return "unknown_field", field, f"the schema has no field {field!r}"
    if "timezone" in text:
        return "naive_timestamp", field, "the timestamp has no time zone; add one, such as Z or +01:00"
    if field:
        text = f"{text} in {field!r}"
    return "wrong_type", field, text.replace("`", "").replace("object", "a JSON object")
