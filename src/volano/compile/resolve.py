"""Find a project's definitions: the module-level values of its files, each in the module that declares it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from volano.compile.loaded import LoadedModule
from volano.compile.places import Places, Step
from volano.compile.report import Report
from volano.spec.decision import Decision
from volano.spec.entity import Entity
from volano.spec.event import Event
from volano.spec.fields import SchemaType
from volano.spec.label import Label
from volano.spec.model import Model
from volano.spec.on_demand import OnDemand
from volano.spec.owner import Owner
from volano.spec.projection import Projection
from volano.spec.release import Release
from volano.spec.request import Request, Requests
from volano.spec.source import Source
from volano.spec.view import FeatureView, ViewType

_KINDS: tuple[tuple[type, str], ...] = (
    (Owner, "owner"),
    (Entity, "entity"),
    (Source, "source"),
    (Projection, "projection"),
    (OnDemand, "on-demand feature"),
    (Requests, "history"),
    (Label, "label"),
    (Model, "model"),
    (Decision, "decision"),
    (Release, "release"),
)


def kind_of(value: object) -> str | None:
    """What kind of definition a value is, or None.

    >>> kind_of(Owner("ops")), kind_of(42)
    ('owner', None)
    """
    if isinstance(value, ViewType):
        return "view" if value is not FeatureView else None
    if isinstance(value, SchemaType):
        if value in (Event, Request):
            return None
        return "event" if issubclass(value, Event) else "request"
    return next((kind for shape, kind in _KINDS if isinstance(value, shape)), None)


@dataclass(frozen=True)
class Definition:
    """A definition and where it stands: `binding` is the module-level name that holds it."""

    kind: str
    value: Any
    binding: str
    places: Places

    @property
    def module(self) -> LoadedModule:
        return self.places.module

    @property
    def name(self) -> str:
        """Its own name: explicit, or that of the class or function."""
        value = self.value
        if isinstance(value, ViewType | SchemaType):
            return value.__name__
        if isinstance(value, Requests):
            return value.name or str(getattr(value.request, "__name__", self.binding))
        if isinstance(value, Release):
            return value.name or str(getattr(value.decision, "name", self.binding))
        return str(value.name)

    def line(self, *path: Step) -> int:
        """The line of a part of it; see `Places.line`. A feature of several windows stands at its attribute."""
        if path and self.kind == "view":
            path = (self.value.written.get(path[0], path[0]), *path[1:])
        return self.places.line(self.binding, path)


def find_definitions(places: Sequence[Places], report: Report) -> dict[int, Definition]:
    """Every definition by the identity of its object, in declaration order.

    An object that several modules name belongs to the one that declares it. A name that is bound twice in
    one module is a mistake: the first definition would be lost in silence.
    """
    found: dict[int, Definition] = {}
    for of_module in places:
        for binding, value in of_module.module.values.items():
            kind = kind_of(value)
            if kind is None or binding.startswith("__"):
                continue
            known = found.get(id(value))
            if known is None or (not known.places.declares(known.binding) and of_module.declares(binding)):
                found[id(value)] = Definition(kind, value, binding, of_module)
    for definition in found.values():
        again = definition.places.repeated.get(definition.binding)
        if again is not None:
            report.mistake(
                f"The name {definition.binding!r} is bound twice; the first definition is lost.",
                file=definition.module.file,
                line=again.lineno,
                mend="give the second one a name of its own",
            )
    order = {id(of_module): number for number, of_module in enumerate(places)}
    ranked = sorted(found.items(), key=lambda item: (order[id(item[1].places)], item[1].line()))
    return dict(ranked)
