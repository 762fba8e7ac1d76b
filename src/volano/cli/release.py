"""`volano release`: put a model version through the gate."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli.failures import FAILED
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, release_lines
from volano.cli.session import open_project


def release(
    decision: Annotated[str, typer.Option("--decision", help="Name of the decision.")],
    version: Annotated[
        str | None, typer.Option("--version", help="The model version.", show_default="the newest")
    ] = None,
    force_reason: Annotated[
        str | None, typer.Option("--force-reason", help="Release without the gate, for this recorded reason.")
    ] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Judge a version against the champion and release it when the gate lets it through; exit 1 when it does not."""
    with open_project(folder, debug=debug) as project:
        event = project.release(decision, version, force_reason=force_reason)
        if json:
            print_json(event)
        else:
            typer.echo("\n".join(release_lines(event)))
        if event.outcome == "refused":
            raise typer.Exit(FAILED)
