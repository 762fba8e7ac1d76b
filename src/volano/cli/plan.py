"""`volano plan`: what a change would do."""

from __future__ import annotations

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json
from volano.cli.session import open_project


def plan(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Show what `apply` would do, and do nothing."""
    with open_project(folder, debug=debug) as project:
        from volano.plan.explain import as_json, explain

        planned = project.plan()
        if json:
            print_json(as_json(planned))
        else:
            typer.echo(explain(planned))
