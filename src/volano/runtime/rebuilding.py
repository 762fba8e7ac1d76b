"""Filling an online store from the lake: for a new state beside the old one, and for a store that was lost."""

from __future__ import annotations

from typing import NamedTuple

from volano.organize.backfill import Backfill, rebuild
from volano.organize.facts import Facts
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup
from volano.plan.state_index import CURSOR_KEY
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.functions import Functions
from volano.protocols.online_store import OnlineWriter
from volano.records.handover import HandOver
from volano.runtime.scratch import FileScratch
from volano.runtime.stores import Stores
from volano.values.instants import Instant


class Position(NamedTuple):
    """A place in what was applied: a stamp, and the sequence of the apply log behind which everything is later."""

    stamp: Instant
    sequence: int


def is_lost(online: OnlineWriter) -> bool:
    """Whether a store that should hold state lacks it, in part or in whole, or may be damaged by a loss of power.

    The place in the journal is what a filling writes last, so without it a filling was cut short.
    """
    with online.snapshot() as snapshot:
        (cursor,) = snapshot.get_many([CURSOR_KEY])
    return cursor is None or bool(getattr(online, "needs_rebuild", False))


def fill(
    online: OnlineWriter,
    stores: Stores,
    project: CompiledProject,
    groups: tuple[StateGroup, ...],
    functions: Functions,
    handovers: dict[str, HandOver],
    *,
    position: Position | None = None,
) -> int:
    """Fill an empty store with what was applied; returns the number of keys.

    Everything applied up to the position must be committed; what came later may be. Afterwards the applier goes on
    behind it as if it had written the store itself. A filling that was cut short goes on behind the last part that it
    wrote.

    Args:
        position: how much of what was applied; all of it when None.
    """
    facts = facts_in_force(project, stores, handovers)
    until = position_of(stores.apply_log, handovers) if position is None else position
    with FileScratch(stores.data / "scratch") as scratch:
        n_keys = rebuild(
            online,
            Backfill(project, groups, facts, stores.sql, functions, scratch=scratch),
            project,
            groups,
            stores.lake,
            stamp=until.stamp,
            logged_until=_stamp_of(stores, until.sequence),
            sequence=until.sequence,
            cursor=_cursor(stores, until.sequence),
        )
    rebuilt = getattr(online, "rebuilt", None)
    if rebuilt is not None:
        rebuilt()
    return n_keys


def facts_in_force(project: CompiledProject, stores: Stores, handovers: dict[str, HandOver]) -> Facts:
    """The facts that state is built from: of a table that could not be handed over yet only what was pushed."""
    waiting = [
        source.name for source in project.sources.values() if source.table and source.name not in handovers
    ]
    return Facts(project, stores.lake, stores.sql, handovers, waiting=waiting)


def position_of(apply_log: ApplyLogReader, handovers: dict[str, HandOver]) -> Position:
    """The end of the apply log, and the newest stamp given so far, by the applier or a hand-over."""
    last = apply_log.last()
    pinned = [handover.stamp for handover in handovers.values()]
    stamp = max([0 if last is None else last.last_stamp, *pinned])
    return Position(stamp, 0 if last is None else last.sequence)


def _stamp_of(stores: Stores, sequence: int) -> Instant:
    """The newest stamp that the applier had given with a batch; a hand-over's may lie behind it."""
    batches = stores.apply_log_reader.read(sequence - 1, limit=1) if sequence else []
    return batches[0].last_stamp if batches else 0


def _cursor(stores: Stores, until: int) -> dict[str, int]:
    """How far the journal was applied at a sequence of the apply log."""
    cursor: dict[str, int] = {}
    after = 0
    while after < until and (batches := stores.apply_log_reader.read(after, limit=1_024)):
        for batch in batches:
            if batch.sequence <= until:
                cursor.update({segment: end for segment, _, end in batch.ranges})
        after = batches[-1].sequence
    return cursor
