"""On-demand features: arguments, types, and the request that they are computed in."""

from __future__ import annotations

import inspect
from typing import Any

from volano.compile.aggregates import RULES
from volano.compile.annotations import ALLOWED, NAMES, FieldType, annotations_of, read_annotation
from volano.compile.code import code_ref
from volano.compile.context import Context
from volano.compile.lower.inputs import inputs_of
from volano.compile.resolve import Definition
from volano.plan.definitions import CompiledOnDemand, FeatureInput
from volano.spec.fields import FieldRef, SchemaType
from volano.spec.on_demand import OnDemand
from volano.spec.view import FeatureRef, ViewOn, ViewType
from volano.values.schema import DType


def lower_on_demand(ctx: Context) -> None:
    """Resolve every on-demand feature; those that another reads come before it."""
    definitions = ctx.of_kind("on-demand feature")
    order = {id(at.value): at for at in definitions}
    done: set[int] = set()

    def lower(at: Definition) -> None:
        if id(at.value) in done:
            return
        done.add(id(at.value))
        for default in _defaults(at).values():
            if isinstance(default, OnDemand) and id(default) in order:
                lower(order[id(default)])
        _lower(at, ctx)

    for at in definitions:
        lower(at)


def _defaults(at: Definition) -> dict[str, Any]:
    parameters = inspect.signature(at.value.function).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def _lower(at: Definition, ctx: Context) -> None:
    ctx.name_is_valid(at)
    annotations = annotations_of(at.value.function)
    code = code_ref(at, ctx)
    returned = _type(at, "return", annotations, ctx)
    request = request_of(at.value, ctx)
    arguments: list[tuple[str, FeatureInput]] = []
    for name, default in _defaults(at).items():
        declared = _type(at, name, annotations, ctx)
        if default is inspect.Parameter.empty:
            mend = f"give what it reads as its default: {name}: float = Departure.distance"
            ctx.mistake(at, f"{ctx.title(at)}: parameter {name!r} does not say what it reads.", mend, name)
            continue
        if isinstance(default, ViewType | ViewOn):
            mend = f"name one feature, such as {default!r}.feature".replace("<", "").replace(">", "")
            ctx.mistake(at, f"{ctx.title(at)}: parameter {name!r} reads a whole view.", mend, name)
            continue
        if request is None:
            continue
        inputs = inputs_of(at, default, request, ctx, name)
        if inputs and declared is not None:
            _check_argument(at, name, inputs[0], declared, request, ctx)
        arguments += [(name, found) for found in inputs]
    if request is None and _defaults(at):
        mend = "let it read a request field, or use it in a model"
        ctx.mistake(at, f"{ctx.title(at)}: no request says whose features it reads.", mend)
    if returned is not None:
        ctx.on_demand[id(at.value)] = CompiledOnDemand(at.name, code, tuple(arguments), returned.dtype)


def _type(at: Definition, name: str, annotations: dict[str, Any], ctx: Context) -> FieldType | None:
    title = "the result" if name == "return" else f"parameter {name!r}"
    if name not in annotations:
        mend = "annotate the result: `-> float`" if name == "return" else f"annotate it: `{name}: float`"
        ctx.mistake(at, f"{ctx.title(at)}: {title} has no type.", mend, name)
        return None
    try:
        return read_annotation(annotations[name], at.module.values)
    except ValueError as error:
        ctx.mistake(at, f"{ctx.title(at)}: the type of {title} is not known: {error}.", ALLOWED, name)
        return None


def _check_argument(
    at: Definition, name: str, read: FeatureInput, declared: FieldType, request: SchemaType, ctx: Context
) -> None:
    widened = declared.dtype is DType.FLOAT64 and read.dtype is DType.INT64
    if declared.dtype is not read.dtype and not widened:
        given, wanted = (NAMES.get(dtype, str(dtype)) for dtype in (read.dtype, declared.dtype))
        what = f"{ctx.title(at)}: parameter {name!r} is {wanted}, and what it reads ({read.name}) is {given}."
        ctx.mistake(at, what, f"annotate it `{name}: {given}{' | None' if declared.nullable else ''}`", name)
        return
    if not declared.nullable and _may_be_null(read, request, ctx):
        when = (
            "is a field that may be null" if read.request_field else "is null without a key or without rows"
        )
        what = f"{ctx.title(at)}: parameter {name!r} cannot be None, and {read.name} {when}."
        mend = f"annotate it `{name}: {NAMES.get(declared.dtype, declared.dtype)} | None`, and handle None"
        ctx.mistake(at, what, mend, name)


def _may_be_null(read: FeatureInput, request: SchemaType, ctx: Context) -> bool:
    names = read.keys if read.view is not None else (read.request_field or "",)
    fields = [ctx.shapes[id(request)].schema.find(name) for name in names]
    if any(field is not None and field.nullable for field in fields):
        return True
    view = next((view for view in ctx.views.values() if view.name == read.view), None)
    aggregates = [f.aggregate for f in view.features if f.name == read.feature] if view is not None else []
    return any(RULES[aggregate].nullable for aggregate in aggregates)


def request_of(feature: OnDemand, ctx: Context) -> SchemaType | None:
    """The request that it is computed in: that of its field arguments, else of a model that reads it."""
    own = _own_request(feature)
    if own is not None:
        return own
    for at in ctx.of_kind("model"):
        model = at.value
        if any(item is feature for item in model.features):
            request = model.label.request if model.label is not None else None
            return request or (model.history.request if model.history is not None else None)
    return None


def _own_request(feature: OnDemand) -> SchemaType | None:
    for parameter in inspect.signature(feature.function).parameters.values():
        default = parameter.default
        if isinstance(default, FieldRef):
            return default.schema
        if isinstance(default, FeatureRef) and default.keys:
            return default.keys[0].schema
        if isinstance(default, OnDemand):
            found = _own_request(default)
            if found is not None:
                return found
    return None
