"""What verbs print on stdout: JSON for programs, tables and lines for people. Computes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
import typer

from volano.values.instants import Instant, format_duration, format_instant, from_datetime
from volano.values.schema import DType, Scalar

if TYPE_CHECKING:
    import pyarrow as pa

    from volano.records.learning import ReleaseEvent

PIPED_WIDTH: Final = 1_000
"""Columns where there is no terminal: a program that reads lines wants them whole."""


def print_json(value: Any) -> None:
    """A value as indented JSON; bytes as base64, instants as microseconds."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def print_rows_json(table: pa.Table) -> None:
    """The rows of a table as a JSON list of objects; times as ISO 8601, maps as objects."""
    print_json(table.to_pylist(maps_as_pydicts="strict"))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table of text cells; nothing but the title when there are no rows."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table if table.row_count else f"{title}: none")


def cell(value: object) -> str:
    """One value as people read it: nulls as –, floats to four significant digits."""
    match value:
        case None:
            return "–"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.4g}"
        case datetime():
            return when(from_datetime(value))
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def typed(value: Scalar, dtype: DType | None) -> str:
    """One value of a known type: instants as times."""
    return when(value) if dtype is DType.TIMESTAMP and isinstance(value, int) else cell(value)


def when(instant: Instant | None) -> str:
    """An instant to the second; – for none."""
    return "–" if instant is None else format_instant(instant - instant % 1_000_000)


def release_lines(event: ReleaseEvent) -> list[str]:
    """A release event as sentences: what happened, why, and the numbers."""
    lines = [
        f"{event.decision}: {event.challenger} {event.outcome.replace('_', ' ')}; {event.champion} serves.",
        f"  reason: {event.reason}",
    ]
    for evaluation in event.evidence:
        line = f"  {evaluation.metric} on {evaluation.n:,} labels: challenger {evaluation.challenger:.4f}"
        if evaluation.champion is not None:
            line += f", champion {evaluation.champion:.4f}"
        if evaluation.low is not None and evaluation.high is not None:
            what = "" if evaluation.champion is None else "difference "
            sign = "" if evaluation.champion is None else "+"
            low, high = f"{evaluation.low:{sign}.4f}", f"{evaluation.high:{sign}.4f}"
            line += f", {what}between {low} and {high} at {evaluation.confidence:.0%} confidence"
        lines.append(line)
    return lines


def print_record(value: Any) -> None:
    """A record of any type: its plain fields as lines, its records and lists of records as tables."""
    plain: list[tuple[str, object]] = []
    nested: list[tuple[str, list[dict[str, Any]]]] = []
    for name, each in msgspec.to_builtins(value, builtin_types=(bytes,)).items():
        match each:
            case [dict(), *_]:
                nested.append((name, each))
            case dict() if each and all(isinstance(inner, dict) for inner in each.values()):
                nested.append((name, [{"name": key, **inner} for key, inner in each.items()]))
            case dict():
                plain += [(f"{name}.{key}", _shown(key, inner)) for key, inner in each.items()]
            case _:
                plain.append((name, _shown(name, each)))
    print_table("", ("what", "value"), plain)
    for name, rows in nested:
        typer.echo()
        columns = list(dict.fromkeys(key for row in rows for key in row))
        print_table(name, columns, ([_shown(key, row.get(key)) for key in columns] for row in rows))


def _shown(name: str, value: Any) -> str:
    """A value by its name: instants end in `_at` or `as_of`, durations in `_us`."""
    if isinstance(value, int) and not isinstance(value, bool):
        if name.endswith(("_at", "as_of", "_until", "_from", "_cutoff")) or name in ("at", "stamp"):
            return when(value)
        if name.endswith("_us"):
            return format_duration(value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(each) for each in value) or "–"
    if isinstance(value, dict):
        return ", ".join(f"{key}={_shown(key, each)}" for key, each in value.items()) or "–"
    return cell(value)
