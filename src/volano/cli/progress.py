"""Progress on stderr: a bar on a terminal, plain lines elsewhere. Implements `protocols.reporter.Reporter`."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

QUIET_FOR_S = 1.0
"""Work that is over sooner leaves no trace on a terminal."""
EVERY_S = 10.0
"""How often a line is written where there is no terminal."""


def make_reporter(stream: IO[str] | None = None) -> PlainReporter | RichReporter:
    """A bar when stderr is a terminal, lines otherwise.

    Args:
        stream: in place of stderr.
    """
    from rich.console import Console

    console = Console(file=stream, stderr=stream is None)
    return RichReporter(console) if console.is_terminal else PlainReporter(console.file)


class PlainReporter:
    """A line when work begins and ends, and one every ten seconds in between.

    Args:
        stream: where the lines go.
        stopwatch: seconds.
    """

    def __init__(self, stream: IO[str], stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._stream = stream
        self._stopwatch = stopwatch
        self._under_way: list[tuple[str, int | None, float]] = []
        self._written_at = 0.0

    def started(self, what: str, total: int | None = None) -> None:
        now = self._stopwatch()
        self._under_way.append((what, total, now))
        self._write(what, now)

    def advanced(self, done: int, note: str = "") -> None:
        now = self._stopwatch()
        if self._under_way and now - self._written_at >= EVERY_S:
            what, total, _ = self._under_way[-1]
            self._write(f"{what}: {done:,}{f' of {total:,}' if total else ''} {note}".rstrip(), now)

    def finished(self, note: str = "") -> None:
        if self._under_way:
            what, _, began = self._under_way.pop()
            now = self._stopwatch()
            self._write(f"{what}: done in {now - began:.1f} s{f', {note}' if note else ''}", now)

    def _write(self, text: str, now: float) -> None:
        self._written_at = now
        print(text, file=self._stream, flush=True)


class RichReporter:
    """Bars on a terminal, one a piece of work; a piece that took longer than a second, or warns, leaves a line."""

    def __init__(self, console: Any, stopwatch: Callable[[], float] = time.perf_counter) -> None:
        self._console = console
        self._stopwatch = stopwatch
        self._progress: Progress | None = None
        self._under_way: list[tuple[TaskID, str, float]] = []

    def started(self, what: str, total: int | None = None) -> None:
        if self._progress is None:
            self._progress = _bars(self._console)
            self._progress.start()
        task = self._progress.add_task(what, total=total, note="")
        self._under_way.append((task, what, self._stopwatch()))

    def advanced(self, done: int, note: str = "") -> None:
        if self._progress is not None and self._under_way:
            self._progress.update(self._under_way[-1][0], completed=done, note=note)

    def finished(self, note: str = "") -> None:
        if self._progress is None or not self._under_way:
            return
        task, what, began = self._under_way.pop()
        took = self._stopwatch() - began
        self._progress.remove_task(task)
        if took >= QUIET_FOR_S or "\n" in note:
            self._progress.console.print(
                f"{what}: {took:.1f} s{f', {note}' if note else ''}", highlight=False
            )
        if not self._under_way:
            self._progress.stop()
            self._progress = None


def _bars(console: Any) -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
    )
