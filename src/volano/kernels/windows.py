"""Windowed features and as-of joins for many queries over a history. Pure: arrays in, Arrow out.

The result for a query depends on the rows visible to it and on q, never on what is computed beside it: see
docs/decisions/0010-canonical-association.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from volano.errors import DefinitionError
from volano.kernels.aggregates import FOLD_NAMES, FOLDS, PICKS, Fold
from volano.kernels.arrays import F64, I32, I64, U8
from volano.kernels.columns import Column, write_column
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.history import ArrayLike, History
from volano.kernels.lanes import Lane, Trie, canonical, grow, true
from volano.kernels.queries import Queries, SortedQueries
from volano.kernels.threads import THREADS, parts, share

__all__ = ["Queries", "as_of_join", "compute", "compute_tables"]


def compute(
    features: Sequence[WindowFeature], history: History, queries: Queries, *, threads: int = THREADS
) -> dict[str, pa.Array]:
    """Compute every feature for every query.

    Args:
        features: what to compute; names are unique.
        history: the rows.
        queries: the questions; results come in their order.
        threads: how many threads share the work; no bit depends on it.

    Returns:
        Feature name to Arrow array.

    Raises:
        DefinitionError: a feature that does not fit the columns.

    >>> import pyarrow as pa
    >>> h = History.build(["a", "a"], [10, 20], columns={"x": pa.array([1.5, 2.0])})
    >>> f = WindowFeature("total", "sum", "x", window_us=10)
    >>> compute([f], h, Queries(["a", "a", "b"], [20, 21, 21]))["total"].to_pylist()
    [1.5, 2.0, None]
    """
    lanes = _by_lane(features, history.types)
    asked = SortedQueries(history, queries, max(1, threads))
    results: dict[str, pa.Array] = {}
    for (where, skipped, _), members in lanes.items():
        results.update(_compute_lane(asked, Lane.of(history, where, skipped), members))
    return {f.name: results[f.name] for f in features}


def as_of_join(
    history: History,
    queries: Queries,
    *,
    window_us: int | None = None,
    offset_us: int = 0,
    threads: int = THREADS,
) -> I64:
    """The caller's row number of the last visible row before each query, -1 when there is none.

    Args:
        history: the rows.
        queries: the questions.
        window_us: how far back to look; None is for ever.
        offset_us: how far before q the window ends.
        threads: how many threads share the work.
    """
    asked = SortedQueries(history, queries, max(1, threads))
    return _latest(
        asked, Lane.of(history), WindowFeature("row", "count", window_us=window_us, offset_us=offset_us)
    )


def compute_tables(
    features: Sequence[WindowFeature],
    events: pa.Table,
    spine: pa.Table,
    *,
    key: str | Sequence[str],
    event_time: str = "event_time",
    order: Sequence[str] = (),
    row_id: str | None = None,
    visible_from: str | None = None,
    visible_until: str | None = None,
    at: str = "q",
    as_of: str | None = None,
    exclude_id: str | None = None,
    request: Mapping[str, str] | None = None,
    threads: int = THREADS,
) -> pa.Table:
    """Arrow in, Arrow out: append every feature to the spine.

    Args:
        features: what to compute.
        events: one row per event, unordered.
        spine: one row per query.
        key: the key column or columns, of the same name on both sides.
        event_time, order, row_id, visible_from, visible_until: columns of `events`, see `History.build`.
        at, as_of, exclude_id: columns of `spine`, see `Queries`.
        request: event column to the spine column that holds the request's own value.
        threads: how many threads share the work.

    Returns:
        The spine with one more column per feature, in the spine's order.
    """
    names = (key,) if isinstance(key, str) else tuple(key)
    used = {c for f in features for c in (f.column, f.over, f.where) if c is not None}

    def keys(table: pa.Table) -> ArrayLike | tuple[ArrayLike, ...]:
        columns = tuple(table[name] for name in names)
        return columns[0] if len(columns) == 1 else columns

    history = History.build(
        keys(events),
        events[event_time],
        columns={name: events[name] for name in sorted(used)},
        order=[events[name] for name in order],
        row_id=None if row_id is None else events[row_id],
        visible_from=None if visible_from is None else events[visible_from],
        visible_until=None if visible_until is None else events[visible_until],
        threads=threads,
    )
    asked = Queries(
        keys(spine),
        spine[at],
        as_of=None if as_of is None else spine[as_of],
        exclude_id=None if exclude_id is None else spine[exclude_id],
        request={column: spine[name] for column, name in (request or {}).items()},
    )
    for name, values in compute(features, history, asked, threads=threads).items():
        spine = spine.append_column(name, values)
    return spine


_LaneKey = tuple[str | None, tuple[str, ...], int]
_StateKey = tuple[str, str, str | None]


def _skipped(f: WindowFeature) -> tuple[str, ...]:
    return tuple(c for c in (f.column, f.over) if c is not None) if f.spec.skip_nulls else ()


def _by_lane(
    features: Sequence[WindowFeature], types: Mapping[str, str]
) -> dict[_LaneKey, list[WindowFeature]]:
    """Group features by (filter, columns whose nulls are skipped, grid)."""
    lanes: dict[_LaneKey, list[WindowFeature]] = {}
    seen: set[str] = set()
    for f in features:
        if f.name in seen:
            raise DefinitionError(f"Two features are named {f.name!r}.", mend="rename one")
        seen.add(f.name)
        f.output_type(types)
        lanes.setdefault((f.where, _skipped(f), f.grid_us), []).append(f)
    return lanes


def _by_window(features: Sequence[WindowFeature]) -> dict[tuple[int, ...], list[WindowFeature]]:
    """Group features by the window that `sweep` takes: length, offset, every, delay, include_request, grid, shift."""
    found: dict[tuple[int, ...], list[WindowFeature]] = {}
    for f in features:
        grid = f.grid_us
        window = (
            -1 if f.window_us is None else f.window_us,
            f.offset_us,
            f.every_us or 0,
            f.publish_delay_us,
            int(f.include_request),
            grid,
            (grid - 1).bit_length(),
        )
        found.setdefault(window, []).append(f)
    return found


def _compute_lane(asked: SortedQueries, lane: Lane, features: list[WindowFeature]) -> dict[str, pa.Array]:
    """Compute features that see the same rows over the same grid."""
    results: dict[str, pa.Array] = {}
    swept = []
    for window, members in _by_window(features).items():
        if not window[4] and all(f.spec.kind == "last" for f in members):
            rows = _latest(asked, lane, members[0])
            for f in members:
                results[f.name] = _pick(asked, str(f.column), rows)
        else:
            swept.append(_Window(window, members, asked.history.types))
    if not swept:
        return results
    folds = {key: fold for w in swept for key, fold in w.states.items()}
    hides = asked.excludes or any(w.includes for w in swept) or not lane.plain.all()
    trie = None
    if folds or hides:
        trie = grow(asked.history, lane, features[0].grid_us, folds, hides=hides, threads=asked.threads)
    codes = _Codes(asked, lane)
    n_outputs = max(w.n_outputs for w in swept)
    sorted_results = np.empty((n_outputs, asked.n)), np.empty((n_outputs, asked.n), np.uint8)
    for w in swept:
        results.update(_sweep(asked, lane, trie, codes, w, sorted_results))
    return results


def _latest(asked: SortedQueries, lane: Lane, f: WindowFeature) -> I64:
    """Row numbers of the last visible row of the feature's window; needs no trie."""
    out = np.empty(asked.n, np.int64)
    mine = asked.for_lane(lane.places)
    window = -1 if f.window_us is None else f.window_us
    share(
        lambda a, b: kernels().latest(
            a,
            b,
            mine,
            lane.starts,
            lane.t,
            lane.visible_from,
            lane.visible_until,
            lane.rows,
            window,
            f.offset_us,
            f.every_us or 0,
            f.publish_delay_us,
            out,
        ),
        parts(asked.n, asked.threads),
    )
    return out


