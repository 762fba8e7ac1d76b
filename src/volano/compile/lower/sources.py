"""Sources: their schema, and the rules by which time reaches them."""

from __future__ import annotations

from volano.compile.context import Context, EventShape, column_names
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.plan.built_in import BUILT_IN
from volano.plan.definitions import CompiledSource
from volano.values.schema import DType

CHANGES = ("append", "slowly_changing", "snapshots")
_ADDRESSES = (".parquet", ".csv")


def lower_sources(ctx: Context) -> None:
    """Resolve every source."""
    for at in ctx.of_kind("source"):
        ctx.name_is_valid(at, table=True)
        _check_not_built_in(at, ctx)
        owner = ctx.owner(at)
        event = ctx.refer(at, at.value.event, "event", "event")
        shape = ctx.shapes.get(id(at.value.event))
        check_table(at, at.value.table, ctx)
        accept_late_us = _accept_late(at, ctx)
        known_at, available_after_us = _availability(at, shape, ctx)
        order_by = _order_by(at, shape, ctx)
        change, valid_to = _change(at, ctx), _valid_to(at, shape, ctx)
        if event is None or shape is None:
            continue
        ctx.sources[id(at.value)] = CompiledSource(
            name=at.name,
            event=event.name,
            schema=shape.schema,
            id_columns=_id_columns(shape, change),
            event_time=shape.event_time or "",
            owner=owner,
            order_by=order_by,
            table=at.value.table,
            stream=bool(at.value.stream),
            available_after_us=available_after_us,
            known_at=known_at,
            accept_late_us=accept_late_us,
            change="" if change == "append" else change,
            valid_to=valid_to,
        )


def _check_not_built_in(at: Definition, ctx: Context) -> None:
    if at.name in BUILT_IN:
        mend = "choose another name; every project takes exposures and actions without declaring them"
        ctx.mistake(at, f"{ctx.title(at)} has the name of a built-in source.", mend)


def check_table(at: Definition, table: object, ctx: Context) -> None:
    """Note a mistake when a table's address has none of the known forms."""
    if table is None:
        return
    known = isinstance(table, str) and (
        table.lower().endswith(_ADDRESSES) or table.startswith(("delta:", "duckdb:"))
    )
    if not known:
        mend = "write a path ending in .parquet or .csv, 'delta:PATH' or 'duckdb:SELECT ...'"
        ctx.mistake(at, f"{ctx.title(at)}: {table!r} is not the address of a table.", mend, "table")


def _accept_late(at: Definition, ctx: Context) -> int | None:
    if not at.value.table and not at.value.stream:
        mend = 'give table="x.parquet", stream=True, or both'
        ctx.mistake(at, f"{ctx.title(at)} has neither a table nor a stream.", mend)
        return None
    if not at.value.stream:
        return ctx.duration(at, at.value.accept_late, "accept_late")
    mend = 'say how late a pushed event may still change features: accept_late="2h"'
    return ctx.required_duration(at, at.value.accept_late, mend, "accept_late", least_us=0)


def _availability(at: Definition, shape: EventShape | None, ctx: Context) -> tuple[str | None, int | None]:
    available_after_us = ctx.duration(at, at.value.available_after, "available_after")
    names = column_names(at.value.known_at)
    known_at = names[0] if names else None
    if known_at is not None and at.value.available_after is not None:
        mend = "keep the one that is true: a column if the table has it"
        ctx.mistake(at, f"{ctx.title(at)} has both known_at and available_after.", mend, "known_at")
    if at.value.table and known_at is None and at.value.available_after is None:
        mend = 'give available_after="5m" (known_at is event_time plus this), or known_at="column"'
        ctx.mistake(at, f"{ctx.title(at)} does not say when its table's rows become known.", mend)
    if known_at is not None and shape is not None:
        field = shape.schema.find(known_at)
        if field is None:
            mend = nearest(known_at, shape.schema.names)
            ctx.mistake(at, f"{ctx.title(at)}: known_at={known_at!r} is not a field.", mend, "known_at")
        elif field.dtype is not DType.TIMESTAMP or field.nullable:
            mend = "name a field of type datetime that is never null"
            ctx.mistake(at, f"{ctx.title(at)}: known_at={known_at!r} is not an instant.", mend, "known_at")
    return known_at, available_after_us


def _change(at: Definition, ctx: Context) -> str:
    change = at.value.change
    if change not in CHANGES:
        mend = nearest(str(change), CHANGES)
        ctx.mistake(at, f"{ctx.title(at)}: change={change!r} is not a way to change.", mend, "change")
        return "append"
    if change == "snapshots" and (at.value.stream or not at.value.table):
        mend = 'give table= and no stream; single rows are pushed to change="slowly_changing"'
        ctx.mistake(at, f"{ctx.title(at)} holds snapshots, which are whole tables.", mend, "change")
    return str(change)


def _valid_to(at: Definition, shape: EventShape | None, ctx: Context) -> str | None:
    names = column_names(at.value.valid_to)
    if not names or shape is None:
        return None
    field = shape.schema.find(names[0])
    if at.value.change != "slowly_changing":
        mend = 'give change="slowly_changing", or remove valid_to'
        ctx.mistake(
            at, f"{ctx.title(at)} has valid_to, and its rows are not valid for a time.", mend, "valid_to"
        )
    elif field is None:
        mend = nearest(names[0], shape.schema.names)
        ctx.mistake(at, f"{ctx.title(at)}: valid_to={names[0]!r} is not a field.", mend, "valid_to")
    elif field.dtype is not DType.TIMESTAMP or not field.nullable:
        mend = f"declare {names[0]}: datetime | None, null while the row holds"
        ctx.mistake(
            at,
            f"{ctx.title(at)}: valid_to={names[0]!r} is not an instant that may be null.",
            mend,
            "valid_to",
        )
    return names[0]


def _id_columns(shape: EventShape, change: str) -> tuple[str, ...]:
    """What identifies a fact: of snapshots, what identifies a row within a dump, and the dump's instant."""
    if change != "snapshots" or shape.event_time is None:
        return shape.id_columns
    return (*(name for name in shape.id_columns if name != shape.event_time), shape.event_time)


def _order_by(at: Definition, shape: EventShape | None, ctx: Context) -> tuple[str, ...]:
    names = column_names(at.value.order_by)
    for name in names:
        if shape is not None and shape.schema.find(name) is None:
            mend = nearest(name, shape.schema.names)
            ctx.mistake(at, f"{ctx.title(at)}: order_by={name!r} is not a field.", mend, "order_by")
    return names
