"""Recurring work: which jobs are due, run once each, remembered in the ledger.

A job is due at the instants of its grid. Its work gets the *scheduled* instant, never the present one, so a late run
gives the same result as a punctual one. Work must be idempotent: a crash between the work and its ledger entry
repeats it. After downtime only the newest missed instant runs: labels and models as of now are what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from volano.protocols.catalog import CatalogWriter
from volano.protocols.reporter import Reporter
from volano.values.instants import Instant, floor_to, format_instant


class Job(NamedTuple):
    """One recurring piece of work.

    Args:
        name: unique; its ledger stream is `job/<name>`.
        every_us: the grid, from the epoch.
        work: called with the scheduled instant; returns one sentence for the ledger.
    """

    name: str
    every_us: int
    work: Callable[[Instant], str]


class JobRun(msgspec.Struct, frozen=True):
    """One finished run."""

    job: str
    scheduled_at: Instant
    finished_at: Instant
    note: str


class Jobs:
    """The jobs of a project, in the order in which those of one instant run.

    Args:
        since: a job that never ran is due at grid instants after it (when the project was applied).
    """

    def __init__(self, catalog: CatalogWriter, jobs: Sequence[Job], *, since: Instant) -> None:
        self._catalog = catalog
        self._jobs = tuple(jobs)
        self._done = {job.name: self._last_done(job.name, since) for job in self._jobs}

    def due(self, now: Instant) -> list[tuple[Instant, Job]]:
        """What is due, oldest first; jobs of one instant in their order."""
        waiting = [(floor_to(now, job.every_us), job) for job in self._jobs]
        found = [(scheduled, job) for scheduled, job in waiting if scheduled > self._done[job.name]]
        return sorted(found, key=lambda pair: pair[0])

    def next_due_at(self, now: Instant) -> Instant:
        """The earliest instant at or after `now` at which something is or becomes due."""
        if self.due(now):
            return now
        return min(floor_to(now, job.every_us) + job.every_us for job in self._jobs)

    def run_due(self, now: Instant, reporter: Reporter) -> list[JobRun]:
        """Run what is due and remember it."""
        runs = []
        for scheduled, job in self.due(now):
            reporter.started(f"{job.name} of {format_instant(scheduled)}")
            note = job.work(scheduled)
            run = JobRun(job.name, scheduled, now, note)
            self._catalog.append(_stream(job.name), [msgspec.json.encode(run)], at=now)
            self._done[job.name] = scheduled
            reporter.finished(note)
            runs.append(run)
        return runs

    def _last_done(self, name: str, since: Instant) -> Instant:
        entry = self._catalog.last_entry(_stream(name))
        if entry is None:
            return since
        return msgspec.json.decode(entry.body, type=JobRun).scheduled_at


def _stream(name: str) -> str:
    return f"job/{name}"
