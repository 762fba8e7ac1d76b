"""Labels from evidence: each decision's label state as of an instant, by rules without a memory.

The state is a function of what was known at `as_of` alone, so running every hour, every day or once at the
end gives the same final states. Rows are appended when something changed; the newest `computed_at` stands. A
decision without a row is pending: nothing may read it as a negative.

The rules, in order, for a decision with `matures_at = decided_at + horizon`. Events count when their
event_time lies in `[decided_at, matures_at)` and they stand at `as_of` (known by then, not superseded by
then):

1. An event of a censoring source censors the label, whatever else happened.
2. Otherwise the first event of the label's source by (event_time, known_at, event_id) decides: `provisional`
   while as_of < matures_at, `mature` from then on. When its value is null, the label is censored.
3. Otherwise, while the horizon is open: `retracted` if an event was taken back, else `pending`.
4. Otherwise, at maturity: the default as a mature value if one is declared, else censored.

A mature or censored label may still change: evidence that became known at or after `matures_at` is not lost.
It supersedes the row with a new one whose reason says that it came late; what was trained on the old row has
the old cut-off. Never reads the clock; reads and writes no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import InvariantError, RequestError
from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.organize.attribution import Positions, first_events, retracted_rows, standing_rows
from volano.plan.definitions import CompiledLabel
from volano.protocols.sql_engine import SqlEngine
from volano.records.label import LabelState
from volano.values.arrow import INSTANT
from volano.values.instants import Instant, format_duration, format_instant
from volano.values.schema import DType

LABEL_SCHEMA: Final = pa.schema(
    [
        pa.field("decision", pa.string(), nullable=False),
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("value_text", pa.string()),
        pa.field("decided_at", INSTANT, nullable=False),
        pa.field("matures_at", INSTANT, nullable=False),
        pa.field("computed_at", INSTANT, nullable=False),
        pa.field("evidence", pa.string()),
        pa.field("evidence_source", pa.string()),
        pa.field("evidence_stamp", INSTANT),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""The lake table `label`. Bools (0, 1), numbers and instants stand in `value`, text in `value_text`."""

LATE: Final = "evidence became known after maturity"
NO_VALUE: Final = "the outcome has no value"
TAKEN_BACK: Final = "the outcome was taken back"

_STATES: Final = tuple(LabelState)
_CODE: Final = {state: code for code, state in enumerate(_STATES)}


class _Draft(NamedTuple):
    """Label columns while the rules write into them; one entry a decision."""

    state: NDArray[np.int8]
    value: NDArray[np.float64]
    has_value: NDArray[np.bool_]
    text: NDArray[np.object_]
    evidence: NDArray[np.object_]
    source: NDArray[np.object_]
    stamp: NDArray[np.int64]
    has_stamp: NDArray[np.bool_]
    reason: NDArray[np.object_]


def attribute(
    label: CompiledLabel,
    decisions: pa.Table,
    evidence: pa.Table,
    censors: Mapping[str, pa.Table],
    existing: pa.Table | None,
    *,
    decision: str,
    as_of: Instant,
    sql: SqlEngine,
) -> pa.Table:
    """The label rows that are new or changed as of an instant.

    Args:
        label: the compiled label.
        decisions: one row a decision: decision_id, decided_at, and `request__<field>` for every field the
            label joins on. Pass only the decisions that may change (see `open_decisions`); those made after
            `as_of` are left out.
        evidence: facts of the label's source, every revision: event_id, event_time, known_at, applied_at,
            superseded_known_at (null while it stands) and the event's columns. It must be complete for the
            horizons of the decisions passed.
        censors: the same for each censoring source, by its name.
        existing: label rows written before, or None. Rows of other decisions and labels are ignored.
        decision: name of the decision definition.
        as_of: only what was known by then counts.
        sql: runs the label's value expression.

    Returns:
        Rows of `LABEL_SCHEMA` with `computed_at = as_of`, in the order of `decisions`; empty when nothing
        changed. A pending label gets a row only when it supersedes another state.

    Raises:
        RequestError: a table lacks a column that the label joins on.
        InvariantError: a label of one of these decisions was computed after `as_of`: state cannot be written
            in the past.
        AuthorCodeError: the value expression fails.
    """
    decisions = decisions.filter(pa.array(as_micros(decisions["decided_at"]) <= as_of))
    n = decisions.num_rows
    if not n:
        return LABEL_SCHEMA.empty_table()
    decided_at = as_micros(decisions["decided_at"])
    matures_at = decided_at + label.horizon_us
    draft = _derive(label, decisions, evidence, censors, decided_at, matures_at, as_of, sql)
    rows = pa.table(
        {
            "decision": pa.repeat(decision, n),
            "decision_id": _text(decisions["decision_id"]),
            "label": pa.repeat(label.name, n),
            "state": pa.DictionaryArray.from_arrays(
                pa.array(draft.state), pa.array([state.value for state in _STATES])
            ).cast(pa.string()),
            "value": pa.array(draft.value, mask=~draft.has_value),
            "value_text": pa.array(draft.text, pa.string()),
            "decided_at": pa.array(decided_at).cast(INSTANT),
            "matures_at": pa.array(matures_at).cast(INSTANT),
            "computed_at": pa.array(np.full(n, as_of)).cast(INSTANT),
            "evidence": pa.array(draft.evidence, pa.string()),
            "evidence_source": pa.array(draft.source, pa.string()),
            "evidence_stamp": pa.array(draft.stamp, mask=~draft.has_stamp).cast(INSTANT),
            "reason": pa.array(draft.reason, pa.string()),
        },
        schema=LABEL_SCHEMA,
    )
    return rows.filter(_changed(rows, existing, decision, label.name, as_of))


