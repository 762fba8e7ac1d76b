"""Histories and models: the ordered inputs that a model reads."""

from __future__ import annotations

from volano.compile.code import function_ref
from volano.compile.context import Context
from volano.compile.expressions import read_expression
from volano.compile.lower.inputs import inputs_of
from volano.compile.lower.sources import check_table
from volano.compile.resolve import Definition
from volano.plan.definitions import (
    DECISION_ID,
    CodeRef,
    CompiledHistory,
    CompiledModel,
    CompiledService,
    CompiledTrainer,
    FeatureInput,
)
from volano.spec.fields import FieldRef, SchemaType
from volano.spec.on_demand import OnDemand
from volano.spec.sql import Sql
from volano.spec.trainer import PythonTrainer, Trainer
from volano.values.schema import DType


def lower_histories(ctx: Context) -> None:
    """Resolve every history of requests."""
    for at in ctx.of_kind("history"):
        request = ctx.refer(at, at.value.request, "request", "request")
        if at.value.table is None:
            ctx.mistake(at, f"{ctx.title(at)} has no table.", 'give table="schedule.parquet"')
        check_table(at, at.value.table, ctx)
        at_sql = _at(at, ctx)
        if request is None or at_sql is None:
            continue
        table = str(at.value.table)
        ctx.histories[id(at.value)] = CompiledHistory(at.name, request.name, table, at_sql)


def _at(at: Definition, ctx: Context) -> str | None:
    written = at.value.at
    text = written.text if isinstance(written, Sql) else written
    if not isinstance(text, str):
        mend = 'say when each would have been asked: at=vo.sql("sched_dep - INTERVAL 2 HOURS")'
        ctx.mistake(at, f"{ctx.title(at)} does not say when its requests were asked.", mend, "at")
        return None
    shape = ctx.shapes.get(id(at.value.request))
    if shape is None:
        return None
    expression, problems = read_expression(text, {field.name: field.dtype for field in shape.schema.fields})
    for what, mend in problems:
        ctx.mistake(at, f"{ctx.title(at)}: {what}.", mend, "at")
    if expression is None:
        return None
    if expression.dtype is not DType.TIMESTAMP:
        mend = "give an instant: a datetime field, or one minus an INTERVAL"
        ctx.mistake(at, f"{ctx.title(at)}: at={text!r} is not an instant.", mend, "at")
        return None
    return expression.sql


def lower_models(ctx: Context) -> None:
    """Resolve every model and its service."""
    for at in ctx.of_kind("model"):
        ctx.name_is_valid(at)
        owner = ctx.owner(at)
        request = _request(at, ctx)
        label = _label(at, ctx)
        history = _history(at, request, ctx)
        if history is not None:
            _check_history(at, ctx)
        trainer = _trainer(at, ctx)
        retrain_us = ctx.duration(at, at.value.retrain, "retrain", least_us=1)
        if not at.value.features:
            mend = "give features=[PlaneHistory, Departure.distance]"
            ctx.mistake(at, f"{ctx.title(at)} reads no features.", mend)
        if request is None:
            continue
        inputs = _inputs(at, request, ctx)
        if trainer is None:
            continue
        ctx.models[id(at.value)] = CompiledModel(
            name=at.name,
            service=CompiledService(at.name, request.__name__, inputs),
            label=label,
            trainer=trainer,
            owner=owner,
            history=history,
            retrain_us=retrain_us,
            seed=at.value.seed,
        )


def _request(at: Definition, ctx: Context) -> SchemaType | None:
    """The request whose fields hold the keys: that of its label, history, decision, or of a field it reads."""
    model = at.value
    candidates = [getattr(model.label, "request", None), getattr(model.history, "request", None)]
    candidates += [
        getattr(d.value, "request", None) for d in ctx.of_kind("decision") if d.value.model is model
    ]
    candidates += [item.schema for item in model.features if isinstance(item, FieldRef)]
    found = next((item for item in candidates if isinstance(item, SchemaType)), None)
    if found is None and model.label is None:
        mend = "give label=, or let a decision use it"
        ctx.mistake(at, f"{ctx.title(at)}: nothing says which request it answers.", mend)
    return found


def _label(at: Definition, ctx: Context) -> str:
    if at.value.label is None:
        return ""
    found = ctx.refer(at, at.value.label, "label", "label")
    return found.name if found else ""


