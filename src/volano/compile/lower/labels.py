"""Labels: how evidence joins decisions, what it is worth, and how long it counts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from volano.compile.annotations import NAMES
from volano.compile.context import Context, column_names
from volano.compile.expressions import cast, identifier, read_expression
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.plan.definitions import DECISION_ID, CompiledLabel, CompiledSource
from volano.spec.attribution import Attribution
from volano.spec.fields import FieldRef
from volano.spec.source import Source
from volano.spec.sql import Sql
from volano.values.schema import DType, Field, Schema

_VALUES = (DType.BOOL, DType.INT64, DType.FLOAT64)
_COMBINE: Final = ("first", "last", "any", "sum")
_CREDIT: Final = ("linear", "first", "last", "position", "decay")


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
        credit = _credit(at, ctx)
        if value is None or horizon_us is None:
            continue
        value_sql, dtype = value
        combine, dtype = _combine(at, dtype, ctx)
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
            combine="" if combine == _COMBINE[0] else combine,
            **credit,
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


def _combine(at: Definition, dtype: DType, ctx: Context) -> tuple[str, DType]:
    """How several outcomes make one value, and the type of that."""
    combine: Any = at.value.combine
    if combine not in _COMBINE:
        what = f"{ctx.title(at)}: combine={combine!r} is not a way to make one value of several outcomes."
        ctx.mistake(at, what, nearest(combine, _COMBINE), "combine")
    elif combine == "any" and dtype is not DType.BOOL:
        what = f"{ctx.title(at)}: combine='any' asks whether one outcome is true, and its value is {NAMES[dtype]}."
        ctx.mistake(at, what, 'write a condition, such as value=vo.sql("amount > 0")', "combine")
    elif combine == "sum" and dtype is DType.BOOL:
        what = f"{ctx.title(at)}: combine='sum' adds numbers, and its value is bool."
        ctx.mistake(
            at, what, 'count with value=vo.sql("CASE WHEN ... THEN 1 ELSE 0 END"), or say "any"', "combine"
        )
    elif combine == "sum":
        return combine, DType.FLOAT64  # a share of a whole number is none
    return str(combine), dtype


def _credit(at: Definition, ctx: Context) -> dict[str, Any]:
    """The fields of a compiled label that say how outcomes are divided; those of the default are left out."""
    written: Any = at.value.attribution
    if written is None:
        return {}
    if not isinstance(written, Attribution):
        what = f"{ctx.title(at)}: attribution={written!r} is no vo.Attribution."
        ctx.mistake(at, what, 'write attribution=vo.Attribution("last")', "attribution")
        return {}
    credit: Any = written.credit
    found: dict[str, Any] = {}
    if credit not in _CREDIT:
        what = f"{ctx.title(at)}: {credit!r} is not a way to divide an outcome."
        ctx.mistake(at, what, nearest(credit, _CREDIT), "attribution")
    elif credit != _CREDIT[0]:
        found["credit"] = credit
    if _belongs(at, written.ends, "ends", "position", "ends=0.4", ctx):
        ends: Any = written.ends
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not 0 < ends <= 0.5:
            what = f"{ctx.title(at)}: ends={ends!r} is not a share that both the first and the last can get."
            ctx.mistake(at, what, "give more than 0 and at most 0.5, such as ends=0.4", "attribution", "ends")
        else:
            found["ends"] = float(ends)
    if _belongs(at, written.half_life, "half_life", "decay", 'half_life="1d"', ctx):
        half_life_us = ctx.duration(at, written.half_life, "attribution", "half_life", least_us=1)
        if half_life_us is not None:
            found["half_life_us"] = half_life_us
    exposed: Any = written.exposed
    if not isinstance(exposed, bool):
        what = f"{ctx.title(at)}: exposed={exposed!r} is neither True nor False."
        ctx.mistake(at, what, "say exposed=True where only what was shown counts", "attribution", "exposed")
    elif exposed:
        found["exposed"] = True
    return found


def _belongs(at: Definition, value: object, name: str, credit: str, example: str, ctx: Context) -> bool:
    """Whether a parameter of one credit rule is there; a mistake when it is missing, or given to another rule."""
    own = at.value.attribution.credit == credit
    if own and value is None:
        ctx.mistake(at, f"{ctx.title(at)}: {credit} credit has no {name}.", f"write {example}", "attribution")
    if not own and value is not None:
        mend = f'remove {name}=, or write vo.Attribution("{credit}", {example})'
        ctx.mistake(at, f"{ctx.title(at)}: {name}= is of {credit} credit alone.", mend, "attribution", name)
    return own and value is not None


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