def state_as_of(labels: pa.Table, instant: Instant) -> pa.Table:
    """The label rows that stood at an instant: of each decision and label the newest computed by then.

    Args:
        labels: label rows.
        instant: rows computed later are left out.

    Returns:
        At most one row a (label, decision, decision_id). A decision without a row was pending.
    """
    by_then = labels.filter(pa.array(as_micros(labels["computed_at"]) <= instant))
    if not by_then.num_rows:
        return by_then
    keys = pc.binary_join_element_wise(
        _text(by_then["label"]), _text(by_then["decision"]), _text(by_then["decision_id"]), "\x1f"
    )
    return by_then.take(pa.array(np.sort(newest_rows(keys, as_micros(by_then["computed_at"])))))


def count_states(n_decisions: int, labels: pa.Table, instant: Instant) -> dict[LabelState, int]:
    """How many decisions of one label are in each state at an instant; those without a row are pending.

    Args:
        n_decisions: how many decisions were made by then.
        labels: label rows of one label.
        instant: as of when.
    """
    standing = state_as_of(labels, instant)
    counts = dict.fromkeys(LabelState, 0)
    for row in pc.value_counts(standing["state"]).to_pylist():
        counts[LabelState(row["values"])] = row["counts"]
    counts[LabelState.PENDING] += n_decisions - standing.num_rows
    return counts


def open_decisions(
    label: CompiledLabel,
    decisions: pa.Table,
    events: Sequence[pa.Table],
    *,
    since: Instant,
    as_of: Instant,
) -> pa.Table:
    """The decisions whose label may have changed between two runs: pass these to `attribute`.

    They are those whose horizon was open at some instant in `(since, as_of]`, and those older ones for which
    an event became known, or was superseded, in between (evidence that comes late, a correction, a
    retraction).

    Args:
        label: the compiled label.
        decisions: decisions that may be affected, as for `attribute`.
        events: the fact tables of the evidence and of every censoring source.
        since: `as_of` of the run before; BEGINNING for the first one.
        as_of: of this run.
    """
    decided_at = as_micros(decisions["decided_at"])
    affected = (decided_at <= as_of) & (decided_at + label.horizon_us > since)
    for facts in events:
        facts = facts.filter(
            facts["event_time"].is_valid()
        )  # a retraction may have none; what it ended is here too
        known = as_micros(facts["known_at"])
        ended = as_micros(facts["superseded_known_at"].cast(pa.int64()).fill_null(np.iinfo(np.int64).max))
        changed = ((known > since) & (known <= as_of)) | ((ended > since) & (ended <= as_of))
        # Every revision of a changed event: a correction may have moved it out of one horizon and into another.
        moved = facts.filter(
            pc.is_in(facts["event_id"], value_set=pc.unique(facts["event_id"].filter(pa.array(changed))))
        )
        touched = first_events(
            _join_keys(label, decisions, moved), decided_at, decided_at + label.horizon_us, moved
        )
        affected |= touched >= 0
    return decisions.filter(pa.array(affected))


