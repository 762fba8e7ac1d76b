"""Which events belong to which decisions, as of an instant: tables in, touches out. The rules are in the kernel.

Both times of an event count: `event_time` places it inside or outside a horizon, `known_at` says whether it may be used
yet. A horizon is half-open, `[decided_at, decided_at + horizon)`, the mirror image of a feature window
`[decided_at − W, decided_at)`: an event at the very instant of the decision is an outcome and never a feature, and no
event is both. Events of one instant are ordered by the source's `order_by`, then by id; decisions by id; never by
arrival. Holds no label states (`organize.labels`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import InvariantError, RequestError
from volano.kernels import attribution as kernel
from volano.kernels.attribution import Credit, Decided, Happened, Keep, Rule, Touches
from volano.kernels.history import KeyIndex
from volano.kernels.standing import as_array, as_micros, newest_rows
from volano.plan.definitions import DECISION_ID, CompiledLabel
from volano.records.journal import Operation
from volano.values.arrow import INSTANT
from volano.values.instants import NEVER, Instant, format_duration

I64 = NDArray[np.int64]
Mask = NDArray[np.bool_]

ATTACHED: Final = "attached"
DETACHED: Final = "detached"

ATTRIBUTION_SCHEMA: Final = pa.schema(
    [
        pa.field("decision", pa.string(), nullable=False),
        pa.field("decision_id", pa.string(), nullable=False),
        pa.field("label", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("event_id", pa.string(), nullable=False),
        pa.field("state", pa.string(), nullable=False),
        pa.field("weight", pa.float64(), nullable=False),
        pa.field("rule", pa.string(), nullable=False),
        pa.field("event_time", INSTANT, nullable=False),
        pa.field("decided_at", INSTANT),
        pa.field("attached_at", INSTANT, nullable=False),
        pa.field("reason", pa.string(), nullable=False),
    ]
)
"""The lake table `attribution`: which events a label stands on, and the decision's share in each. Appended; the newest
`attached_at` of a (decision, decision_id, label, event_id) stands."""


class Exposed(NamedTuple):
    """When each decision was first shown, and when that was known; `NEVER` where it was not. Shape (n_decisions,)."""

    at: I64
    known_at: I64


class Found(NamedTuple):
    """Touches by row number: of the events, and of the decisions that were given."""

    event: I64
    decision: I64
    weight: NDArray[np.float64]

    def only(self, some: Mask) -> Found:
        """Some of the touches."""
        return Found(self.event[some], self.decision[some], self.weight[some])


class Spine:
    """The decisions that outcomes are divided among, in the kernel's order.

    Args:
        decisions: decision_id, decided_at, the columns that the label joins on, and where known applied_at.
        as_of: decisions known later do not exist.
        exposed: for labels that count only what was shown.
    """

    def __init__(
        self, label: CompiledLabel, decisions: pa.Table, *, as_of: Instant, exposed: Exposed | None = None
    ) -> None:
        self.label = label
        self.n = decisions.num_rows
        self.decided_at = as_micros(decisions["decided_at"])
        self.known_at = known_at_of(decisions)
        self._index, codes = KeyIndex.build(_columns(label, decisions, label.asked, "decisions"))
        codes = np.where(self.known_at <= as_of, codes, -1)
        self._order = _ordered(codes, self.decided_at, decisions["decision_id"])
        opens_at = self.decided_at if exposed is None else np.maximum(exposed.at, self.decided_at)
        self._decided = Decided(*(
            column[self._order] for column in (codes, self.decided_at, opens_at, self.known_at)
        ))  # fmt: skip

    def find(
        self, events: pa.Table, keep: Keep, *, order_by: Sequence[str] = (), wait_us: int | None = None
    ) -> Found:
        """The touches of events, which must stand and have an event time.

        Args:
            order_by: the source's columns that order events of one instant.
            wait_us: how long an event waits for a decision that becomes known after it; for ever when None.

        Returns:
            Sorted by decision, then in the order of the events.
        """
        if not self.n or not events.num_rows:
            return Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        happened, order = self._happened(events, order_by, wait_us)
        touches: Touches = kernel.attribute(
            self._decided, happened, credit_of(self.label), horizon_us=self.label.horizon_us, keep=keep
        )
        return Found(order[touches.happened], self._order[touches.decided], touches.weight)

    def censored(self, events: pa.Table) -> Found:
        """The first event of each decision inside its horizon, whoever else it concerns: it is divided among nobody."""
        if not self.n or not events.num_rows:
            return Found(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
        happened, order = self._happened(events, (), None)
        every = self._decided._replace(opens_at=self._decided.at)
        touches = kernel.attribute(
            every, happened, Credit(), horizon_us=self.label.horizon_us, keep=Keep.FIRST
        )
        return Found(order[touches.happened], self._order[touches.decided], touches.weight)

    def touched(self, events: pa.Table) -> Mask:
        """Which decisions have one of some events inside their horizon."""
        found = np.zeros(self.n, dtype=bool)
        if self.n and events.num_rows:
            happened, _ = self._happened(events, (), None)
            found[self._order] = kernel.touched(self._decided, happened, horizon_us=self.label.horizon_us)
        return found

    def reached(self, events: pa.Table, decisions: Mask) -> Mask:
        """Which events lie inside the horizon of one of some decisions."""
        found = np.zeros(events.num_rows, dtype=bool)
        if decisions.any() and events.num_rows:
            happened, order = self._happened(events, (), None)
            some = decisions[self._order]
            low, high = kernel.reaches(
                Decided(*(column[some] for column in self._decided)),
                happened,
                horizon_us=self.label.horizon_us,
            )
            found[order] = high > low
        return found

    def _happened(
        self, events: pa.Table, order_by: Sequence[str], wait_us: int | None
    ) -> tuple[Happened, I64]:
        columns = tuple(column for _, column in self.label.on)
        codes = self._index.find(_columns(self.label, events, columns, "evidence"))
        at = as_micros(events["event_time"])
        known = as_micros(events["known_at"])
        order = _ordered(codes, at, *(events[name] for name in (*order_by, "event_id")), pa.array(known))
        waits = np.full(len(at), NEVER) if wait_us is None else known + wait_us
        return Happened(codes[order], at[order], waits[order]), order


def known_at_of(decisions: pa.Table) -> I64:
    """When each decision could be used: its stamp; a request of the past has none, and was known when it was asked."""
    return as_micros(decisions["applied_at" if "applied_at" in decisions.column_names else "decided_at"])


def credit_of(label: CompiledLabel) -> Credit:
    """The kernel's rule of a label."""
    return Credit(Rule(label.credit or Rule.LINEAR.value), label.ends or 0.0, label.half_life_us)


