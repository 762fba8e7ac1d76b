"""Observations that name a decision by its id and are not attached to it: it has not come, or its horizon is elsewhere.

Each has a row in `attribution` under the decision that it names, with no weight: `pending_parent` while it waits,
`expired` with a reason once nobody waits any more, `outside` when it happened before its decision or after the horizon.
Expiry is a report: a decision that comes after all has its observation, for that is what happened. Reads neither store
nor clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.kernels.parents import STATES, ParentState, parent_states
from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.organize.attribution import ATTACHED, ATTRIBUTION_SCHEMA, DETACHED, rule_of
from volano.plan.definitions import DECISION_ID, CompiledLabel
from volano.values.arrow import INSTANT
from volano.values.instants import NEVER, Instant, format_duration

OUTSIDE: Final = "outside"
BEFORE_ITS_DECISION: Final = "it happened before its decision"
AFTER_THE_HORIZON: Final = "it happened after the horizon"
NOT_YET: Final = "its decision has not come yet"


def names_decisions(label: CompiledLabel) -> str | None:
    """The source's column that names decisions by id, or None."""
    return next((column for field, column in label.on if field == DECISION_ID), None)


def orphan_rows(
    label: CompiledLabel,
    events: pa.Table,
    decided: pa.Table,
    written: pa.Table,
    *,
    decision: str,
    as_of: Instant,
    within_us: int,
) -> pa.Table:
    """The rows of observations without their decision that are new or changed as of an instant.

    Args:
        events: those to look at, as they stand at `as_of`: event_id, event_time, known_at, and the column that names
            decisions. The events of others, and what is superseded, are not among them.
        decided: decision_id, decided_at, applied_at of the decisions that they name, as far as those exist.
        written: attribution rows of these events, those of this run too; the newest `attached_at` stands.
        within_us: how long an observation waits.

    Returns:
        Rows of `ATTRIBUTION_SCHEMA` with `attached_at = as_of`.
    """
    column = names_decisions(label)
    assert column is not None
    events = events.filter(events[column].is_valid())
    own = pc.and_(pc.equal(written["label"], label.name), pc.equal(written["decision"], decision))
    standing = _newest(written.filter(own))
    rows = _unattached(label, events, decided, column, decision, as_of, within_us)
    attached = standing.filter(pc.equal(standing["state"], ATTACHED))
    rows = rows.filter(pc.invert(pc.is_in(_keys(rows), value_set=_keys(attached))))
    before = standing.filter(
        pc.is_in(standing["state"], value_set=pa.array([*(state.value for state in ParentState), OUTSIDE]))
    )
    before = before.filter(pc.not_equal(before["state"], ATTACHED))
    at = pc.index_in(_keys(rows), value_set=_keys(before))
    same = pc.equal(rows["state"], before["state"].take(at))
    gone = before.filter(pc.invert(pc.is_in(_keys(before), value_set=_keys(rows))))
    for name, values in (
        ("state", pa.repeat(DETACHED, gone.num_rows)),
        ("attached_at", pa.array(np.full(gone.num_rows, as_of)).cast(INSTANT)),
        ("reason", pa.repeat("", gone.num_rows)),
    ):
        gone = gone.set_column(gone.column_names.index(name), ATTRIBUTION_SCHEMA.field(name), values)
    return pa.concat_tables(
        [rows.filter(pc.invert(pc.fill_null(same, False))), gone.cast(ATTRIBUTION_SCHEMA)]
    )


def _unattached(
    label: CompiledLabel,
    events: pa.Table,
    decided: pa.Table,
    column: str,
    decision: str,
    as_of: Instant,
    within_us: int,
) -> pa.Table:
    at = pc.index_in(as_array(events[column]), value_set=as_array(decided["decision_id"].cast(pa.string())))
    exists = at.is_valid().to_numpy(zero_copy_only=False)
    decided_at, parent_at = np.full(events.num_rows, NEVER), np.full(events.num_rows, NEVER)
    place = at.drop_null().to_numpy(zero_copy_only=False)
    decided_at[exists] = as_micros(decided["decided_at"])[place]
    parent_at[exists] = as_micros(decided["applied_at"])[place]
    state = parent_states(as_micros(events["known_at"]), parent_at, as_of=as_of, within_us=within_us)
    happened = as_micros(events["event_time"])
    has_come = state == STATES.index(ParentState.ATTACHED)
    early, late = has_come & (happened < decided_at), has_come & (happened - label.horizon_us >= decided_at)
    expired = f"its decision did not come within {format_duration(within_us)}"
    names = np.array([state.value for state in STATES], dtype=object)[state]
    names[early | late] = OUTSIDE
    reasons = np.where(names == ParentState.PENDING.value, NOT_YET, expired).astype(object)
    reasons[early], reasons[late] = BEFORE_ITS_DECISION, AFTER_THE_HORIZON
    n = events.num_rows
    rows = pa.table(
        {
            "decision": pa.repeat(decision, n),
            "decision_id": events[column].cast(pa.string()),
            "label": pa.repeat(label.name, n),
            "source": pa.repeat(label.source, n),
            "event_id": events["event_id"].cast(pa.string()),
            "state": pa.array(names, pa.string()),
            "weight": pa.array(np.zeros(n)),
            "rule": pa.repeat(rule_of(label), n),
            "event_time": pa.array(happened).cast(INSTANT),
            "decided_at": pa.array(decided_at, mask=~(early | late)).cast(INSTANT),
            "attached_at": pa.array(np.full(n, as_of)).cast(INSTANT),
            "reason": pa.array(reasons, pa.string()),
        },
        schema=ATTRIBUTION_SCHEMA,
    )
    return rows.filter(pa.array(~has_come | early | late))


def _newest(rows: pa.Table) -> pa.Table:
    return (
        rows.take(pa.array(newest_rows(_keys(rows), as_micros(rows["attached_at"]))))
        if rows.num_rows
        else rows
    )


def _keys(rows: pa.Table) -> pa.Array:
    ids = rows["decision_id"].cast(pa.string()), rows["event_id"].cast(pa.string())
    return as_array(pc.binary_join_element_wise(*ids, "\x1f"))
