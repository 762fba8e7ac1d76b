"""Filling an online store from the lake: for a new state beside the old one, and for a store that was lost."""

from __future__ import annotations

from collections.abc import Collection

from volano.organize.backfill import Backfill, rebuild
from volano.organize.facts import Facts
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup
from volano.plan.state_index import CURSOR_KEY
from volano.protocols.functions import Functions
from volano.protocols.online_store import OnlineWriter
from volano.records.handover import HandOver
from volano.runtime.scratch import FileScratch
from volano.runtime.stores import Stores
from volano.values.instants import Instant


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
    built: Collection[str] = (),
) -> int:
    """Fill an empty store with everything that was applied; returns the number of keys.

    Everything applied must be committed. Afterwards the applier goes on as if it had written the store itself. A
    filling that was cut short goes on behind the last part that it wrote.

    Args:
        built: hashes of the groups whose chunks were written before, as of the same stamp.
    """
    facts = Facts(project, stores.lake, stores.sql, handovers)
    last = stores.apply_log.last()
    with FileScratch(stores.data / "scratch") as scratch:
        n_keys = rebuild(
            online,
            Backfill(project, groups, facts, stores.sql, functions, scratch=scratch),
            project,
            groups,
            stores.lake,
            stamp=as_of(stores, handovers),
            sequence=0 if last is None else last.sequence,
            cursor=_cursor(stores),
            built=built,
        )
    rebuilt = getattr(online, "rebuilt", None)
    if rebuilt is not None:
        rebuilt()
    return n_keys


def as_of(stores: Stores, handovers: dict[str, HandOver]) -> Instant:
    """The newest stamp given so far, by the applier or a hand-over."""
    last = stores.apply_log.last()
    pinned = [handover.stamp for handover in handovers.values()]
    return max([0 if last is None else last.last_stamp, *pinned])


def _cursor(stores: Stores) -> dict[str, int]:
    """How far the journal was applied, from the apply log."""
    cursor: dict[str, int] = {}
    after = 0
    while batches := stores.apply_log.read(after, limit=1_024):
        for batch in batches:
            cursor.update({segment: end for segment, _, end in batch.ranges})
        after = batches[-1].sequence
    return cursor
