"""Labels from evidence: each decision's label state as of an instant, by rules without a memory.

The state is a function of what was known at `as_of` alone, so running every hour, every day or once at the
end gives the same final states. Rows are appended when something changed; the newest `computed_at` stands. A
decision without a row is pending: nothing may read it as a negative.

The rules, in order, for a decision with `matures_at = decided_at + horizon`. Events count when their
event_time lies in `[decided_at, matures_at)`, they stand at `as_of` (known by then, not superseded by
then) and the label's rule of credit gives the decision a share of them (`organize.attribution`):

1. An event of a censoring source censors the label, whatever else happened.
2. Otherwise the events of the label's source decide, combined as the label says (the first of them by event_time,
   the source's order, event_id; the last; any; their sum by share): `provisional` while as_of < matures_at, `mature`
   from then on. When the value is null, the label is censored.
3. Otherwise, while the horizon is open: `retracted` if an event was taken back, else `pending`.
4. Otherwise, at maturity: censored if only what was shown counts and it never was; the default as a mature value if
   one is declared; else censored.

A mature or censored label may still change: evidence that became known at or after `matures_at` is not lost.
It supersedes the row with a new one whose reason says that it came late; what was trained on the old row has
the old cut-off. Never reads the clock; reads and writes no store.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import InvariantError
from volano.kernels.attribution import Keep
from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.organize.attribution import (
    ATTACHED,
    ATTRIBUTION_SCHEMA,
    DETACHED,
    Exposed,
    Found,
    Mask,
    Spine,
    attribution_rows,
    changed_events,
    exposures_of,
    known_at_of,
    retracted_rows,
    standing_rows,
)
from volano.plan.definitions import CompiledLabel
from volano.protocols.sql_engine import SqlEngine
from volano.records.label import LabelState
from volano.values.arrow import INSTANT
from volano.values.instants import NEVER, Instant, format_duration, format_instant
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
NEVER_SHOWN: Final = "it was never shown"
SHOWN_LATE: Final = "that it was shown became known after maturity"

_STATES: Final = tuple(LabelState)
_CODE: Final = {state: code for code, state in enumerate(_STATES)}


class Evidence(NamedTuple):
    """What is known of what happened: facts, every revision, complete for the horizons of the decisions.

    Args:
        outcomes: of the label's source: event_id, event_time, known_at, applied_at, superseded_known_at (null while it
            stands) and the event's columns.
        censors: the same of each censoring source, by its name.
        exposures: the same of the exposures (decision, decision_id), for a label that counts only what was shown.
        order_by: the columns of the label's source that order events of one instant.
    """

    outcomes: pa.Table
    censors: Mapping[str, pa.Table] = {}
    exposures: pa.Table | None = None
    order_by: tuple[str, ...] = ()


class Derived(NamedTuple):
    """Rows of `LABEL_SCHEMA` and of `ATTRIBUTION_SCHEMA`: to append, or as they were written before."""

    labels: pa.Table
    attribution: pa.Table


NOTHING: Final = Derived(LABEL_SCHEMA.empty_table(), ATTRIBUTION_SCHEMA.empty_table())


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


class _Outcome(NamedTuple):
    """What the events of a decision come to; one entry for each decision that has one.

    Args:
        decision: row number.
        cited: row number of the event that decided, or of the last of several.
        stamp, known_at: the newest of the events behind the value.
    """

    decision: NDArray[np.int64]
    cited: NDArray[np.int64]
    value: NDArray[np.float64]
    text: NDArray[np.object_]
    stamp: NDArray[np.int64]
    known_at: NDArray[np.int64]


def attribute(
    label: CompiledLabel,
    decisions: pa.Table,
    evidence: Evidence,
    *,
    decision: str,
    as_of: Instant,
    sql: SqlEngine,
    written: Derived = NOTHING,
    judged: Mask | None = None,
) -> Derived:
    """The rows that are new or changed as of an instant.

    Args:
        label: the compiled label.
        decisions: one row a decision: decision_id, decided_at, where known applied_at, and `request__<field>` for every
            field the label joins on. Those known after `as_of` are left out.
        evidence: what happened.
        decision: name of the decision definition.
        as_of: only what was known by then counts.
        sql: runs the label's value expression.
        written: rows written before. Those of other decisions and labels are ignored.
        judged: the decisions that may change (see `may_change`); the others are there to share events with. All when
            None.

    Returns:
        Label rows with `computed_at = as_of`, in the order of `decisions`, and attribution rows with `attached_at =
        as_of`; empty when nothing changed. A pending label gets a row only when it supersedes another state, a pair of
        decision and event that is no more a row `detached`.

    Raises:
        RequestError: a table lacks a column that the label joins on.
        InvariantError: a label of one of these decisions was computed after `as_of`: state cannot be written
            in the past.
        AuthorCodeError: the value expression fails.
    """
    known = known_at_of(decisions) <= as_of
    own = np.flatnonzero(known if judged is None else known & judged)
    if not len(own):
        return NOTHING
    shown = exposures_of(label, decisions, evidence.exposures, decision, as_of) if label.exposed else None
    spine = Spine(label, decisions, as_of=as_of, exposed=shown)
    standing = standing_rows(evidence.outcomes, as_of)
    found = spine.find(standing, _kept(label), order_by=evidence.order_by)
    draft = _derive(label, spine, evidence, standing, found, shown, as_of, sql)
    rows = _label_rows(label, decisions, spine, draft, decision, as_of).take(pa.array(own))
    labels = rows.filter(_changed(rows, written.labels, decision, label.name, as_of))
    mine = np.isin(found.decision, own)
    pairs = attribution_rows(label, decisions, standing, found.only(mine), decision=decision, as_of=as_of)
    judged_ids = _text(decisions["decision_id"]).take(pa.array(own))
    return Derived(
        labels, _changed_pairs(pairs, written.attribution, decision, label.name, judged_ids, as_of)
    )


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


def may_change(
    label: CompiledLabel,
    decisions: pa.Table,
    evidence: Evidence,
    *,
    decision: str,
    since: Instant,
    as_of: Instant,
) -> Mask:
    """The decisions whose label or attribution may have changed between two runs: `judged` of `attribute`.

    They are those whose horizon was open at some instant in `(since, as_of]`; those that became known, or of whose
    exposure something became known, in between; and all those that one of the events in their horizons concerns, where
    that event became known, was superseded (evidence that comes late, a correction, a retraction), or has to be shared
    with a decision of the second kind.

    Args:
        since: `as_of` of the run before; BEGINNING for the first one.
        as_of: of this run.
    """
    decided_at, known_at = as_micros(decisions["decided_at"]), known_at_of(decisions)
    known = known_at <= as_of
    stirred = known & (known_at > since)
    affected = known & (decided_at + label.horizon_us > since)
    if (affected | stirred)[known].all():
        return known
    spine = Spine(label, decisions, as_of=as_of)
    if label.exposed and evidence.exposures is not None:
        rows = changed_events(evidence.exposures, since=since, as_of=as_of)
        ids = rows.filter(pc.equal(rows["decision"], decision))["decision_id"]
        stirred |= known & pc.is_in(decisions["decision_id"], value_set=as_array(ids)).to_numpy(
            zero_copy_only=False
        )
    for number, facts in enumerate((evidence.outcomes, *evidence.censors.values())):
        affected |= spine.touched(changed_events(facts, since=since, as_of=as_of))
        if number == 0:
            timed = facts.filter(facts["event_time"].is_valid())
            affected |= spine.touched(timed.filter(pa.array(spine.reached(timed, stirred))))
    return affected | stirred


def _kept(label: CompiledLabel) -> Keep:
    """Which events of a decision its label stands on."""
    return {"": Keep.FIRST, "last": Keep.LAST}.get(label.combine, Keep.ALL)


def _label_rows(
    label: CompiledLabel, decisions: pa.Table, spine: Spine, draft: _Draft, decision: str, as_of: Instant
) -> pa.Table:
    n = spine.n
    return pa.table(
        {
            "decision": pa.repeat(decision, n),
            "decision_id": _text(decisions["decision_id"]),
            "label": pa.repeat(label.name, n),
            "state": pa.DictionaryArray.from_arrays(
                pa.array(draft.state), pa.array([state.value for state in _STATES])
            ).cast(pa.string()),
            "value": pa.array(draft.value, mask=~draft.has_value),
            "value_text": pa.array(draft.text, pa.string()),
            "decided_at": pa.array(spine.decided_at).cast(INSTANT),
            "matures_at": pa.array(spine.decided_at + label.horizon_us).cast(INSTANT),
            "computed_at": pa.array(np.full(n, as_of)).cast(INSTANT),
            "evidence": pa.array(draft.evidence, pa.string()),
            "evidence_source": pa.array(draft.source, pa.string()),
            "evidence_stamp": pa.array(draft.stamp, mask=~draft.has_stamp).cast(INSTANT),
            "reason": pa.array(draft.reason, pa.string()),
        },
        schema=LABEL_SCHEMA,
    )


def _derive(
    label: CompiledLabel,
    spine: Spine,
    evidence: Evidence,
    standing: pa.Table,
    found: Found,
    shown: Exposed | None,
    as_of: Instant,
    sql: SqlEngine,
) -> _Draft:
    """The rules of the module's docstring; the later a rule is written here, the stronger it is."""
    draft = _blank(spine.n)
    matures_at = spine.decided_at + label.horizon_us
    still_open = as_of < matures_at
    gone = retracted_rows(evidence.outcomes, standing, as_of)
    taken_back = spine.find(gone, Keep.FIRST, order_by=evidence.order_by)

    _rule_without_evidence(draft, label, still_open, taken_back, gone, shown, matures_at)
    if len(found.event):
        _rule_evidence(draft, label, still_open, _combined(label, found, standing, sql), standing, matures_at)
    for name in sorted(evidence.censors, reverse=True):  # of two the first by name gives the reason
        rows = standing_rows(evidence.censors[name], as_of)
        _rule_censor(draft, name, spine.censored(rows), rows, matures_at)
    return draft


