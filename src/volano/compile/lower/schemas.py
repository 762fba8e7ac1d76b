"""Events and requests → schemas."""

from __future__ import annotations

from typing import Final

from volano.compile.annotations import ALLOWED, FieldType, annotations_of, read_annotation
from volano.compile.context import Context, EventShape, column_names
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.plan.definitions import DECISION_ID, CompiledRequest
from volano.values.schema import Field, Schema

RESERVED: Final = frozenset(
    {
        "event_id", "revision", "operation", "event_time", "received_at", "applied_at", "known_at",
        "receipt_id", "superseded_at", "too_late",
    }
)  # fmt: skip
"""Columns that the system adds to fact tables."""


def lower_events(ctx: Context) -> None:
    """Resolve every event class; each has an id and one event time."""
    for at in ctx.of_kind("event"):
        fields, event_times = _fields(at, ctx)
        _check_options(at, ctx)
        if len(event_times) != 1:
            several = f"{len(event_times)} event times" if event_times else "no event time"
            mend = "annotate the field that says when it happened with vo.EventTime, and no other"
            ctx.mistake(at, f"{ctx.title(at)} has {several}.", mend)
        if at.value.declared_id is None:
            mend = 'name the field that identifies it: class Landing(vo.Event, id="flight_id")'
            ctx.mistake(at, f"{ctx.title(at)} has no id.", mend)
        ids = _id_columns(at, fields, ctx)
        event_time = event_times[0] if event_times else None
        ctx.shapes[id(at.value)] = EventShape(Schema(fields), ids, event_time)


def lower_requests(ctx: Context) -> None:
    """Resolve every request class."""
    for at in ctx.of_kind("request"):
        fields, event_times = _fields(at, ctx)
        _check_options(at, ctx)
        for name in event_times:
            mend = "annotate it with datetime; a request happens when it is made"
            ctx.mistake(at, f"{ctx.title(at)}: field {name!r} is an event time.", mend, name)
        ids = _id_columns(at, fields, ctx)
        ctx.shapes[id(at.value)] = EventShape(Schema(fields), ids, None)
        ctx.requests[id(at.value)] = CompiledRequest(at.name, Schema(fields), ids)


def _fields(at: Definition, ctx: Context) -> tuple[tuple[Field, ...], list[str]]:
    fields, event_times = [], []
    annotations = annotations_of(at.value)
    for name, annotation in annotations.items():
        try:
            found = read_annotation(annotation, at.module.values)
        except ValueError as error:
            ctx.mistake(
                at, f"{ctx.title(at)}: the type of field {name!r} is not known: {error}.", ALLOWED, name
            )
            continue
        _check_field(at, name, found, ctx)
        entity = None
        if found.entity is not None:
            entity_at = ctx.refer(at, found.entity, "entity", name)
            entity = entity_at.name if entity_at else None
        fields.append(Field(name, found.dtype, found.nullable, entity))
        if found.is_event_time:
            event_times.append(name)
    if not annotations:
        ctx.mistake(at, f"{ctx.title(at)} has no fields.", "annotate them: `arr_delay: float`")
    _check_values(at, annotations, ctx)
    return tuple(fields), event_times


def _check_field(at: Definition, name: str, found: FieldType, ctx: Context) -> None:
    if name in RESERVED and at.kind == "event":
        mend = f"choose another name, such as {'happened_at' if name == 'event_time' else name + '_value'!r}"
        ctx.mistake(at, f"{ctx.title(at)}: the column {name!r} is reserved for the system.", mend, name)
    elif name == DECISION_ID and at.kind == "request":
        mend = 'choose another name; a decision\'s own id is known without a field, to labels too: on="decision_id"'
        ctx.mistake(at, f"{ctx.title(at)}: the field {name!r} is reserved for the system.", mend, name)
    elif name.startswith("_") or "__" in name or name == "mro":
        mend = "choose a name without a leading or double underscore, and not 'mro'"
        ctx.mistake(at, f"{ctx.title(at)}: a field cannot be named {name!r}.", mend, name)
    if found.is_event_time and found.nullable:
        mend = "every event has a time: annotate it with vo.EventTime alone"
        ctx.mistake(at, f"{ctx.title(at)}: the event time {name!r} may be null.", mend, name)


def _check_values(at: Definition, annotations: dict[str, object], ctx: Context) -> None:
    for name in at.value.declared_values:
        if name in annotations:
            mend = "remove it; a field that may be missing is `T | None`"
            ctx.mistake(at, f"{ctx.title(at)}: field {name!r} has a default.", mend, name)
        else:
            mend = f"annotate it, `{name}: float`, or move it out of the class"
            ctx.mistake(at, f"{ctx.title(at)}: {name!r} is not a field.", mend, name)


def _check_options(at: Definition, ctx: Context) -> None:
    for name in at.value.unknown_options:
        ctx.mistake(at, f"{ctx.title(at)}: unknown keyword {name!r}.", nearest(name, ["id"]), name)


def _id_columns(at: Definition, fields: tuple[Field, ...], ctx: Context) -> tuple[str, ...]:
    names = column_names(at.value.declared_id)
    known = {field.name: field for field in fields}
    for name in names:
        if name not in known:
            ctx.mistake(at, f"{ctx.title(at)}: its id {name!r} is not a field.", nearest(name, known), "id")
        elif known[name].nullable:
            mend = "an id is never missing: remove `| None`"
            ctx.mistake(at, f"{ctx.title(at)}: its id {name!r} may be null.", mend, name)
    return names