def _pick(asked: SortedQueries, column: str, rows: I64, owner: I64 | None = None) -> pa.Array:
    """The column's value at each row number; -1 is null, -2 the own request of query `owner` (None: one row a
    query)."""
    c = asked.history.columns[column]
    own = rows == -2
    if own.any():
        c, rows = _with_request(
            asked, column, c, np.where(own, np.arange(asked.n) if owner is None else owner, -1), rows
        )
    valid = rows >= 0
    if c.valid is not None and len(c.valid):
        valid &= c.valid.take(np.maximum(rows, 0))
    return write_column(c.type, _taken(c, rows, asked.threads), None if valid.all() else valid, c.words)


def _taken(c: Column, rows: I64, threads: int) -> F64 | I64:
    """The column's values at each row number, 0 for a negative one."""
    if c.type == "float64":
        floats: F64 = np.empty(len(rows), np.float64)
        share(lambda a, b: kernels().take_float(c.values, rows, floats, a, b), parts(len(rows), threads))
        return floats
    integers: I64 = np.empty(len(rows), np.int64)
    share(lambda a, b: kernels().take_int(c.values, rows, integers, a, b), parts(len(rows), threads))
    return integers


def _pick_several(asked: SortedQueries, column: str, rows: I64) -> pa.Array:
    """A list per query from row numbers by (slot, query); -1 fills up. A query without a row gets null."""
    by_query = rows.T
    there = by_query != -1
    sizes = there.sum(axis=1)
    owner = np.repeat(np.arange(len(sizes)), sizes)
    values = _pick(asked, column, np.ascontiguousarray(by_query[there]), owner)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)]).astype(np.int32)
    empty = sizes == 0
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(empty) if empty.any() else None)


