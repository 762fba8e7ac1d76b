"""What the facade stands on: a folder, its stores, and a session over what is applied."""

from __future__ import annotations

import getpass
import os
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Final

import pyarrow as pa

from volano.collect.receipts import committed_until
from volano.compile.state import state_groups
from volano.decide.explain import ExplainedDecision
from volano.errors import (
    NotReadyError,
    PartlyAppliedError,
    PlanRefused,
    RequestError,
    StateMismatchError,
    StoreBusyError,
    TableUnreadableError,
    VolanoError,
)
from volano.learn.train import get_version
from volano.learn.training_set import Difference, TrainingSet
from volano.plan.plan import Plan
from volano.protocols.clock import Clock
from volano.protocols.reporter import Reporter
from volano.records.job import JobRun
from volano.records.learning import ModelVersion, ReleaseEvent, TrainingSetManifest
from volano.records.quarantine import Edits, Fate, QuarantinedRow, Replay
from volano.runtime.applied import Applied, find_applied, get_applied, is_noted
from volano.runtime.apply import Application
from volano.runtime.checks import Finding, run_checks
from volano.runtime.config import read_config
from volano.runtime.datasets import (
    Verification,
    build_set,
    compare,
    frozen,
    get_manifest,
    rebuild,
    verify_set,
)
from volano.runtime.decisions import explain_logged, newest_decisions
from volano.runtime.describing import TableDescription, describe
from volano.runtime.freezing import manifests
from volano.runtime.jobs import Hear, Jobs, JobStatus
from volano.runtime.learning import Learner
from volano.runtime.locks import serving_lock, work_lock
from volano.runtime.planning import make_plan, make_state_plan
from volano.runtime.processes.beside import Beside
from volano.runtime.quarantine import discard, ended, quarantine_of, replay
from volano.runtime.querying import ask
from volano.runtime.recurring import label_until, recurring_jobs
from volano.runtime.refreshing import refresh, refreshable
from volano.runtime.session import Session
from volano.runtime.status import Status, find_problems, job_statuses, read_status
from volano.runtime.stores import Stores
from volano.runtime.upkeep import TableUpkeep, compact_lake, vacuum_lake
from volano.runtime.worker import Round, rounds
from volano.values.instants import BEGINNING, Instant, format_instant

_AT_WORK: Final = "applies, trains or releases in this folder"
_PATIENCE_S: Final = 900.0