def _rule_without_evidence(
    draft: _Draft,
    label: CompiledLabel,
    still_open: Mask,
    taken_back: Found,
    gone: pa.Table,
    shown: Exposed | None,
    matures_at: NDArray[np.int64],
) -> None:
    retracted = np.zeros(len(still_open), dtype=bool)
    retracted[taken_back.decision] = True
    _cite(draft, taken_back.decision, taken_back.event, gone, label.source)
    draft.state[retracted & still_open] = _CODE[LabelState.RETRACTED]
    draft.reason[retracted] = TAKEN_BACK
    closed = ~still_open
    answered = closed & (label.has_default if shown is None else label.has_default & (shown.at != NEVER))
    draft.state[closed] = _CODE[LabelState.CENSORED]
    draft.state[answered] = _CODE[LabelState.MATURE]
    if isinstance(label.default, str):
        draft.text[answered] = label.default
    elif label.default is not None:
        draft.value[answered] = float(label.default)
        draft.has_value[answered] = True
    draft.reason[closed & ~retracted] = f"no outcome within {format_duration(label.horizon_us)}"
    if shown is not None:
        draft.reason[closed & (shown.at == NEVER)] = NEVER_SHOWN
        draft.reason[closed & ~retracted & (shown.known_at != NEVER) & (shown.known_at >= matures_at)] = (
            SHOWN_LATE
        )


