"""`volano init`: a new project from a template that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volano.cli.failures import failures_shown
from volano.cli.options import Debug
from volano.runtime.templates import write_template


def init(
    folder: Annotated[Path, typer.Argument(help="Where the project goes; new, or an empty folder.")],
    template: Annotated[
        str, typer.Option("--template", help="What it begins with: blank or flights.")
    ] = "blank",
    namespace: Annotated[
        str | None,
        typer.Option("--namespace", help="What every name belongs to; the folder's name without it."),
    ] = None,
    debug: Debug = False,
) -> None:
    """Write a new project to begin with."""
    with failures_shown(debug):
        written = write_template(template, folder, namespace=namespace)
        for path in written:
            typer.echo(f"wrote {path}")
        go = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
        typer.echo(f"Next: {go}volano plan")
