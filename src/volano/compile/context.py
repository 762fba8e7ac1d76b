"""What every lowering function works with: the definitions, what is lowered so far, and the report."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from volano.compile.places import Places, Step
from volano.compile.report import Report
from volano.compile.resolve import Definition, kind_of
from volano.plan.definitions import (
    CompiledEntity,
    CompiledHistory,
    CompiledLabel,
    CompiledModel,
    CompiledOnDemand,
    CompiledRequest,
    CompiledSource,
    CompiledView,
)
from volano.spec.fields import FieldRef
from volano.values.instants import parse_duration
from volano.values.schema import Schema

_ARTICLE = re.compile("[aeiou]")
_TABLE_NAME = re.compile("[a-z][a-z0-9_]*")
_NAME = re.compile("[A-Za-z][A-Za-z0-9_-]*")


@dataclass(frozen=True)
class EventShape:
    """An event or request class, resolved."""

    schema: Schema
    id_columns: tuple[str, ...]
    event_time: str | None


@dataclass
class Context:
    """One compilation. Its dictionaries go by the `id` of the author's object; what has a mistake may be missing."""

    definitions: dict[int, Definition]
    report: Report
    modules: dict[str, Places]
    shapes: dict[int, EventShape] = field(default_factory=dict)
    entities: dict[int, CompiledEntity] = field(default_factory=dict)
    sources: dict[int, CompiledSource] = field(default_factory=dict)
    requests: dict[int, CompiledRequest] = field(default_factory=dict)
    views: dict[int, CompiledView] = field(default_factory=dict)
    on_demand: dict[int, CompiledOnDemand] = field(default_factory=dict)
    histories: dict[int, CompiledHistory] = field(default_factory=dict)
    labels: dict[int, CompiledLabel] = field(default_factory=dict)
    models: dict[int, CompiledModel] = field(default_factory=dict)

    def of_kind(self, kind: str) -> list[Definition]:
        """Every definition of a kind, in declaration order."""
        return [definition for definition in self.definitions.values() if definition.kind == kind]

    def mistake(self, at: Definition, what: str, mend: str, *path: Step) -> None:
        """Note a mistake at a definition, or at the part of it that `path` leads to."""
        self.report.mistake(what, file=at.module.file, line=at.line(*path), mend=mend)

    def caution(self, at: Definition, what: str, mend: str, *path: Step) -> None:
        """Note a warning."""
        self.report.caution(what, file=at.module.file, line=at.line(*path), mend=mend)

    def title(self, at: Definition) -> str:
        """How messages name a definition."""
        return f"{at.kind[0].upper()}{at.kind[1:]} {at.name!r}"

    def refer(self, at: Definition, value: Any, kind: str, *path: Step) -> Definition | None:
        """The definition that a value is, when it is of the kind that is needed; otherwise a mistake and None."""
        part = next((str(step) for step in reversed(path) if isinstance(step, str)), "")
        if value is None:
            self.mistake(at, f"{self.title(at)} has no {part or kind}.", _give(part, kind), *path)
            return None
        actual = kind_of(value)
        if actual != kind:
            got = f"{_a(actual)}" if actual else repr(value)
            self.mistake(at, f"{self.title(at)}: {part} is {got}, not {_a(kind)}.", _give(part, kind), *path)
            return None
        found = self.definitions.get(id(value))
        if found is None:
            self.mistake(
                at,
                f"{self.title(at)}: its {kind} is not bound to a module-level name.",
                f"write `name = ...` on a line of its own, and refer to {kind} by that name",
                *path,
            )
        return found

    def owner(self, at: Definition, *, fallback: str = "") -> str:
        """The name of a definition's owner; a mistake when it has none."""
        owner = at.value.options.owner if at.kind == "view" else at.value.owner
        if owner is None and fallback:
            return fallback
        found = self.refer(at, owner, "owner", "owner")
        return found.name if found else ""

    def duration(self, at: Definition, value: object, *path: Step, least_us: int = 0) -> int | None:
        """A duration in microseconds; None when it is absent or wrong, and the latter is a mistake."""
        if value is None:
            return None
        of_feature = at.kind == "view" and len(path) > 1
        title = f"Feature '{at.name}.{path[0]}'" if of_feature else self.title(at)
        part = f"{title}: {path[-1]}={value!r}"
        if not isinstance(value, str | timedelta):
            self.mistake(at, f"{part} is not a duration.", "write a text such as '90s', '36h', '7d'", *path)
            return None
        try:
            duration_us = parse_duration(value)
        except ValueError:
            mend = "write a number and a unit: '90s', '36h', '7d' (us, ms, s, m, h, d, w)"
            self.mistake(at, f"{part} is not a duration.", mend, *path)
            return None
        if duration_us < least_us:
            self.mistake(at, f"{part} must be longer than zero.", "write a longer one", *path)
            return None
        return duration_us

    def required_duration(
        self, at: Definition, value: object, mend: str, *path: Step, least_us: int = 1
    ) -> int | None:
        """A duration that has no default."""
        if value is None:
            self.mistake(at, f"{self.title(at)} has no {path[-1]}.", mend)
            return None
        return self.duration(at, value, *path, least_us=least_us)

    def name_is_valid(self, at: Definition, *, table: bool = False) -> None:
        """Note a mistake when a definition's name cannot be its name."""
        name = at.name
        if table and not _TABLE_NAME.fullmatch(name):
            self.mistake(
                at,
                f"{self.title(at)}: a table is named after it, which this name does not allow.",
                f"use lower case letters, digits and underscores, such as {_as_table(name)!r}",
            )
        elif not _NAME.fullmatch(name) or "__" in name:
            self.mistake(
                at,
                f"{self.title(at)} has a name that cannot be used.",
                "use letters, digits, '_' and '-', a letter first, and no double underscore",
            )


def column_names(value: str | FieldRef | Iterable[str | FieldRef] | None) -> tuple[str, ...]:
    """Column names of what an author may write: a text, a field reference, or several of them.

    >>> column_names("a"), column_names(["a", "b"]), column_names(None)
    (('a',), ('a', 'b'), ())
    """
    if value is None:
        return ()
    if isinstance(value, str):
        return (value,)
    if isinstance(value, FieldRef):
        return (value.name,)
    return tuple(name for item in value for name in column_names(item))


def _a(kind: str | None) -> str:
    return f"an {kind}" if kind and _ARTICLE.match(kind) else f"a {kind}"


def _give(part: str, kind: str) -> str:
    return f"give {part or kind}=, {_a(kind)} that is bound to a module-level name"


def _as_table(name: str) -> str:
    return re.sub("[^a-z0-9]+", "_", name.lower()).strip("_") or "name"
