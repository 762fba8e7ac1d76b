"""`volano dataset list|show|verify`: what was trained on, and whether it can be proved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from volano.cli.failures import FAILED
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_record, print_table, when
from volano.cli.session import open_project

if TYPE_CHECKING:
    from volano.runtime.datasets import Verification

app = typer.Typer(help="Look at training sets, and prove them.", no_args_is_help=True)

LISTED = ("name", "kind", "rows", "positive", "cut off", "root hash")

Name = Annotated[str, typer.Argument(help="Name of the training or evaluation set.")]


@app.command("list")
def list_datasets(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """List every training and evaluation set."""
    with open_project(folder, debug=debug) as project:
        found = project.training_sets()
        if json:
            print_json(found)
            return
        rows = (
            (each.name, each.kind, each.n_rows, each.n_positive, when(each.label_cutoff), each.root_hash[:16])
            for each in found
        )
        print_table("training sets", LISTED, rows)


@app.command("show")
def show_dataset(name: Name, folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Show the manifest of a set: all that it is rebuilt from."""
    with open_project(folder, debug=debug) as project:
        found = project.training_set(name)
        if json:
            print_json(found)
        else:
            print_record(found)


@app.command("verify")
def verify_dataset(name: Name, folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Hash the frozen rows of a set again and rebuild it from the lake; exit 1 when a hash differs."""
    with open_project(folder, debug=debug) as project:
        found = project.verify(name)
        if json:
            print_json(found)
        else:
            print_record(found)
            typer.echo(_verdict(found))
        if not found.is_sound:
            raise typer.Exit(FAILED)


def _verdict(found: Verification) -> str:
    if found.is_sound:
        return f"{found.name}: frozen and rebuilt, the same {found.n_rows:,} rows"
    return f"{found.name}: NOT the rows of its manifest"
