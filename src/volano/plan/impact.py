"""What follows from changes: views to rebuild, models to retrain, decisions that answer differently, owners to tell."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from volano.plan.definitions import CompiledOwner, CompiledProject, FeatureInput
from volano.plan.diff import Category, Change
from volano.plan.state import StateGroup
from volano.values.instants import DAY_US
from volano.values.schema import DType

_ROW_BYTES = 40
"""What a stored row carries beside its columns: event_time, id hash, applied_at, which columns are null."""
_COLUMN_BYTES = {DType.STRING: 32}
"""A column takes a word of 8 bytes; a string also its length, and its text in whole words."""


class StateSize(msgspec.Struct, frozen=True):
    """How much online state a group takes.

    Args:
        bytes_per_event: an estimate for one event of one key.
        raw_us: how long its rows count; None for ever.
        bytes_per_key: that times the events a key has while its rows are kept, and the tiles that stand for sealed ones
            where that is less; None where nobody knows how many come.
        sealed_us: how long rows are kept one by one before they become tiles; None: always.
    """

    group: str
    views: tuple[str, ...]
    bytes_per_event: int
    raw_us: int | None
    bytes_per_key: int | None = None
    sealed_us: int | None = None


class Impact(msgspec.Struct, frozen=True):
    """The consequences of a plan.

    Args:
        rebuilt_views: computed anew from their source.
        retrained_models: what they learn from or with has changed; their next version is another model.
        affected_decisions: may answer differently, now or after the next release.
        owners: who answers for any of these.
        sizes: the state of every group that is built.
    """

    rebuilt_views: tuple[str, ...] = ()
    retrained_models: tuple[str, ...] = ()
    affected_decisions: tuple[str, ...] = ()
    owners: tuple[CompiledOwner, ...] = ()
    sizes: tuple[StateSize, ...] = ()


def impact_of(
    changes: tuple[Change, ...],
    applied: CompiledProject | None,
    declared: CompiledProject,
    *,
    built: Iterable[StateGroup],
    events_per_key_day: dict[str, float],
) -> Impact:
    """The consequences of changes.

    Args:
        built: the groups that the plan computes.
        events_per_key_day: measured events a key and day, by source; empty before there are any.
    """
    groups = tuple(built)
    matters = {(c.kind, c.name) for c in changes if c.category is not Category.METADATA}
    rebuilt = tuple(view.name for group in groups for view in group.views)
    old_hashes = {view.name: view.definition_hash for view in (applied.views if applied else {}).values()}
    changed_views = {
        view.name for view in declared.views.values() if old_hashes.get(view.name) != view.definition_hash
    }
    models = tuple(
        model.name
        for model in declared.models.values()
        if _model_changed(model.name, declared, matters, changed_views)
    )
    decisions = tuple(
        decision.name
        for decision in declared.decisions.values()
        if decision.model in models or ("decision", decision.name) in matters
    )
    return Impact(
        rebuilt_views=rebuilt,
        retrained_models=models,
        affected_decisions=decisions,
        owners=_owners(declared, applied, matters, rebuilt, models, decisions),
        sizes=tuple(size_of(group, events_per_key_day.get(group.source)) for group in groups),
    )


def _model_changed(
    name: str, project: CompiledProject, matters: set[tuple[str, str]], changed_views: set[str]
) -> bool:
    model = project.models[name]
    if {("model", name), ("label", model.label), ("history", model.history)} & matters:
        return True
    return any(
        read.view in changed_views or ("on-demand feature", read.on_demand) in matters
        for read in _reads(model.service.inputs, project)
    )


def _reads(inputs: tuple[FeatureInput, ...], project: CompiledProject) -> list[FeatureInput]:
    """Inputs, and what their on-demand features read."""
    found = list(inputs)
    for read in inputs:
        if read.on_demand is not None and read.on_demand in project.on_demand:
            arguments = project.on_demand[read.on_demand].arguments
            found += _reads(tuple(argument for _, argument in arguments), project)
    return found


def _owners(
    declared: CompiledProject,
    applied: CompiledProject | None,
    matters: set[tuple[str, str]],
    views: tuple[str, ...],
    models: tuple[str, ...],
    decisions: tuple[str, ...],
) -> tuple[CompiledOwner, ...]:
    names: dict[str, None] = {}
    for project in filter(None, (declared, applied)):
        for view in project.views.values():
            if view.name in views or ("view", view.name) in matters:
                names[view.owner] = None
        for model in project.models.values():
            if model.name in models or ("model", model.name) in matters:
                names[model.owner] = None
        for decision in project.decisions.values():
            if decision.name in decisions or ("decision", decision.name) in matters:
                names[decision.owner] = None
        for source in project.sources.values():
            if ("source", source.name) in matters:
                names[source.owner] = None
    known = {**(applied.owners if applied else {}), **declared.owners}
    return tuple(known[name] for name in names if name in known)


def size_of(group: StateGroup, rate: float | None) -> StateSize:
    """How much online state a group takes; `rate` is the events of a key and day, None before it is known."""
    columns = sum(_COLUMN_BYTES.get(field.dtype, 8) for field in group.columns.fields)
    each = _ROW_BYTES + columns
    return StateSize(
        group.hash,
        tuple(view.name for view in group.views),
        each,
        group.raw_us,
        None if rate is None else _bytes_per_key(group, each * rate / DAY_US),
        group.sealed_us,
    )


def _bytes_per_key(group: StateGroup, bytes_per_us: float) -> int | None:
    """What a key takes: its rows, or those that are not sealed yet and tiles for the others."""
    sizes = []
    if group.raw_us is not None:
        sizes.append(bytes_per_us * group.raw_us)
    if group.sealed_us is not None:
        sizes.append(bytes_per_us * (group.sealed_us + group.align_us) + group.tail_bytes)
    return round(min(sizes)) if sizes else None