class Workplace:
    """One process at work in one folder.

    Args:
        entropy: so many random bytes.
    """

    def __init__(
        self, folder: Path, clock: Clock, entropy: Callable[[int], bytes], reporter: Reporter
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._entropy = entropy
        self._reporter = reporter
        self.stores = Stores(folder, read_config(folder))
        self._is_beside = False

    @cached_property
    def session(self) -> Session:
        """The session over what is in force.

        Raises:
            NotReadyError: nothing is applied yet.
        """
        applied = get_applied(self.stores.catalog)
        beside = Beside(self.stores) if self._is_beside else None
        return Session(self.stores, applied, self._clock, self._entropy, beside=beside)

    @cached_property
    def learner(self) -> Learner:
        return Learner(self.session, self._reporter)

    @cached_property
    def jobs(self) -> Jobs:
        return Jobs(
            self.stores.catalog,
            recurring_jobs(self.session, self.learner),
            since=self.session.applied.at,
            clock=self._clock,
            holder=f"{platform.node()}/{os.getpid()}",
            alone=True,  # the lock that `run_due` takes lets one process at a time in
        )

    def plan(self) -> Plan:
        """Plan the folder's definitions against what is in force."""
        return make_plan(self._folder, self.stores).plan

    def apply(self, reporter: Reporter | None = None, *, allow_breaking: bool = False) -> Applied:
        """Plan and carry out.

        Raises:
            PlanRefused: producers of today would have events set aside, and nobody allowed that.
        """
        with self._at_work():
            applied, _ = find_applied(self.stores.catalog)
            if applied is not None:
                self.session.drain(commit=True)  # the new state is built from the lake: nothing may wait
            is_stale = False
            try:
                while True:
                    planned = make_plan(self._folder, self.stores)
                    if not allow_breaking:
                        _refuse_breaking(planned.plan)
                    told = reporter or self._reporter
                    beside = Beside(self.stores) if self._is_beside else None
                    application = Application(
                        self.stores, planned.plan, planned.bundle, self._clock, told, beside=beside
                    )
                    try:
                        return application.run()
                    except PartlyAppliedError:
                        # What failed before a kill may have been mended since; once is enough.
                        if is_stale or not application.is_stale:
                            raise
                        is_stale = True
            finally:
                self._forget_session()  # a failed one too may have put something in force

    def finish(self) -> None:
        """Do what an apply that was killed behind the swap left undone; mostly nothing."""
        applied, _ = find_applied(self.stores.catalog)
        if applied is not None and not is_noted(self.stores.catalog, applied):
            self.apply()

    def run_due(
        self, *, is_over: Callable[[], bool] = lambda: False, hear: Hear = lambda error: None
    ) -> list[JobRun]:
        """Run the jobs that are due now; see `Jobs.run_due`. While another process is at work none is begun.

        Raises:
            StoreBusyError: another process, which is no server, applies and commits in the folder.
        """
        self._look_around()
        if not self._is_beside:
            self.session.applier  # noqa: B018 - takes the lock, so that a job does not fail for want of it
        if not self.jobs.due():
            return []
        try:
            lock = work_lock(self.stores.data).take(_AT_WORK)
        except StoreBusyError:
            return []
        with lock:
            self._look_around()
            return self.jobs.run_due(self._reporter, is_over=is_over, hear=hear)

    def drain(self, *, commit: bool = False) -> int:
        """Make everything accepted visible; see `Session.drain`."""
        self._look_around()
        return self.session.drain(commit=commit)

    def work(self, stop: Event, *, once: bool, hear: Hear) -> Iterator[Round]:
        """Apply, commit and run what is due, until told to stop; see `worker.rounds`."""
        return rounds(self.drain, self.run_due, stop, once=once, hear=hear)

    def job_statuses(self) -> list[JobStatus]:
        """How every job stands; takes no lock."""
        return job_statuses(self.stores, self._clock.now())

    def refresh(
        self, *sources: str, since: Instant | None = None, until: Instant | None = None
    ) -> dict[str, str]:
        """Bring the facts of sources up to their tables; a wrong name is told before anything is done.

        A table that cannot be used stops no other; the first error is raised when all others are done.
        """
        with self._at_work():
            project = self.session.applied.project
            kept = [name for name, each in project.sources.items() if each.table and not each.stream]
            for name in sources:
                refreshable(project, name)
            named = sources or kept
            if since is not None or until is not None:  # those that change in other ways are compared whole
                named = [name for name in named if name in sources or not project.sources[name].change]
            done: dict[str, str] = {}
            failures: list[VolanoError] = []
            self._reporter.started("refresh", len(named))
            for n, name in enumerate(named, start=1):
                try:
                    done[name] = refresh(self.session, name, since=since, until=until)
                except (NotReadyError, RequestError, StateMismatchError, TableUnreadableError) as error:
                    failures.append(error)
                self._reporter.advanced(n, name)
            self._reporter.finished(f"{len(done)} of {len(named)} tables")
            if failures:
                raise failures[0]
            return done

    def train(self, model: str) -> ModelVersion:
        """Train a version as of now."""
        with self._at_work():
            self.session.applied.project.model(model)  # a wrong name is told before anything is done
            self.session.drain(commit=True)
            cutoff = self.session.settled_at()
            label_until(self.session, cutoff)
            return self.learner.train(model, cutoff=cutoff).version

    def release(self, decision: str, version: str | None, force_reason: str | None) -> ReleaseEvent:
        """Judge and release a version; the newest of the decision's model when None."""
        with self._at_work():
            definition = self.session.applied.project.decision(decision)
            chosen = get_version(self.stores.catalog, version or self._newest_version(definition.model))
            return self.learner.release(
                decision, chosen, at=self._clock.now(), actor=_actor(), force_reason=force_reason
            )

    def rollback(self, decision: str, reason: str) -> ReleaseEvent:
        """Go back one champion; online state of its bundle that was dropped is built again first."""
        with self._at_work():
            self.session.applied.project.decision(decision)
            at, actor = self._clock.now(), _actor()
            event = self.learner.rollback_event(decision, at=at, actor=actor, reason=reason)
            self._keep_state_of(event.bundle)
            return self.learner.rollback(decision, at=at, actor=actor, reason=reason)

    def _keep_state_of(self, bundle: str) -> None:
        """Build, beside what is kept, the online state that a bundle reads and that is not kept any more."""
        applied, target = self.session.applied, self.session.definitions.get(bundle)
        kept = {group.hash for group in applied.groups}
        if all(group.hash in kept for group in state_groups(target)):
            return
        self.session.drain(commit=True)
        plan = make_state_plan(self.stores, applied, target)
        also = [(bundle, target)]
        beside = Beside(self.stores) if self._is_beside else None
        try:
            Application(self.stores, plan, b"", self._clock, self._reporter, also=also, beside=beside).run()
        finally:
            self._forget_session()

    def status(self) -> Status:
        return read_status(self.stores, self._clock.now())

    def problems(self) -> dict[str, str]:
        """Why decisions cannot be served; loads what serves them."""
        return find_problems(self.stores)

    def decisions(self, name: str, limit: int, since: Instant | None) -> pa.Table:
        self._settle()
        return newest_decisions(self.session, name, limit, since)

    def decision(self, decision_id: str) -> ExplainedDecision:
        self._settle()
        return explain_logged(self.session, decision_id)

    def sql(self, query: str, limit: int | None) -> pa.Table:
        """The result of a SELECT over the views of the lake."""
        whole = self._settle() is None
        return ask(self.session, query, whole=whole, limit=limit)

    def describe_lake(self, table: str | None) -> list[TableDescription]:
        """What there is in the lake."""
        whole = self._settle() is None
        return describe(self.session, table, whole=whole)

    def compact(self, tables: Sequence[str]) -> list[TableUpkeep]:
        """Merge every small file of tables, all when none is named; needs no lock."""
        done = compact_lake(self.stores, tables, eager=True, hear=self._reporter.started)
        self._reporter.finished(f"{sum(each.n_merged for each in done):,} files merged")
        return done

    def vacuum(self, tables: Sequence[str], retain_us: int | None, dry_run: bool) -> list[TableUpkeep]:
        """Remove what no version of a table needs that counts; needs no lock."""
        kept = self.stores.config.keep_replaced_us if retain_us is None else retain_us
        done = vacuum_lake(self.stores, tables, retain_us=kept, dry_run=dry_run, hear=self._reporter.started)
        self._reporter.finished(f"{sum(each.n_removed for each in done):,} files")
        return done

    def check(self) -> list[Finding]:
        until = self._settle()
        return run_checks(self.session, until=until)

    def quarantine(
        self, source: str | None, since: Instant | None, reason: str | None, fate: Fate | None
    ) -> list[QuarantinedRow]:
        self._settle()
        return quarantine_of(self.session).rows(source=source, since=since, reason=reason, fate=fate)

    def quarantined(self, receipt_id: str) -> QuarantinedRow:
        self._settle()
        return quarantine_of(self.session).get([receipt_id])[0]

    def replay(
        self,
        receipt_ids: Sequence[str],
        edits: Edits,
        event: bytes | None,
        revision: int | None,
        reason: str,
        actor: str | None,
    ) -> list[Replay]:
        """Send events in again; what became of them is known when this returns."""
        self._settle()
        done = replay(
            self.session,
            receipt_ids,
            edits=edits,
            event=event,
            revision=revision,
            reason=reason,
            actor=actor or _actor(),
        )
        self._settle()
        return [ended(self.session, each) for each in done]

    def discard(self, receipt_ids: Sequence[str], reason: str, actor: str | None) -> int:
        """Note that events are not wanted."""
        self._settle()
        n_rows = discard(self.session, receipt_ids, reason=reason, actor=actor or _actor())
        self._settle()
        return n_rows

    def training_sets(self) -> list[TrainingSetManifest]:
        return manifests(self.stores.catalog)

    def training_set(self, name: str) -> TrainingSetManifest:
        return get_manifest(self.session, name)

    def build_set(
        self,
        model: str,
        name: str | None,
        *,
        since: Instant | None,
        until: Instant | None,
        cutoff: Instant | None,
        pinned: bool,
        share: float,
    ) -> TrainingSetManifest:
        """Freeze a set of a model as of a cut-off."""
        with self._at_work():
            self.session.applied.project.model(model)  # a wrong name is told before anything is done
            now = self._clock.now()
            cutoff = now if cutoff is None else cutoff
            self.session.drain(commit=True)
            label_until(self.session, now)
            return build_set(
                self.session,
                model,
                name or f"{model}-{'pinned-' if pinned else ''}{format_instant(cutoff)}",
                since=BEGINNING if since is None else since,
                until=cutoff if until is None else until,
                cutoff=cutoff,
                pinned=pinned,
                share=share,
            )

    def frozen(self, name: str) -> TrainingSet:
        """The rows of a set as they were frozen."""
        return frozen(self.session, name)

    def compare(self, before: str, after: str) -> Difference:
        """By which members two sets differ."""
        return compare(self.session, before, after)

    def rebuild(self, name: str) -> TrainingSet:
        """Build a set again from what is stored."""
        self._settle()
        return rebuild(self.session, get_manifest(self.session, name))

    def verify(self, name: str) -> Verification:
        """Hash a set again, frozen and rebuilt."""
        self._settle()
        return verify_set(self.session, get_manifest(self.session, name))

    def close(self) -> None:
        self._forget_session()
        self.stores.close()

    def _settle(self) -> Instant | None:
        """Apply and commit what waits, or wait until the server has; returns up to which stamp that is surely done.

        None: everything. Where another process that is no server is at work, who only looks sees what was committed
        last: the tables as they stand, each of them whole.
        """
        self._look_around()
        try:
            if not self._is_beside:
                # First the lock that whoever accepts holds: it may still have to take those of its applier.
                self.stores.journal  # noqa: B018
            self.session.drain(commit=True)
            return self.session.committed_stamp() if self._is_beside else None
        except StoreBusyError:
            self._reporter.started("another process is at work here")
            self._reporter.finished("as of its last commit")
            return committed_until(self.stores.apply_log_reader, self.stores.lake)

    def _look_around(self) -> None:
        """Work beside the server if one runs, alone if none does; over what is in force now."""
        is_served = serving_lock(self.stores.data).is_held()
        if is_served != self._is_beside:
            self._forget_session()
            self.stores.reopen(reads_online=is_served)
            self._is_beside = is_served
        elif is_served and "session" in self.__dict__:
            applied, _ = find_applied(self.stores.catalog)
            if applied != self.session.applied:
                self._forget_session()

    @contextmanager
    def _at_work(self) -> Iterator[None]:
        """The turn of whoever changes more than the journal; waits for it."""

        def say() -> None:
            self._reporter.started("another process is at work here; waiting for it")

        with work_lock(self.stores.data).take(_AT_WORK, patience_s=_PATIENCE_S, waits=say):
            self._look_around()  # what was in force may have changed meanwhile
            yield

    def _newest_version(self, model: str) -> str:
        names = [doc.name for doc in self.stores.catalog.documents("model_version")]
        own = [name for name in names if name.rpartition("-")[0] == model]
        if not own:
            raise NotReadyError(
                f"Model {model!r} has no version yet.", where="catalog", mend=f"run `volano train {model}`"
            )
        return max(own, key=lambda name: int(name.rpartition("-")[2]))

    def _forget_session(self) -> None:
        """What hangs on the session is made anew on the next use."""
        for name in ("jobs", "learner", "session"):
            self.__dict__.pop(name, None)


def _refuse_breaking(plan: Plan) -> None:
    if plan.breaks:
        raise PlanRefused(
            "\n".join(f"{change.source}.{change.field}: {change.consequence}." for change in plan.breaks),
            where="producers of events",
            mend="; ".join(dict.fromkeys(change.mend for change in plan.breaks))
            + "; or allow it: `volano apply --allow-breaking`",
        )


def _actor() -> str:
    return getpass.getuser()