def _rule_evidence(
    draft: _Draft,
    label: CompiledLabel,
    still_open: Mask,
    outcome: _Outcome,
    standing: pa.Table,
    matures_at: NDArray[np.int64],
) -> None:
    at = outcome.decision
    _clear(draft, at)
    _cite(draft, at, outcome.cited, standing, label.source)
    draft.stamp[at] = outcome.stamp
    draft.value[at] = np.nan_to_num(outcome.value, nan=0.0)
    draft.has_value[at] = ~np.isnan(outcome.value)
    draft.text[at] = outcome.text
    draft.state[at] = np.where(still_open[at], _CODE[LabelState.PROVISIONAL], _CODE[LabelState.MATURE])
    draft.reason[at] = np.where(outcome.known_at >= matures_at[at], LATE, "").astype(object)
    valueless = at[np.isnan(outcome.value) & (outcome.text == None)]  # noqa: E711 - elementwise
    draft.state[valueless] = _CODE[LabelState.CENSORED]
    draft.reason[valueless] = NO_VALUE


def _combined(label: CompiledLabel, found: Found, standing: pa.Table, sql: SqlEngine) -> _Outcome:
    """What the events of each decision come to, as the label combines them."""
    is_used = np.zeros(standing.num_rows, dtype=bool)
    is_used[found.event] = True
    rows = standing.filter(pa.array(is_used))
    numbers, texts = _values(label, rows, sql)
    which = (np.cumsum(is_used) - 1)[found.event]
    stamps, known = as_micros(rows["applied_at"])[which], as_micros(rows["known_at"])[which]
    numbers = numbers[which]
    heads = np.flatnonzero(np.concatenate([[True], found.decision[1:] != found.decision[:-1]]))
    decision = found.decision[heads]
    if _kept(label) is not Keep.ALL:  # one event a decision
        return _Outcome(decision, found.event, numbers, texts[which], stamps, known)
    tails = np.concatenate([heads[1:], [len(numbers)]]) - 1
    nothing = np.full(len(heads), None, dtype=object)
    if label.combine == "sum":  # what is unknown makes an unknown sum
        values = np.add.reduceat(numbers * found.weight, heads)
        newest = np.maximum.reduceat(stamps, heads), np.maximum.reduceat(known, heads)
        return _Outcome(decision, found.event[tails], values, nothing, *newest)
    # any: the first that is true decides; without one the last, unless one is unknown.
    places = np.arange(len(numbers))
    cited = np.minimum.reduceat(np.where(numbers == 1.0, places, len(numbers)), heads)
    is_true = cited < len(numbers)
    cited = np.where(is_true, cited, tails)
    unknown = np.logical_or.reduceat(np.isnan(numbers), heads)
    values = np.where(is_true, 1.0, np.where(unknown, np.nan, 0.0))
    stamp = np.where(is_true, stamps[cited], np.maximum.reduceat(stamps, heads))
    known_at = np.where(is_true, known[cited], np.maximum.reduceat(known, heads))
    return _Outcome(decision, found.event[cited], values, nothing, stamp, known_at)


