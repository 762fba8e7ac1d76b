"""`volano apply`: carry out the plan."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli.options import HERE, Debug, Folder
from volano.cli.session import open_project


def apply(
    folder: Folder = HERE,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    allow_breaking: Annotated[
        bool,
        typer.Option(
            "--allow-breaking", help="Also where events that producers send today would be set aside."
        ),
    ] = False,
    debug: Debug = False,
) -> None:
    """Show the plan, ask, and carry it out. An apply that was interrupted goes on where it stopped."""
    with open_project(folder, debug=debug) as project:
        from volano.plan.explain import explain

        planned = project.plan()
        typer.echo(explain(planned))
        if planned.is_empty:
            project.finish()
            return
        if not yes:
            typer.confirm("Apply this plan?", abort=True)
        applied = project.apply(allow_breaking=allow_breaking)
        typer.echo(f"Applied: bundle {applied.bundle[:12]}.")
