"""Carrying out a plan: one step at a time, each remembered in the ledger, so that a crash resumes.

State is built in an online store of its own, named by the attempt, while the old one keeps serving; it is swapped in
together with the definitions, in one compare-and-set. The attempt pins how much of what was applied it builds from;
what came since, also between a kill and the next run, follows from the apply log before the swap. So a server may go on
applying meanwhile: it takes the new state over when it finds it in force.

A table that cannot be used costs the steps that depend on it. The others are carried out; the next plan holds the rest.
A projection that computes rows from other rows ends the apply: what it computes must never be in force.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Final, assert_never

import msgspec

from volano.collect.applier import Applier
from volano.collect.tables import lake_tables
from volano.compile.state import reading_also
from volano.errors import (
    ConflictError,
    CorruptionError,
    NotReadyError,
    PartlyAppliedError,
    RequestError,
    StateMismatchError,
    TableUnreadableError,
    UnsupportedError,
    VolanoError,
)
from volano.organize.backfill import Backfill, Part, write_parts
from volano.plan.definitions import CompiledProject
from volano.plan.explain import explain_step
from volano.plan.plan import Plan
from volano.plan.state import StateGroup
from volano.plan.steps import (
    BackfillGroup,
    CreateTable,
    HandOver,
    PublishState,
    RegisterDefinitions,
    RetireState,
    RetypeColumns,
    Step,
    StoreBundle,
    WidenTable,
    step_id,
)
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.clock import Clock
from volano.protocols.online_store import OnlineWriter
from volano.protocols.reporter import Reporter
from volano.records.handover import HandOver as PinnedHandOver
from volano.runtime.applied import Applied, find_applied, note_applied, put_applied, put_definitions
from volano.runtime.binding import needed_projects, rebind_releases
from volano.runtime.bundle_shelf import BundleFunctions, BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.handing_over import quarantine_misfits, take_over
from volano.runtime.locks import FolderLock
from volano.runtime.processes.beside import Beside
from volano.runtime.rebuilding import Position, facts_in_force, fill, is_lost, position_of
from volano.runtime.scratch import FileScratch
from volano.runtime.serving import ServingLoader
from volano.runtime.stores import Stores
from volano.values.instants import Instant

_HANDOVERS: Final = "handover"
_POSITION: Final = "position"
_END: Final = "end"
_OF_ONE_STEP: Final = (
    NotReadyError,
    RequestError,
    StateMismatchError,
    TableUnreadableError,
    UnsupportedError,
)
"""What an author's table causes: the steps that do not depend on it go on."""


class _Note(msgspec.Struct, frozen=True, omit_defaults=True):
    """An entry of the ledger stream of an attempt: a step that was done or failed, or the position of its state."""

    id: str
    step: str
    note: str = ""
    failed: bool = False
    where: str = ""
    mend: str = ""
    position: Position | None = None


