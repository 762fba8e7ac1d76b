"""Inputs of models and on-demand functions: what an author refers to → `FeatureInput`."""

from __future__ import annotations

from typing import Any

from volano.compile.annotations import NAMES
from volano.compile.context import Context
from volano.compile.places import Step
from volano.compile.report import nearest
from volano.compile.resolve import Definition, kind_of
from volano.plan.definitions import CompiledFeature, CompiledView, FeatureInput
from volano.spec.fields import FieldRef, SchemaType
from volano.spec.on_demand import OnDemand
from volano.spec.view import FeatureRef, ViewOn, ViewType
from volano.values.identities import content_hash


def inputs_of(
    at: Definition, written: Any, request: SchemaType, ctx: Context, *path: Step
) -> list[FeatureInput]:
    """The inputs that one reference stands for: a whole view gives all its features, in order.

    Args:
        at: the definition that refers; `path` leads to the reference in it.
        written: a view, `View.on(...)`, a feature, an on-demand feature or a request field.
        request: the request whose fields hold the entity keys.
    """
    match written:
        case ViewType():
            return _view_inputs(at, written, None, (), request, ctx, *path)
        case ViewOn(view=view, keys=keys):
            return _view_inputs(at, view, None, keys, request, ctx, *path)
        case FeatureRef(view=view, name=name, keys=keys):
            return _view_inputs(at, view, name, keys, request, ctx, *path)
        case OnDemand():
            found = ctx.refer(at, written, "on-demand feature", *path)
            compiled = ctx.on_demand.get(id(written))
            if found is None or compiled is None:
                return []
            hash_ = content_hash(compiled)
            return [FeatureInput(found.name, compiled.dtype, on_demand=found.name, definition=hash_)]
        case FieldRef():
            return _field_input(at, written, request, ctx, *path)
        case _:
            mend = "give a view, View.feature, an on-demand feature, or Request.field"
            shown = f"a {kind_of(written)}" if kind_of(written) else repr(written)
            ctx.mistake(at, f"{ctx.title(at)} cannot read {shown}.", mend, *path)
            return []


def _field_input(
    at: Definition, ref: FieldRef, request: SchemaType, ctx: Context, *path: Step
) -> list[FeatureInput]:
    shape = ctx.shapes.get(id(request))
    if shape is None:
        return []
    if ref.schema is not request:
        mend = f"use a field of {request.__name__}"
        ctx.mistake(at, f"{ctx.title(at)} reads {ref!r}, of another request or event.", mend, *path)
        return []
    field = shape.schema.find(ref.name)
    if field is None:
        what = f"{request.__name__} has no field {ref.name!r}."
        ctx.mistake(at, what, nearest(ref.name, shape.schema.names), *path)
        return []
    return [FeatureInput(field.name, field.dtype, request_field=field.name)]


def _view_inputs(
    at: Definition,
    view: ViewType,
    only: str | None,
    on: tuple[FieldRef, ...],
    request: SchemaType,
    ctx: Context,
    *path: Step,
) -> list[FeatureInput]:
    found = ctx.refer(at, view, "view", *path)
    compiled = ctx.views.get(id(view))
    if found is None or compiled is None:
        return []
    if only is not None and only not in view.aggregates:
        ctx.mistake(at, f"{view.__name__} has no feature {only!r}.", nearest(only, view.aggregates), *path)
        return []
    keys = _keys(at, compiled, view, on, request, ctx, *path)
    if keys is None:
        return []
    suffix = "".join(f"__{ref.name}" for ref in on)
    chosen = [feature for feature in compiled.features if only in (None, feature.name)]
    for feature in chosen:
        _check_request_event(at, compiled, feature, request, ctx, *path)
    return [
        FeatureInput(
            f"{compiled.name}__{feature.name}{suffix}",
            feature.dtype,
            view=compiled.name,
            feature=feature.name,
            keys=keys,
            definition=feature.definition,
        )
        for feature in chosen
    ]


def _keys(
    at: Definition,
    compiled: CompiledView,
    view: ViewType,
    on: tuple[FieldRef, ...],
    request: SchemaType,
    ctx: Context,
    *path: Step,
) -> tuple[str, ...] | None:
    shape = ctx.shapes.get(id(request))
    entity = ctx.entities.get(id(view.options.entity))
    if shape is None or entity is None:
        return None
    if on:
        inputs = [found for ref in on for found in _field_input(at, ref, request, ctx, *path)]
        names = tuple(found.name for found in inputs)
        if len(names) != len(on):
            return None
    else:
        names = tuple(field.name for field in shape.schema.fields if field.entity == entity.name)
    fields = [shape.schema.find(name) for name in names]
    if len(names) > len(entity.keys) and not on:
        example = f"{compiled.name}.on({request.__name__}.{names[-1]})"
        times = f"{len(names)} times ({', '.join(names)})"
        what = f"{request.__name__} names the entity {entity.name!r} {times}."
        ctx.mistake(at, what, f"say which one {compiled.name} is about: {example}", *path)
        return None
    if len(names) != len(entity.keys):
        what = f"{request.__name__} has no key of entity {entity.name!r}, which {compiled.name} describes."
        parts = ", ".join(
            f"{part.name}: Annotated[{NAMES[part.dtype]}, {entity.name}]" for part in entity.keys
        )
        ctx.mistake(at, what, f"add a field to {request.__name__}: {parts}", *path)
        return None
    for field, part in zip(fields, entity.keys, strict=True):
        if field is not None and field.dtype is not part.dtype:
            mine, theirs = NAMES[field.dtype], NAMES[part.dtype]
            what = f"{request.__name__}.{field.name} is {mine}, the key of {entity.name!r} is {theirs}."
            ctx.mistake(at, what, "give both the same type", *path)
            return None
    return names


def _check_request_event(
    at: Definition,
    view: CompiledView,
    feature: CompiledFeature,
    request: SchemaType,
    ctx: Context,
    *path: Step,
) -> None:
    """A feature that includes the request's own event needs its id, and its columns in the request, of one type.

    Columns that a view computes are refused: the request may lack what they are computed from.
    """
    if not feature.include_request:
        return
    shape = ctx.shapes[id(request)]
    includes = f"Feature '{view.name}.{feature.name}' includes the request's own event"
    if not shape.id_columns:
        mend = f'name it: class {request.__name__}(vo.Request, id="...")'
        what = f"{includes}, and {request.__name__} has no source id."
        ctx.mistake(at, what, mend, *path)
    read = [column for column in (feature.column, feature.over, feature.where) if column is not None]
    if read and view.projection is not None:
        what = f"{includes}, and {view.name} computes columns: a request is not put through them."
        mend = "give the feature a view of its own that reads plain columns, without select= and vo.sql"
        ctx.mistake(at, what, mend, *path)
        return
    (source,) = (found for found in ctx.sources.values() if found.name == view.source)
    types = {field.name: field.dtype for field in (*source.schema.fields, *view.joined)}
    for column in read:
        field = shape.schema.find(column)
        if field is None:
            what = f"{includes}, and {request.__name__} has no field {column!r}."
            ctx.mistake(at, what, f"add the field to {request.__name__}, or remove include_request", *path)
        elif field.dtype is not types[column]:
            mine, theirs = NAMES[field.dtype], NAMES[types[column]]
            what = f"{includes}, and {request.__name__}.{column} is {mine}, the event's is {theirs}."
            ctx.mistake(at, what, "give both the same type", *path)
