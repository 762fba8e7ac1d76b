"""`volano decisions list|show`: what was decided, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import cell, print_json, print_rows_json, print_table, typed, when
from volano.cli.session import open_project
from volano.values.instants import format_duration, parse_instant

if TYPE_CHECKING:
    from volano.decide.explain import ExplainedDecision

app = typer.Typer(help="Look at logged decisions.", no_args_is_help=True)

LISTED = ("decided_at", "decision_id", "action", "score", "propensity", "model_version", "fallback")


@app.command("list")
def list_decisions(
    name: Annotated[str, typer.Argument(help="Name of the decision.")],
    limit: Annotated[int, typer.Option("--limit", help="At most so many, the newest.", min=1)] = 20,
    since: Annotated[
        int | None,
        typer.Option(
            "--since",
            help="Only those from this time on, such as 2013-07-01.",
            metavar="TIME",
            parser=parse_instant,
        ),
    ] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List the newest decisions."""
    with open_project(folder, debug=debug) as project:
        found = project.decisions(name, limit=limit, since=since)
        if json:
            print_rows_json(found)
            return
        rows = found.select([column for column in LISTED if column in found.column_names]).to_pylist()
        print_table(name, LISTED, ([row.get(column) for column in LISTED] for row in rows))


@app.command("show")
def show_decision(
    decision_id: Annotated[str, typer.Argument(help="The decision's id.")],
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Explain one decision: request, features, model, release, policy, timings, and what happened after."""
    with open_project(folder, debug=debug) as project:
        explained = project.decision(decision_id)
        if json:
            print_json(explained)
        else:
            print_explained(explained)


def print_explained(made: ExplainedDecision) -> None:
    """An explained decision as tables: facts, request, features, labels, shadows."""
    from rich.console import Console

    print_table(f"{made.decision} {made.decision_id}", ("what", "value"), _facts(made))
    write = Console(highlight=False, markup=False).print
    write()
    print_table(
        "request",
        ("field", "value"),
        ((name, typed(value, made.request_types.get(name))) for name, value in made.request.items()),
    )
    write()
    print_table(
        "features as served",
        ("feature", "value", "read from", "owner"),
        ((each.name, typed(each.value, each.dtype), each.read, each.owner) for each in made.features),
    )
    write()
    print_table(
        "label",
        ("as of", "state", "value", "evidence", "reason"),
        (
            (when(each.computed_at), each.state, each.value, each.evidence, each.reason or None)
            for each in made.labels
        ),
    )
    if made.shadows:
        write()
        print_table(
            "shadows", ("version", "score"), ((each.model_version, each.score) for each in made.shadows)
        )


def _facts(made: ExplainedDecision) -> list[tuple[str, object]]:
    parameters = ", ".join(f"{name}={cell(value)}" for name, value in made.policy.params.items())
    age = "" if made.age_us is None else f" ({made.age_us / 1e6:.3g} s before)"
    facts: list[tuple[str, object]] = [
        ("action", made.action),
        ("propensity", f"{made.propensity:.4g} ({made.propensity_method})"),
        ("score", made.score),
        ("policy", f"{made.policy.kind}({parameters})"),
        ("decided at", when(made.decided_at)),
        ("features as of", f"{when(made.features_as_of)}{age}"),
        ("model", made.model_version or "none"),
        ("release", made.release_id or "none"),
        ("bundle", made.bundle[:12]),
        ("latency", ", ".join(f"{part} {took} µs" for part, took in made.latency_us.items())),
        ("deadline", format_duration(made.deadline_us)),
        ("owner", made.owner),
    ]
    if made.fallback:
        facts.insert(1, ("fallback because", made.fallback))
    return facts
