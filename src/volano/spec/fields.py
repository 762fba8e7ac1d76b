"""Classes whose annotations are typed fields, and references to those fields.

A reference is made by attribute access and is not checked here: `Departure.distanse` names a field that
compile will miss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class FieldRef:
    """A field of an event or a request, as in `Departure.distance`."""

    schema: SchemaType
    name: str

    def __repr__(self) -> str:
        return f"{self.schema.__name__}.{self.name}"


class SchemaType(type):
    """The type of events and requests: annotations are fields, attributes are references to them."""

    declared_id: str | Sequence[str] | None
    declared_values: dict[str, Any]
    unknown_options: dict[str, Any]

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        id: str | Sequence[str] | None = None,
        **unknown: Any,
    ) -> SchemaType:
        values = {key: value for key, value in namespace.items() if not key.startswith("_")}
        kept = {key: value for key, value in namespace.items() if key.startswith("_")}
        cls = super().__new__(mcls, name, bases, kept)
        type.__setattr__(cls, "declared_id", id)
        type.__setattr__(cls, "declared_values", values)
        type.__setattr__(cls, "unknown_options", unknown)
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return FieldRef(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(f"{cls.__name__} is a declaration; it cannot change")

    def __repr__(cls) -> str:
        return f"<{cls.__name__}>"
