"""Feature views: timestamped features of an entity, computed from one source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from volano.spec.aggregates import Aggregate
from volano.spec.entity import Entity
from volano.spec.fields import FieldRef
from volano.spec.join import Join
from volano.spec.owner import Owner
from volano.spec.projection import Projection
from volano.spec.source import Source
from volano.spec.sql import Sql


@dataclass(frozen=True)
class FeatureRef:
    """A feature of a view: `PlaneHistory.last_delay`; `keys` are the request fields that hold its key."""

    view: ViewType
    name: str
    keys: tuple[FieldRef, ...] = ()

    def on(self, *fields: Any) -> FeatureRef:
        """This feature for the entity that these request fields name."""
        return replace(self, keys=fields)

    def __repr__(self) -> str:
        on = f".on({', '.join(map(repr, self.keys))})" if self.keys else ""
        return f"{self.view.__name__}.{self.name}{on}"


@dataclass(frozen=True)
class ViewOn:
    """All features of a view, for the entity that these request fields name."""

    view: ViewType
    keys: tuple[FieldRef, ...]

    def __repr__(self) -> str:
        return f"{self.view.__name__}.on({', '.join(map(repr, self.keys))})"


@dataclass(frozen=True)
class ViewOptions:
    """The class keywords of a view, as written."""

    entity: Entity | None
    source: Source | None
    key: str | FieldRef | Sequence[str | FieldRef] | None
    select: Sql | Projection | None
    join: Join | Sequence[Join] | None
    staleness: str | timedelta | None
    owner: Owner | None
    unknown: dict[str, Any]


class ViewType(type):
    """The type of feature views: attributes that hold aggregates are features.

    `aggregates` has each feature by its name, of one window; `written` the attribute that declares it; `repeated` the
    features that two attributes declare, by the later one; `strangers` the attributes that are no aggregates.
    """

    options: ViewOptions
    aggregates: dict[str, Aggregate]
    written: dict[str, str]
    repeated: dict[str, str]
    strangers: dict[str, Any]

    def __new__(
        mcls,
        name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        *,
        entity: Entity | None = None,
        source: Source | None = None,
        key: str | FieldRef | Sequence[str | FieldRef] | None = None,
        select: Sql | Projection | None = None,
        join: Join | Sequence[Join] | None = None,
        staleness: str | timedelta | None = None,
        owner: Owner | None = None,
        **unknown: Any,
    ) -> ViewType:
        public = {key: value for key, value in namespace.items() if not key.startswith("_")}
        kept = {key: value for key, value in namespace.items() if key.startswith("_")}
        declared = {key: value for key, value in public.items() if isinstance(value, Aggregate)}
        aggregates: dict[str, Aggregate] = {}
        written: dict[str, str] = {}
        repeated: dict[str, str] = {}
        for attribute, value in declared.items():
            for feature, aggregate in value.by_window(attribute):
                if feature in aggregates:
                    repeated[feature] = attribute
                aggregates[feature], written[feature] = aggregate, attribute
        cls = super().__new__(mcls, name, bases, kept)
        options = ViewOptions(entity, source, key, select, join, staleness, owner, unknown)
        type.__setattr__(cls, "options", options)
        type.__setattr__(cls, "aggregates", aggregates)
        type.__setattr__(cls, "written", written)
        type.__setattr__(cls, "repeated", repeated)
        type.__setattr__(cls, "strangers", {k: v for k, v in public.items() if k not in declared})
        return cls

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace)

    def on(cls, *fields: Any) -> ViewOn:
        """All features for the entity that these request fields name: `Airport.on(Departure.dest)`.

        Typed `Any`, because a field declared `dest: str` is a `str` to type checkers.
        """
        return ViewOn(cls, fields)

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return FeatureRef(cls, name)

    def __setattr__(cls, name: str, value: Any) -> None:
        raise AttributeError(f"{cls.__name__} is a declaration; it cannot change")

    def __repr__(cls) -> str:
        return f"<{cls.__name__}>"


class FeatureView(metaclass=ViewType):
    """Timestamped features of an entity, computed from one source; subclass it and assign aggregates.

    Args:
        entity: what the features describe.
        source: the source whose events they aggregate.
        key: the column or columns that hold the entity's key; needed only when several columns could.
        select: columns computed before aggregation: `vo.sql("SELECT *, arr_delay > 15 AS late FROM source")`
            or a function declared with `vo.projection`.
        join: columns of dimensions as of the event, `vo.join(planes, "maker")`, one or a list; the key, `select`
            and the aggregates may use them.
        staleness: for a source without a stream: how old the values may be when a decision reads them.
        owner: who answers for it; without one the source's owner.

    >>> from volano.spec.aggregates import last, mean
    >>> class PlaneHistory(FeatureView):
    ...     last_delay = last("arr_delay", within="12h")
    ...     mean_delay_7d = mean("arr_delay", within="7d")
    >>> PlaneHistory.last_delay
    PlaneHistory.last_delay
    """
