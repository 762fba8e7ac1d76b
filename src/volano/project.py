"""The facade: one project, its verbs, each one call into the runtime. Holds no rule of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from threading import Event
from typing import Any, Self

import pyarrow as pa

from volano.decide.explain import ExplainedDecision
from volano.learn.training_set import Difference, TrainingSet
from volano.plan.plan import Plan
from volano.protocols.clock import Clock
from volano.protocols.reporter import Reporter
from volano.records.elsewhere import DecisionElsewhere
from volano.records.job import JobRun
from volano.records.journal import DecisionMade, Operation
from volano.records.learning import ModelVersion, ReleaseEvent, TrainingSetManifest
from volano.records.quarantine import Edits, Fate, QuarantinedRow, Replay
from volano.records.receipt import Account, Receipt
from volano.runtime.applied import Applied
from volano.runtime.checks import Finding
from volano.runtime.clock import SystemClock
from volano.runtime.datasets import Verification
from volano.runtime.describing import TableDescription
from volano.runtime.jobs import JobStatus
from volano.runtime.silence import Silence
from volano.runtime.status import Status
from volano.runtime.upkeep import TableUpkeep
from volano.runtime.worker import Round
from volano.runtime.workplace import Workplace


class Project:
    """A project's folder, open for work. Use it as a context manager, or close it.

    Open with `Project.open`. Each verb raises `volano.errors.VolanoError` with what, where and the mend.
    """

    def __init__(self, workplace: Workplace) -> None:
        self._work = workplace

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        clock: Clock | None = None,
        entropy: Callable[[int], bytes] = os.urandom,
        reporter: Reporter | None = None,
    ) -> Self:
        """Open the project of a folder.

        Args:
            folder: holds `volano.toml` and the definitions.
            clock: the machine's when None; a `ReplayClock` turns years into minutes.
            entropy: so many random bytes, for ids; a replay passes a seeded source.
            reporter: hears of progress.
        """
        return cls(Workplace(Path(folder), clock or SystemClock(), entropy, reporter or Silence()))

    def plan(self) -> Plan:
        """What it takes to put the definitions of the folder in force."""
        return self._work.plan()

    def apply(self, reporter: Reporter | None = None, *, allow_breaking: bool = False) -> Applied:
        """Carry out the plan; resumes where a crash left it.

        Args:
            allow_breaking: also a plan by which events that producers send today would be set aside (`Plan.breaks`).
        """
        return self._work.apply(reporter, allow_breaking=allow_breaking)

    def finish(self) -> None:
        """After an apply that was killed, when the plan is empty: do what it left undone; mostly nothing."""
        self._work.finish()

    def observe(
        self,
        source: str,
        event: Mapping[str, Any] | bytes,
        *,
        operation: Operation = Operation.INSERT,
        revision: int = 0,
        sync: bool = True,
    ) -> Receipt:
        """Take one event in; it is kept when this returns.

        Args:
            source: name of a source that takes pushed events.
            event: field values by name, or JSON.
            operation: insert states a row; correct and retract replace it by id.
            revision: 0 for an insert, higher for what replaces it.
            sync: False leaves the fsync to the next `drain`: until then
                a loss of power may take the event, a kill may not.
        """
        session = self._work.session
        return session.observe(source, [event], operation=operation, revision=revision, sync=sync)[0]

    def observe_many(self, source: str, events: Sequence[Mapping[str, Any] | bytes]) -> list[Receipt]:
        """Take events of one source in, in one append; a bad one does not harm its neighbours."""
        return self._work.session.observe(source, events)

    def log_decision(self, name: str, logged: DecisionElsewhere | bytes) -> DecisionMade:
        """Log a decision that something else made: it is labelled and trained on like ours.

        Its features are computed from history, as of its `decided_at`. The same one again changes nothing; another one
        under its id is set aside as a conflict.
        """
        return self._work.session.log_decision(name, logged)

    def log_exposure(
        self,
        decision: str,
        decision_id: str,
        *,
        exposure_id: str | None = None,
        exposed_at: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Note what was really shown of a decision, also before the decision itself has come.

        Args:
            exposure_id: the exposure's own; sent twice it counts once. One is made when None.
            exposed_at: now when None.
            fields: `shown`, `position`, `surface`, `subject`, `purpose`.
        """
        return self._work.session.log_exposure(decision, decision_id, exposure_id, exposed_at, fields)

    def log_action(
        self,
        decision: str,
        decision_id: str,
        action: str,
        *,
        action_id: str | None = None,
        taken_at: datetime | str | None = None,
        **fields: Any,
    ) -> Receipt:
        """Note what was really done about a decision, when it differs from what was decided or was done later.

        Args:
            action: need not be one of the decision's actions.
            action_id: the action's own; sent twice it counts once. One is made when None.
            taken_at: now when None.
            fields: `propensity`, `actor`, `reason`, `subject`, `purpose`.
        """
        return self._work.session.log_action(decision, decision_id, action, action_id, taken_at, fields)

    def receipt(self, receipt_id: str) -> Receipt:
        """How an accepted event ended, as far as it has."""
        return self._work.session.receipt(receipt_id)

    def quarantine(
        self,
        *,
        source: str | None = None,
        since: int | None = None,
        reason: str | None = None,
        fate: Fate | None = Fate.OPEN,
    ) -> list[QuarantinedRow]:
        """Events that were set aside, the oldest first, without their bytes; those nobody decided about, if not asked.

        Args:
            since: only those received from this instant on.
            reason: only those of this code, such as `missing_field`.
            fate: only those that stand so; all when None.
        """
        return self._work.quarantine(source, since, reason, fate)

    def quarantined(self, receipt_id: str) -> QuarantinedRow:
        """One event that was set aside, with its bytes as they came, and what became of it."""
        return self._work.quarantined(receipt_id)

    def replay(
        self,
        *receipt_ids: str,
        edits: Edits | None = None,
        event: bytes | None = None,
        revision: int | None = None,
        reason: str = "",
        actor: str | None = None,
    ) -> list[Replay]:
        """Send events that were set aside in again, as they came or mended; each counts once, whoever tries.

        What still does not fit is not sent and stays open.

        Args:
            edits: fields to set anew, the same in each.
            event: the whole event as JSON, in place of what came; for one receipt.
            revision: send it as a correction with this revision, where its id is taken by other content.
            actor: who does it; whoever is logged in when None.
        """
        return self._work.replay(receipt_ids, edits or {}, event, revision, reason, actor)

    def discard(self, *receipt_ids: str, reason: str, actor: str | None = None) -> int:
        """Note that events that were set aside are not wanted, and why; returns how many. Nothing is erased."""
        return self._work.discard(receipt_ids, reason, actor)

    def reconcile(self) -> Account:
        """The account of events, decisions and shadow scores: stored, duplicate, conflict, quarantined or pending."""
        return self._work.session.reconcile()

    def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> DecisionMade:
        """Decide, and log the decision."""
        return self._work.session.decide(name, request, decision_id=decision_id)

    def drain(self, *, commit: bool = False) -> int:
        """Make everything accepted visible; write the lake when that is due or asked for."""
        return self._work.drain(commit=commit)

    def run_due(self) -> list[JobRun]:
        """Run the recurring jobs that are due: labels, shadow scores, retraining.

        A job that fails harms no other: its run says why, and it is repeated after a pause.
        """
        return self._work.run_due()

    def jobs(self) -> list[JobStatus]:
        """How every recurring job stands; works beside another process."""
        return self._work.job_statuses()

    def work(
        self, stop: Event, *, once: bool = False, hear: Callable[[Exception], None] = lambda error: None
    ) -> Iterator[Round]:
        """Drain and run what is due, round after round; `volano worker` iterates over it.

        Args:
            stop: set it, and the iteration ends after the job under way, with everything committed.
            once: one round.
            hear: is told what a job raised, with its traceback.
        """
        return self._work.work(stop, once=once, hear=hear)

    def refresh(self, *sources: str, since: int | None = None, until: int | None = None) -> dict[str, str]:
        """Read the tables of sources again (all that are a table only, or those named); what each brought, in words.

        Args:
            since, until: materialize an interval: only rows with an event time in `[since, until)`, in µs, however old;
                of tables to which rows are appended. Without both as far back as the source's `accept_late` says.
        """
        return self._work.refresh(*sources, since=since, until=until)

    def train(self, model: str) -> ModelVersion:
        """Build a training set as of now and train a version; it serves only when released."""
        return self._work.train(model)

    def release(
        self, decision: str, version: str | None = None, *, force_reason: str | None = None
    ) -> ReleaseEvent:
        """Judge a version (the newest when None) and release it if the gate lets it pass."""
        return self._work.release(decision, version, force_reason)

    def rollback(self, decision: str, reason: str) -> ReleaseEvent:
        """Serve the champion before the present one again."""
        return self._work.rollback(decision, reason)

    def training_sets(self) -> list[TrainingSetManifest]:
        """The manifests of every training and evaluation set, by name."""
        return self._work.training_sets()

    def training_set(self, name: str) -> TrainingSetManifest:
        """The manifest of a training or evaluation set."""
        return self._work.training_set(name)

    def build_set(
        self,
        model: str,
        name: str | None = None,
        *,
        since: int | None = None,
        until: int | None = None,
        cutoff: int | None = None,
        pinned: bool = False,
        share: float = 1.0,
    ) -> TrainingSetManifest:
        """Freeze a training set, or a pinned evaluation set, of a model's decisions with mature labels.

        Args:
            name: of the set; of the model and the cut-off when None.
            since: decisions in `[since, until)`, instants in microseconds; all of the past when None.
            until: the cut-off when None.
            cutoff: only labels mature by then count; now when None.
            pinned: an evaluation set: no later training touches its members or their units.
            share: of the units, above 0 to 1; which ones follows from a hash.
        """
        return self._work.build_set(
            model, name, since=since, until=until, cutoff=cutoff, pinned=pinned, share=share
        )

    def frozen(self, name: str) -> TrainingSet:
        """The rows of a set as they were frozen, hashed again: `.table` is Arrow, `.table.to_pandas()` a frame."""
        return self._work.frozen(name)

    def compare(self, before: str, after: str) -> Difference:
        """By which members two frozen sets differ: ids only in one, only in the other, and changed ones."""
        return self._work.compare(before, after)

    def rebuild(self, name: str) -> TrainingSet:
        """Build a set again from the lake and its manifest: the same rows, whatever came since. Stores nothing."""
        return self._work.rebuild(name)

    def verify(self, name: str) -> Verification:
        """Hash the frozen rows of a set again, rebuild it, and name the members that differ."""
        return self._work.verify(name)

    def status(self) -> Status:
        """How the project stands."""
        return self._work.status()

    def problems(self) -> dict[str, str]:
        """Why decisions cannot be served, by decision; empty when all can. Loads models and the author's code."""
        return self._work.problems()

    def decisions(self, name: str, *, limit: int = 20, since: int | None = None) -> pa.Table:
        """The newest logged decisions of a name, newest first."""
        return self._work.decisions(name, limit, since)

    def decision(self, decision_id: str) -> ExplainedDecision:
        """One decision explained: request, features, model, release, policy, label, shadows."""
        return self._work.decision(decision_id)

    def sql(self, query: str, *, limit: int | None = None) -> pa.Table:
        """The result of one SELECT over the lake: `fact_<source>`, `dim_<entity>`, `decision_<name>`, `label_<name>`,
        `outcome_<decision>`, their histories, every table as it is stored, and authors' tables in place.

        All tables at one consistent snapshot; reads only, also beside another process, which then has said what was
        committed last.

        Args:
            query: SQL of DuckDB.
            limit: at most so many rows; all when None.
        """
        return self._work.sql(query, limit)

    def describe_lake(self, table: str | None = None) -> list[TableDescription]:
        """What there is in the lake: every table and view, or one; grain, keys, columns, size, and how they join."""
        return self._work.describe_lake(table)

    def compact(self, *tables: str) -> list[TableUpkeep]:
        """Merge the small files of the lake's tables (all, or those named); works beside every other process."""
        return self._work.compact(tables)

    def vacuum(self, *tables: str, retain_us: int | None = None, dry_run: bool = False) -> list[TableUpkeep]:
        """Remove files of the lake's tables (all, or those named) that no version needs that counts.

        The newest version counts, those that were it within the retention, and those that training sets were built
        from.

        Args:
            retain_us: as configured (`keep_replaced`) when None; an hour at least.
            dry_run: remove nothing, say what would be.
        """
        return self._work.vacuum(tables, retain_us, dry_run)

    def check(self) -> list[Finding]:
        """Check every invariant; one finding a rule, sound or broken."""
        return self._work.check()

    def close(self) -> None:
        """Sync and release everything."""
        self._work.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
