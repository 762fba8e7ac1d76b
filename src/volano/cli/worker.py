"""`volano worker`: applies, commits and runs what is due, in the foreground, until it is told to stop."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from volano.cli.failures import FAILED
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import when
from volano.cli.session import open_project

if TYPE_CHECKING:
    from volano.runtime.worker import Round

NICE: Final = 5
"""Jobs give way to the processes that decide."""


def worker(
    folder: Folder = HERE,
    once: Annotated[bool, typer.Option("--once", help="One round, then stop.")] = False,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Apply and commit what was accepted and run the jobs that are due, until interrupted.

    The first SIGINT or SIGTERM lets the job under way end and commits; a second one stops at once. Nothing is lost
    either way, nor by a kill. With --once, exit 1 when a job failed.
    """
    os.nice(NICE)
    with open_project(folder, debug=debug) as project, _signals() as stop:
        hear = traceback.print_exception if debug else _be_silent
        _say(f"at work in {folder.resolve()}{'' if once else '; Ctrl-C stops'}", json)
        n_failed = 0
        for done in project.work(stop, once=once, hear=hear):
            _report(done, json)
            n_failed += sum(run.failure is not None for run in done.runs)
        _say("stopped; everything is committed", json)
        if once and n_failed:
            raise typer.Exit(FAILED)


@contextmanager
def _signals() -> Iterator[Event]:
    """Set by the first SIGINT or SIGTERM; the second one interrupts."""
    stop = Event()

    def heard(signum: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    before = {each: signal.signal(each, heard) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _report(done: Round, json: bool) -> None:
    """A line for what was applied, one for each job that ran, one for what stopped the round."""
    if json:
        if done.n_applied or done.runs or done.error:
            _print_json(done)
        return
    if done.n_applied:
        typer.echo(f"{done.n_applied:,} records applied")
    for run in done.runs:
        mend = f"; again from {when(run.retry_at)}" if run.retry_at else ""
        typer.echo(f"{run.job} of {when(run.scheduled_at)}: {run.note}{mend}")
    if done.error is not None:
        typer.echo(f"error: {done.error}\n  tried again in {done.pause_s:g} s", err=True)


def _print_json(done: Round) -> None:
    import msgspec

    error = done.error and {"code": done.error.code, "what": done.error.what, "mend": done.error.mend}
    line = {"n_applied": done.n_applied, "runs": done.runs, "error": error}
    typer.echo(msgspec.json.encode(line).decode())


def _say(text: str, json: bool) -> None:
    typer.echo(text, err=json)


def _be_silent(error: Exception) -> None:
    """Its run tells it."""