def _with_request(asked: SortedQueries, name: str, c: Column, own: I64, rows: I64) -> tuple[Column, I64]:
    """The column with the requests' values behind it, and row numbers that find them; `own` is a query or -1."""
    r = asked.request_column(name, c)
    valid = None
    if c.valid is not None or r.valid is not None:
        valid = np.concatenate(
            [x.valid if x.valid is not None else np.ones(len(x.values), bool) for x in (c, r)]
        )
    moved = np.where(own >= 0, len(c.values) + own, rows)
    return Column(c.type, np.concatenate([c.values, r.values]), valid, r.words), moved


@dataclass(slots=True)
class _Window:
    """What one `sweep` computes over one window: folds, finals, picks and distinct counts, as rows of its
    arguments."""

    window: tuple[int, ...]
    features: list[WindowFeature]
    types: Mapping[str, str]
    states: dict[_StateKey, Fold] = field(default_factory=dict)
    finals: dict[_StateKey, list[tuple[int, int, float, float]]] = field(default_factory=dict)
    picks: list[tuple[int, int, int]] = field(default_factory=list)
    distincts: list[tuple[str, int]] = field(default_factory=list)
    output: dict[str, int] = field(default_factory=dict)
    picked: set[str] = field(default_factory=set)
    n_outputs: int = 0

    def __post_init__(self) -> None:
        shared: dict[str, int] = {}
        for f in self.features:
            kind = f.spec.kind
            o = self.output[f.name] = shared.get(kind, self.n_outputs)
            self.n_outputs = max(self.n_outputs, o + (f.n or 1))
            if kind == "fold":
                fold = f.spec.folds[self.types[str(f.column)]]
                key = (fold.fold, str(f.column), f.over)
                self.states[key] = fold
                p0, p1 = (*f.params, 0.0, 0.0)[:2]
                self.finals.setdefault(key, []).append((FOLDS.index(fold), o, p0, p1))
            elif kind == "distinct":
                self.distincts.append((str(f.column), o))
            elif kind in ("first", "last"):
                self.picked.add(f.name)
                if kind not in shared:
                    shared[kind] = o
                    self.picks.append((PICKS.index(kind), o, 1))
            else:
                self.picks.append((PICKS.index(kind), o, f.n or 1))

    @property
    def includes(self) -> bool:
        """Whether the request's own event takes part."""
        return bool(self.window[4])


class _Codes:
    """Dense codes of a lane's values, for counting different ones; made when first asked for."""

    def __init__(self, asked: SortedQueries, lane: Lane) -> None:
        self.asked = asked
        self.lane = lane
        self.found: dict[str, tuple[I32, I64]] = {}

    def of(self, column: str) -> tuple[I32, I64]:
        """The code of every row, and the value's bits by code."""
        if column not in self.found:
            bits = self._bits(self.asked.history.columns[column]).take(self.lane.rows)
            values, codes = np.unique(bits, return_inverse=True)
            self.found[column] = codes.astype(np.int32), values
        return self.found[column]

    def of_requests(self, column: str) -> I64:
        """The code of every request's own value, -1 for one that no row has."""
        _, values = self.of(column)
        own = self._bits(self.asked.request_column(column, self.asked.history.columns[column]))
        if not len(values):
            return np.full(len(own), -1)
        place = np.minimum(np.searchsorted(values, own), len(values) - 1)
        return np.where(values[place] == own, place, -1)

    @staticmethod
    def _bits(c: Column) -> I64:
        return canonical(c.values).view(np.int64) if c.type == "float64" else np.asarray(c.values, np.int64)


def _matrix(rows: Sequence[tuple[int, ...]], width: int) -> I64:
    return np.array(rows, np.int64).reshape(len(rows), width)


