"""`volano check`: do the invariants hold?"""

from __future__ import annotations

import typer

from volano.cli.failures import FAILED
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_table
from volano.cli.session import open_project


def check(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Check every invariant against the stored tables; exit 1 when one does not hold."""
    with open_project(folder, debug=debug) as project:
        findings = project.check()
        if json:
            print_json(findings)
        else:
            print_table(
                "check",
                ("rule", "state", "detail"),
                ((each.rule, "sound" if each.sound else "BROKEN", each.detail) for each in findings),
            )
        if not all(each.sound for each in findings):
            raise typer.Exit(FAILED)
