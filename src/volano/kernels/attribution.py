"""Which decisions an outcome belongs to, and how much of it: touches and their weights. Arrays only.

A touch is a decision of the outcome's key whose horizon `[at, at + horizon)` holds the outcome, that had opened by then
(it was decided, or shown where that is asked), and that was known while the outcome still waited for it. A rule of
credit divides one outcome among its touches. Weights are multiples of 2⁻⁵², handed out from what is left of one, so
those of an outcome sum to at most one exactly, in any order of addition.

Order is (key, instant, and what the caller says breaks ties), never arrival. Never reads the clock.
`kernels.attribution_oracle` is its naive twin.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple, assert_never

import msgspec
import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
F64 = NDArray[np.float64]

_ONE: Final = 1 << 52
_PAIRS_AT_ONCE: Final = 1 << 22


class Rule(StrEnum):
    """How an outcome is divided among the decisions before it.

    `LINEAR`: equally. `FIRST`, `LAST`: all to one. `POSITION`: a share to the first and to the last, the rest equally
    to those between. `DECAY`: halved for every half-life before the newest touch.
    """

    LINEAR = "linear"
    FIRST = "first"
    LAST = "last"
    POSITION = "position"
    DECAY = "decay"


class Credit(msgspec.Struct, frozen=True, omit_defaults=True):
    """A rule with its parameter.

    Args:
        ends: of `POSITION`: what the first and the last touch get each, in (0, 0.5]; two touches get a half each.
        half_life_us: of `DECAY`.
    """

    rule: Rule = Rule.LINEAR
    ends: float = 0.0
    half_life_us: int = 0


class Keep(StrEnum):
    """Which outcomes of a decision are asked for: all that touch it, or its first or last."""

    ALL = "all"
    FIRST = "first"
    LAST = "last"


class Decided(NamedTuple):
    """Decisions, sorted by (key, at, a tie-breaker); one entry each.

    Args:
        key: equal keys match; negative ones match nothing.
        at: when it was made, µs.
        opens_at: outcomes before this do not count: `at`, or when it was shown; `NEVER` if it was not.
        known_at: when it could be used.
    """

    key: I64
    at: I64
    opens_at: I64
    known_at: I64


class Happened(NamedTuple):
    """Outcomes, sorted by (key, at, tie-breakers); one entry each.

    Args:
        key, at: as of decisions.
        waits_until: decisions known at or after this come too late for it; `NEVER` when it waits for ever.
    """

    key: I64
    at: I64
    waits_until: I64


class Touches(NamedTuple):
    """Pairs of an outcome and a decision, as places in what was given, and the outcome's share; sorted by both.

    Weights are above zero.
    """

    happened: I64
    decided: I64
    weight: F64


def reaches(decided: Decided, happened: Happened, *, horizon_us: int) -> tuple[I64, I64]:
    """For each outcome the range `[low, high)` of decisions of its key whose horizon holds it.

    A horizon is half-open: an outcome at the very instant of a decision is its outcome.

    >>> one = np.zeros(3, np.int64)
    >>> made = Decided(one, np.array([10, 20, 30]), np.array([10, 20, 30]), one)
    >>> low, high = reaches(made, Happened(one[:2], np.array([20, 29]), one[:2]), horizon_us=10)
    >>> low.tolist(), high.tolist()
    ([1, 1], [2, 2])
    """
    # (key, place in time) as one integer, instants numbered so that it fits.
    grid = np.sort(decided.at)
    width = len(grid) + 1
    highest = max(int(decided.key.max(initial=0)), int(happened.key.max(initial=0)))
    if (highest + 1) * width >= 2**62:
        raise OverflowError(
            f"{highest} keys by {width} instants do not fit one integer; attribute fewer decisions"
        )
    places = decided.key * width + np.searchsorted(grid, decided.at, side="left")
    own = happened.key * width
    low = np.searchsorted(
        places, own + np.searchsorted(grid, happened.at - horizon_us, side="right"), side="left"
    )
    high = np.searchsorted(places, own + np.searchsorted(grid, happened.at, side="right"), side="left")
    return np.where(happened.key < 0, 0, low), np.where(happened.key < 0, 0, high)


def touched(decided: Decided, happened: Happened, *, horizon_us: int) -> NDArray[np.bool_]:
    """Which decisions have an outcome inside their horizon, opened or not; shape (n_decisions,)."""
    low, high = reaches(decided, happened, horizon_us=horizon_us)
    steps = np.zeros(len(decided.key) + 1, dtype=np.int64)
    np.add.at(steps, low, 1)
    np.add.at(steps, high, -1)
    return np.cumsum(steps[:-1]) > 0


def attribute(
    decided: Decided, happened: Happened, credit: Credit, *, horizon_us: int, keep: Keep
) -> Touches:
    """The touches of outcomes on decisions, with weights.

    Works through the outcomes in parts, so memory follows the pairs that are kept, not those that are looked at.

    Args:
        horizon_us: of every decision.
        keep: `FIRST` and `LAST` keep one outcome a decision; the weight is that of all touches all the same.

    Example: two decisions share an outcome.

    >>> zeros = np.zeros(2, np.int64)
    >>> made = Decided(zeros, np.array([1, 2]), np.array([1, 2]), zeros)
    >>> seen = Happened(zeros[:1], np.array([5]), np.full(1, 2**62))
    >>> attribute(made, seen, Credit(), horizon_us=10, keep=Keep.ALL).weight.tolist()
    [0.5, 0.5]
    >>> attribute(made, seen, Credit(Rule.LAST), horizon_us=10, keep=Keep.ALL).decided.tolist()
    [1]
    """
    parts = list(_parts(decided, happened, credit, horizon_us))
    match keep:
        case Keep.ALL:
            found = _joined(parts)
        case Keep.FIRST:
            found = _one_each(decided, parts[::-1], first=True)
        case Keep.LAST:
            found = _one_each(decided, parts, first=False)
        case _:
            assert_never(keep)
    order = np.lexsort((found.happened, found.decided))
    return Touches(found.happened[order], found.decided[order], found.weight[order])


def _parts(decided: Decided, happened: Happened, credit: Credit, horizon_us: int) -> Iterator[Touches]:
    """The touches of some outcomes after others, in their order."""
    low, high = reaches(decided, happened, horizon_us=horizon_us)
    hit = np.flatnonzero(high > low)
    ends = np.cumsum((high - low)[hit])
    start = 0
    while start < len(hit):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + _PAIRS_AT_ONCE, side="right")))
        rows = hit[start:stop]
        yield _touches(decided, happened, rows, low[rows], high[rows], credit)
        start = stop


def _touches(decided: Decided, happened: Happened, rows: I64, low: I64, high: I64, credit: Credit) -> Touches:
    counts = high - low
    of = np.repeat(rows, counts)
    starts = np.cumsum(counts) - counts
    made = np.arange(len(of)) + np.repeat(low - starts, counts)
    open_then = (decided.opens_at[made] <= happened.at[of]) & (
        decided.known_at[made] < happened.waits_until[of]
    )
    if not open_then.all():
        of, made = of[open_then], made[open_then]
    if not len(of):
        return Touches(of, made, np.zeros(0))
    heads = np.flatnonzero(np.concatenate([[True], of[1:] != of[:-1]]))
    match credit.rule:
        case Rule.FIRST:
            return Touches(of[heads], made[heads], np.ones(len(heads)))
        case Rule.LAST:
            tails = np.concatenate([heads[1:], [len(of)]]) - 1
            return Touches(of[tails], made[tails], np.ones(len(tails)))
        case Rule.LINEAR | Rule.POSITION | Rule.DECAY:
            weight = _dealt(_shares(decided.at[made], heads, credit), heads)
            dealt = weight > 0.0
            return Touches(of[dealt], made[dealt], weight[dealt])
    assert_never(credit.rule)


def _shares(made_at: I64, heads: I64, credit: Credit) -> F64:
    """What each touch of an outcome should get; `heads` are the places of the outcomes' first touches."""
    n = np.diff(np.concatenate([heads, [len(made_at)]]))
    each = np.repeat(n, n)
    if credit.rule is Rule.LINEAR:
        return 1.0 / each
    if credit.rule is Rule.POSITION:
        place = np.arange(len(made_at)) - np.repeat(heads, n)
        at_end = (place == 0) | (place == each - 1)
        between = (1.0 - 2.0 * credit.ends) / np.maximum(each - 2, 1)
        return np.where(each <= 2, 1.0 / each, np.where(at_end, credit.ends, between))
    newest = np.repeat(made_at[heads + n - 1], n)
    raw = np.exp2((made_at - newest) / credit.half_life_us)
    shares: F64 = raw / np.repeat(np.add.reduceat(raw, heads), n)
    return shares


def _dealt(shares: F64, heads: I64) -> F64:
    """Shares as multiples of 2⁻⁵², none beyond what is left of one."""
    wanted = np.floor(shares * _ONE).astype(np.int64)
    n = np.diff(np.concatenate([heads, [len(shares)]]))
    so_far = np.cumsum(wanted)
    before = so_far - wanted
    before -= np.repeat(before[heads], n)
    given: F64 = np.clip(_ONE - before, 0, wanted) / _ONE
    return given


def _joined(parts: list[Touches]) -> Touches:
    if not parts:
        return Touches(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    return Touches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _one_each(decided: Decided, parts: list[Touches], *, first: bool) -> Touches:
    """One outcome a decision: the one written last, of what the caller ordered."""
    step = -1 if first else 1
    outcome = np.full(len(decided.key), -1, dtype=np.int64)
    weight = np.zeros(len(decided.key))
    for part in parts:
        outcome[part.decided[::step]] = part.happened[::step]
        weight[part.decided[::step]] = part.weight[::step]
    which = np.flatnonzero(outcome >= 0)
    return Touches(outcome[which], which, weight[which])
