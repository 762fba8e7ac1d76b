"""A session: one process at work on an applied project. Holds the three parts of the journey together.

`drain` runs applier and committer in this process; under a replay clock that turns years into minutes through the
same code that separate processes run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from typing import Any

import msgspec

from volano.collect.applier import Applier
from volano.collect.committer import Committer
from volano.collect.door import Door
from volano.collect.receipts import reconcile
from volano.decide.decider import Decider
from volano.decide.elsewhere import ElsewhereReader
from volano.organize.facts import Facts
from volano.organize.key_history import LakeHistory
from volano.plan.failed_rows import FailingView
from volano.protocols.clock import Clock
from volano.records.elsewhere import ACTION_TAKEN, EXPOSURE, DecisionElsewhere, action_event, exposure_event
from volano.records.journal import DecisionMade, Operation
from volano.records.receipt import Account, Receipt
from volano.runtime.answers import Answers
from volano.runtime.applied import Applied
from volano.runtime.bundle_shelf import BundleFunctions, BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.failing import read_failing
from volano.runtime.logged import find_logged
from volano.runtime.processes.beside import Beside, Settled
from volano.runtime.rebuilding import facts_in_force, fill, is_lost
from volano.runtime.receipts import find_receipt
from volano.runtime.serving import ServingLoader
from volano.runtime.stores import Stores
from volano.values.identities import uuid7
from volano.values.instants import BEGINNING, Instant, to_datetime

Entropy = Callable[[int], bytes]


class Session:
    """What runs while a project is open.

    Args:
        applied: what is in force; a session ends when something else is applied.
        entropy: so many random bytes; a replay passes a seeded one, so that ids repeat.
        applies: whether this process is the applier; if not, another one may be, and the apply log is only read.
        beside: the server that applies and commits in place of this process; it does neither then.
    """

    def __init__(
        self,
        stores: Stores,
        applied: Applied,
        clock: Clock,
        entropy: Entropy,
        *,
        applies: bool = True,
        beside: Beside | None = None,
    ) -> None:
        self.stores = stores
        self._applies = applies and beside is None
        self._beside = beside
        self._settled: Settled | None = None
        self._settled_at: Instant | None = None
        self.applied = applied
        self.clock = clock
        self._entropy = entropy
        self.bundles = BundleShelf(stores.artifacts)
        self.definitions = Definitions(stores, applied)
        self._committed_at: Instant | None = None
        self.commit_through: Callable[[int], object] = lambda _sequence: self.committer.step()
        """Returns when what was applied up to a sequence is in the lake; beside a committer it waits for that."""

    @cached_property
    def door(self) -> Door:
        return Door(
            self.applied.project,
            self.stores.journal,
            self.clock,
            self._entropy,
            future_tolerance_us=self.stores.config.future_tolerance_us,
        )

    @cached_property
    def applier(self) -> Applier:
        applied = self.applied
        online = self.stores.online(applied.state)
        if is_lost(online):
            self.committer.step()
            project = self.definitions.of_state
            fill(online, self.stores, project, applied.groups, self.functions, applied.handovers)
        applier = Applier(
            self.definitions.of_state,
            applied.groups,
            self.stores.journal_reader,
            self.stores.apply_log,
            online,
            self.functions,
            self.stores.sql,
            self.clock,
            bundle=applied.bundle,
            history=LakeHistory(
                self.definitions.of_state,
                applied.groups,
                facts_in_force(self.definitions.of_state, self.stores, applied.handovers),
                self.stores.sql,
                self.functions,
                lambda sequence: self.commit_through(sequence),
            ),
        )
        applier.recover()
        return applier

    @cached_property
    def functions(self) -> BundleFunctions:
        """The authors' functions of every bundle that serves."""
        return BundleFunctions(self.bundles, self.definitions.needed())

    @cached_property
    def committer(self) -> Committer:
        return Committer(
            self.definitions.of_state,
            self.stores.journal_reader,
            self.stores.apply_log if self._applies else self.stores.apply_log_reader,
            self.stores.lake,
            definitions=self.definitions.get,
            sources=self.definitions.of_events,
        )

    @cached_property
    def facts(self) -> Facts:
        """As the applied definitions read them; those of an older bundle are `definitions.facts(bundle)`."""
        return self.definitions.facts(self.applied.bundle)

    @cached_property
    def loader(self) -> ServingLoader:
        return ServingLoader(self.stores, self.applied, self.bundles, self.definitions)

    @cached_property
    def decider(self) -> Decider:
        """Serves what the ledger says is released; `refresh` puts a new release in force."""
        if self._beside is None:
            self.applier  # noqa: B018 - recovers online state before the first read
        answers = Answers(
            self.applied.project.namespace,
            self.stores.online(self.applied.state),
            self.stores.journal_reader,
            lambda decision, decision_id: find_logged(
                self.stores.lake, self.definitions, decision, decision_id
            ),
        )

        def log(made: DecisionMade) -> None:
            answers.remember(made, self.door.log([made])[0])

        return Decider(
            [self.loader.load(name) for name in self.applied.project.decisions],
            clock=self.clock,
            stopwatch=self.clock.elapsed_ns,
            entropy=lambda: self._entropy(8),
            log=log,
            find=answers.find,
        )

    def refresh(self, decision: str) -> None:
        """Serve the newest release of a decision from the next request on."""
        self.decider.serve(self.loader.load(decision))

    def observe(
        self,
        source: str,
        events: Sequence[Mapping[str, Any] | bytes],
        *,
        operation: Operation = Operation.INSERT,
        revision: int = 0,
        sync: bool = True,
    ) -> list[Receipt]:
        """Take events in; see `Door.accept`."""
        return self.door.accept(source, events, operation=operation, revision=revision, sync=sync)

    def log_exposure(
        self,
        decision: str,
        decision_id: str,
        exposure_id: str | None,
        exposed_at: datetime | str | None,
        fields: Mapping[str, Any],
    ) -> Receipt:
        """Note what was really shown of a decision."""
        event = exposure_event(
            decision,
            decision_id,
            exposure_id=exposure_id or self._new_id(),
            exposed_at=exposed_at or to_datetime(self.clock.now()),
            **fields,
        )
        return self.observe(EXPOSURE, [event])[0]

    def log_action(
        self,
        decision: str,
        decision_id: str,
        action: str,
        action_id: str | None,
        taken_at: datetime | str | None,
        fields: Mapping[str, Any],
    ) -> Receipt:
        """Note what was really done about a decision."""
        event = action_event(
            decision,
            decision_id,
            action=action,
            action_id=action_id or self._new_id(),
            taken_at=taken_at or to_datetime(self.clock.now()),
            **fields,
        )
        return self.observe(ACTION_TAKEN, [event])[0]

    def log_decision(self, name: str, logged: DecisionElsewhere | bytes) -> DecisionMade:
        """Log a decision made elsewhere; see `ElsewhereReader.read`."""
        reader = ElsewhereReader(
            self.applied.project,
            name,
            bundle=self.applied.bundle,
            future_tolerance_us=self.stores.config.future_tolerance_us,
        )
        made = reader.read(logged, now=self.clock.now())
        self.door.log([made], sync=True)
        return made

    def _new_id(self) -> str:
        return uuid7(self.clock.now(), self._entropy(8))

    def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> DecisionMade:
        """Decide now; see `Decider.decide`."""
        return self.decider.decide(name, request, decision_id=decision_id)

    def drain(self, *, commit: bool = False) -> int:
        """Apply everything accepted so far, and commit when it is due (or asked for); returns records applied.

        Beside a server it waits until the server has, where a commit is asked for, and applies nothing.
        """
        if self._beside is not None:
            if commit:
                asked_at = self.clock.now()
                self._settled = self._beside.settle()
                self._settled_at = max(asked_at, self._settled.stamp)
            return 0
        n_applied = 0
        while n := self.applier.step():
            n_applied += n
        now = self.clock.now()
        if self._committed_at is None:
            self._committed_at = now
        if commit or now - self._committed_at >= self.stores.config.commit_every_us:
            self.committer.step()
            self._committed_at = now
            self.note_failing()
        return n_applied

    def settled_at(self) -> Instant:
        """After a drain that committed: an instant at which everything that was known is in the lake.

        Alone that is now. Beside a server, what was applied since the drain may not be committed yet.
        """
        return self.clock.now() if self._settled_at is None else self._settled_at

    def committed_stamp(self) -> Instant:
        """The newest stamp that the lake surely holds, after a drain that committed; BEGINNING before the first."""
        if self._beside is not None:
            if self._settled is None:
                self._settled = self._beside.settle()
            return self._settled.stamp
        last = self.stores.apply_log.last()
        return BEGINNING if last is None else last.last_stamp

    def prune(self, at: Instant) -> int:
        """Drop rows from online state that no window at an instant reaches; returns how many chunks."""
        return self.applier.prune(at) if self._beside is None else self._beside.prune(at)

    def note_failing(self) -> None:
        """Enter into the ledger which views could not take rows since the last time, and why: one entry a view."""
        for failing in self.applier.take_failing():
            body = msgspec.json.encode(failing)
            self.stores.catalog.append(f"view_failures/{failing.view}", [body], at=self.clock.now())

    def failing_views(self) -> tuple[FailingView, ...]:
        """The views that lack rows now, because their projections could not take them."""
        return read_failing(self.stores, self.applied)

    def receipt(self, receipt_id: str) -> Receipt:
        """How an accepted event ended, as far as it has."""
        log = self.stores.apply_log if self._applies else self.stores.apply_log_reader
        return find_receipt(self.stores, log, self.clock, receipt_id)

    def reconcile(self) -> Account:
        """The account of everything accepted; also beside the process that is at work."""
        return reconcile(self.stores.journal_reader, self.stores.apply_log_reader, self.stores.lake)