def _rule_censor(
    draft: _Draft, source: str, found: Found, rows: pa.Table, matures_at: NDArray[np.int64]
) -> None:
    at = found.decision
    if not len(at):
        return
    _clear(draft, at)
    _cite(draft, at, found.event, rows, source)
    draft.state[at] = _CODE[LabelState.CENSORED]
    late = as_micros(rows["known_at"])[found.event] >= matures_at[at]
    reasons = f"censored by {source}; {LATE}", f"censored by {source}"
    draft.reason[at] = np.where(late, *reasons).astype(object)


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


def _clear(draft: _Draft, at: NDArray[np.int64]) -> None:
    draft.has_value[at] = False
    draft.text[at] = None
    draft.reason[at] = ""


def _cite(
    draft: _Draft, at: NDArray[np.int64], events: NDArray[np.int64], rows: pa.Table, source: str
) -> None:
    """Name the event that decided."""
    if not len(at):
        return
    cited = rows.select(["event_id", "applied_at"]).take(pa.array(events))
    draft.evidence[at] = cited["event_id"].to_numpy(zero_copy_only=False)
    draft.source[at] = source
    draft.stamp[at] = as_micros(cited["applied_at"])
    draft.has_stamp[at] = True


def _changed(rows: pa.Table, existing: pa.Table, decision: str, label: str, as_of: Instant) -> pa.Array:
    """Which rows say something that the standing row of their decision does not say."""
    fresh = pc.not_equal(rows["state"], LabelState.PENDING.value)
    if not existing.num_rows:
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


def _changed_pairs(
    pairs: pa.Table, existing: pa.Table, decision: str, label: str, judged_ids: pa.Array, as_of: Instant
) -> pa.Table:
    """The pairs that say something new, and those of judged decisions that are no more."""
    own = pc.and_(pc.equal(existing["label"], label), pc.equal(existing["decision"], decision))
    old = existing.filter(pc.and_(own, pc.is_in(existing["decision_id"], value_set=judged_ids)))
    if not old.num_rows:
        return pairs
    old = old.take(pa.array(np.sort(newest_rows(_pair_keys(old), as_micros(old["attached_at"])))))
    keys, old_keys = _pair_keys(pairs), _pair_keys(old)
    at = pc.index_in(keys, value_set=old_keys)
    before = old.take(pc.fill_null(at, 0))
    same: Any = pc.is_valid(at)
    for name in ("state", "weight", "rule", "event_time"):
        same = pc.and_(same, _null_safe_equal(pairs[name], before[name].cast(pairs[name].type)))
    is_gone = pc.and_(pc.equal(old["state"], ATTACHED), pc.invert(pc.is_in(old_keys, value_set=keys)))
    gone = old.filter(is_gone)
    n = gone.num_rows
    for name, values in (
        ("state", pa.repeat(DETACHED, n)),
        ("weight", pa.array(np.zeros(n))),
        ("attached_at", pa.array(np.full(n, as_of)).cast(INSTANT)),
    ):
        gone = gone.set_column(gone.column_names.index(name), ATTRIBUTION_SCHEMA.field(name), values)
    return pa.concat_tables([pairs.filter(pc.invert(same)), gone.cast(ATTRIBUTION_SCHEMA)])


def _pair_keys(rows: pa.Table) -> pa.Array:
    return as_array(pc.binary_join_element_wise(_text(rows["decision_id"]), _text(rows["event_id"]), "\x1f"))


def _null_safe_equal(left: pa.ChunkedArray, right: pa.ChunkedArray) -> pa.ChunkedArray:
    both_null = pc.and_(pc.is_null(left), pc.is_null(right))
    return pc.or_(both_null, pc.fill_null(pc.equal(left, right), False))


def _text(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array of text."""
    return as_array(column.cast(pa.string()))
