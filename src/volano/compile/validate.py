"""What no single definition shows: unique names, and whether a decision can be served as it was trained."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from volano.compile.context import Context
from volano.compile.resolve import Definition
from volano.plan.definitions import CompiledDecision, CompiledProject, FeatureInput
from volano.values.instants import format_duration


def validate(project: CompiledProject, ctx: Context) -> None:
    """Note what is wrong between definitions, and warn of what is probably not meant."""
    _unique_names(ctx)
    for at in ctx.of_kind("decision"):
        decision = project.decisions.get(at.name)
        if decision is not None:
            _served_as_trained(at, decision, project, ctx)
            _warn(at, decision, project, ctx)


def _unique_names(ctx: Context) -> None:
    by_name: defaultdict[tuple[str, str], list[Definition]] = defaultdict(list)
    for at in ctx.definitions.values():
        kind = "event" if at.kind == "request" else at.kind
        by_name[kind, at.name.lower()].append(at)
    for definitions in by_name.values():
        first, *others = definitions
        for at in others:
            line = f"{first.module.file}:{first.line()}"
            mend = "give it a name of its own" + (": name=..." if at.kind in ("history", "release") else "")
            ctx.mistake(at, f"{ctx.title(at)} has the name of the {first.kind} at {line}.", mend)


def reads_of(inputs: tuple[FeatureInput, ...], project: CompiledProject) -> Iterator[FeatureInput]:
    """The view features and request fields that some inputs read, through on-demand features too."""
    for read in inputs:
        if read.on_demand is None:
            yield read
        elif read.on_demand in project.on_demand:
            arguments = project.on_demand[read.on_demand].arguments
            yield from reads_of(tuple(argument for _, argument in arguments), project)


def _served_as_trained(
    at: Definition, decision: CompiledDecision, project: CompiledProject, ctx: Context
) -> None:
    """A feature of an online decision needs an online path, fresh enough."""
    model = project.models.get(decision.model)
    if model is None:
        return
    for read in dict.fromkeys(reads_of(model.service.inputs, project)):
        if read.view is None:
            continue
        view = project.views[read.view]
        feature = next(f for f in project.views[read.view].features if f.name == read.feature)
        name = f"{read.view}.{read.feature}"
        names = (view.source, *(join.source for join in view.joins))
        tables = [each for each in names if each in project.sources and not project.sources[each].stream]
        if not tables:
            continue
        if feature.staleness_us is None:
            no_path = f"has no online path: source {tables[0]!r} is a table only"
            what = f"{ctx.title(at)} reads {name!r}, which {no_path}."
            mend = f'push its events (stream=True), or accept old values: staleness="1d" on {read.view}'
            ctx.mistake(at, what, mend)
        elif decision.max_staleness_us is not None and feature.staleness_us > decision.max_staleness_us:
            stale, limit = format_duration(feature.staleness_us), format_duration(decision.max_staleness_us)
            what = f"{ctx.title(at)} reads {name!r}, which may be {stale} old, and allows {limit}."
            mend = f"push its events, refresh it more often, or raise max_staleness to {stale}"
            ctx.mistake(at, what, mend, "max_staleness")


def _warn(at: Definition, decision: CompiledDecision, project: CompiledProject, ctx: Context) -> None:
    model = project.models.get(decision.model)
    if model is not None and not model.label:
        mend = f"give model {model.name!r} a label: what shows later that the decision was right?"
        ctx.caution(
            at, f"{ctx.title(at)} has no label and no KPI: nothing will say whether it succeeds.", mend
        )
    if project.release_of(decision.name) is None:
        mend = f"declare release = vo.Release({at.binding}, gate=vo.Gate(...))"
        ctx.caution(at, f"{ctx.title(at)} has no release: no challenger will ever replace its model.", mend)
