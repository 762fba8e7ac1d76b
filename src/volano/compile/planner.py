"""Plan: declared definitions against the applied ones → steps. Pure: the state of the world comes in as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from volano.compile.state import state_groups
from volano.errors import PlanRefused
from volano.plan.definitions import CompiledModel, CompiledProject
from volano.plan.diff import diff
from volano.plan.evolution import carried, evolve, widened_fields
from volano.plan.impact import impact_of
from volano.plan.plan import Plan, PlanState
from volano.plan.state import StateGroup
from volano.plan.steps import (
    BackfillGroup,
    CreateTable,
    HandOver,
    PublishState,
    RegisterDefinitions,
    RetireState,
    RetypeColumns,
    Step,
    StoreBundle,
    WidenTable,
)
from volano.values.schema import Field, Schema


@dataclass(frozen=True)
class _Refusal:
    what: str
    mend: str


def plan(
    declared: CompiledProject,
    applied: CompiledProject | None,
    state: PlanState,
    *,
    bundle: str,
    applied_bundle: str = "",
    warnings: tuple[str, ...] = (),
) -> Plan:
    """What it takes to put declared definitions in force.

    Args:
        declared: the compiled project.
        applied: what is in force; None before the first apply.
        state: what exists: groups, hand-overs, tables.
        bundle: digest of the declared project's sources; `applied_bundle` of the applied one's.
        warnings: of the compilation, to be shown with the plan.

    Returns:
        A plan; an empty one when nothing differs.

    Raises:
        PlanRefused: stored columns would change their type or meaning; nothing is done.
    """
    declared = carried(applied, declared)
    refusals = [] if applied is None else list(_refusals(applied, declared, state.needed))
    if refusals:
        raise PlanRefused(
            "\n".join(refusal.what for refusal in refusals),
            where=f"namespace {declared.namespace!r}",
            mend="; ".join(dict.fromkeys(refusal.mend for refusal in refusals)),
        )
    changes = diff(applied, declared)
    groups = _with_needed(state_groups(declared), state)
    built = [group for group in groups if group.hash not in state.groups]
    steps = tuple(_steps(declared, applied, state, groups, bundle=bundle, applied_bundle=applied_bundle))
    return Plan(
        project=declared,
        bundle=bundle,
        based_on="" if applied is None else applied.definitions_hash,
        groups=groups,
        changes=changes,
        impact=impact_of(
            changes, applied, declared, built=built, events_per_key_day=state.events_per_key_day
        ),
        steps=steps,
        warnings=warnings,
        evolution=evolve(applied, declared),
    )


def _steps(
    declared: CompiledProject,
    applied: CompiledProject | None,
    state: PlanState,
    groups: tuple[StateGroup, ...],
    *,
    bundle: str,
    applied_bundle: str,
) -> Iterator[Step]:
    """The order matters: code and tables first, then history, then state, and what is read from it last."""
    if bundle != applied_bundle:
        yield StoreBundle(bundle)
    yield from _table_steps(declared, applied, state)
    for source in declared.sources.values():
        if source.name not in state.handed_over:
            yield HandOver(source.name, source.table or "")
    built = [group for group in groups if group.hash not in state.groups]
    for group in built:
        views = tuple(view.name for view in group.views)
        yield BackfillGroup(group.hash, group.entity, group.source, views)
    declared_hashes = tuple(group.hash for group in groups)
    kept = tuple(hash_ for hash_ in state.groups if hash_ in {*declared_hashes, *state.needed_groups})
    retired = tuple(hash_ for hash_ in state.groups if hash_ not in kept)
    if built or retired or applied is None:
        yield PublishState(tuple(dict.fromkeys([*declared_hashes, *kept])))
    if applied is None or applied != declared or bundle != applied_bundle:
        based_on = "" if applied is None else applied.definitions_hash
        yield RegisterDefinitions(declared.definitions_hash, bundle, based_on)
    if retired:
        yield RetireState(retired)


def _with_needed(declared: tuple[StateGroup, ...], state: PlanState) -> tuple[StateGroup, ...]:
    """The declared groups, then those that a release needs and that are not there (any more)."""
    known = {*state.groups, *(group.hash for group in declared)}
    needed = {group.hash: group for project in state.needed for group in state_groups(project)}
    return (*declared, *(group for hash_, group in needed.items() if hash_ not in known))


def _table_steps(
    declared: CompiledProject, applied: CompiledProject | None, state: PlanState
) -> Iterator[Step]:
    before = {} if applied is None else author_columns(applied)
    for table, columns in author_columns(declared).items():
        if table not in state.tables:
            yield CreateTable(table, columns)
            continue
        old = before.get(table, Schema(()))
        new = tuple(field for field in columns.fields if old.find(field.name) is None)
        if new:
            yield WidenTable(table, Schema(new))
        wider = tuple(
            field
            for field in columns.fields
            if (past := old.find(field.name)) is not None and past.dtype is not field.dtype
        )
        if wider:
            yield RetypeColumns(table, Schema(wider))


def author_columns(project: CompiledProject) -> dict[str, Schema]:
    """The author's columns of every lake table that is named after a definition."""
    tables = {f"fact_{source.name}": source.schema for source in project.sources.values()}
    for decision in project.decisions.values():
        request = project.requests[decision.request]
        asked = [Field(f"request__{f.name}", f.dtype, nullable=True) for f in request.schema.fields]
        tables[f"decision_{decision.name}"] = Schema((*asked, *_served(project.models[decision.model])))
    return tables


