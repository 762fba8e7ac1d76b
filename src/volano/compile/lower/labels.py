"""Labels: how evidence joins decisions, what it is worth, and how long it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from volano.compile.annotations import NAMES
from volano.compile.context import Context, column_names
from volano.compile.expressions import cast, identifier, read_expression
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.plan.definitions import DECISION_ID, CompiledLabel, CompiledSource
from volano.spec.fields import FieldRef
from volano.spec.source import Source
from volano.spec.sql import Sql
from volano.values.schema import DType, Field, Schema

_VALUES = (DType.BOOL, DType.INT64, DType.FLOAT64)


def lower_labels(ctx: Context) -> None:
    """Resolve every label."""
    for at in ctx.of_kind("label"):
        ctx.name_is_valid(at)
        owner = ctx.owner(at)
        request_at = ctx.refer(at, at.value.request, "request", "request")
        source_at = ctx.refer(at, at.value.source, "source", "source")
        mend = 'say how long evidence counts: horizon="36h"; the label is mature then'
        horizon_us = ctx.required_duration(at, at.value.horizon, mend, "horizon")
        shape = ctx.shapes.get(id(at.value.request))
        source = ctx.sources.get(id(at.value.source))
        if request_at is None or source_at is None or shape is None or source is None:
            continue
        on = _on(at, shape.schema, source, ctx)
        censored_by = _censored_by(at, on, source, ctx)
        value = _value(at, source, ctx)
        if value is None or horizon_us is None:
            continue
        value_sql, dtype = value
        has_default = at.value.default is not msgspec.UNSET
        ctx.labels[id(at.value)] = CompiledLabel(
            name=at.name,
            request=request_at.name,
            source=source.name,
            on=on,
            value_sql=value_sql,
            dtype=dtype,
            horizon_us=horizon_us,
            owner=owner,
            censored_by=censored_by,
            default=_default(at, dtype, ctx) if has_default else None,
            has_default=has_default,
        )


def _on(at: Definition, request: Schema, source: CompiledSource, ctx: Context) -> tuple[tuple[str, str], ...]:
    written: Any = at.value.on
    if isinstance(written, Mapping):
        pairs = tuple((str(field), str(column)) for field, column in written.items())
    else:
        pairs = tuple((name, name) for name in column_names(written))
    if not pairs:
        mend = 'name the field that both share: on="flight_id"'
        ctx.mistake(at, f"{ctx.title(at)} does not say how evidence joins decisions.", mend)
    for field_name, column_name in pairs:
        field, column = _asked(field_name, request), source.schema.find(column_name)
        if field is None:
            what = f"{ctx.title(at)}: on={field_name!r} is not a field of {at.value.request.__name__}."
            ctx.mistake(at, what, nearest(field_name, request.names), "on")
        if column is None:
            what = f"{ctx.title(at)}: on={column_name!r} is not a column of source {source.name!r}."
            ctx.mistake(at, what, nearest(column_name, source.schema.names), "on")
        if field is not None and column is not None and field.dtype is not column.dtype:
            asked = f"{NAMES[field.dtype]} in {at.value.request.__name__}"
            what = f"{ctx.title(at)}: on={field_name!r} is {asked}, {NAMES[column.dtype]} in {source.name!r}."
            ctx.mistake(at, what, "give both the same type", "on")
    return pairs


def _asked(name: str, request: Schema) -> Field | None:
    """The side of the decision: a field of its request, or its own id."""
    return Field(DECISION_ID, DType.STRING) if name == DECISION_ID else request.find(name)


def _censored_by(
    at: Definition, on: tuple[tuple[str, str], ...], source: CompiledSource, ctx: Context
) -> tuple[str, ...]:
    written: Any = at.value.censored_by
    sources = (written,) if isinstance(written, Source) else tuple(written or ())
    names = []
    for value in sources:
        found = ctx.refer(at, value, "source", "censored_by")
        compiled = ctx.sources.get(id(value))
        if found is None or compiled is None:
            continue
        names.append(found.name)
        for _, column in on:
            mine, theirs = source.schema.find(column), compiled.schema.find(column)
            if theirs is None:
                what = f"{ctx.title(at)}: source {found.name!r}, which censors it, has no column {column!r}."
                ctx.mistake(at, what, nearest(column, compiled.schema.names), "censored_by")
            elif mine is not None and mine.dtype is not theirs.dtype:
                what = (
                    f"{ctx.title(at)}: {column!r} is {NAMES[mine.dtype]} in source {source.name!r} and "
                    f"{NAMES[theirs.dtype]} in {found.name!r}."
                )
                ctx.mistake(at, what, "give both the same type", "censored_by")
    return tuple(names)


def _value(at: Definition, source: CompiledSource, ctx: Context) -> tuple[str, DType] | None:
    written: Any = at.value.value
    if isinstance(written, FieldRef):
        written = written.name
    if isinstance(written, str) and source.schema.find(written) is not None:
        written = Sql(identifier(written))
    if not isinstance(written, Sql):
        mend = 'write value=vo.sql("arr_delay >= 30")'
        ctx.mistake(at, f"{ctx.title(at)}: value={written!r} is not SQL or a column.", mend, "value")
        return None
    types = {field.name: field.dtype for field in source.schema.fields}
    expression, problems = read_expression(written.text, types)
    for what, mend in problems:
        ctx.mistake(at, f"{ctx.title(at)}: {what}.", mend, "value")
    if expression is None:
        return None
    if expression.dtype not in _VALUES:
        shown = NAMES[expression.dtype] if expression.dtype else "of an unknown type"
        mend = "a label is a bool or a number: compare, or CAST(... AS DOUBLE)"
        ctx.mistake(at, f"{ctx.title(at)}: its value is {shown}.", mend, "value")
        return None
    is_column = source.schema.find(expression.sql) is not None
    return expression.sql if is_column else cast(expression, expression.dtype), expression.dtype


def _default(at: Definition, dtype: DType, ctx: Context) -> bool | int | float | None:
    default: Any = at.value.default
    fits = {
        DType.BOOL: isinstance(default, bool),
        DType.INT64: isinstance(default, int) and not isinstance(default, bool),
        DType.FLOAT64: isinstance(default, int | float) and not isinstance(default, bool),
    }[dtype]
    if not fits:
        what = f"{ctx.title(at)}: default={default!r} is not {NAMES[dtype]}, as its value is."
        ctx.mistake(at, what, "give a value of the label's type, or remove it", "default")
        return None
    return float(default) if dtype is DType.FLOAT64 else default
