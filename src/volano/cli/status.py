"""`volano status`: what is in force, how far everything has come, what serves."""

from __future__ import annotations

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_record
from volano.cli.session import open_project


def status(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Show what is applied, what serves, and how far collecting and learning have come."""
    with open_project(folder, debug=debug) as project:
        state = project.status()
        if json:
            print_json(state)
        else:
            print_record(state)
