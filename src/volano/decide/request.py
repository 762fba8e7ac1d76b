"""Reads a request: a mapping or JSON, checked against the declared schema. Holds no features and no decision.

The schema is compiled once into one msgspec type, so checking costs less than building the dictionary does.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from difflib import get_close_matches
from math import isfinite
from typing import Annotated, Any, Final, TypeAlias, assert_never

import msgspec

from volano.errors import RequestError
from volano.plan.definitions import CompiledRequest
from volano.values.instants import from_datetime
from volano.values.keys import MOST_KEY_TEXT
from volano.values.schema import DType, Field, Scalar

_INT64: TypeAlias = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_KEY: TypeAlias = Annotated[str, msgspec.Meta(max_length=MOST_KEY_TEXT)]
_AWARE: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
_EARLIEST: Final = from_datetime(datetime.min.replace(tzinfo=UTC))
_LATEST: Final = from_datetime(datetime.max.replace(tzinfo=UTC))
_NAMED_FIELD: Final = re.compile(r"^Object (missing required|contains unknown) field `(.+)`$")
_AT_FIELD: Final = re.compile(r"^(.*) - at `\$\.([^.\[`]+)(.*)`$", re.DOTALL)


class RequestReader:
    """Turns what a caller sent into field values, or says what is wrong with it.

    Args:
        request: the declared schema.
        decision: whose request it is; named in every error.
        keys: fields that hold an entity's key, beside those that are marked so.

    >>> from volano.values.schema import Schema
    >>> departure = CompiledRequest("Departure", Schema((Field("flight_id", DType.STRING),)))
    >>> RequestReader(departure, decision="get_delay_risk").read({"flight_id": "UA1"})
    {'flight_id': 'UA1'}
    """

    def __init__(self, request: CompiledRequest, *, decision: str, keys: Collection[str] = ()) -> None:
        self.request = request
        self._where = f"request {request.name} of decision {decision}"
        fields = request.schema.fields
        self._timestamps = tuple(field.name for field in fields if field.dtype is DType.TIMESTAMP)
        self._floats = tuple(field.name for field in fields if field.dtype is DType.FLOAT64)
        bounded = frozenset(
            field.name
            for field in fields
            if field.dtype is DType.STRING and (field.entity is not None or field.name in keys)
        )
        self._type = _struct_of(request, bounded)
        self._json = msgspec.json.Decoder(self._type)

    def read(self, request: Mapping[str, Any] | bytes) -> dict[str, Scalar]:
        """The value of every field, in schema order; instants for timestamps, None for absent nullable
        fields.

        Args:
            request: field values by name, timestamps as aware datetimes or ISO 8601 text with a zone; or
                JSON.

        Raises:
            RequestError: it is no object, a field is missing, unknown or of another type, a datetime has no zone, or
                a key is too long.
        """
        try:
            if isinstance(request, bytes):
                checked = self._json.decode(request)
            else:
                checked = msgspec.convert(request, self._type)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise self._explain(error) from None
        values: dict[str, Any] = msgspec.structs.asdict(checked)
        for name in self._timestamps:
            if values[name] is not None:
                values[name] = self._instant(name, values[name])
        for name in self._floats:
            if values[name] is not None and not isfinite(values[name]):
                raise self._error(
                    f"Field {name!r} is {values[name]}, which JSON cannot carry.",
                    mend="send null for a missing value",
                )
        return values

    def _instant(self, name: str, moment: datetime) -> int:
        instant = from_datetime(moment)
        if not _EARLIEST <= instant <= _LATEST:
            raise self._error(
                f"Field {name!r} lies outside the years 1 to 9999 in UTC.", mend=f"send {self._wanted(name)}"
            )
        return instant

    def _explain(self, error: Exception) -> RequestError:
        text = str(error)
        if (named := _NAMED_FIELD.match(text)) is not None:
            kind, name = named.groups()
            return self._unknown(name) if kind == "contains unknown" else self._missing(name)
        if (at := _AT_FIELD.match(text)) is not None:
            wrong, name, _ = at.groups()
            if "of length <=" in wrong:
                return self._error(
                    f"Field {name!r} is longer than {MOST_KEY_TEXT:,} characters, and it holds an entity's key.",
                    mend=f"send the key by which events know the entity: {self._wanted(name)}",
                )
            return self._error(
                f"Field {name!r} is not valid: {wrong.replace('`', '')}.", mend=f"send {self._wanted(name)}"
            )
        return self._error(
            f"The request is not an object of fields: {text.replace('`', '')}.",
            mend=f"send one object with: {', '.join(self.request.schema.names)}",
        )

    def _missing(self, name: str) -> RequestError:
        return self._error(f"Field {name!r} is missing.", mend=f"send {self._wanted(name)}")

    def _unknown(self, name: str) -> RequestError:
        names = self.request.schema.names
        near = get_close_matches(name, names, n=1)
        mend = f"did you mean {near[0]!r}?" if near else f"leave it out; the fields are: {', '.join(names)}"
        return self._error(f"Field {name!r} is not in the schema.", mend=mend)

    def _error(self, what: str, *, mend: str) -> RequestError:
        return RequestError(what, where=self._where, mend=mend)

    def _wanted(self, name: str) -> str:
        field = self.request.schema.find(name)
        if field is None:
            return "it as declared"
        return f"{name!r} as {_describe(field.dtype)}{', or null' if field.nullable else ''}"


def _struct_of(request: CompiledRequest, keys: Collection[str]) -> type[msgspec.Struct]:
    """The msgspec type of a schema: unknown fields forbidden, nullable ones optional."""
    fields: list[tuple[str, Any] | tuple[str, Any, None]] = []
    for field in request.schema.fields:
        kind = _KEY if field.name in keys else _python_type(field)
        fields.append((field.name, kind | None, None) if field.nullable else (field.name, kind))
    return msgspec.defstruct(request.name, fields, kw_only=True, frozen=True, forbid_unknown_fields=True)


def _python_type(field: Field) -> Any:
    match field.dtype:
        case DType.BOOL:
            return bool
        case DType.INT64:
            return _INT64
        case DType.FLOAT64:
            return float
        case DType.STRING:
            return str
        case DType.TIMESTAMP:
            return _AWARE
        case DType.LIST_FLOAT64:
            return list[float]
        case DType.LIST_INT64:
            return list[_INT64]
        case DType.LIST_STRING:
            return list[str]
        case _:
            assert_never(field.dtype)


def _describe(dtype: DType) -> str:
    match dtype:
        case DType.BOOL:
            return "true or false"
        case DType.INT64:
            return "a whole number of 64 bits"
        case DType.FLOAT64:
            return "a number"
        case DType.STRING:
            return "text"
        case DType.TIMESTAMP:
            return "a time with a zone, such as 2013-03-01T12:00:00Z"
        case DType.LIST_FLOAT64:
            return "a list of numbers"
        case DType.LIST_INT64:
            return "a list of whole numbers"
        case DType.LIST_STRING:
            return "a list of texts"
        case _:
            assert_never(dtype)
