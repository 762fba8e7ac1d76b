"""`volano dataset build|list|show|verify|diff|export`: what is trained on, and whether it can be proved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from volano.cli.failures import FAILED
from volano.cli.files import write_table
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_record, print_table, when
from volano.cli.session import open_project
from volano.values.instants import parse_instant

if TYPE_CHECKING:
    from volano.runtime.datasets import Verification

app = typer.Typer(help="Build training sets, look at them, prove them.", no_args_is_help=True)

LISTED = ("name", "kind", "rows", "positive", "cut off", "root hash")

SHOWN_IDS = 20

Name = Annotated[str, typer.Argument(help="Name of the training or evaluation set.")]


def _time(flag: str, what: str) -> Any:
    return typer.Option(flag, help=f"{what}, such as 2013-07-01.", metavar="TIME", parser=parse_instant)


@app.command("build")
def build_dataset(
    model: Annotated[str, typer.Argument(help="The model whose decisions and label it holds.")],
    name: Annotated[str | None, typer.Option("--name", help="Of the set.")] = None,
    since: Annotated[int | None, _time("--since", "Only decisions from this time on")] = None,
    until: Annotated[int | None, _time("--until", "Only decisions before this time")] = None,
    cutoff: Annotated[
        int | None, _time("--cutoff", "Only labels mature by this time; now without it")
    ] = None,
    pinned: Annotated[
        bool,
        typer.Option(
            "--pinned", help="An evaluation set: no later training touches its rows or their units."
        ),
    ] = False,
    share: Annotated[
        float, typer.Option("--share", help="Of the units: 0.1 takes a tenth of them, whole.")
    ] = 1.0,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Freeze decisions with mature labels as a training set, or as a pinned evaluation set."""
    with open_project(folder, debug=debug) as project:
        made = project.build_set(
            model, name, since=since, until=until, cutoff=cutoff, pinned=pinned, share=share
        )
        if json:
            print_json(made)
        else:
            print_record(made)


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


@app.command("diff")
def diff_datasets(
    before: Annotated[str, typer.Argument(help="Name of a set.")],
    after: Annotated[str, typer.Argument(help="Name of another one.")],
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Name the members by which two frozen sets differ; exit 1 when there are any."""
    with open_project(folder, debug=debug) as project:
        found = project.compare(before, after)
        if json:
            print_json(found._asdict())
        else:
            rows = (
                (f"only in {before}", found.only_before),
                (f"only in {after}", found.only_after),
                ("changed", found.changed),
            )
            shown = (
                (what, len(ids), ", ".join(ids[:SHOWN_IDS]) + (", ..." if len(ids) > SHOWN_IDS else ""))
                for what, ids in rows
            )
            print_table(f"{before} and {after}", ("members", "count", "ids"), shown)
        if any(found):
            raise typer.Exit(FAILED)


@app.command("export")
def export_dataset(
    name: Name,
    file: Annotated[Path, typer.Argument(help="Where to write: a name that ends in .parquet or .csv.")],
    folder: Folder = HERE,
    debug: Debug = False,
) -> None:
    """Write the frozen rows of a set, hashed again, to a file for other tools."""
    with open_project(folder, debug=debug) as project:
        rows = project.frozen(name).table
        write_table(rows, file)
        typer.echo(f"{file}: {rows.num_rows:,} rows")


def _verdict(found: Verification) -> str:
    if found.is_sound:
        return f"{found.name}: frozen and rebuilt, the same {found.n_rows:,} rows"
    return f"{found.name}: NOT the rows of its manifest"
