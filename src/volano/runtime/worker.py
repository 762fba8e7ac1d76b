"""The worker: applies what was journaled, commits it, runs the jobs that are due; round after round until told to stop.

Does not read the clock: rounds follow each other by a stopwatch, and what is due is the jobs' affair. It may be killed
at any point: the journal, the apply log and the ledger say where the next one goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from threading import Event
from typing import Final, NamedTuple, Protocol

from volano.errors import VolanoError
from volano.records.job import JobRun
from volano.runtime.jobs import Hear

PAUSE_S: Final = 0.25
"""Between rounds that found nothing to do, so that what is accepted becomes visible within about as long."""
LAST_PAUSE_S: Final = 30.0
"""After a round that a store stopped, the pause doubles up to this."""


class Round(NamedTuple):
    """One round.

    Args:
        n_applied: records that became visible.
        runs: jobs that ran.
        error: what stopped it, and may pass; the worker goes on after `pause_s`.
    """

    n_applied: int
    runs: tuple[JobRun, ...] = ()
    error: VolanoError | None = None
    pause_s: float = PAUSE_S


class Drain(Protocol):
    def __call__(self, *, commit: bool = False) -> int: ...


class RunDue(Protocol):
    def __call__(self, *, is_over: Callable[[], bool], hear: Hear) -> list[JobRun]: ...


def rounds(drain: Drain, run_due: RunDue, stop: Event, *, once: bool, hear: Hear) -> Iterator[Round]:
    """Work, one item a round.

    Args:
        drain: applies, and commits when that is due or asked for.
        stop: set it, and the job under way is finished, everything committed, and the iteration ends.
        once: one round, everything committed.
        hear: is told what a job raised.

    Raises:
        VolanoError: the first round could not be done (another process works here, say), or a later one for a
            reason that does not pass by itself.
    """
    first, pause_s = True, PAUSE_S
    while not stop.is_set():
        try:
            n_applied = drain(commit=once)
            done = Round(n_applied, tuple(run_due(is_over=stop.is_set, hear=hear)))
            pause_s = PAUSE_S
        except VolanoError as error:
            if first or not error.retryable:
                raise
            pause_s = min(pause_s * 2, LAST_PAUSE_S)
            done = Round(0, error=error, pause_s=pause_s)
        yield done
        first = False
        if once:
            return
        if not done.n_applied and not done.runs:
            stop.wait(done.pause_s)
    drain(commit=True)
