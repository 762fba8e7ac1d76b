"""Carrying out a plan: one step at a time, each remembered in the ledger, so that a crash resumes.

State is built in an online store of its own, named by the plan, while the old one keeps serving; it is swapped in
together with the definitions, in one compare-and-set.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from typing import assert_never

import msgspec

from volano.collect.tables import lake_tables
from volano.errors import ConflictError, CorruptionError
from volano.organize.backfill import backfill
from volano.organize.facts import Facts
from volano.plan.plan import Plan
from volano.plan.state import StateGroup
from volano.plan.steps import (
    BackfillGroup,
    CreateTable,
    HandOver,
    PublishState,
    RegisterDefinitions,
    RetireState,
    Step,
    StoreBundle,
    WidenTable,
    step_id,
)
from volano.protocols.clock import Clock
from volano.protocols.online_store import OnlineWriter
from volano.protocols.reporter import Reporter
from volano.records.handover import HandOver as PinnedHandOver
from volano.runtime.applied import Applied, find_applied, put_applied, put_definitions
from volano.runtime.bundle_shelf import BundleFunctions, BundleShelf
from volano.runtime.stores import Stores
from volano.values.instants import BEGINNING, Instant

_HANDOVERS = "handover"
_COPY_AT_ONCE = 20_000


class Application:
    """One plan being carried out.

    Args:
        bundle: the bytes that the plan's bundle digest names.
        clock: gives the hand-over instant.
    """

    def __init__(self, stores: Stores, plan: Plan, bundle: bytes, clock: Clock, reporter: Reporter) -> None:
        self._stores = stores
        self._plan = plan
        self._bundle = bundle
        self._clock = clock
        self._reporter = reporter
        self._stream = f"plan/{plan.id}"
        self._applied, self._revision = find_applied(stores.catalog)

    def run(self) -> Applied:
        """Carry out every step that is not done yet; returns what is in force afterwards.

        Raises:
            ConflictError: other definitions were applied since the plan was made.
        """
        in_force = "" if self._applied is None else self._applied.project.definitions_hash
        done = {msgspec.json.decode(entry.body)["id"] for entry in self._stores.catalog.entries(self._stream)}
        if in_force != self._plan.based_on and not (done and in_force == self._plan.project.definitions_hash):
            raise ConflictError(
                "Other definitions were applied since this plan was made.", mend="run `volano plan` again"
            )
        self._reporter.started("apply", len(self._plan.steps))
        for n, step in enumerate(self._plan.steps, start=1):
            if step_id(step) not in done:
                note = self._carry_out(step)
                self._remember(step, note)
            self._reporter.advanced(n, type(step).__name__)
        applied, _ = find_applied(self._stores.catalog)
        assert applied is not None
        self._sweep(applied)
        self._reporter.finished(f"{len(self._plan.steps)} steps")
        return applied

    def _carry_out(self, step: Step) -> str:
        match step:
            case StoreBundle():
                return self._store_bundle(step)
            case CreateTable() | WidenTable():
                self._stores.lake.create(step.table, lake_tables(self._plan.project)[step.table])
                return ""
            case HandOver():
                return self._hand_over(step)
            case BackfillGroup():
                return self._backfill(step)
            case PublishState():
                return self._put_in_force(self._groups(step.groups)) if not self._registers else ""
            case RegisterDefinitions():
                return self._register(step)
            case RetireState():
                return ""  # their keys were not copied into the new store
        assert_never(step)

    @property
    def _registers(self) -> bool:
        return any(isinstance(step, RegisterDefinitions) for step in self._plan.steps)

    @property
    def _builds(self) -> bool:
        return any(isinstance(step, PublishState) for step in self._plan.steps)

    @property
    def _state(self) -> str:
        """The online store after this plan: a new one when state is published, else the present one."""
        if self._builds or self._applied is None:
            return self._plan.id
        return self._applied.state

    def _store_bundle(self, step: StoreBundle) -> str:
        stored = self._stores.artifacts.put(self._bundle)
        if stored != step.bundle:
            raise CorruptionError(
                "The project's files changed since the plan was made.", mend="run `volano plan` again"
            )
        return stored

    def _hand_over(self, step: HandOver) -> str:
        if any(pinned.source == step.source for pinned in self._pinned()):
            return "was pinned before"
        now = self._now()
        snapshot = self._stores.sql.snapshot(step.table) if step.table else ""
        pinned = PinnedHandOver(step.source, now, snapshot, now, step.table)
        self._stores.catalog.append(_HANDOVERS, [msgspec.json.encode(pinned)], at=now)
        return snapshot

    def _backfill(self, step: BackfillGroup) -> str:
        (group,) = self._groups([step.group])
        handovers = self._handovers()
        facts = Facts(self._plan.project, self._stores.lake, self._stores.sql, handovers)
        stamp = self._stores.apply_log.last()
        as_of = max(
            [BEGINNING if stamp is None else stamp.last_stamp, *(pinned.stamp for pinned in handovers.values())]
        )
        online = self._new_store()
        shelf = BundleShelf(self._stores.artifacts)
        functions = BundleFunctions(shelf, [(self._plan.bundle, self._plan.project)])
        n_chunks = 0
        for puts in backfill(group, self._plan.project, facts, functions, self._stores.sql, stamp=as_of):
            online.write(puts, (), stamp=as_of, sequence=0)
            n_chunks += len(puts)
            self._reporter.advanced(n_chunks, f"{', '.join(step.views)}: {n_chunks} chunks")
        return f"{n_chunks} chunks"

    def _register(self, step: RegisterDefinitions) -> str:
        put_definitions(self._stores.catalog, step.bundle, self._plan.project)
        published = [step.groups for step in self._plan.steps if isinstance(step, PublishState)]
        present = () if self._applied is None else self._applied.groups
        return self._put_in_force(self._groups(published[0]) if published else present)

    def _put_in_force(self, groups: tuple[StateGroup, ...]) -> str:
        if self._builds:
            self._carry_over(groups)
        applied = Applied(
            bundle=self._plan.bundle if self._registers or self._applied is None else self._applied.bundle,
            project=self._plan.project,
            groups=groups,
            state=self._state,
            handovers=self._handovers(),
            at=self._clock.now(),
        )
        put_applied(self._stores.catalog, applied, expected=self._revision)
        return applied.state

    def _carry_over(self, groups: tuple[StateGroup, ...]) -> None:
        """Copy what the new store shares with the old one: kept groups, the idempotency index, the position."""
        online = self._new_store()
        if self._applied is None:
            online.sync()
            return
        gone = {group.prefix for group in self._applied.groups} - {group.prefix for group in groups}
        with self._stores.online(self._applied.state).snapshot() as old:
            puts: dict[bytes, bytes] = {}
            for key, value in old.scan(b"", b"\xff" * 32):
                if key[:8] not in gone:
                    puts[key] = value
                if len(puts) >= _COPY_AT_ONCE:
                    online.write(puts, (), stamp=old.stamp, sequence=0)
                    puts = {}
            online.write(puts, (), stamp=old.stamp, sequence=old.sequence)
        online.sync()

    def _new_store(self) -> OnlineWriter:
        return self._stores.online(self._state)

    def _groups(self, hashes: Iterable[str]) -> tuple[StateGroup, ...]:
        present = () if self._applied is None else self._applied.groups
        known = {group.hash: group for group in (*present, *self._plan.groups)}
        return tuple(known[hash_] for hash_ in hashes)

    def _pinned(self) -> list[PinnedHandOver]:
        entries = self._stores.catalog.entries(_HANDOVERS)
        return [msgspec.json.decode(entry.body, type=PinnedHandOver) for entry in entries]

    def _handovers(self) -> dict[str, PinnedHandOver]:
        """The newest hand-over of each source; a source that is only streamed pins an instant and no table."""
        return {pinned.source: pinned for pinned in self._pinned()}

    def _now(self) -> Instant:
        """Never before a stamp that was given: a backfill's rows must not look older than what was seen."""
        last = self._stores.apply_log.last()
        return max(self._clock.now(), 0 if last is None else last.last_stamp + 1)

    def _remember(self, step: Step, note: str) -> None:
        body = msgspec.json.encode({"id": step_id(step), "step": type(step).__name__, "note": note})
        self._stores.catalog.append(self._stream, [body], at=self._clock.now())

    def _sweep(self, applied: Applied) -> None:
        """Remove online stores that nothing names any more."""
        self._stores.close_online(keep=applied.state)
        for folder in (self._stores.data / "online").glob("*"):
            if folder.name != applied.state:
                shutil.rmtree(folder)
