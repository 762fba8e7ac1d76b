"""Progress: lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io

from rich.console import Console

from volano.cli.progress import PlainReporter, RichReporter, make_reporter
from volano.protocols.reporter import Reporter


class Stopwatch:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_without_a_terminal_lines_are_written_now_and_then() -> None:
    stream, stopwatch = io.StringIO(), Stopwatch()
    reporter: Reporter = PlainReporter(stream, stopwatch)
    reporter.started("backfill", 1_000)
    for second in range(1, 25):
        stopwatch.now = float(second)
        reporter.advanced(second * 40, "2013-02")
    reporter.finished("two groups")
    assert stream.getvalue().splitlines() == [
        "backfill",
        "backfill: 400 of 1,000 2013-02",
        "backfill: 800 of 1,000 2013-02",
        "backfill: done in 24.0 s, two groups",
    ]


def test_pieces_of_work_may_lie_in_each_other() -> None:
    stream = io.StringIO()
    reporter = PlainReporter(stream, Stopwatch())
    reporter.started("apply")
    reporter.started("backfill")
    reporter.finished()
    reporter.finished()
    assert stream.getvalue().splitlines()[2:] == ["backfill: done in 0.0 s", "apply: done in 0.0 s"]


def test_a_report_without_a_beginning_is_harmless() -> None:
    plain, rich = (
        PlainReporter(io.StringIO(), Stopwatch()),
        RichReporter(Console(file=io.StringIO()), Stopwatch()),
    )
    for reporter in (plain, rich):
        reporter.advanced(3)
        reporter.finished()


def test_on_a_terminal_only_work_over_a_second_leaves_a_line() -> None:
    stream, stopwatch = io.StringIO(), Stopwatch()
    console = Console(file=stream, force_terminal=True, width=100)
    reporter: Reporter = RichReporter(console, stopwatch)
    for took in (0.5, 2.0):
        reporter.started(f"work of {took}", 10)
        reporter.advanced(5, "half")
        stopwatch.now += took
        reporter.finished("ok")
    assert "work of 2.0: 2.0 s, ok" in stream.getvalue()
    assert "work of 0.5: " not in stream.getvalue()


def test_a_warning_leaves_a_line_however_short_the_work_was() -> None:
    stream = io.StringIO()
    reporter = RichReporter(Console(file=stream, force_terminal=True, width=100), Stopwatch())
    reporter.started("apply", 1)
    reporter.finished("1 step\nnot checked: a view")
    assert "1 step\nnot checked: a view" in stream.getvalue()


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(make_reporter(io.StringIO()), PlainReporter)
