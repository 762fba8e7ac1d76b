"""Carrying out a plan: one step at a time, each remembered in the ledger, so that a crash resumes.

State is built in an online store of its own, named by the attempt, while the old one keeps serving; it is swapped in
together with the definitions, in one compare-and-set.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

import msgspec

from volano.collect.tables import lake_tables
from volano.compile.state import reading_also
from volano.errors import ConflictError, CorruptionError
from volano.organize.backfill import Backfill, Part, write_parts
from volano.organize.facts import Facts
from volano.plan.definitions import CompiledProject
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
from volano.protocols.reporter import Reporter
from volano.records.handover import HandOver as PinnedHandOver
from volano.runtime.applied import Applied, find_applied, note_applied, put_applied, put_definitions
from volano.runtime.binding import needed_projects, rebind_releases
from volano.runtime.bundle_shelf import BundleFunctions, BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.rebuilding import as_of, fill
from volano.runtime.refreshing import import_table, say_misfits
from volano.runtime.scratch import FileScratch
from volano.runtime.serving import ServingLoader
from volano.runtime.stores import Stores
from volano.values.instants import Instant

_HANDOVERS = "handover"


class Application:
    """One plan being carried out.

    Args:
        bundle: the bytes that the plan's bundle digest names; not needed where the plan stores none.
        clock: gives the hand-over instant.
        also: (bundle, definitions) of a release that is to serve again.
    """

    def __init__(
        self,
        stores: Stores,
        plan: Plan,
        bundle: bytes,
        clock: Clock,
        reporter: Reporter,
        *,
        also: Sequence[tuple[str, CompiledProject]] = (),
    ) -> None:
        self._stores = stores
        self._plan = plan
        self._bundle = bundle
        self._clock = clock
        self._reporter = reporter
        last = stores.apply_log.last()
        # An attempt ends where something was applied in between: what it backfilled is of an older stamp.
        self._attempt = f"{plan.id}-{0 if last is None else last.sequence}"
        self._stream = f"plan/{self._attempt}"
        self._applied, self._revision = find_applied(stores.catalog)
        self._also = tuple(also)
        if not self._registers:  # the same state may be dropped and built again without a record in between
            self._attempt += f"-{self._revision}"
            self._stream = f"plan/{self._attempt}"

    def run(self) -> Applied:
        """Carry out every step that is not done yet; returns what is in force afterwards.

        Raises:
            ConflictError: other definitions were applied since the plan was made.
        """
        in_force = "" if self._applied is None else self._applied.project.definitions_hash
        done = {msgspec.json.decode(entry.body)["id"] for entry in self._stores.catalog.entries(self._stream)}
        if in_force != self._plan.based_on and not (done and in_force == self._plan.project.definitions_hash):
            raise ConflictError(
                "Other definitions were applied since this plan was made.",
                where="catalog",
                mend="run `volano plan` again",
            )
        self._reporter.started("apply", len(self._plan.steps))
        for n, step in enumerate(self._plan.steps, start=1):
            if step_id(step) not in done:
                note = self._carry_out(step)
                self._remember(step, note)
            self._reporter.advanced(n, type(step).__name__)
        applied, _ = find_applied(self._stores.catalog)
        assert applied is not None
        note_applied(self._stores.catalog, applied)
        self._rebind(applied)
        self._sweep(applied)
        self._reporter.finished(f"{len(self._plan.steps)} steps")
        return applied

    def _rebind(self, applied: Applied) -> None:
        """Champions whose inputs stay the same run with the new bundle, if it can serve them."""
        shelf = BundleShelf(self._stores.artifacts)
        loader = ServingLoader(self._stores, applied, shelf, Definitions(self._stores, applied))
        rebind_releases(self._stores.catalog, applied, at=self._clock.now(), verify=loader.prepare)

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
                return ""  # the new store never held them
        assert_never(step)

    @property
    def _registers(self) -> bool:
        return any(isinstance(step, RegisterDefinitions) for step in self._plan.steps)

    @property
    def _builds(self) -> bool:
        return any(isinstance(step, PublishState) for step in self._plan.steps)

    @property
    def _backfilled(self) -> set[str]:
        """The groups whose backfill was a step of its own, and is done."""
        return {step.group for step in self._plan.steps if isinstance(step, BackfillGroup)}

    @property
    def _state(self) -> str:
        """The online store after this plan: a new one when state is published, else the present one."""
        if self._builds or self._applied is None:
            return self._attempt
        return self._applied.state

    def _store_bundle(self, step: StoreBundle) -> str:
        stored = self._stores.artifacts.put(self._bundle)
        if stored != step.bundle:
            raise CorruptionError(
                "The project's files changed since the plan was made.",
                where=str(self._stores.folder),
                mend="run `volano plan` again",
            )
        return stored

    def _hand_over(self, step: HandOver) -> str:
        if any(pinned.source == step.source for pinned in self._pinned()):
            return "was pinned before"
        now = self._now()
        snapshot = self._stores.sql.snapshot(step.table) if step.table else ""
        is_kept = bool(step.table) and not self._plan.project.sources[step.source].stream
        pinned = PinnedHandOver(step.source, now, snapshot, now, step.table, imported=is_kept)
        said = snapshot
        if is_kept:
            kept = import_table(self._plan.project, pinned, self._stores.lake, self._stores.sql)
            if kept is None or kept.misfits:
                # An apply that was cut short kept it, or rows did not fit: the first refresh compares all of it.
                pinned = msgspec.structs.replace(pinned, snapshot="")
            if kept is not None and kept.misfits:
                said = say_misfits(kept)
        self._stores.catalog.append(_HANDOVERS, [msgspec.json.encode(pinned)], at=now)
        return said

    def _backfill(self, step: BackfillGroup) -> str:
        """Chunks of one group, part by part; an attempt that was cut short goes on behind its last part."""
        (group,) = self._groups([step.group])
        handovers = self._handovers()
        project = self._of_state()
        facts = Facts(project, self._stores.lake, self._stores.sql, handovers)
        functions = self._functions()
        stamp = as_of(self._stores, handovers)
        online = self._stores.online(self._state)

        def report(part: Part) -> None:
            self._reporter.advanced(part.done, f"{', '.join(step.views)}: part {part.done} of {part.total}")

        with FileScratch(self._stores.data / "scratch") as scratch:
            groups = tuple(self._known_groups().values())
            work = Backfill(project, groups, facts, self._stores.sql, functions, scratch=scratch)

            def parts(after: int) -> Iterator[Part]:
                return work.chunks(group, stamp=stamp, after=after)

            n_rows = write_parts(online, group.hash, parts, stamp=stamp, owned=group.prefix, on_part=report)
        return f"{n_rows} rows"

    def _register(self, step: RegisterDefinitions) -> str:
        put_definitions(self._stores.catalog, step.bundle, self._plan.project)
        published = [step.groups for step in self._plan.steps if isinstance(step, PublishState)]
        present = () if self._applied is None else self._applied.groups
        return self._put_in_force(self._groups(published[0]) if published else present)

    def _put_in_force(self, groups: tuple[StateGroup, ...]) -> str:
        """The swap: complete the new store, then name it in the one document that everybody reads."""
        if self._builds or self._applied is None:
            online = self._stores.online(self._state)
            project, functions, handovers = self._of_state(), self._functions(), self._handovers()
            fill(online, self._stores, project, groups, functions, handovers, built=self._backfilled)
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

    def _functions(self) -> BundleFunctions:
        """The plan's functions first, then those of the bundles that serve, for groups that are kept."""
        return BundleFunctions(BundleShelf(self._stores.artifacts), self._projects())

    def _of_state(self) -> CompiledProject:
        """What the new state is kept by: the plan's definitions, reading also what those that serve read."""
        return reading_also(self._plan.project, [project for _, project in self._projects()])

    def _projects(self) -> list[tuple[str, CompiledProject]]:
        """(bundle, definitions) of the plan, then of what serves or may serve again."""
        projects = [(self._plan.bundle, self._plan.project)]
        if self._applied is not None:
            projects += needed_projects(self._stores.catalog, self._applied)
        return [*projects, *self._also]

    def _groups(self, hashes: Iterable[str]) -> tuple[StateGroup, ...]:
        known = self._known_groups()
        return tuple(known[hash_] for hash_ in hashes)

    def _known_groups(self) -> dict[str, StateGroup]:
        """Groups that are there and groups of the plan, by hash: an old view may join a dimension that is there."""
        present = () if self._applied is None else self._applied.groups
        return {group.hash: group for group in (*present, *self._plan.groups)}

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
