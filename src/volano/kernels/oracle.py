"""The naive oracle: what every feature means, in plain Python over lists. Nobody optimises this file.

It shares no code with the kernels: each aggregate has its own twin here, written from design.md section 2.
Floats agree within |Δ| ≤ 1e-9 · Σ|x|; a ratio, whose sums associate canonically, and everything else exactly.
`associate` states the canonical association, to which kernels agree to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from volano.kernels.arrays import ALWAYS, NEVER
from volano.kernels.features import WindowFeature

Value: TypeAlias = "float | int | bool | str | list[float | int | bool | str] | None"


@dataclass(frozen=True, slots=True)
class Row:
    """One version of one event. `row_id` is an unsigned 128-bit integer."""

    key: Hashable
    event_time: int
    values: Mapping[str, Value]
    order: tuple[int, ...] = ()
    row_id: int = 0
    visible_from: int = ALWAYS
    visible_until: int = NEVER


@dataclass(frozen=True, slots=True)
class Query:
    """One question. `request` holds the request's own values, for `include_request`."""

    key: Hashable
    q: int
    as_of: int = NEVER - 1
    exclude_id: int | None = None
    request: Mapping[str, Value] = field(default_factory=dict)


def window_of(feature: WindowFeature, q: int) -> tuple[int | None, int]:
    """The half-open window at q; None is the beginning of time."""
    if feature.every_us is not None:
        q = math.floor((q - feature.publish_delay_us) // feature.every_us) * feature.every_us
    end = q - feature.offset_us
    return (None if feature.window_us is None else end - feature.window_us), end


def rows_of(feature: WindowFeature, rows: Sequence[Row], query: Query) -> list[Row]:
    """The rows that the window holds, in order, the filter applied, the request's own event last."""
    begin, end = window_of(feature, query.q)
    found = []
    for row in rows:
        if query.key is None or row.key != query.key:
            continue
        if row.event_time >= end or (begin is not None and row.event_time < begin):
            continue
        if not row.visible_from <= query.as_of < row.visible_until:
            continue
        if query.exclude_id is not None and row.row_id == query.exclude_id:
            continue
        found.append(row)
    found.sort(key=lambda r: (r.event_time, r.order, r.row_id))
    if feature.include_request and query.key is not None:
        found.append(Row(query.key, query.q, query.request))
    if feature.where is not None:
        found = [r for r in found if r.values[feature.where] is True]
    return found


def joined(
    rows: Sequence[Row], query: Query, columns: Sequence[str], valid_to: str | None = None
) -> dict[str, Value]:
    """Columns of a dimension for one event: of the newest visible row that happened before, unless it had ended.

    `query` holds the event: its key, its time as q, the instant at which it was known as `as_of`.
    """
    before = [
        row
        for row in rows
        if query.key is not None
        and row.key == query.key
        and row.event_time < query.q
        and row.visible_from <= query.as_of < row.visible_until
    ]
    newest = max(before, key=lambda row: (row.event_time, row.order, row.row_id), default=None)
    if newest is None:
        return dict.fromkeys(columns)
    ended = None if valid_to is None else newest.values[valid_to]
    if isinstance(ended, int) and ended < query.q:
        return dict.fromkeys(columns)
    return {column: newest.values[column] for column in columns}


def compute(feature: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    """The feature's value, by the book."""
    return NAIVE[feature.aggregate](feature, rows_of(feature, rows, query), query)


def tolerance(feature: WindowFeature, rows: Sequence[Row], query: Query) -> float:
    """How far a float may be from the oracle: 1e-9 · Σ|x| (and of Σx² for a variance, whose unit is squared)."""
    xs = [abs(float(x)) for x in _column(feature, rows_of(feature, rows, query)) if not isinstance(x, str)]
    total = sum(x for x in xs if math.isfinite(x))
    if feature.aggregate in ("var", "var_pop"):
        return 1e-9 * total * max([1.0, *(x for x in xs if math.isfinite(x))])
    return 1e-9 * total


def associate(times: Sequence[int], states: Sequence[Any], merge: Callable[[Any, Any], Any]) -> Any:
    """The canonical association: halve at the highest bit in which times differ; equal times fold from the left.

    Args:
        times: rising instants, already spread over the feature's grid.
        states: the state of each row.
        merge: combines two adjacent runs.

    Source: docs/decisions/0010-canonical-association.md.
    """
    bit = (times[0] ^ times[-1]).bit_length() if (times[0] ^ times[-1]) >= 0 else 64
    if bit == 0:
        state = states[0]
        for other in states[1:]:
            state = merge(state, other)
        return state
    half = next(n for n in range(1, len(times)) if _upper(times[n], bit) != _upper(times[0], bit))
    return merge(associate(times[:half], states[:half], merge), associate(times[half:], states[half:], merge))


def _upper(t: int, bit: int) -> int:
    return t >> (bit - 1)


def _column(f: WindowFeature, rows: Sequence[Row]) -> list[Any]:
    return [r.values[f.column] for r in rows if f.column is not None and r.values[f.column] is not None]


def _sum(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    xs = _column(f, rows)
    if not xs:
        return None
    if any(isinstance(x, float) for x in xs):
        return _fsum(xs)
    total = sum(int(x) for x in xs)
    return total if -(2**63) <= total < 2**63 else None


def _fsum(xs: Sequence[float]) -> float:
    if any(math.isnan(x) for x in xs) or (math.inf in xs and -math.inf in xs):
        return math.nan
    try:
        return math.fsum(xs)
    except OverflowError:
        return sum(xs)


def _mean(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    xs = [float(x) for x in _column(f, rows)]
    return _fsum(xs) / len(xs) if xs else None


def _rate(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    xs = [float(x) for x in _column(f, rows)]
    if not f.params:
        return _fsum(xs) / len(xs) if xs else None
    prior, weight = f.params
    return (_fsum(xs) + prior * weight) / (len(xs) + weight) if xs else prior


def _ratio(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    assert f.column is not None and f.over is not None
    both: list[tuple[Any, Any]] = [(r.values[f.column], r.values[f.over]) for r in rows]
    kept = [n for n, (x, y) in enumerate(both) if x is not None and y is not None]
    if not kept:
        return None
    # No tolerance could tell a denominator of zero from one that rounds to it: both sums are the canonical ones.
    times = [_spread_over(f.grid_us, rows[n].event_time) for n in kept]
    pairs = [(float(both[n][0]) + 0.0, float(both[n][1]) + 0.0) for n in kept]
    above, below = associate(times, pairs, lambda a, b: (a[0] + b[0], a[1] + b[1]))
    return None if below == 0 else float(above / below)


def _spread_over(grid: int, t: int) -> int:
    """An instant on a grid whose cells fill aligned blocks of the trie; see decision record 0010."""
    width = 1
    while width < grid:
        width *= 2
    return t // grid * width + t % grid


def _extreme(pick: Callable[[Sequence[Any]], Any]) -> Callable[[WindowFeature, Sequence[Row], Query], Value]:
    def twin(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
        xs = _column(f, rows)
        if not xs:
            return None
        if any(isinstance(x, float) and math.isnan(x) for x in xs):
            return math.nan
        found: Value = pick(xs)
        return found

    return twin


def _variance(xs: Sequence[float], ddof: int) -> float | None:
    if len(xs) <= ddof:
        return None
    if not all(math.isfinite(x) for x in xs):
        return math.nan
    mean = math.fsum(xs) / len(xs)
    return math.fsum((x - mean) ** 2 for x in xs) / (len(xs) - ddof)


def _spread(ddof: int, root: bool) -> Callable[[WindowFeature, Sequence[Row], Query], Value]:
    def twin(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
        found = _variance([float(x) for x in _column(f, rows)], ddof)
        return found if found is None or not root else math.sqrt(found)

    return twin


def _first(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    assert f.column is not None
    return rows[0].values[f.column] if rows else None


def _last(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    assert f.column is not None
    return rows[-1].values[f.column] if rows else None


def _first_n(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    return _column(f, rows)[: f.n] or None


def _last_n(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    assert f.n is not None
    return _column(f, rows)[-f.n :] or None


def _last_non_null(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    xs = _column(f, rows)
    return xs[-1] if xs else None


def _count(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    return len(rows) if f.column is None else len(_column(f, rows))


def _since(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    times = [r.event_time for r in rows if f.column is None or r.values[f.column] is not None]
    return (query.q - times[-1]) / 1e6 if times else None


def _distinct(f: WindowFeature, rows: Sequence[Row], query: Query) -> Value:
    return len(
        {"NaN" if isinstance(x, float) and math.isnan(x) else (type(x) is str, x) for x in _column(f, rows)}
    )


NAIVE: dict[str, Callable[[WindowFeature, Sequence[Row], Query], Value]] = {
    "count": _count,
    "sum": _sum,
    "mean": _mean,
    "rate": _rate,
    "ratio": _ratio,
    "min": _extreme(min),
    "max": _extreme(max),
    "var": _spread(1, root=False),
    "std": _spread(1, root=True),
    "var_pop": _spread(0, root=False),
    "std_pop": _spread(0, root=True),
    "first": _first,
    "last": _last,
    "last_non_null": _last_non_null,
    "first_n": _first_n,
    "last_n": _last_n,
    "time_since_last": _since,
    "count_distinct": _distinct,
}
