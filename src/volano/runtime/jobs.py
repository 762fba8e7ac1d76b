"""Recurring work: what is due runs once, by one worker, apart from the rest; the ledger remembers.

A job is due at the instants of its grid. Its work gets the *scheduled* instant, never the present one, so a late run
gives the same result as a punctual one. Work must be idempotent: whoever is killed in it leaves an entry that it
began, and the next worker repeats it. After downtime only the newest missed instant runs: labels and models as of now
are what is wanted.

A run that fails is entered with its reason and repeated after a pause that doubles up to an hour; the jobs after it
run all the same. The entry that a run began is its lease: it is appended by compare-and-set on the ledger stream of
the job, and so is its end, so that two workers never both begin it and an end that came too late is not entered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple

import msgspec

from volano.errors import ConflictError, VolanoError
from volano.protocols.catalog import CatalogReader, CatalogWriter, LedgerEntry
from volano.protocols.clock import Clock
from volano.protocols.reporter import Reporter
from volano.records.job import JobFailure, JobOutcome, JobRun
from volano.values.instants import HOUR_US, MINUTE_US, Instant, floor_to, format_instant

FIRST_RETRY_US: Final = MINUTE_US
LAST_RETRY_US: Final = HOUR_US
"""The pause after a failure: a minute, twice as long after each further one, an hour at most."""
HELD_FOR_US: Final = HOUR_US
"""How long a run is its worker's alone. Where one worker at a time can open the stores, a lease ends with it."""
KEPT_ENTRIES: Final = 500
"""How many entries of a job are kept, about: the newest says all that is needed, the others are for people."""
FORGIVEN_KILLS: Final = 5
"""A run that was killed begins anew at once; after so many times in a row it is taken for the cause, and pauses."""


Hear = Callable[[Exception], None]


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


class JobState(NamedTuple):
    """How a job stands, as its newest ledger entry says.

    Args:
        sequence: of that entry; 0 before the first.
        done_until: the newest scheduled instant that is done.
    """

    name: str
    every_us: int
    sequence: int
    newest: JobRun | None
    done_until: Instant

    def due_at(self, now: Instant) -> Instant:
        """The instant at which it is due next: `now` or before it when it is due already."""
        missed = floor_to(now, self.every_us)
        if missed <= self.done_until:
            return missed + self.every_us
        return missed if self.newest is None else max(missed, self.newest.retry_at or missed)

    def is_held(self, now: Instant) -> bool:
        """Whether another worker may be running it."""
        run = self.newest
        return run is not None and run.outcome is JobOutcome.RUNNING and now < (run.held_until or 0)


class JobStatus(msgspec.Struct, frozen=True):
    """One job, for people.

    Args:
        last_run_at: when its newest run ended; began, while it runs; None before the first.
        scheduled_at: the grid instant of that run.
        outcome: `running`, `done` or `failed`; `never ran` before the first run.
        attempts: since the last success, that one included.
        detail: what the run said, or why it failed.
    """

    job: str
    every_us: int
    last_run_at: Instant | None
    scheduled_at: Instant | None
    outcome: str
    attempts: int
    next_due_at: Instant
    detail: str
    mend: str


