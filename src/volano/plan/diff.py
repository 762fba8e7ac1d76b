"""What changes between an applied project and a declared one, and how much it matters."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, Final

import msgspec

from volano.plan.definitions import (
    CompiledDecision,
    CompiledModel,
    CompiledProject,
    CompiledRequest,
    CompiledSource,
    CompiledView,
)
from volano.plan.evolution import Evolution, changes_of
from volano.values.instants import format_duration
from volano.values.schema import Schema


class Category(StrEnum):
    """How much a change matters, the worst first."""

    BREAKING = "breaking"
    """What is served, trained or stored differs from before."""
    REMOVED = "removed"
    WIDENING = "widening"
    """Something is added; everything that was there stays as it was."""
    ADDED = "added"
    METADATA = "metadata"
    """No value and no answer changes."""


class Change(msgspec.Struct, frozen=True):
    """One definition that differs.

    Args:
        kind: source, view, model, ...
        details: what differs, one line each; empty when it is added or removed.
    """

    kind: str
    name: str
    category: Category
    details: tuple[str, ...] = ()


KINDS: Final = {
    "owners": "owner",
    "entities": "entity",
    "sources": "source",
    "views": "view",
    "on_demand": "on-demand feature",
    "requests": "request",
    "histories": "history",
    "labels": "label",
    "models": "model",
    "decisions": "decision",
    "releases": "release",
}
_METADATA: Final = {
    "owner": {"contact"},
    "entity": {"owner"},
    "source": {"owner", "table"},
    "view": {"owner"},
    "on-demand feature": set[str](),
    "request": set[str](),
    "history": set[str](),
    "label": {"owner"},
    "model": {"owner", "retrain_us"},
    "decision": {"owner", "deadline_us", "max_staleness_us"},
    "release": {"gate", "keep_first"},
}
"""The fields that change no value and no answer, by kind."""


def diff(applied: CompiledProject | None, declared: CompiledProject) -> tuple[Change, ...]:
    """Every definition that is added, removed or different; by kind, in declaration order.

    Args:
        applied: what is in force; None before the first apply.
    """
    before = applied if applied is not None else CompiledProject(declared.namespace)
    return tuple(
        change for field, kind in KINDS.items() for change in _changes(before, declared, field, kind)
    )


def _changes(before: CompiledProject, after: CompiledProject, field: str, kind: str) -> Iterator[Change]:
    old: dict[str, msgspec.Struct] = getattr(before, field)
    new: dict[str, msgspec.Struct] = getattr(after, field)
    for name, definition in new.items():
        if name not in old:
            yield Change(kind, name, Category.ADDED)
        elif old[name] != definition:
            yield Change(
                kind, name, _category(kind, old[name], definition), tuple(_details(old[name], definition))
            )
    for name in old:
        if name not in new:
            yield Change(kind, name, Category.REMOVED)


def _category(kind: str, old: Any, new: Any) -> Category:
    changed = {name for name in old.__struct_fields__ if getattr(old, name) != getattr(new, name)}
    changed -= {"definition_hash", "widened"}
    if changed <= _METADATA[kind]:
        return Category.METADATA
    return Category.WIDENING if _widens(old, new, changed - _METADATA[kind]) else Category.BREAKING


def _widens(old: Any, new: Any, changed: set[str]) -> bool:
    """Whether the difference only adds."""
    match old, new:
        case CompiledSource(), CompiledSource():
            schema_widens = all(each.evolution is not Evolution.BREAKING for each in changes_of(old, new))
            return changed <= {"schema", "stream"} and schema_widens and (new.stream or not old.stream)
        case CompiledView(), CompiledView():
            return changed <= {"features", "projection"} and all(
                item in new.features for item in old.features
            )
        case CompiledRequest(), CompiledRequest():
            return changed == {"schema"} and widens(old.schema, new.schema)
        case CompiledModel(), CompiledModel():
            return False
        case CompiledDecision(), CompiledDecision():
            return changed == {"actions"} and set(old.actions) <= set(new.actions)
        case _:
            return False


def widens(old: Schema, new: Schema) -> bool:
    """Whether a schema only gains columns that may be null.

    >>> from volano.values.schema import DType, Field
    >>> a, b = Field("a", DType.INT64), Field("b", DType.INT64, nullable=True)
    >>> widens(Schema((a,)), Schema((a, b))), widens(Schema((a, b)), Schema((a,)))
    (True, False)
    """
    kept = all(new.find(field.name) == field for field in old.fields)
    return kept and all(field.nullable for field in new.fields if old.find(field.name) is None)


def _details(old: Any, new: Any, prefix: str = "") -> Iterator[str]:
    """What differs, as `path: before → after`, one line each."""
    if isinstance(old, msgspec.Struct) and type(old) is type(new):
        for name in old.__struct_fields__:
            if name not in ("definition_hash", "widened"):
                yield from _details(getattr(old, name), getattr(new, name), f"{prefix}.{name}".strip("."))
    elif isinstance(old, tuple) and isinstance(new, tuple) and _are_named((*old, *new)):
        before, after = ({item.name: item for item in items} for items in (old, new))
        for name in before | after:
            yield from _details(before.get(name), after.get(name), f"{prefix}[{name}]")
    elif isinstance(old, dict) and isinstance(new, dict):
        for key in old | new:
            yield from _details(old.get(key), new.get(key), f"{prefix}.{key}")
    elif old != new:
        yield f"{prefix}: {_shown(old, prefix)} → {_shown(new, prefix)}"


def _are_named(items: tuple[Any, ...]) -> bool:
    return bool(items) and all(hasattr(item, "name") for item in items)


def _shown(value: Any, path: str) -> str:
    if isinstance(value, msgspec.Struct):
        return "present"
    if value is None:
        return "none"
    if path.endswith("_us") and isinstance(value, int):
        return format_duration(value)
    if path.endswith("source_hash"):
        return str(value)[:8]
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
