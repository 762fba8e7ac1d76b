"""Recurring jobs: each by itself, by one worker at a time, repeated after a pause, and never lost by a kill."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Barrier, Thread
from typing import Any

import msgspec
import pytest

from volano.errors import ConflictError, RequestError, StoreFullError
from volano.records.job import JobFailure, JobOutcome, JobRun
from volano.runtime.clock import ReplayClock
from volano.runtime.jobs import (
    FORGIVEN_KILLS,
    HELD_FOR_US,
    LAST_RETRY_US,
    Job,
    Jobs,
    read_state,
    retry_after_us,
    status_of,
)
from volano.runtime.silence import Silence
from volano.stores.sqlite_catalog import SqliteCatalog
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US, Instant

BEGAN: Instant = 100 * DAY_US + 7 * HOUR_US
DUE: Instant = 101 * DAY_US


class Killed(BaseException):
    """What no catch-all catches, as a kill."""


class Work:
    """Work that does what a test tells it; remembers the scheduled instants that it was given."""

    def __init__(self, does: Callable[[], Any] = lambda: None) -> None:
        self.given: list[Instant] = []
        self.does = does

    def __call__(self, scheduled: Instant) -> str:
        self.given.append(scheduled)
        self.does()
        return f"{len(self.given)} times"


def fails() -> None:
    raise RequestError("The table is wrong.", where="orders.parquet", mend="write it again")


def breaks() -> None:
    raise ZeroDivisionError("by zero")


def is_killed() -> None:
    raise Killed


@pytest.fixture
def catalog(tmp_path: Path) -> Iterator[SqliteCatalog]:
    opened = SqliteCatalog(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def clock() -> ReplayClock:
    return ReplayClock(BEGAN)


def worker(catalog: Any, clock: ReplayClock, *, holder: str = "a", alone: bool = True, **works: Work) -> Jobs:
    jobs = [Job(name, DAY_US, work) for name, work in works.items()]
    return Jobs(catalog, jobs, since=BEGAN, clock=clock, holder=holder, alone=alone)


def run(jobs: Jobs) -> list[tuple[str, str]]:
    return [(run.job, run.outcome.value) for run in jobs.run_due(Silence())]


def newest(catalog: SqliteCatalog, name: str) -> JobRun:
    found = read_state(catalog, name, DAY_US, since=BEGAN).newest
    assert found is not None
    return found


def test_a_job_is_due_at_grid_instants_after_the_project_was_applied_and_is_given_them(catalog, clock):
    work = Work()
    jobs = worker(catalog, clock, labels=work)
    assert run(jobs) == []
    assert jobs.next_due_at() == DUE
    clock.advance_to(DUE + 5 * HOUR_US)
    assert jobs.next_due_at() == clock.now()
    assert run(jobs) == [("labels", "done")]
    assert run(jobs) == []
    assert work.given == [DUE]
    clock.advance_to(DUE + 9 * DAY_US + 1)
    assert run(jobs) == [("labels", "done")]
    assert work.given == [DUE, DUE + 9 * DAY_US]  # after downtime the newest alone


def test_a_job_that_fails_stops_no_other_and_is_entered_with_its_mend(catalog, clock):
    jobs = worker(catalog, clock, first=Work(fails), second=Work(breaks), third=Work())
    clock.advance_to(DUE + HOUR_US)
    heard: list[Exception] = []
    runs = jobs.run_due(Silence(), hear=heard.append)
    assert [(each.job, each.outcome) for each in runs] == [
        ("first", JobOutcome.FAILED),
        ("second", JobOutcome.FAILED),
        ("third", JobOutcome.DONE),
    ]
    assert [type(error) for error in heard] == [RequestError, ZeroDivisionError]
    assert heard[1].__traceback__ is not None
    first = newest(catalog, "first")
    assert first.failure == JobFailure(
        "invalid_input", "The table is wrong.", "orders.parquet", "write it again"
    )
    assert (first.attempt, first.finished_at, first.retry_at) == (1, clock.now(), clock.now() + MINUTE_US)
    second = newest(catalog, "second").failure
    assert second is not None
    assert (second.code, second.what, second.where) == (
        "unexpected",
        "ZeroDivisionError: by zero",
        "job second",
    )
    assert second.mend
    status = status_of(read_state(catalog, "first", DAY_US, since=BEGAN), clock.now())
    assert (status.outcome, status.attempts, status.mend) == ("failed", 1, "write it again")
    assert "invalid_input: The table is wrong. (orders.parquet)" in status.detail
    assert status.next_due_at == first.retry_at


def test_a_failure_is_repeated_after_pauses_that_double_up_to_the_last(catalog, clock):
    work = Work(fails)
    jobs = worker(catalog, clock, labels=work)
    clock.advance_to(DUE)
    pauses = []
    for attempt in range(1, 11):
        assert jobs.next_due_at() == clock.now()
        assert run(jobs) == [("labels", "failed")]
        assert newest(catalog, "labels").attempt == attempt
        pauses.append(jobs.next_due_at() - clock.now())
        clock.advance_to(jobs.next_due_at() - 1)
        assert run(jobs) == []
        clock.advance_to(clock.now() + 1)
    assert pauses == [retry_after_us(attempt) for attempt in range(1, 11)]
    assert pauses[:4] == [MINUTE_US, 2 * MINUTE_US, 4 * MINUTE_US, 8 * MINUTE_US]
    assert set(pauses[6:]) == {LAST_RETRY_US}
    assert set(work.given) == {DUE}


def test_a_retry_gets_the_newest_instant_and_a_later_one_does_not_cut_the_pause(catalog, clock):
    work = Work(fails)
    jobs = worker(catalog, clock, labels=work)
    clock.advance_to(DUE + DAY_US - SECOND_US)
    run(jobs)
    clock.advance_to(DUE + DAY_US)  # the next grid instant, within the pause
    assert run(jobs) == []
    clock.advance_to(DUE + DAY_US + MINUTE_US)
    assert run(jobs) == [("labels", "failed")]
    assert work.given == [DUE, DUE + DAY_US]
    assert newest(catalog, "labels").attempt == 2


def test_a_success_clears_the_failures(catalog, clock):
    work = Work(fails)
    jobs = worker(catalog, clock, labels=work)
    clock.advance_to(DUE)
    run(jobs)
    clock.advance_to(DUE + MINUTE_US)
    work.does = lambda: None
    assert run(jobs) == [("labels", "done")]
    done = newest(catalog, "labels")
    assert (done.attempt, done.failure, done.retry_at) == (2, None, None)
    assert jobs.next_due_at() == DUE + DAY_US
    clock.advance_to(DUE + DAY_US)
    assert run(jobs) == [("labels", "done")]
    assert newest(catalog, "labels").attempt == 1


def test_what_is_left_when_the_worker_stops_stays_due(catalog, clock):
    jobs = worker(catalog, clock, first=Work(), second=Work())
    clock.advance_to(DUE)
    asked = iter([False, True])
    assert [each.job for each in jobs.run_due(Silence(), is_over=lambda: next(asked))] == ["first"]
    assert run(jobs) == [("second", "done")]


# --- leases ------------------------------------------------------------------------------------------------------


def test_a_run_under_way_is_its_workers_alone(catalog, clock):
    first, second = Work(), Work()
    one = worker(catalog, clock, alone=False, labels=first)
    two = worker(catalog, clock, holder="b", alone=False, labels=second)  # began before it
    clock.advance_to(DUE)
    seen: list[list[tuple[str, str]]] = []
    first.does = lambda: seen.extend(
        [run(two), run(worker(catalog, clock, holder="c", alone=False, labels=second))]
    )
    assert run(one) == [("labels", "done")]
    assert seen == [[], []]
    assert run(two) == []
    assert second.given == []


def test_of_many_workers_one_runs_a_job(tmp_path, clock):
    clock.advance_to(DUE)
    works = [Work() for _ in range(8)]
    start = Barrier(len(works))

    def live(number: int) -> None:
        catalog = SqliteCatalog(tmp_path)
        jobs = worker(catalog, clock, holder=str(number), alone=False, labels=works[number])
        start.wait()
        jobs.run_due(Silence())
        catalog.close()

    SqliteCatalog(tmp_path).close()
    threads = [Thread(target=live, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(len(work.given) for work in works) == 1


def test_a_lease_that_ran_out_is_taken_over_and_the_late_end_is_not_entered(catalog, clock):
    slow, quick = Work(), Work()
    one = worker(catalog, clock, holder="a", alone=False, labels=slow)
    two = worker(catalog, clock, holder="b", alone=False, labels=quick)
    clock.advance_to(DUE)
    seen: list[Any] = []

    def outlives_its_lease() -> None:
        clock.advance_to(DUE + HELD_FOR_US - 1)
        seen.append(run(two))
        clock.advance_to(DUE + HELD_FOR_US)
        seen.append(run(two))

    slow.does = outlives_its_lease
    assert run(one) == []
    assert seen == [[], [("labels", "done")]]
    done = newest(catalog, "labels")
    assert (done.outcome, done.attempt) == (JobOutcome.DONE, 2)
    assert len(catalog.entries("job/labels")) == 3  # began, began again, done
    assert run(one) == run(two) == []


# --- kills -------------------------------------------------------------------------------------------------------


class Deadly:
    """A catalog whose n-th append kills, before or after it is done."""

    def __init__(self, catalog: SqliteCatalog, n: int, after: bool) -> None:
        self._catalog, self._n, self._after = catalog, n, after

    def last_entry(self, stream: str) -> Any:
        return self._catalog.last_entry(stream)

    def append(self, *arguments: Any, **named: Any) -> int:
        self._n -= 1
        if self._n == 0 and not self._after:
            raise Killed
        sequence = self._catalog.append(*arguments, **named)
        if self._n == 0:
            raise Killed
        return sequence


@pytest.mark.parametrize("n", [1, 2, 3, 4])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_kill_at_any_entry_loses_nothing_and_repeats_at_most_that_job(catalog, clock, n, after):
    first, second = Work(), Work()
    clock.advance_to(DUE)
    with pytest.raises(Killed):
        worker(Deadly(catalog, n, after), clock, first=first, second=second).run_due(Silence())
    run(worker(catalog, clock, first=first, second=second))
    assert set(first.given) == set(second.given) == {DUE}
    assert len(first.given) + len(second.given) <= 3
    assert newest(catalog, "first").outcome is newest(catalog, "second").outcome is JobOutcome.DONE
    assert run(worker(catalog, clock, first=first, second=second)) == []


def test_a_killed_run_begins_anew_at_once(catalog, clock):
    work = Work(is_killed)
    clock.advance_to(DUE)
    with pytest.raises(Killed):
        worker(catalog, clock, labels=work).run_due(Silence())
    begun = newest(catalog, "labels")
    assert (begun.outcome, begun.holder, begun.started_at) == (JobOutcome.RUNNING, "a", DUE)
    work.does = lambda: None
    assert run(worker(catalog, clock, holder="b", labels=work)) == [("labels", "done")]
    done = newest(catalog, "labels")
    assert (done.attempt, done.n_killed) == (2, 0)


def test_a_job_that_kills_its_worker_again_and_again_pauses_and_lets_the_others_run(catalog, clock):
    deadly, other = Work(is_killed), Work()
    clock.advance_to(DUE)
    for _ in range(FORGIVEN_KILLS + 1):
        with pytest.raises(Killed):
            worker(catalog, clock, deadly=deadly, other=other).run_due(Silence())
    assert other.given == []
    assert run(worker(catalog, clock, deadly=deadly, other=other)) == [
        ("deadly", "failed"),
        ("other", "done"),
    ]
    assert len(deadly.given) == FORGIVEN_KILLS + 1
    failed = newest(catalog, "deadly")
    assert failed.failure is not None
    assert failed.failure.code == "killed"
    assert failed.failure.mend
    retry_at = failed.retry_at
    assert retry_at == clock.now() + retry_after_us(FORGIVEN_KILLS + 1)
    clock.advance_to(retry_at)
    with pytest.raises(Killed):
        worker(catalog, clock, deadly=deadly, other=other).run_due(Silence())
    assert run(worker(catalog, clock, deadly=deadly, other=other)) == [("deadly", "failed")]
    clock.advance_to(newest(catalog, "deadly").retry_at or 0)
    deadly.does = lambda: None
    assert run(worker(catalog, clock, deadly=deadly, other=other)) == [("deadly", "done")]
    assert newest(catalog, "deadly").n_killed == 0


class Full(Deadly):
    """A catalog whose n-th append finds no space."""

    def append(self, *arguments: Any, **named: Any) -> int:
        try:
            return super().append(*arguments, **named)
        except Killed:
            raise StoreFullError("No space.", where="here", mend="free some") from None


@pytest.mark.parametrize("n", [1, 2])
def test_a_ledger_that_is_full_is_told_and_the_job_runs_when_there_is_space(catalog, clock, n):
    work = Work()
    clock.advance_to(DUE)
    jobs = worker(Full(catalog, n, after=False), clock, labels=work)
    with pytest.raises(StoreFullError):
        jobs.run_due(Silence())
    assert run(jobs) == [("labels", "done")]
    assert work.given == [DUE] * n


# --- what is kept ------------------------------------------------------------------------------------------------


OLD = b'{"job":"labels","scheduled_at":8726400000000,"finished_at":8726400000007,"note":"3 label rows"}'


def test_an_entry_of_the_first_version_reads_as_a_run_that_was_done(catalog, clock):
    catalog.append("job/labels", [OLD], at=DUE)
    state = read_state(catalog, "labels", DAY_US, since=BEGAN)
    assert state.newest == JobRun("labels", DUE, DUE + 7, "3 label rows")
    assert state.newest.outcome is JobOutcome.DONE
    assert state.done_until == DUE
    clock.advance_to(DUE + HOUR_US)
    assert run(worker(catalog, clock, labels=Work())) == []


def test_entries_come_back_as_they_were_written(catalog, clock):
    clock.advance_to(DUE)
    run(worker(catalog, clock, labels=Work(fails)))
    begun, failed = (msgspec.json.decode(each.body, type=JobRun) for each in catalog.entries("job/labels"))
    assert (begun.outcome, failed.outcome) == (JobOutcome.RUNNING, JobOutcome.FAILED)
    assert msgspec.json.decode(msgspec.json.encode(failed), type=JobRun) == failed
    with pytest.raises(ConflictError):
        catalog.append("job/labels", [msgspec.json.encode(begun)], at=DUE, expected=1)


def test_a_job_that_never_ran_says_when_it_will(catalog, clock):
    status = status_of(read_state(catalog, "labels", DAY_US, since=BEGAN), clock.now())
    assert (status.outcome, status.attempts, status.last_run_at) == ("never ran", 0, None)
    assert status.next_due_at == DUE


def test_a_job_that_fails_for_years_keeps_its_newest_entries_and_its_state(catalog, clock, monkeypatch):
    monkeypatch.setattr("volano.runtime.jobs.KEPT_ENTRIES", 10)
    for n in range(40):
        clock.advance_to(DUE + n * DAY_US)
        assert run(worker(catalog, clock, labels=Work(fails))) == [("labels", "failed")]
    assert 10 <= len(catalog.entries("job/labels")) < 20
    assert newest(catalog, "labels").attempt == 40