class Jobs:
    """The jobs of a project, in the order in which those of one instant run.

    Args:
        since: a job that was never done is due at grid instants after it (when the project was applied).
        holder: names this worker in the entries of its runs.
        alone: whoever opens the stores is the only one who has them, so a run that another began is over.
    """

    def __init__(
        self,
        catalog: CatalogWriter,
        jobs: Sequence[Job],
        *,
        since: Instant,
        clock: Clock,
        holder: str,
        alone: bool,
    ) -> None:
        self._catalog = catalog
        self._jobs = tuple(jobs)
        self._since = since
        self._clock = clock
        self._holder = holder
        self._alone = alone
        self._states = {job.name: self._read(job) for job in self._jobs}

    def due(self) -> list[tuple[Instant, Job]]:
        """What is due, with its scheduled instant, oldest first; jobs of one instant in their order."""
        now = self._clock.now()
        found = [(floor_to(now, job.every_us), job) for job in self._jobs if self._is_due(job, now)]
        return sorted(found, key=lambda pair: pair[0])

    def next_due_at(self) -> Instant:
        """The earliest instant, from now on, at which something is or becomes due."""
        now = self._clock.now()
        return max(now, min(state.due_at(now) for state in self._states.values()))

    def run_due(
        self,
        reporter: Reporter,
        *,
        is_over: Callable[[], bool] = lambda: False,
        hear: Hear = lambda error: None,
    ) -> list[JobRun]:
        """Run what is due, each apart from the others; returns what became of each.

        Args:
            is_over: asked before each; what is left stays due.
            hear: is told what a job raised, with its traceback; the ledger keeps only what it says.

        Raises:
            StoreError: the ledger could not be written, so what happened is not known to anybody else.
        """
        runs = []
        for scheduled, job in self.due():
            if is_over():
                break
            reporter.started(f"{job.name} of {format_instant(scheduled)}")
            run = self._run(job, scheduled, hear)
            reporter.finished("another worker runs it" if run is None else run.note)
            if run is not None:
                runs.append(run)
        return runs

    def _is_due(self, job: Job, now: Instant) -> bool:
        state = self._states[job.name]
        return state.due_at(now) <= now and (self._alone or not state.is_held(now))

    def _run(self, job: Job, scheduled: Instant, hear: Hear) -> JobRun | None:
        """Run one job, if it is still to be run and nobody else is faster."""
        state = self._states[job.name] = self._read(job)
        if not self._is_due(job, self._clock.now()):
            return None
        begun = self._begin(state, scheduled)
        try:
            at = self._enter(begun, after=state.sequence)
        except ConflictError:
            self._states[job.name] = self._read(job)
            return None
        ended = begun if begun.outcome is JobOutcome.FAILED else self._carry_out(job, begun, hear)
        try:
            if ended is not begun:
                self._enter(ended, after=at)
        except ConflictError:
            return None  # it took so long that another worker took it over: what that one enters stands
        finally:
            self._states[job.name] = self._read(job)
        return ended

    def _begin(self, state: JobState, scheduled: Instant) -> JobRun:
        """The entry of a run that begins; of its failure, when it was killed too often to begin again at once."""
        now, before = self._clock.now(), state.newest
        attempt = n_killed = 0
        if before is not None and before.outcome is not JobOutcome.DONE:
            attempt = before.attempt
            n_killed = before.n_killed + (before.outcome is JobOutcome.RUNNING)
        begun = JobRun(
            job=state.name,
            scheduled_at=scheduled,
            outcome=JobOutcome.RUNNING,
            attempt=attempt + 1,
            n_killed=n_killed,
            started_at=now,
            done_until=None if before is None else _done_until(before),
            holder=self._holder,
            held_until=now + HELD_FOR_US,
        )
        was_killed = before is not None and before.outcome is JobOutcome.RUNNING
        if not was_killed or n_killed <= FORGIVEN_KILLS:
            return begun
        failure = JobFailure(
            "killed",
            f"{n_killed} runs of it never told their end: the process was killed, or died of it.",
            f"job {state.name}",
            "look for a lack of memory in the system's log; `volano worker --once` runs it where it can be watched",
        )
        return self._failed(msgspec.structs.replace(begun, attempt=attempt), failure)

    def _carry_out(self, job: Job, begun: JobRun, hear: Hear) -> JobRun:
        """Do the work of a run; what it raises is its outcome, and concerns no other job."""
        try:
            note = job.work(begun.scheduled_at)
        except Exception as error:
            hear(error)
            return self._failed(begun, _failure_of(error, job.name))
        return msgspec.structs.replace(
            begun,
            outcome=JobOutcome.DONE,
            finished_at=self._clock.now(),
            note=note,
            n_killed=0,
            holder="",
            held_until=None,
        )

    def _failed(self, begun: JobRun, failure: JobFailure) -> JobRun:
        now = self._clock.now()
        return msgspec.structs.replace(
            begun,
            outcome=JobOutcome.FAILED,
            finished_at=now,
            note=f"failed: {failure.what} ({failure.where}); mend: {failure.mend}",
            failure=failure,
            retry_at=now + retry_after_us(begun.attempt),
            holder="",
            held_until=None,
        )

    def _enter(self, run: JobRun, *, after: int) -> int:
        stream, body = _stream(run.job), msgspec.json.encode(run)
        at = self._catalog.append(stream, [body], at=self._clock.now(), expected=after)
        if at > KEPT_ENTRIES and at % KEPT_ENTRIES == 0:
            self._catalog.trim(stream, before=at - KEPT_ENTRIES)
        return at

    def _read(self, job: Job) -> JobState:
        return read_state(self._catalog, job.name, job.every_us, since=self._since)


def retry_after_us(attempt: int) -> int:
    """How long to wait after the n-th failure in a row.

    >>> [retry_after_us(attempt) // MINUTE_US for attempt in (1, 2, 3, 7, 100)]
    [1, 2, 4, 60, 60]
    """
    return min(FIRST_RETRY_US << min(attempt - 1, 32), LAST_RETRY_US)


def read_state(catalog: CatalogReader, name: str, every_us: int, *, since: Instant) -> JobState:
    """How a job stands.

    Args:
        since: a job that was never done is due at grid instants after it.
    """
    entry = catalog.last_entry(_stream(name))
    if entry is None:
        return JobState(name, every_us, 0, None, since)
    run = _decode(entry)
    done = _done_until(run)
    return JobState(name, every_us, entry.sequence, run, since if done is None else done)


def status_of(state: JobState, now: Instant) -> JobStatus:
    """A job's state as people read it."""
    run = state.newest
    if run is None:
        return JobStatus(state.name, state.every_us, None, None, "never ran", 0, state.due_at(now), "", "")
    failure = run.failure
    return JobStatus(
        job=state.name,
        every_us=state.every_us,
        last_run_at=run.finished_at or run.started_at,
        scheduled_at=run.scheduled_at,
        outcome=run.outcome.value,
        attempts=run.attempt,
        next_due_at=state.due_at(now),
        detail=run.note if failure is None else f"{failure.code}: {failure.what} ({failure.where})",
        mend="" if failure is None else failure.mend,
    )


def _done_until(run: JobRun) -> Instant | None:
    return run.scheduled_at if run.outcome is JobOutcome.DONE else run.done_until


def _failure_of(error: Exception, name: str) -> JobFailure:
    if isinstance(error, VolanoError):
        return JobFailure(error.code, error.what, error.where or f"job {name}", error.mend)
    return JobFailure(
        "unexpected",
        f"{type(error).__name__}: {error}",
        f"job {name}",
        "run `volano worker --once --debug`, which shows the traceback, and report it",
    )


def _decode(entry: LedgerEntry) -> JobRun:
    return msgspec.json.decode(entry.body, type=JobRun)


def _stream(name: str) -> str:
    return f"job/{name}"