def rule_of(label: CompiledLabel) -> str:
    """The rule of a label as the lake names it.

    >>> rule_of(CompiledLabel("x", "R", "s", (), "v", "bool", 1, "o", credit="decay", half_life_us=3_600_000_000))
    'decay 1h'
    """
    credit = credit_of(label)
    text = credit.rule.value
    if credit.rule is Rule.POSITION:
        text += f" {credit.ends:g}"
    if credit.rule is Rule.DECAY:
        text += f" {format_duration(credit.half_life_us)}"
    return f"{text}, exposed" if label.exposed else text


def exposures_of(
    label: CompiledLabel, decisions: pa.Table, exposures: pa.Table | None, decision: str, as_of: Instant
) -> Exposed:
    """When each decision was first shown, as known by an instant.

    An exposure counts up to the end of the horizon; also one before its decision, for the clock of a screen may be
    behind, as long as it is not further off than a horizon.

    Args:
        exposures: facts of the exposures, every revision; None without any.
        decision: exposures of other decision APIs are ignored: ids belong to one.
    """
    never = np.full(decisions.num_rows, NEVER)
    if exposures is None or not exposures.num_rows:
        return Exposed(never, never)
    rows = standing_rows(exposures, as_of)
    rows = rows.filter(pc.and_(pc.equal(rows["decision"], decision), rows["event_time"].is_valid()))
    at, known = as_micros(rows["event_time"]), as_micros(rows["known_at"])
    newest_first = np.lexsort((known, at))[::-1]
    place = pc.index_in(as_array(rows["decision_id"]), value_set=as_array(decisions["decision_id"]))
    of = place.fill_null(-1).to_numpy(zero_copy_only=False)[newest_first]
    newest_first, of = newest_first[of >= 0], of[of >= 0]
    off = at[newest_first] - as_micros(decisions["decided_at"])[of]
    near = (off >= -label.horizon_us) & (off < label.horizon_us)
    newest_first, of = newest_first[near], of[near]
    first_at, first_known = never.copy(), never.copy()
    first_at[of] = at[newest_first]  # of several the one written last: the earliest
    first_known[of] = known[newest_first]
    return Exposed(first_at, first_known)


def standing_rows(events: pa.Table, as_of: int) -> pa.Table:
    """The rows of a fact table that stand at an instant: known by then and not superseded by then."""
    stands = pc.and_(_known(events, as_of), pc.invert(_superseded(events, as_of)))
    return events if pc.all(stands).as_py() is not False else events.filter(stands)


def retracted_rows(events: pa.Table, standing: pa.Table, as_of: int) -> pa.Table:
    """The rows that once stood and of whose event no revision stands at an instant: what was taken back."""
    gone = events.filter(pc.and_(_known(events, as_of), _superseded(events, as_of)))
    if not gone.num_rows:
        return gone
    return gone.filter(pc.invert(pc.is_in(gone["event_id"], value_set=standing["event_id"].combine_chunks())))


def changed_events(events: pa.Table, *, since: Instant, as_of: Instant) -> pa.Table:
    """Every revision of the events of which one became known, or was superseded, in `(since, as_of]`.

    Every revision: a correction may have moved an event out of one horizon and into another. A retraction may have no
    event time; the row that it ended is among them.
    """
    events = events.filter(events["event_time"].is_valid())
    known = as_micros(events["known_at"])
    ended = as_micros(events["superseded_known_at"].cast(pa.int64()).fill_null(NEVER))
    changed = ((known > since) & (known <= as_of)) | ((ended > since) & (ended <= as_of))
    ids = pc.unique(events["event_id"].filter(pa.array(changed)))
    return events.filter(pc.is_in(events["event_id"], value_set=ids))


