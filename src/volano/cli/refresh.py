"""`volano refresh`: what is new in the tables of sources, now."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json
from volano.cli.session import open_project
from volano.values.instants import parse_instant


def refresh(
    sources: Annotated[
        list[str] | None, typer.Argument(help="Names of sources; without any, all that are a table only.")
    ] = None,
    since: Annotated[
        int | None,
        typer.Option(
            "--since",
            help="Only rows from this time on, however old; of tables to which rows are appended.",
            metavar="TIME",
            parser=parse_instant,
        ),
    ] = None,
    until: Annotated[
        int | None,
        typer.Option("--until", help="Only rows before this time.", metavar="TIME", parser=parse_instant),
    ] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Read the tables of sources again, or an interval of them, and bring their facts up to them."""
    with open_project(folder, debug=debug) as project:
        found = project.refresh(*(sources or ()), since=since, until=until)
        if json:
            print_json(found)
            return
        for source, said in found.items():
            typer.echo(f"{source}: {said}")
