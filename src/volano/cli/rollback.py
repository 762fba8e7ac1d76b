"""`volano rollback`: the previous version serves again."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, release_lines
from volano.cli.session import open_project


def rollback(
    decision: Annotated[str, typer.Option("--decision", help="Name of the decision.")],
    reason: Annotated[str, typer.Option("--reason", help="Why; it is recorded.")],
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Let the previous version serve again, with the code it was released with."""
    with open_project(folder, debug=debug) as project:
        event = project.rollback(decision, reason)
        if json:
            print_json(event)
        else:
            typer.echo("\n".join(release_lines(event)))