def attribution_rows(
    label: CompiledLabel,
    decisions: pa.Table,
    events: pa.Table,
    found: Found,
    *,
    decision: str,
    as_of: Instant,
) -> pa.Table:
    """Touches as rows of the lake's table."""
    n = len(found.event)
    made, seen = decisions.take(pa.array(found.decision)), events.select(["event_id", "event_time"]).take(
        pa.array(found.event)
    )  # fmt: skip
    return pa.table(
        {
            "decision": pa.repeat(decision, n),
            "decision_id": made["decision_id"].cast(pa.string()),
            "label": pa.repeat(label.name, n),
            "source": pa.repeat(label.source, n),
            "event_id": seen["event_id"].cast(pa.string()),
            "state": pa.repeat(ATTACHED, n),
            "weight": pa.array(found.weight),
            "rule": pa.repeat(rule_of(label), n),
            "event_time": pa.array(as_micros(seen["event_time"])).cast(INSTANT),
            "decided_at": pa.array(as_micros(made["decided_at"])).cast(INSTANT),
            "attached_at": pa.array(np.full(n, as_of)).cast(INSTANT),
            "reason": pa.repeat("", n),
        },
        schema=ATTRIBUTION_SCHEMA,
    )


def standing_pairs(rows: pa.Table) -> pa.Table:
    """The pairs of event and decision that stand: of each the newest row, if it is attached.

    Args:
        rows: of `ATTRIBUTION_SCHEMA`, in the order in which they were written.
    """
    if not rows.num_rows:
        return rows
    names = ("label", "decision", "decision_id", "event_id")
    keys = pc.binary_join_element_wise(*(rows[name].cast(pa.string()) for name in names), "\x1f")
    newest = rows.take(pa.array(newest_rows(keys, as_micros(rows["attached_at"]))))
    return newest.filter(pc.equal(newest["state"], ATTACHED))


def check_shares(rows: pa.Table) -> None:
    """The shares of one event in one label of one decision API sum to at most one, exactly.

    Args:
        rows: of `ATTRIBUTION_SCHEMA`.

    Raises:
        InvariantError: they do not; names the first such event.
    """
    names = ["label", "decision", "event_id"]
    total = standing_pairs(rows).group_by(names, use_threads=False).aggregate([("weight", "sum")])
    over = total.filter(pc.invert(pc.less_equal(total["weight_sum"], 1.0))).sort_by(
        [(n, "ascending") for n in names]
    )
    if over.num_rows:
        first = over.slice(0, 1).to_pylist()[0]
        raise InvariantError(
            f"{over.num_rows} events are given away more than once; first {first['event_id']!r} of label "
            f"{first['label']!r} to decisions of {first['decision']!r}: {first['weight_sum']!r}.",
            where="lake table attribution",
            mend="keep the data folder as it is and report this: a promise is broken",
        )


def _columns(
    label: CompiledLabel, table: pa.Table, names: Sequence[str], what: str
) -> tuple[pa.ChunkedArray, ...]:
    for name in names:
        if name not in table.column_names:
            raise RequestError(
                f"Label {label.name!r} joins on {name!r}, which the {what} lack.",
                where=f"label {label.name}",
                mend=f"columns there: {', '.join(table.column_names)}",
            )
    return tuple(table[name].cast(pa.string()) if name == DECISION_ID else table[name] for name in names)


def _ordered(codes: I64, at: I64, *ties: pa.Array | pa.ChunkedArray) -> I64:
    """Row numbers by (code, instant, ties); ties are looked at only where they decide."""
    order = np.lexsort((at, codes))
    same = (codes[order][1:] == codes[order][:-1]) & (at[order][1:] == at[order][:-1])
    if not same.any():
        return order
    tied = np.flatnonzero(np.concatenate([[False], same]) | np.concatenate([same, [False]]))
    rows = order[tied]
    table = {"code": codes[rows], "at": at[rows]}
    table |= {f"tie{number}": column.take(pa.array(rows)) for number, column in enumerate(ties)}
    by = pc.sort_indices(pa.table(table), sort_keys=[(name, "ascending") for name in table])
    order[tied] = rows[by.to_numpy(zero_copy_only=False).astype(np.int64)]
    return order


def _known(events: pa.Table, as_of: int) -> pa.Array:
    known = pa.array(as_micros(events["known_at"]) <= as_of)
    if "operation" in events.column_names:  # a row that only says "taken back" is no evidence
        return pc.and_(
            known,
            pc.not_equal(events["operation"].cast(pa.string()), Operation.RETRACT.value).combine_chunks(),
        )
    return known


def _superseded(events: pa.Table, as_of: int) -> pa.Array:
    column = events["superseded_known_at"]
    moments = as_micros(column.cast(pa.int64()).fill_null(NEVER))
    return pa.array(moments <= as_of)
