"""The one logical type table, fields and schemas. Adapters own the step from here to their native types."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

Scalar: TypeAlias = bool | int | float | str | None
"""One value of a field as Python sees it; timestamps are instants."""


class DType(StrEnum):
    """A logical type. Named after the Arrow types that carry it.

    `TIMESTAMP` is an `Instant`: microseconds, UTC. Lists occur only as the results of `first_n` and `last_n`.
    """

    BOOL = "bool"
    INT64 = "int64"
    FLOAT64 = "float64"
    STRING = "string"
    TIMESTAMP = "timestamp"
    LIST_FLOAT64 = "list<float64>"
    LIST_INT64 = "list<int64>"
    LIST_STRING = "list<string>"


class Field(msgspec.Struct, frozen=True, omit_defaults=True):
    """One column: its name, type, and whether it may be null.

    `entity` names the entity whose key this column holds, if any.
    """

    name: str
    dtype: DType
    nullable: bool = False
    entity: str | None = None


class Schema(msgspec.Struct, frozen=True):
    """An ordered set of uniquely named fields.

    >>> Schema((Field("a", DType.INT64),)).names
    ('a',)
    """

    fields: tuple[Field, ...]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(field.name for field in self.fields)

    def find(self, name: str) -> Field | None:
        """The field of this name, or None."""
        return next((field for field in self.fields if field.name == name), None)