def _sweep(
    asked: SortedQueries,
    lane: Lane,
    trie: Trie | None,
    codes: _Codes,
    w: _Window,
    sorted_results: tuple[F64, U8],
) -> dict[str, pa.Array]:
    """Compute one window's features; `sorted_results` is room for them in the order of the sorted queries."""
    folds: list[tuple[int, ...]] = []
    finals: list[tuple[int, int]] = []
    params: list[tuple[float, float]] = []
    for row, (key, members) in enumerate(w.finals.items()):
        assert trie is not None
        folds.append((FOLD_NAMES.index(key[0]), trie.word[key], len(finals), len(finals) + len(members), row))
        finals += [(code, o) for code, o, _, _ in members]
        params += [(p0, p1) for _, _, p0, p1 in members]
    columns = list(dict.fromkeys(column for column, _ in w.distincts))
    counted = [(columns.index(c), len(codes.of(c)[1]), o, d) for d, (c, o) in enumerate(w.distincts)]
    coded = np.stack([codes.of(c)[0] for c in columns]) if columns else np.empty((0, 0), np.int32)
    out, ok = sorted_results[0][: w.n_outputs], sorted_results[1][: w.n_outputs]
    grown = trie if trie is not None else _NO_TRIE
    arguments = (
        asked.for_lane(lane.places),
        lane.starts,
        lane.t,
        grown.v,
        lane.visible_from,
        lane.visible_until,
        lane.rows,
        lane.plain,
        int(trie is not None),
        grown.level,
        grown.links,
        grown.extremes,
        np.array(w.window, np.int64),
        _matrix(folds, 5),
        _matrix(finals, 2),
        np.array(params, np.float64).reshape(len(params), 2),
        _matrix(w.picks, 3),
        _matrix(counted, 4),
        coded,
        *_requests(asked, codes, w),
        grown.states,
        grown.states.view(np.int64),
        int(np.diff(lane.starts).max(initial=0)),
        out,
        out.view(np.int64),
        ok,
    )
    share(lambda a, b: kernels().sweep(a, b, *arguments), parts(asked.n, asked.threads))
    values, good = asked.unsorted(out.view(np.int64), ok)
    return {f.name: _wrap(asked, w, f, values, good) for f in w.features}


_NO_TRIE = Trie(
    np.empty(0, np.int64),
    np.empty(0, np.uint8),
    np.empty((6, 0), np.int32),
    np.empty((4, 0), np.int64),
    np.empty((0, 0)),
    {},
)


def _requests(asked: SortedQueries, codes: _Codes, w: _Window) -> tuple[U8, F64, I64, F64, I64]:
    """Which requests take part, and their own values per fold and per distinct count, in the caller's order."""
    n = asked.n if w.includes else 0
    x, xi, y = (
        np.zeros((len(w.states), n)),
        np.zeros((len(w.states), n), np.int64),
        np.zeros((len(w.states), n)),
    )
    own_codes = np.full((len(w.distincts), n), -1)
    if not w.includes:
        return np.zeros(0, np.uint8), x, xi, y, own_codes
    columns = asked.history.columns
    head = w.features[0]
    taking = asked.null_keys() == 0
    if head.where is not None:
        taking &= true(asked.request_column(head.where, columns[head.where]))
    for name in _skipped(head):
        valid = asked.request_column(name, columns[name]).valid
        taking &= True if valid is None else valid
    for row, ((_, column, over), fold) in enumerate((key, w.states[key]) for key in w.finals):
        own = asked.request_column(column, columns[column])
        if fold.state == "int64":
            xi[row] = own.values
        else:
            x[row] = canonical(own.values)
        if over is not None:
            y[row] = canonical(asked.request_column(over, columns[over]).values)
    for row, (column, _) in enumerate(w.distincts):
        own_codes[row] = codes.of_requests(column)
    return taking.astype(np.uint8), x, xi, y, own_codes


def _wrap(asked: SortedQueries, w: _Window, f: WindowFeature, values: I64, good: U8) -> pa.Array:
    o = w.output[f.name]
    if f.n is not None:
        return _pick_several(asked, str(f.column), values[o : o + f.n])
    if f.name in w.picked:
        return _pick(asked, str(f.column), values[o])
    kind = f.output_type(w.types)
    valid = good[o].view(bool)
    column = values[o].view(np.float64) if kind == "float64" else values[o]
    return write_column(kind, column, None if valid.all() else valid)
