"""Plans for people: text, or JSON for programs. Presents; decides nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, assert_never

import msgspec

from volano.plan.diff import Category, Change
from volano.plan.evolution import Evolution, SchemaChange
from volano.plan.impact import Impact, StateSize
from volano.plan.plan import Plan
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
    step_id,
)
from volano.values.instants import format_duration
from volano.values.schema import Schema

_SIGNS: Final = {
    Category.ADDED: "+",
    Category.REMOVED: "-",
    Category.BREAKING: "!",
    Category.WIDENING: "~",
    Category.METADATA: "·",
}


_EVOLUTION: Final = {Evolution.COMPATIBLE: "+", Evolution.WIDENING: "~", Evolution.BREAKING: "!"}


def explain(plan: Plan) -> str:
    """A plan as text: changes, consequences, steps, warnings."""
    since = f"against {plan.based_on[:12]}" if plan.based_on else "first apply"
    lines = [f"Plan {plan.id} for namespace {plan.project.namespace!r} ({since})"]
    if plan.is_empty:
        lines += ["", "Nothing to do: what is declared is in force."]
    if plan.changes:
        lines += ["", "Changes", *(line for change in plan.changes for line in _change(change))]
    if plan.evolution:
        lines += ["", "Producers", *(line for change in plan.evolution for line in _evolution(change))]
    if plan.breaks:
        lines += ["  apply refuses this unless it is allowed: --allow-breaking"]
    consequences = list(_impact(plan.impact))
    if consequences:
        lines += ["", "Consequences", *consequences]
    if plan.steps:
        lines += ["", "Steps"]
        lines += [f"  {number}. {explain_step(step)}" for number, step in enumerate(plan.steps, start=1)]
    if plan.warnings:
        lines += ["", "Warnings"]
        lines += [f"  {line}" for warning in plan.warnings for line in warning.splitlines()]
    return "\n".join(lines)


def explain_step(step: Step) -> str:
    """A step as one sentence without a full stop.

    >>> explain_step(HandOver("landings", "landings.parquet"))
    'pin landings.parquet as the past of source landings'
    """
    match step:
        case StoreBundle(bundle=bundle):
            return f"store the sources as bundle {bundle[:12]}"
        case CreateTable(table=table, columns=columns):
            return f"create table {table} ({_names(columns)})"
        case WidenTable(table=table, columns=columns):
            return f"widen table {table} by {_names(columns)}"
        case RetypeColumns(table=table, columns=columns):
            wider = ", ".join(f"{field.name} as {field.dtype}" for field in columns.fields)
            return f"write table {table} again with {wider}"
        case HandOver(source=source, table=""):
            return f"start source {source} without a past"
        case HandOver(source=source, table=table):
            return f"pin {table} as the past of source {source}"
        case BackfillGroup(group=group, source=source, views=views):
            return f"backfill {', '.join(views)} from {source} into state {group}"
        case PublishState(groups=groups):
            return f"publish state {', '.join(groups) or 'without groups'}"
        case RegisterDefinitions(definitions=definitions):
            return f"put definitions {definitions[:12]} in force"
        case RetireState(groups=groups):
            return f"retire state {', '.join(groups)}"
        case _:
            assert_never(step)


def _names(columns: Schema) -> str:
    few = columns.names[:6]
    more = len(columns.names) - len(few)
    return ", ".join(few) + (f", and {more} more" if more else "")


def as_json(plan: Plan) -> dict[str, Any]:
    """A plan for programs: ids, changes, consequences, steps with their ids and sentences."""
    return {
        "id": plan.id,
        "namespace": plan.project.namespace,
        "bundle": plan.bundle,
        "based_on": plan.based_on,
        "changes": [msgspec.to_builtins(change) for change in plan.changes],
        "impact": msgspec.to_builtins(plan.impact),
        "steps": [
            {"id": step_id(step), "says": explain_step(step), **msgspec.to_builtins(step)}
            for step in plan.steps
        ],
        "evolution": msgspec.to_builtins(plan.evolution),
        "warnings": list(plan.warnings),
    }


def _change(change: Change) -> Iterator[str]:
    marked = f" ({change.category})" if change.details else ""
    yield f"  {_SIGNS[change.category]} {change.kind} {change.name}{marked}"
    for detail in change.details:
        yield f"      {detail}"


def _evolution(change: SchemaChange) -> Iterator[str]:
    yield f"  {_EVOLUTION[change.evolution]} {change.source}.{change.field} ({change.evolution}): {change.consequence}"
    if change.mend:
        yield f"      to do without: {change.mend}"


def _impact(impact: Impact) -> Iterator[str]:
    if impact.rebuilt_views:
        yield f"  rebuilds views: {', '.join(impact.rebuilt_views)}"
    for size in impact.sizes:
        yield f"    {_size(size)}"
    if impact.retrained_models:
        yield f"  models that learn anew: {', '.join(impact.retrained_models)}"
    if impact.affected_decisions:
        yield f"  decisions that may answer differently: {', '.join(impact.affected_decisions)}"
    if impact.owners:
        yield f"  tell: {', '.join(f'{owner.name} <{owner.contact}>' for owner in impact.owners)}"


def _size(size: StateSize) -> str:
    kept = "for ever" if size.raw_us is None else f"for {format_duration(size.raw_us)}"
    if size.sealed_us is not None:
        kept += f", as tiles after {format_duration(size.sealed_us)}"
    known = "" if size.bytes_per_key is None else f", about {size.bytes_per_key:,} bytes a key"
    return f"state {size.group}: about {size.bytes_per_event} bytes an event, kept {kept}{known}"
