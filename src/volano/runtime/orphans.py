"""Observations that name a decision which has not come: found beside each run of labels."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table
from volano.kernels.standing import as_array, as_micros
from volano.organize.attribution import ATTRIBUTION_SCHEMA, standing_rows
from volano.organize.orphans import names_decisions, orphan_rows
from volano.plan.definitions import CompiledLabel
from volano.runtime.session import Session
from volano.values.instants import BEGINNING, NEVER, Instant

_DECIDED = ("decision_id", "decided_at", "applied_at")


def orphans(
    session: Session,
    decision: str,
    label: CompiledLabel,
    new: pa.Table,
    *,
    since: Instant,
    reach: Instant,
    as_of: Instant,
    written_in: str,
) -> pa.Table:
    """The rows of observations without their decision that changed in `(since, as_of]`; none for a join on fields.

    Looked at is what became known less than `parent_within` before `since`, for that may still wait, and what changed
    after.

    Args:
        new: attribution rows of this run.
        reach: the oldest event_time of what became known since `parent_within` before `since`.
        written_in: the lake table `attribution`.
    """
    column, lake = names_decisions(label), session.stores.lake
    if column is None:
        return ATTRIBUTION_SCHEMA.empty_table()
    within_us = session.stores.config.parent_within_us
    rows = session.facts.rows(
        label.source,
        since=None if reach <= BEGINNING else reach,
        until=as_of + 1,
        columns=(column,),
        moved=True,
    )
    rows = rows.filter(rows["event_time"].is_valid())
    ended = as_micros(rows["superseded_known_at"].cast(pa.int64()).fill_null(NEVER))
    changed = (as_micros(rows["known_at"]) > max(since - within_us, BEGINNING)) | (
        (ended > since) & (ended <= as_of)
    )
    ids = pc.unique(rows["event_id"].filter(pa.array(changed)))
    if not len(ids):
        return ATTRIBUTION_SCHEMA.empty_table()
    standing = standing_rows(rows.filter(pc.is_in(rows["event_id"], value_set=ids)), as_of)
    for other in _sharing(session, decision, label):
        theirs = as_array(_decided(session, other, standing[column])["decision_id"])
        standing = standing.filter(pc.invert(pc.is_in(standing[column], value_set=theirs)))
    before = lake.read(
        written_in,
        columns=ATTRIBUTION_SCHEMA.names,
        where={"event_time": (pc.min(rows["event_time"].cast(pa.int64())).as_py(), None)},
    )
    before = before.filter(pc.is_in(before["event_id"], value_set=ids)).cast(ATTRIBUTION_SCHEMA)
    return orphan_rows(
        label,
        standing,
        _decided(session, decision, standing[column]),
        pa.concat_tables([before, new]),
        decision=decision,
        as_of=as_of,
        within_us=within_us,
    )


def _sharing(session: Session, decision: str, label: CompiledLabel) -> Iterator[str]:
    """Other decision APIs that the same label judges: an id that is theirs is no orphan of this one."""
    project = session.applied.project
    for name, other in project.decisions.items():
        if name != decision and project.model(other.model).label == label.name:
            yield name


def _decided(session: Session, decision: str, ids: pa.ChunkedArray) -> pa.Table:
    """The first answers to some ids."""
    lake, table = session.stores.lake, decision_table(decision)
    if lake.version(table) is None:
        return pa.table(
            {name: pa.array([], pa.string() if name == _DECIDED[0] else pa.int64()) for name in _DECIDED}
        )
    rows = lake.read(table, columns=[*_DECIDED, "attempt"])
    wanted = pc.and_(
        pc.equal(rows["attempt"], 0), pc.is_in(rows["decision_id"], value_set=as_array(pc.unique(ids)))
    )
    return rows.filter(wanted)