def _served(model: CompiledModel) -> list[Field]:
    return [Field(f"feature__{read.name}", read.dtype, nullable=True) for read in model.service.inputs]


def _refusals(
    applied: CompiledProject, declared: CompiledProject, needed: tuple[CompiledProject, ...]
) -> Iterator[_Refusal]:
    """Changes that would give stored columns another type, or stored events another identity or time."""
    if applied.namespace != declared.namespace:
        mend = "plan with the namespace that is in force, or start a data folder of its own"
        what = (
            f"Namespace {applied.namespace!r} is in force here, and the project is of {declared.namespace!r}."
        )
        yield _Refusal(what, mend)
    found: list[_Refusal] = []
    for past in (applied, *needed):
        found += [*_changed_columns(past, declared), *_changed_sources(past, declared)]
    for past in needed:
        found += [*_changed_rules(past, declared), *_widened_columns(past, declared)]
    yield from dict.fromkeys(found)


def _changed_columns(past_project: CompiledProject, declared: CompiledProject) -> Iterator[_Refusal]:
    before = author_columns(past_project)
    may_widen = set(_may_widen(past_project, declared))
    for table, columns in author_columns(declared).items():
        for field in columns.fields:
            old = before.get(table, Schema(())).find(field.name)
            if old is not None and old.dtype is not field.dtype and (table, field.name) not in may_widen:
                what = f"Column {table}.{field.name} holds {old.dtype} and would hold {field.dtype}."
                yield _Refusal(what, f"give {field.name.partition('__')[2] or field.name!r} another name")


def _may_widen(past: CompiledProject, declared: CompiledProject) -> Iterator[tuple[str, str]]:
    """(table, column) of what may grow into floats: widened columns of facts, and features that only follow them.

    What was asked is what was asked; and a feature that is computed otherwise means something else.
    """
    widened: dict[str, set[str]] = {}
    for name, source in declared.sources.items():
        if name in past.sources:
            widened[name] = {field.name for field in widened_fields(past.sources[name], source)}
            yield from ((f"fact_{name}", column) for column in widened[name])
    for decision in declared.decisions.values():
        for read in declared.models[decision.model].service.inputs:
            view, old = declared.views.get(read.view or ""), past.views.get(read.view or "")
            if view is None or old is None or not widened.get(view.source):
                continue
            feature, was = (
                next((each for each in of.features if each.name == read.feature), None) for of in (view, old)
            )
            columns = () if feature is None else (feature.column, feature.over)
            follows = view.projection is not None or widened[view.source].intersection(columns)
            if feature is not None and was is not None and follows and feature.aggregate == was.aggregate:
                yield f"decision_{decision.name}", f"feature__{read.name}"


def _widened_columns(needed: CompiledProject, declared: CompiledProject) -> Iterator[_Refusal]:
    """Columns that a release which goes on serving computes with, as whole numbers."""
    read = {(group.source, field.name) for group in state_groups(needed) for field in group.columns.fields}
    for name, source in declared.sources.items():
        past = needed.sources.get(name)
        for field in () if past is None else widened_fields(past, source):
            if (name, field.name) in read:
                what = (
                    f"Column {field.name!r} of source {name!r} would become {field.dtype} under views that a release "
                    "still serves, or may be rolled back to; they compute with whole numbers."
                )
                yield _Refusal(what, f"declare the wider column beside {field.name!r}, under another name")


def _changed_sources(past_project: CompiledProject, declared: CompiledProject) -> Iterator[_Refusal]:
    for name, source in declared.sources.items():
        past = past_project.sources.get(name)
        if past is None:
            continue
        if past.id_columns != source.id_columns:
            was, is_ = ", ".join(past.id_columns), ", ".join(source.id_columns)
            what = f"Source {name!r} identified its events by {was} and would by {is_}."
            yield _Refusal(what, "declare a new source for the events with the new id")
        for field in widened_fields(past, source):
            if field.name in source.id_columns:
                what = f"Source {name!r} would write its id {field.name!r} otherwise: events sent again were new ones."
                yield _Refusal(what, "keep the type of what identifies an event")
        if past.event_time != source.event_time:
            what = f"Source {name!r} takes its event time from {past.event_time} and would from {source.event_time}."
            yield _Refusal(what, "declare a new source for the events with the new event time")


def _changed_rules(needed: CompiledProject, declared: CompiledProject) -> Iterator[_Refusal]:
    """What changes when rows of a source count, or in which order, for views of a release that goes on serving.

    A source has one history of what stands; it cannot be kept by two rules at once.
    """
    kept = {view.source for view in needed.views.values()}
    for name, source in declared.sources.items():
        past = needed.sources.get(name)
        if past is None or name not in kept:
            continue
        for rule in ("accept_late_us", "order_by"):
            if getattr(past, rule) != getattr(source, rule):
                what = (
                    f"Source {name!r} would change {rule.removesuffix('_us')} under views that a release "
                    "still serves, or may be rolled back to."
                )
                yield _Refusal(
                    what, f"declare the new {rule.removesuffix('_us')} on a source of another name"
                )
    for name, entity in declared.entities.items():
        keys = needed.entities.get(name)
        if keys is not None and [part.dtype for part in keys.keys] != [part.dtype for part in entity.keys]:
            what = f"Entity {name!r} would change its key under views that a release still serves."
            yield _Refusal(what, "declare the new key on an entity of another name")