class Application:
    """One plan being carried out.

    Args:
        bundle: the bytes that the plan's bundle digest names; not needed where the plan stores none.
        clock: gives the hand-over instant.
        also: (bundle, definitions) of a release that is to serve again.
        beside: the server that applies and commits meanwhile; None: nobody does.
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
        beside: Beside | None = None,
    ) -> None:
        self._stores = stores
        self._plan = plan
        self._bundle = bundle
        self._clock = clock
        self._reporter = reporter
        self._beside = beside
        self._apply_log: ApplyLogReader = stores.apply_log if beside is None else stores.apply_log_reader
        self._applied, self._revision = find_applied(stores.catalog)
        # The same plan may be made again after others; the revision that it replaces is another one then. Where it
        # could change nothing, the revision is the same, and only what the ledger says of its end tells them apart.
        self._attempt = f"{plan.id}-{self._revision}"
        n_ended = 0
        while any(note.id == _END for note in self._notes()):
            n_ended += 1
            self._attempt = f"{plan.id}-{self._revision}-{n_ended}"
        self._also = tuple(also)
        self._position: Position | None = None
        self._failures: dict[Step, VolanoError] = {}
        self._unchecked: set[str] = set()
        self.is_stale = False
        """Whether a step failed in an earlier run of this attempt and was not tried again: plan again for it."""

    def run(self) -> Applied:
        """Carry out every step that is not done yet; returns what is in force afterwards.

        Raises:
            AuthorCodeError: a projection is not stateless, as a sample shows; the old definitions stay in force.
            ConflictError: other definitions were applied since the plan was made.
            PartlyAppliedError: some steps could not be carried out; what does not depend on them is in force.
        """
        in_force = "" if self._applied is None else self._applied.project.definitions_hash
        done = {note.id: note for note in self._notes()}
        if in_force != self._plan.based_on and not (done and in_force == self._plan.project.definitions_hash):
            raise ConflictError(
                "Other definitions were applied since this plan was made.",
                where="catalog",
                mend="run `volano plan` again",
            )
        if _POSITION in done:
            self._position = done[_POSITION].position
        self._reporter.started("apply", len(self._plan.steps))
        for n, step in enumerate(self._plan.steps, start=1):
            known = done.get(step_id(step))
            if known is None:
                self._take(step)
            elif known.failed:
                # What is built may hold later events already; a step of this position must not come behind them.
                self.is_stale = True
                self._failures[step] = VolanoError(known.note, where=known.where, mend=known.mend)
            self._reporter.advanced(n, type(step).__name__)
        applied, _ = find_applied(self._stores.catalog)
        assert applied is not None
        applied = self._with_handovers(applied)
        self._rebind(applied)
        self._sweep(applied)
        note_applied(self._stores.catalog, applied)
        n_done = len(self._plan.steps) - len(self._failures)
        self._reporter.finished(f"{n_done} steps{_warning(self._unchecked)}")
        if self._failures:
            self._remember(_Note(_END, "End"))
            failures = tuple((explain_step(step), error) for step, error in self._failures.items())
            raise PartlyAppliedError(failures, n_done=n_done)
        return applied

    def _take(self, step: Step) -> None:
        """Carry out a step and remember how that ended."""
        note = _Note(step_id(step), type(step).__name__)
        try:
            self._require(step)
            note = msgspec.structs.replace(note, note=self._carry_out(step))
        except _OF_ONE_STEP as error:
            if not isinstance(step, HandOver | BackfillGroup):
                raise
            self._failures[step] = error
            said = {"note": error.what, "where": error.where, "mend": error.mend}
            note = msgspec.structs.replace(note, failed=True, **said)
        self._remember(note)

    def _require(self, step: Step) -> None:
        """Refuse to build what reads a source, or joins a dimension, that this plan could not bring."""
        if not isinstance(step, BackfillGroup):
            return
        group = self._known_groups()[step.group]
        lacking = {failed.source for failed in self._failures if isinstance(failed, HandOver)}
        failed = self._lost_groups
        lost = sorted(
            lacking & {group.source}
            | {self._known_groups()[join.group].source for join in group.joins if join.group in failed}
        )
        if lost:
            raise NotReadyError(
                f"It reads {', '.join(lost)}, whose table could not be used.",
                where=f"views {', '.join(step.views)}",
                mend="mend the table and apply again",
            )

    @property
    def _lost_groups(self) -> set[str]:
        """The hashes of the groups that could not be built."""
        return {failed.group for failed in self._failures if isinstance(failed, BackfillGroup)}

    def _with_handovers(self, applied: Applied) -> Applied:
        """What is in force, with the hand-overs of sources that no view reads."""
        handovers = self._handovers()
        if applied.handovers == handovers:
            return applied
        whole = msgspec.structs.replace(applied, handovers=handovers)
        _, revision = find_applied(self._stores.catalog)
        put_applied(self._stores.catalog, whole, expected=revision)
        return whole

    def _rebind(self, applied: Applied) -> None:
        """Champions whose inputs stay the same run with the new bundle, if it can serve them."""
        shelf = BundleShelf(self._stores.artifacts)
        loader = ServingLoader(self._stores, applied, shelf, Definitions(self._stores, applied))
        rebind_releases(self._stores.catalog, applied, at=self._clock.now(), verify=loader.prepare)

    def _carry_out(self, step: Step) -> str:
        match step:
            case StoreBundle():
                return self._store_bundle(step)
            case CreateTable() | WidenTable() | RetypeColumns():
                self._stores.lake.create(step.table, lake_tables(self._plan.project)[step.table])
                return ""
            case HandOver():
                return self._hand_over(step)
            case BackfillGroup():
                return self._backfill(step)
            case PublishState():
                return self._publish(step) if not self._registers else ""
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
        source, lake, sql = self._plan.project.sources[step.source], self._stores.lake, self._stores.sql
        said = "was pinned before"
        pinned = self._handovers().get(step.source)
        if pinned is None:
            now = self._now()
            snapshot = sql.snapshot(step.table) if step.table else ""
            is_kept = bool(step.table) and not source.stream
            pinned, said = (
                PinnedHandOver(step.source, now, snapshot, now, step.table, imported=is_kept),
                snapshot,
            )
            if step.table:
                taken = take_over(self._plan.project, pinned, lake, sql)
                pinned, said = taken.handover, taken.said or snapshot
            self._stores.catalog.append(_HANDOVERS, [msgspec.json.encode(pinned)], at=now)
        quarantine_misfits(source, pinned, lake, sql)
        return said

    def _backfill(self, step: BackfillGroup) -> str:
        """Chunks of one group, part by part; an attempt that was cut short goes on behind its last part."""
        (group,) = self._groups([step.group])
        handovers = self._handovers()
        project = self._of_state()
        facts = facts_in_force(project, self._stores, handovers)
        functions = self._functions()
        stamp = self._pin().stamp
        online = self._stores.online_to_build(self._state)

        def report(part: Part) -> None:
            self._reporter.advanced(part.done, f"{', '.join(step.views)}: part {part.done} of {part.total}")

        with FileScratch(self._stores.data / "scratch") as scratch:
            groups = tuple(self._known_groups().values())
            work = Backfill(project, groups, facts, self._stores.sql, functions, scratch=scratch)

            if self._registers:  # what was in force before must come back whatever it computes
                self._unchecked |= work.refuse_stateful(group, stamp=stamp)

            def parts(after: int) -> Iterator[Part]:
                return work.chunks(group, stamp=stamp, after=after)

            n_rows = write_parts(online, group.hash, parts, stamp=stamp, owned=group.prefix, on_part=report)
        return f"{n_rows} rows"

    def _pin(self) -> Position:
        """How much of what was applied the new state is built from; the same however often the attempt is resumed."""
        if self._position is None:
            if self._beside is not None:
                self._position = self._position_beside(self._beside)
            else:
                self._position = position_of(self._apply_log, self._handovers())
                if self._applied is not None:
                    # What the old state takes in from now on has a later stamp, whatever the clock says.
                    old = self._stores.online(self._applied.state)
                    old.write({}, (), stamp=self._position.stamp, sequence=0)
            self._remember(_Note(_POSITION, "Position", position=self._position))
        return self._position

    def _position_beside(self, server: Beside) -> Position:
        """The same where a server goes on: what it has committed by now, every later stamp being higher."""
        pinned = [handover.stamp for handover in self._handovers().values()]
        settled = server.settle()
        position = Position(max([0, settled.stamp, *pinned]), settled.sequence)
        server.await_stamp(position.stamp)
        return position

    def _publish(self, step: PublishState) -> str:
        built = [each for each in self._plan.steps if isinstance(each, BackfillGroup)]
        if built and self._lost_groups == {each.group for each in built}:
            return "nothing was built"
        return self._put_in_force(self._groups(step.groups))

    def _register(self, step: RegisterDefinitions) -> str:
        put_definitions(self._stores.catalog, step.bundle, self._plan.project)
        published = [step.groups for step in self._plan.steps if isinstance(step, PublishState)]
        present = () if self._applied is None else self._applied.groups
        return self._put_in_force(self._groups(published[0]) if published else present)

    def _put_in_force(self, groups: tuple[StateGroup, ...]) -> str:
        """The swap: complete the new store, then name it in the one document that everybody reads."""
        if self._builds or self._applied is None:
            online = self._stores.online_to_build(self._state)
            project, functions, handovers = self._of_state(), self._functions(), self._handovers()
            if is_lost(online):
                fill(online, self._stores, project, groups, functions, handovers, position=self._pin())
            self._follow(online, project, groups, functions)
            self._stores.built(self._state)
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

    def _follow(
        self,
        online: OnlineWriter,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        functions: BundleFunctions,
    ) -> None:
        """Apply what was applied since the position, as it was: same fates, same stamps."""
        stores = self._stores
        Applier(
            project,
            groups,
            stores.journal_reader,
            self._apply_log,
            online,
            functions,
            stores.sql,
            self._clock,
        ).recover()

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
        known, lost = self._known_groups(), self._lost_groups
        return tuple(known[hash_] for hash_ in hashes if hash_ not in lost)

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
        last = self._apply_log.last()
        return max(self._clock.now(), 0 if last is None else last.last_stamp + 1)

    def _remember(self, note: _Note) -> None:
        stream, body = f"plan/{self._attempt}", msgspec.json.encode(note)
        self._stores.catalog.append(stream, [body], at=self._clock.now())

    def _notes(self) -> list[_Note]:
        entries = self._stores.catalog.entries(f"plan/{self._attempt}")
        return [msgspec.json.decode(entry.body, type=_Note) for entry in entries]

    def _sweep(self, applied: Applied) -> None:
        """Remove online stores that nothing names any more, and that nobody writes: an applier removes its own."""
        self._stores.close_online(keep=applied.state)
        for folder in (self._stores.data / "online").glob("*"):
            if folder.name != applied.state and not FolderLock(folder / "writer.lock").is_held():
                shutil.rmtree(folder)


def _warning(unchecked: Collection[str]) -> str:
    """A line on views whose projections take no two rows that there are, nor rows that are made up."""
    if not unchecked:
        return ""
    return (
        f"\nnot checked: whether the projections of {', '.join(sorted(unchecked))} compute each row by itself. "
        "They fail on the rows that there are and on made-up ones; test them on rows of your own"
    )