def _derive(
    label: CompiledLabel,
    decisions: pa.Table,
    evidence: pa.Table,
    censors: Mapping[str, pa.Table],
    decided_at: NDArray[np.int64],
    matures_at: NDArray[np.int64],
    as_of: Instant,
    sql: SqlEngine,
) -> _Draft:
    """The rules of the module's docstring; the later a rule is written here, the stronger it is."""
    n = decisions.num_rows
    draft = _blank(n)
    still_open = as_of < matures_at
    standing = standing_rows(evidence, as_of)
    decided_by = first_events(_join_keys(label, decisions, standing), decided_at, matures_at, standing)
    gone = retracted_rows(evidence, standing, as_of)
    taken_back = first_events(_join_keys(label, decisions, gone), decided_at, matures_at, gone)

    _rule_without_evidence(draft, label, still_open, taken_back, gone)
    _rule_evidence(draft, label, still_open, decided_by, standing, matures_at, sql)
    for name in sorted(censors, reverse=True):  # of two censoring sources the first by name gives the reason
        rows = standing_rows(censors[name], as_of)
        found = first_events(_join_keys(label, decisions, rows), decided_at, matures_at, rows)
        _rule_censor(draft, name, found, rows, matures_at)
    return draft


def _rule_without_evidence(
    draft: _Draft, label: CompiledLabel, still_open: NDArray[np.bool_], taken_back: Positions, gone: pa.Table
) -> None:
    retracted = taken_back >= 0
    _cite(draft, retracted, taken_back, gone, label.source)
    draft.state[retracted & still_open] = _CODE[LabelState.RETRACTED]
    draft.reason[retracted] = TAKEN_BACK
    closed = ~still_open
    if label.has_default:
        draft.state[closed] = _CODE[LabelState.MATURE]
        if isinstance(label.default, str):
            draft.text[closed] = label.default
        elif label.default is not None:
            draft.value[closed] = float(label.default)
            draft.has_value[closed] = True
    else:
        draft.state[closed] = _CODE[LabelState.CENSORED]
    draft.reason[closed & ~retracted] = f"no outcome within {format_duration(label.horizon_us)}"


def _rule_evidence(
    draft: _Draft,
    label: CompiledLabel,
    still_open: NDArray[np.bool_],
    decided_by: Positions,
    standing: pa.Table,
    matures_at: NDArray[np.int64],
    sql: SqlEngine,
) -> None:
    found = decided_by >= 0
    if not found.any():
        return
    used = np.unique(decided_by[found])
    numbers, texts = _values(label, standing.take(pa.array(used)), sql)
    which = np.searchsorted(used, decided_by[found])
    _clear(draft, found)
    _cite(draft, found, decided_by, standing, label.source)
    draft.value[found] = np.nan_to_num(numbers[which], nan=0.0)
    draft.has_value[found] = ~np.isnan(numbers[which])
    draft.text[found] = texts[which]
    draft.state[found] = np.where(still_open[found], _CODE[LabelState.PROVISIONAL], _CODE[LabelState.MATURE])
    valueless = found.copy()
    valueless[found] = np.isnan(numbers[which]) & (texts[which] == None)  # noqa: E711 - elementwise
    draft.state[valueless] = _CODE[LabelState.CENSORED]
    _flag_late(draft, found, decided_by, standing, matures_at)
    draft.reason[valueless] = NO_VALUE


def _rule_censor(
    draft: _Draft, source: str, found_at: Positions, rows: pa.Table, matures_at: NDArray[np.int64]
) -> None:
    found = found_at >= 0
    if not found.any():
        return
    _clear(draft, found)
    _cite(draft, found, found_at, rows, source)
    draft.state[found] = _CODE[LabelState.CENSORED]
    _flag_late(draft, found, found_at, rows, matures_at)
    late = draft.reason[found] == LATE
    draft.reason[found] = np.where(late, f"censored by {source}; {LATE}", f"censored by {source}").astype(
        object
    )


def _values(
    label: CompiledLabel, rows: pa.Table, sql: SqlEngine
) -> tuple[NDArray[np.float64], NDArray[np.object_]]:
    """The label's value for each evidence row: as numbers (NaN for null) and as texts (None for null)."""
    n = rows.num_rows
    source = rows.append_column("__row", pa.array(np.arange(n)))
    answer = sql.query(f"SELECT __row, ({label.value_sql}) AS __value FROM source", {"source": source})
    values = answer.take(pc.sort_indices(answer["__row"]))["__value"]
    nothing = np.full(n, None, dtype=object)
    if label.dtype is DType.STRING:
        return np.full(n, np.nan), np.array(values.cast(pa.string()).to_pylist(), dtype=object)
    if label.dtype is DType.TIMESTAMP:
        values = values.cast(INSTANT).cast(pa.int64())
    elif label.dtype is DType.BOOL:
        values = values.cast(pa.bool_()).cast(pa.int8())
    return values.cast(pa.float64()).fill_null(np.nan).to_numpy(zero_copy_only=False), nothing


