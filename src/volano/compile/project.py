"""The whole way: loaded modules → `CompiledProject`, or every mistake at once."""

from __future__ import annotations

from dataclasses import dataclass

from volano.compile.context import Context
from volano.compile.loaded import LoadedProject
from volano.compile.lower.decisions import lower_decisions, lower_releases
from volano.compile.lower.entities import lower_entities, lower_owners
from volano.compile.lower.labels import lower_labels
from volano.compile.lower.models import lower_histories, lower_models
from volano.compile.lower.on_demand import lower_on_demand
from volano.compile.lower.schemas import lower_events, lower_requests
from volano.compile.lower.sources import lower_sources
from volano.compile.lower.views import lower_views
from volano.compile.places import Places
from volano.compile.report import Caution, Report
from volano.compile.resolve import find_definitions
from volano.compile.validate import validate
from volano.plan.definitions import CompiledProject


@dataclass(frozen=True)
class Compiled:
    """A compiled project, and what its author should think about.

    Args:
        project: every definition, resolved and checked.
        warnings: in file and line order.
    """

    project: CompiledProject
    warnings: tuple[Caution, ...] = ()


def compile_project(loaded: LoadedProject, *, namespace: str = "default") -> Compiled:
    """Check and resolve every definition of a project.

    Args:
        loaded: the author's modules; see `runtime.loader.load_project`.
        namespace: the team or project that every name belongs to.

    Raises:
        ProjectError: with every mistake found, each with file, line and mend.
    """
    report = Report()
    places = [Places(module) for module in loaded.modules]
    definitions = find_definitions(places, report)
    ctx = Context(definitions, report, {of_module.module.name: of_module for of_module in places})
    if not definitions:
        file = loaded.modules[0].file if loaded.modules else "project.py"
        mend = 'bind definitions to module-level names: ops = vo.Owner("ops", contact="...")'
        report.mistake("The project declares nothing.", file=file, line=1, mend=mend)
    owners = lower_owners(ctx)
    lower_entities(ctx)
    lower_events(ctx)
    lower_requests(ctx)
    lower_sources(ctx)
    lower_views(ctx)
    lower_on_demand(ctx)
    lower_histories(ctx)
    lower_labels(ctx)
    lower_models(ctx)
    decisions = lower_decisions(ctx)
    releases = lower_releases(ctx)
    project = CompiledProject(
        namespace=namespace,
        owners=owners,
        entities={found.name: found for found in ctx.entities.values()},
        sources={found.name: found for found in ctx.sources.values()},
        views={found.name: found for found in ctx.views.values()},
        on_demand={found.name: found for found in ctx.on_demand.values()},
        requests={found.name: found for found in ctx.requests.values()},
        histories={found.name: found for found in ctx.histories.values()},
        labels={found.name: found for found in ctx.labels.values()},
        models={found.name: found for found in ctx.models.values()},
        decisions=decisions,
        releases=releases,
    )
    validate(project, ctx)
    report.raise_mistakes()
    return Compiled(project, report.cautions)
