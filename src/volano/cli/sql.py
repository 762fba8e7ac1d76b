"""`volano sql`: one SELECT over the lake, shown, or written as JSON, CSV or Parquet."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_rows_json, print_table
from volano.cli.session import open_project
from volano.errors import ConfigError, RequestError

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN: Final = 50
"""Rows that a person is shown, unless they ask for others."""


def sql(
    query: Annotated[
        str | None,
        typer.Argument(help="The SELECT, in the SQL of DuckDB; `-` reads it from standard input."),
    ] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read the SELECT from this file.")] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", help=f"At most so many rows; shown as a table {SHOWN}, written all.", min=0),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a header.")] = False,
    parquet: Annotated[
        Path | None, typer.Option("--parquet", help="Write the result to this Parquet file.")
    ] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Ask the lake: facts, dimensions, decisions, labels and outcomes, at one consistent snapshot. Writes nothing.

    `volano lake describe` lists what can be asked.
    """
    with open_project(folder, debug=debug) as project:
        text = _query(query, file)
        _one_form(json=json, csv=csv, parquet=parquet is not None)
        is_shown = not (json or csv or parquet)
        at_most = SHOWN if is_shown and limit is None else limit
        found = project.sql(text, limit=at_most + 1 if is_shown and at_most is not None else at_most)
        if json:
            print_rows_json(found)
        elif csv:
            _print_csv(found)
        elif parquet is not None:
            _write_parquet(found, parquet)
            typer.echo(f"{found.num_rows:,} rows written to {parquet}", err=True)
        else:
            _show(found, at_most)


def _query(query: str | None, file: Path | None) -> str:
    """The SQL that was meant: given, read from a file, or from standard input."""
    if (query is None) == (file is None):
        raise RequestError(
            "A query is given either as an argument or with --file.",
            where="volano sql",
            mend='write volano sql "SELECT ...", volano sql --file query.sql, or volano sql - < query.sql',
        )
    if file is not None:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"The query cannot be read: {error}.",
                where=str(file),
                mend="name a file that holds one SELECT",
            ) from error
    return sys.stdin.read() if query == "-" else query or ""


def _one_form(**forms: bool) -> None:
    wanted = [f"--{name}" for name, is_wanted in forms.items() if is_wanted]
    if len(wanted) > 1:
        raise RequestError(
            f"A result has one form, and {' and '.join(wanted)} are two.",
            where="volano sql",
            mend="leave one",
        )


def _print_csv(found: pa.Table) -> None:
    import pyarrow as pa
    import pyarrow.csv

    def is_plain(kind: pa.DataType) -> bool:
        tests = (pa.types.is_primitive, pa.types.is_string, pa.types.is_large_string, pa.types.is_decimal)
        return any(test(kind) for test in (*tests, pa.types.is_null)) and not pa.types.is_interval(kind)

    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(_as_text(found, lambda kind: not is_plain(kind)), sink)
    typer.echo(sink.getvalue().to_pybytes(), nl=False)


def _as_text(found: pa.Table, has_no_form: Callable[[pa.DataType], bool]) -> pa.Table:
    """Columns of some types as people read them: lists and maps in CSV, intervals in Parquet."""
    import pyarrow as pa

    for at, field in enumerate(found.schema):
        if has_no_form(field.type):
            texts = [None if value is None else str(value) for value in found.column(at).to_pylist()]
            found = found.set_column(at, field.name, pa.array(texts, pa.string()))
    return found


def _write_parquet(found: pa.Table, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        pq.write_table(_as_text(found, pa.types.is_interval), path, compression="zstd")
    except OSError as error:
        raise ConfigError(
            f"The file cannot be written: {error}.", where=str(path), mend="name a place that can be written"
        ) from error


def _show(found: pa.Table, at_most: int | None) -> None:
    shown = found if at_most is None else found.slice(0, at_most)
    columns = [column.to_pylist(maps_as_pydicts="strict") for column in shown.columns]
    print_table("", found.column_names, zip(*columns, strict=True))
    if found.num_rows > shown.num_rows:
        typer.echo(
            f"only the first {shown.num_rows:,} rows: --limit shows more, --parquet writes all", err=True
        )