def _blank(n: int) -> _Draft:
    return _Draft(
        state=np.full(n, _CODE[LabelState.PENDING], dtype=np.int8),
        value=np.zeros(n),
        has_value=np.zeros(n, dtype=bool),
        text=np.full(n, None, dtype=object),
        evidence=np.full(n, None, dtype=object),
        source=np.full(n, None, dtype=object),
        stamp=np.zeros(n, dtype=np.int64),
        has_stamp=np.zeros(n, dtype=bool),
        reason=np.full(n, "", dtype=object),
    )


def _clear(draft: _Draft, where: NDArray[np.bool_]) -> None:
    draft.has_value[where] = False
    draft.text[where] = None
    draft.reason[where] = ""


def _cite(draft: _Draft, where: NDArray[np.bool_], found_at: Positions, rows: pa.Table, source: str) -> None:
    """Name the event that decided."""
    if not where.any():
        return
    cited = rows.select(["event_id", "applied_at"]).take(pa.array(found_at[where]))
    draft.evidence[where] = _text(cited["event_id"]).to_numpy(zero_copy_only=False)
    draft.source[where] = source
    draft.stamp[where] = as_micros(cited["applied_at"])
    draft.has_stamp[where] = True


def _flag_late(
    draft: _Draft,
    where: NDArray[np.bool_],
    found_at: Positions,
    rows: pa.Table,
    matures_at: NDArray[np.int64],
) -> None:
    known = as_micros(rows["known_at"])[found_at[where]]
    draft.reason[where] = np.where(known >= matures_at[where], LATE, "").astype(object)


def _join_keys(
    label: CompiledLabel, decisions: pa.Table, events: pa.Table
) -> list[tuple[pa.ChunkedArray, pa.ChunkedArray]]:
    pairs = []
    for asked, (_, column) in zip(label.asked, label.on, strict=True):
        for table, name, what in (
            (decisions, asked, "decisions"),
            (events, column, "evidence"),
        ):
            if name not in table.column_names:
                raise RequestError(
                    f"Label {label.name!r} joins on {name!r}, which the {what} lack.",
                    where=f"label {label.name}",
                    mend=f"columns there: {', '.join(table.column_names)}",
                )
        pairs.append((decisions[asked], events[column]))
    return pairs


def _changed(
    rows: pa.Table, existing: pa.Table | None, decision: str, label: str, as_of: Instant
) -> pa.Array:
    """Which rows say something that the standing row of their decision does not say."""
    fresh = pc.not_equal(rows["state"], LabelState.PENDING.value)
    if existing is None or not existing.num_rows:
        return fresh
    own = pc.and_(pc.equal(existing["label"], label), pc.equal(existing["decision"], decision))
    old = existing.filter(
        pc.and_(own, pc.is_in(existing["decision_id"], value_set=_text(rows["decision_id"])))
    )
    if not old.num_rows:
        return fresh
    computed = as_micros(old["computed_at"])
    if int(computed.max()) > as_of:
        raise InvariantError(
            f"Label {label!r} was already computed as of {format_instant(int(computed.max()))}, later than "
            f"{format_instant(as_of)}.",
            where=f"label {label}",
            mend="run attribution forward in time; read past states with state_as_of",
        )
    old = old.take(pa.array(newest_rows(old["decision_id"], computed)))
    at = pc.index_in(rows["decision_id"], value_set=_text(old["decision_id"]))
    before = old.take(pc.fill_null(at, 0))
    same: Any = pa.array(np.ones(rows.num_rows, dtype=bool))
    for name in ("state", "value", "value_text", "evidence", "evidence_stamp", "reason"):
        same = pc.and_(same, _null_safe_equal(rows[name], before[name].cast(rows[name].type)))
    return pc.if_else(pc.is_valid(at), pc.invert(same), fresh)


def _null_safe_equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(both_null, pc.fill_null(pc.equal(left, right), False))


def _text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array of text."""
    return as_array(column.cast(pa.string()))