def _check_history(at: Definition, ctx: Context) -> None:
    """A past request was no decision: it was shown to nobody."""
    label = ctx.labels.get(id(at.value.label))
    if label is not None and label.exposed:
        what = f"{ctx.title(at)}: its label counts only what was shown, and requests of the past never were."
        ctx.mistake(at, what, "leave the history out, or exposed=True of the label", "history")


def _history(at: Definition, request: SchemaType | None, ctx: Context) -> str | None:
    if at.value.history is None:
        return None
    found = ctx.refer(at, at.value.history, "history", "history")
    if found is None:
        return None
    if request is not None and found.value.request is not request:
        held = _named(found.value.request)
        what = f"{ctx.title(at)}: its history holds {held}, its label is of {request.__name__}."
        ctx.mistake(at, what, "give a history and a label of one request", "history")
    label = ctx.labels.get(id(at.value.label))
    if label is not None and any(field == DECISION_ID for field, _ in label.on):
        what = f"{ctx.title(at)}: its label joins on the decision's own id, which requests of the past do not have."
        ctx.mistake(at, what, "join the label on a field of the request, or leave the history out", "history")
    return found.name


def _named(value: object) -> str:
    return str(getattr(value, "__name__", value))


def _trainer(at: Definition, ctx: Context) -> CompiledTrainer | None:
    trainer = at.value.trainer
    mend = 'give trainer=vo.LightGBM(objective="binary") or vo.Sklearn("LogisticRegression")'
    if trainer is None:
        ctx.mistake(at, f"{ctx.title(at)} has no trainer.", mend)
        return None
    if not isinstance(trainer, Trainer):
        ctx.mistake(at, f"{ctx.title(at)}: {trainer!r} is not a trainer.", mend, "trainer")
        return None
    for name, value in trainer.params.items():
        if not _is_data(value):
            what = f"{ctx.title(at)}: trainer parameter {name}={value!r} is not plain data."
            ctx.mistake(at, what, "use numbers, texts, bools, None, lists and dicts of them", "trainer")
            return None
    if not isinstance(trainer, PythonTrainer):
        return CompiledTrainer(trainer.kind, dict(trainer.params))
    train, predict = (_function(at, part, ctx) for part in (trainer.train, trainer.predict))
    return CompiledTrainer(trainer.kind, dict(trainer.params), train, predict)


def _function(at: Definition, function: object, ctx: Context) -> CodeRef | None:
    found = function_ref(function, ctx)
    if found is None:
        shown = getattr(function, "__name__", repr(function))
        what = f"{ctx.title(at)}: its trainer's {shown!r} is not a module-level function of the project."
        mend = f"define it at module level: def {'train' if shown == '<lambda>' else shown}(...)"
        ctx.mistake(at, what, mend, "trainer")
    return found


def _is_data(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_data(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(_is_data(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str)


def _inputs(at: Definition, request: SchemaType, ctx: Context) -> tuple[FeatureInput, ...]:
    inputs: dict[str, FeatureInput] = {}
    for number, written in enumerate(at.value.features):
        for found in inputs_of(at, written, request, ctx, "features", number):
            if found.name in inputs:
                same = inputs[found.name] == found
                what = f"{ctx.title(at)} reads {found.name!r} twice."
                mend = "name it once" if same else f"rename one of the two that are called {found.name!r}"
                ctx.mistake(at, what, mend, "features", number)
            inputs.setdefault(found.name, found)
            if isinstance(written, OnDemand):
                _check_on_demand(at, written, request, ctx, number)
    return tuple(inputs.values())


def _check_on_demand(
    at: Definition, feature: OnDemand, request: SchemaType, ctx: Context, number: int
) -> None:
    compiled = ctx.on_demand[id(feature)]
    fields = ctx.shapes[id(request)].schema if id(request) in ctx.shapes else None
    for _, read in compiled.arguments:
        for name in (*read.keys, *((read.request_field,) if read.request_field else ())):
            if fields is not None and fields.find(name) is None:
                lacks = f"the field {name!r}, which {request.__name__} lacks"
                what = f"{ctx.title(at)}: {feature.name!r} reads {lacks}."
                ctx.mistake(at, what, f"add it to {request.__name__}", "features", number)
