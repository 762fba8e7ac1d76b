"""`volano quarantine list|show|replay|discard`: what was set aside, and what is done about it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from volano.cli.failures import FAILED
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_record, print_table, when
from volano.cli.session import open_project
from volano.values.instants import parse_instant

if TYPE_CHECKING:
    from volano.project import Project
    from volano.records.quarantine import QuarantinedRow

app = typer.Typer(help="Events that were set aside: look, mend, send in again.", no_args_is_help=True)

LISTED = ("receipt", "received", "source", "event id", "status", "reason", "field", "message", "fate")

Receipts = Annotated[list[str] | None, typer.Argument(help="Receipts of the events.", show_default=False)]
Source = Annotated[str | None, typer.Option("--source", help="Only events of this source.")]
Since = Annotated[
    int | None,
    typer.Option(
        "--since", help="Only those received from this time on.", metavar="TIME", parser=parse_instant
    ),
]
Reason = Annotated[str | None, typer.Option("--code", help="Only those of this code, such as missing_field.")]


@app.command("list")
def list_rows(
    source: Source = None,
    since: Since = None,
    code: Reason = None,
    fate: Annotated[str, typer.Option("--fate", help="open, replayed, discarded or all.")] = "open",
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """List events that were set aside, the oldest first."""
    with open_project(folder, debug=debug) as project:
        rows = project.quarantine(source=source, since=since, reason=code, fate=_fate(fate))
        if json:
            print_json(rows)
            return
        print_table("quarantine", LISTED, map(_line, rows))


@app.command("show")
def show_row(
    receipt: Annotated[str, typer.Argument(help="Receipt of the event.")],
    raw: Annotated[
        bool, typer.Option("--raw", help="Print its bytes as they came, and nothing else.")
    ] = False,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Show one event that was set aside: why, its bytes as they came, what became of it."""
    with open_project(folder, debug=debug) as project:
        row = project.quarantined(receipt)
        payload = row.payload or b""
        if raw:
            typer.echo(payload, nl=False)
        elif json:
            print_json(row)
        else:
            print_record(msgspec.structs.replace(row, payload=None))
            typer.echo(payload.decode("utf-8", "backslashreplace"))


@app.command("replay")
def replay_rows(
    receipts: Receipts = None,
    set_fields: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="field=value, the value as JSON or text; may be repeated.", metavar="FIELD=VALUE"
        ),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--event", help="The whole event as JSON, in place of what came.", metavar="JSON"),
    ] = None,
    revision: Annotated[
        int | None, typer.Option("--revision", help="Send it as a correction with this revision.", min=1)
    ] = None,
    source: Source = None,
    since: Since = None,
    code: Reason = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, recorded.")] = "",
    actor: Annotated[str | None, typer.Option("--actor", help="Who does it.", show_default="you")] = None,
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Send events in again, as they came or mended; exit 1 when one still does not fit, which then stays as it was."""
    with open_project(folder, debug=debug) as project:
        done = project.replay(
            *_chosen(project, receipts, source, since, code),
            edits=_edits(set_fields or []),
            event=None if event is None else event.encode(),
            revision=revision,
            reason=reason,
            actor=actor,
        )
        if json:
            print_json(done)
        else:
            rows = (
                (
                    each.receipt_id,
                    each.replayed_as or None,
                    each.status,
                    each.problem and ": ".join(each.problem[::2]),
                )
                for each in done
            )
            print_table("replayed", ("receipt", "replayed as", "status", "problem"), rows)
        if any(not each.replayed_as for each in done):
            raise typer.Exit(FAILED)


@app.command("discard")
def discard_rows(
    receipts: Receipts = None,
    reason: Annotated[str, typer.Option("--reason", help="Why, recorded.")] = "",
    source: Source = None,
    since: Since = None,
    code: Reason = None,
    actor: Annotated[str | None, typer.Option("--actor", help="Who does it.", show_default="you")] = None,
    folder: Folder = HERE,
    debug: Debug = False,
) -> None:
    """Note that events are not wanted, and why; nothing is erased."""
    with open_project(folder, debug=debug) as project:
        chosen = _chosen(project, receipts, source, since, code)
        n_rows = project.discard(*chosen, reason=reason, actor=actor)
        typer.echo(f"{n_rows} discarded.")


def _chosen(
    project: Project, receipts: list[str] | None, source: str | None, since: int | None, code: str | None
) -> list[str]:
    """The receipts that were given, or those of open rows that the filters choose."""
    if receipts:
        if (source, since, code) != (None, None, None):
            raise typer.BadParameter("give receipts, or filters that choose them, not both")
        return receipts
    if (source, since, code) == (None, None, None):
        raise typer.BadParameter("give receipts; or choose them with --source, --since or --code")
    return [row.receipt_id for row in project.quarantine(source=source, since=since, reason=code)]


def _edits(written: list[str]) -> dict[str, Any]:
    edits: dict[str, Any] = {}
    for each in written:
        name, sign, text = each.partition("=")
        if not name or not sign:
            raise typer.BadParameter(f"{each!r} is no field=value", param_hint="--set")
        try:
            edits[name] = msgspec.json.decode(text)
        except msgspec.DecodeError:
            edits[name] = text
    return edits


def _fate(written: str) -> Any:
    from volano.records.quarantine import Fate

    if written == "all":
        return None
    try:
        return Fate(written)
    except ValueError:
        raise typer.BadParameter("it is open, replayed, discarded or all", param_hint="--fate") from None


def _line(row: QuarantinedRow) -> tuple[object, ...]:
    return (
        row.receipt_id,
        when(row.received_at),
        row.source,
        row.event_id or None,
        row.status,
        row.reason,
        row.field or None,
        row.message,
        row.fate.value,
    )
