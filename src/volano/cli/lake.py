"""`volano lake describe|compact|vacuum`: what there is, and the upkeep of its files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_table, when
from volano.cli.session import open_project
from volano.values.instants import parse_duration

if TYPE_CHECKING:
    from volano.runtime.describing import TableDescription
    from volano.runtime.upkeep import TableUpkeep

app = typer.Typer(help="Look at the lake's tables, and keep them in order.", no_args_is_help=True)

LISTED = ("name", "kind", "a row is", "owner", "rows", "files", "size", "from", "until")
UPKEPT = ("table", "merged", "into", "removed", "of its log", "size")

Tables = Annotated[list[str] | None, typer.Argument(help="Names of tables; all without any.")]


@app.command("describe")
def describe_lake(
    table: Annotated[str | None, typer.Argument(help="Name of a table or view; all without it.")] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List every table and view that `volano sql` can ask, or show one: columns, size, how it joins, its SQL."""
    with open_project(folder, debug=debug) as project:
        found = project.describe_lake(table)
        if json:
            print_json(found)
        elif table is None:
            print_table("lake", LISTED, (_line(each) for each in found))
        else:
            for each in found:
                _show(each)


@app.command("compact")
def compact_tables(
    tables: Tables = None, folder: Folder = HERE, json: Json = False, debug: Debug = False
) -> None:
    """Merge small files, beside whatever runs. A job of the worker does it as they gather."""
    with open_project(folder, debug=debug) as project:
        _report(project.compact(*(tables or ())), json=json)


@app.command("vacuum")
def vacuum_tables(
    tables: Tables = None,
    retain: Annotated[
        int | None,
        typer.Option(
            "--retain",
            help="Keep what was replaced for so long, such as 2d; as configured without it, an hour at least.",
            metavar="DURATION",
            parser=parse_duration,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Remove nothing; say what would be.")] = False,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Remove files that no version needs that counts: the newest, recent ones, those that training sets pin."""
    with open_project(folder, debug=debug) as project:
        _report(project.vacuum(*(tables or ()), retain_us=retain, dry_run=dry_run), json=json)


def _report(done: Sequence[TableUpkeep], *, json: bool) -> None:
    if json:
        print_json(done)
        return
    rows = (
        (each.table, each.n_merged, each.n_made, each.n_removed, each.n_log_files, size(each.n_bytes))
        for each in done
    )
    print_table("lake", UPKEPT, rows)


def _line(each: TableDescription) -> tuple[object, ...]:
    n_bytes = None if each.n_bytes is None else size(each.n_bytes)
    what = (each.name, each.kind, each.grain, each.owner or None)
    return (*what, each.n_rows, each.n_files, n_bytes, when(each.from_at), when(each.until_at))


def _show(each: TableDescription) -> None:
    joined = ", ".join
    facts = [
        ("kind", each.kind),
        ("a row is", each.grain),
        ("key", joined(each.key) or None),
        ("says its author", each.comment or None),
        ("owner", each.owner or None),
        ("rows", each.n_rows),
        ("files", each.n_files),
        ("size", None if each.n_bytes is None else size(each.n_bytes)),
        ("version", each.version),
        ("partitioned by", joined(each.partitioned_by) or None),
        ("ordered by", each.ordered_by or None),
        ("from", None if each.from_at is None else when(each.from_at)),
        ("until", None if each.until_at is None else when(each.until_at)),
        ("folder", each.folder or None),
        ("derived from", joined(each.derived_from) or None),
    ]
    print_table(each.name, ("what", "value"), (fact for fact in facts if fact[1] is not None))
    typer.echo()
    columns = (
        (column.name, column.type, column.entity or None, column.comment or None) for column in each.columns
    )
    print_table("columns", ("column", "type", "key of", "what"), columns)
    if each.relations:
        typer.echo()
        relations = ((joined(to.columns), to.to, joined(to.to_columns)) for to in each.relations)
        print_table("joins", ("columns", "to", "on"), relations)
    if each.sql:
        typer.echo(f"\n{each.sql}")


def size(n_bytes: int) -> str:
    """Bytes as people read them.

    >>> size(0), size(2048), size(5 * 1024**3)
    ('0 B', '2.0 KiB', '5.0 GiB')
    """
    value = float(n_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"
