"""Which event belongs to which decision: the first of its key inside its horizon. Arrays and tables only.

Both times of an event count: `event_time` places it inside or outside a horizon, `known_at` says whether it
may be used yet. A horizon is half-open, `[decided_at, decided_at + horizon)`, the mirror image of a feature
window `[decided_at − W, decided_at)`: an event at the very instant of the decision is an outcome and never a
feature, and no event is both. Holds no label states (`organize.labels`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.kernels.standing import as_micros

Positions = NDArray[np.int64]
"""Row numbers of a table; −1 for none."""


def standing_rows(events: pa.Table, as_of: int) -> pa.Table:
    """The rows of a fact table that stand at an instant: known by then and not superseded by then."""
    return events.filter(pc.and_(_known(events, as_of), pc.invert(_superseded(events, as_of))))


def retracted_rows(events: pa.Table, standing: pa.Table, as_of: int) -> pa.Table:
    """The rows that once stood and of whose event no revision stands at an instant: what was taken back."""
    gone = events.filter(pc.and_(_known(events, as_of), _superseded(events, as_of)))
    if not gone.num_rows:
        return gone
    return gone.filter(pc.invert(pc.is_in(gone["event_id"], value_set=standing["event_id"].combine_chunks())))


def first_events(
    keys: Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]],
    opens_at: NDArray[np.int64],
    closes_at: NDArray[np.int64],
    events: pa.Table,
) -> Positions:
    """For each decision the first event of its key in `[opens_at, closes_at)`, by (event_time, known_at,
    event_id).

    One sort and one binary search a decision: many events of one key cost no more than few.

    Args:
        keys: pairs of columns to be equal, (of the decisions, of the events); a null equals nothing.
        opens_at: instants, shape (n_decisions,).
        closes_at: instants, shape (n_decisions,).
        events: rows with event_id, event_time, known_at.

    Returns:
        Row numbers of `events`, −1 where there is none; shape (n_decisions,).
    """
    n_decisions, n_events = len(opens_at), events.num_rows
    nothing = np.full(n_decisions, -1, dtype=np.int64)
    if not n_decisions or not n_events:
        return nothing
    decision_codes, event_codes, n_codes = _codes(keys, n_decisions)
    times = as_micros(events["event_time"])
    order = (
        pc.sort_indices(
            pa.table(
                {
                    "code": event_codes,
                    "time": times,
                    "known": as_micros(events["known_at"]),
                    "id": events["event_id"],
                }
            ),
            sort_keys=[(name, "ascending") for name in ("code", "time", "known", "id")],
        )
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )
    # (code, time) as one integer, times numbered so that it fits: equal order, one binary search.
    grid = np.unique(times)
    width = len(grid) + 1
    if n_codes * width >= 2**62:
        raise OverflowError(
            f"{n_codes} keys by {width} instants do not fit one integer; attribute fewer decisions"
        )
    sought = decision_codes * width + np.searchsorted(grid, opens_at, side="left")
    places = (event_codes * width + np.searchsorted(grid, times, side="left"))[order]
    at = np.searchsorted(places, sought, side="left")
    found = order[np.minimum(at, n_events - 1)]
    inside = (
        (at < n_events)
        & (decision_codes >= 0)
        & (event_codes[found] == decision_codes)
        & (times[found] < closes_at)
    )
    result: Positions = np.where(inside, found, nothing)
    return result


def _known(events: pa.Table, as_of: int) -> pa.Array:
    known = pa.array(as_micros(events["known_at"]) <= as_of)
    if "operation" in events.column_names:  # a row that only says "taken back" is no evidence
        return pc.and_(known, pc.not_equal(events["operation"].cast(pa.string()), "retract").combine_chunks())
    return known


def _superseded(events: pa.Table, as_of: int) -> pa.Array:
    column = events["superseded_known_at"]
    moments = as_micros(column.cast(pa.int64()).fill_null(np.iinfo(np.int64).max))
    return pa.array(moments <= as_of)


def _codes(
    keys: Sequence[tuple[pa.ChunkedArray, pa.ChunkedArray]], n_decisions: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """One number a distinct key, the same on both sides; −1 where a part is null."""
    codes = np.zeros(0, dtype=np.int64)
    missing = np.zeros(0, dtype=bool)
    n_codes = 1
    for part, (decided, happened) in enumerate(keys):
        both = pa.chunked_array([*decided.chunks, *happened.cast(decided.type).chunks], decided.type)
        encoded = pc.dictionary_encode(both.combine_chunks())
        raw = encoded.indices.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
        null = encoded.indices.is_null().to_numpy(zero_copy_only=False)
        if part == 0:
            codes, missing, n_codes = raw, null, len(encoded.dictionary)
            continue
        _, codes = np.unique(codes * len(encoded.dictionary) + raw, return_inverse=True)
        codes = codes.astype(np.int64, copy=False)
        missing |= null
        n_codes = int(codes.max(initial=-1)) + 1
    codes = np.where(missing, -1, codes)
    return codes[:n_decisions], codes[n_decisions:], n_codes
