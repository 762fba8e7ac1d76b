"""Windowed features and as-of joins for many queries over a history. Pure: arrays in, Arrow out.

The result for a query depends on the rows visible to it and on q, never on what is computed beside it: see
docs/decisions/0010-canonical-association.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import pyarrow as pa

from volano.errors import DefinitionError
from volano.kernels.aggregates import FOLD_NAMES, FOLDS, Fold
from volano.kernels.arrays import F64, I32, I64, NEVER, U8, Bools
from volano.kernels.columns import Column, read_column, write_column
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.history import ArrayLike, History, id_words, instants, null_keys, sort_by_key_and_time

THREADS = 2


@dataclass(frozen=True, slots=True)
class Queries:
    """What is asked, in any order.

    Args:
        keys: the entity's key per query, or a tuple of columns; null and unknown keys get empty windows.
        q: the end of the windows, µs or Arrow timestamps.
        as_of: what was visible; None: everything that nothing has superseded by the end of time.
        exclude_id: 128-bit ids of rows that the query must not see (the request's own event), null where none.
        request: for `include_request`, the request's own values by column name; a query whose filter column
            is null or false, or whose column is null, takes no part in that aggregate.
    """

    keys: ArrayLike | tuple[ArrayLike, ...]
    q: ArrayLike
    as_of: ArrayLike | None = None
    exclude_id: ArrayLike | None = None
    request: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Lane:
    """The rows that some aggregates see; `places` maps them to positions in the history, None when they are all."""

    starts: I64
    t: I64
    visible_from: I64
    visible_until: I64
    plain: U8
    rows: I64
    places: I64 | None


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
    work = _Work(history, queries, max(1, threads))
    results: dict[str, pa.Array] = {}
    for lane_features in _by_lane(features, history.types).values():
        results.update(work.lane(lane_features))
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
    work = _Work(history, queries, max(1, threads))
    feature = WindowFeature("row", "count", window_us=window_us, offset_us=offset_us)
    return work.latest(work.base(), feature)


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
        skipped = tuple(c for c in (f.column, f.over) if c is not None) if f.spec.skip_nulls else ()
        lanes.setdefault((f.where, skipped, f.grid_us), []).append(f)
    return lanes


def _windows(features: Iterable[WindowFeature]) -> dict[tuple[int, int, int, int, int], list[WindowFeature]]:
    found: dict[tuple[int, int, int, int, int], list[WindowFeature]] = {}
    for f in features:
        window = -1 if f.window_us is None else f.window_us
        found.setdefault(
            (window, f.offset_us, f.every_us or 0, f.publish_delay_us, int(f.include_request)), []
        ).append(f)
    return found


def _matrix(rows: list[tuple[int, ...]], width: int) -> I64:
    return np.array(rows, np.int64).reshape(len(rows), width)


class _Work:
    """One computation: the sorted queries and what lanes share. Lives as long as the call."""

    def __init__(self, history: History, queries: Queries, threads: int) -> None:
        self.history = history
        self.threads = threads
        self.kernels = kernels()
        self.request = {name: read_column(name, array) for name, array in queries.request.items()}
        self.asked = queries
        q = instants(queries.q)
        self.n = len(q)
        codes = history.index.find(queries.keys)
        target, _ = sort_by_key_and_time(codes + 1, q, history.index.n + 1)
        as_of = None if queries.as_of is None else instants(queries.as_of)
        self.queries = np.empty((5, self.n), np.int64)
        self.queries[0] = codes.take(target)
        self.queries[1] = q.take(target)
        self.queries[2] = NEVER - 1 if as_of is None else as_of.take(target)
        self.queries[3] = -1
        self.queries[4] = target
        self.excludes = queries.exclude_id is not None
        if queries.exclude_id is not None:
            self._find_excluded(queries.exclude_id)
        self._masks: dict[tuple[str | None, tuple[str, ...]], _Lane] = {}

    def _find_excluded(self, ids: ArrayLike) -> None:
        if self.history.ids.shape[1] != len(self.history.rows):
            raise DefinitionError(
                "Queries exclude ids, but the history has none.", mend="pass row_id to History.build"
            )
        high, low = self.history.ids
        table = np.full(1 << max(4, (2 * len(high)).bit_length()), -1)
        following = np.empty(len(high), np.int64)
        self.kernels.index_ids(high, low, table, following)
        wanted = np.ones(self.n, np.int64)
        if isinstance(ids, (pa.Array, pa.ChunkedArray)) and ids.null_count:
            wanted[
                ids.is_null().to_numpy(zero_copy_only=False)
                if isinstance(ids, pa.Array)
                else ids.combine_chunks().is_null().to_numpy(zero_copy_only=False)
            ] = 0
        elif not isinstance(ids, (pa.Array, pa.ChunkedArray, np.ndarray)):
            wanted[[i for i, x in enumerate(ids) if x is None]] = 0
        words = id_words(ids)
        self.kernels.find_ids(
            self.queries,
            words[0],
            words[1],
            wanted,
            high,
            low,
            table,
            following,
            self.history.starts,
            self.history.visible_from,
            self.history.visible_until,
        )

    def base(self) -> _Lane:
        """The lane of all rows."""
        h = self.history
        return _Lane(h.starts, h.event_time, h.visible_from, h.visible_until, h.plain, h.rows, None)

    def _lane(self, where: str | None, skipped: tuple[str, ...]) -> _Lane:
        """The rows that pass the filter and are not null, and where they are."""
        skipped = tuple(c for c in skipped if self.history.columns[c].valid is not None)
        key = (where, tuple(sorted(set(skipped))))
        if key not in self._masks:
            self._masks[key] = (
                self.base() if where is None and not skipped else self._filtered(where, skipped)
            )
        return self._masks[key]

    def _filtered(self, where: str | None, skipped: tuple[str, ...]) -> _Lane:
        h = self.history
        mask = np.ones(h.n_rows, bool)
        if where is not None:
            mask = _true(h.columns[where])
        for name in skipped:
            valid = h.columns[name].valid
            assert valid is not None
            mask = mask & valid
        kept = mask.take(h.rows)
        places = np.flatnonzero(kept)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        starts = before[h.starts]
        from_, until = h.visible_from.take(places), h.visible_until.take(places)
        plain = np.ones(len(starts) - 1, np.uint8)
        self.kernels.mark_plain(from_, until, starts, plain)
        return _Lane(starts, h.event_time.take(places), from_, until, plain, h.rows.take(places), places)

    def _queries_for(self, lane: _Lane) -> I64:
        if lane.places is None or not self.excludes:
            return self.queries
        inverse = np.full(len(self.history.rows), -1)
        inverse[lane.places] = np.arange(len(lane.places))
        mine = self.queries.copy()
        held = mine[3] >= 0
        mine[3, held] = inverse[mine[3, held]]
        return mine

    def _spread(self, work: Callable[[int, int], object], n: int) -> None:
        """Run `work(a, b)` over [0, n) in as many parts as threads."""
        parts = self.threads if n >= 4096 else 1
        edges = [n * p // parts for p in range(parts + 1)]
        if parts == 1:
            work(0, n)
            return
        with ThreadPoolExecutor(parts) as pool:
            for done in [pool.submit(work, a, b) for a, b in pairwise(edges)]:
                done.result()

    def latest(self, lane: _Lane, f: WindowFeature) -> I64:
        """Row numbers of the last visible row of the feature's window."""
        out = np.empty(self.n, np.int64)
        mine = self._queries_for(lane)
        window = -1 if f.window_us is None else f.window_us
        self._spread(
            lambda a, b: self.kernels.latest(
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
            self.n,
        )
        return out

    def pick(self, column: str, rows: I64) -> pa.Array:
        """The column's value at each row number; -1 is null, -2 the query's own request."""
        c = self.history.columns[column]
        own = rows == -2
        if own.any():
            c, rows = self._with_request(column, c, rows, own)
        valid = rows >= 0
        if c.valid is not None and len(c.valid):
            valid &= c.valid.take(np.maximum(rows, 0))
        checked = None if valid.all() else valid
        if c.type == "float64":
            values: F64 | I64 = np.empty(len(rows), np.float64)
            take = self.kernels.take_float
        else:
            values = np.empty(len(rows), np.int64)
            take = self.kernels.take_int
        self._spread(lambda a, b: take(c.values, rows, values, a, b), len(rows))
        return write_column(c.type, values, checked, c.words)

    def _with_request(self, name: str, c: Column, rows: I64, own: Bools) -> tuple[Column, I64]:
        r = self._request_column(name, c)
        valid = None
        if c.valid is not None or r.valid is not None:
            valid = np.concatenate(
                [x.valid if x.valid is not None else np.ones(len(x.values), bool) for x in (c, r)]
            )
        moved = np.where(own, len(c.values) + np.arange(len(rows)), rows)
        return Column(c.type, np.concatenate([c.values, r.values]), valid, r.words), moved

    def _request_column(self, name: str, c: Column) -> Column:
        """The request's column in the history's type and, for strings, in a dictionary that extends the history's."""
        r = self.request.get(name)
        if r is None:
            raise DefinitionError(f"The request brings no column {name!r}.", mend="add it to Queries.request")
        if r.type != c.type and not (r.type == "int64" and c.type == "float64"):
            raise DefinitionError(
                f"The request's column {name!r} is {r.type}, the history's {c.type}.", mend="declare one type"
            )
        if c.type == "float64":
            return Column("float64", r.as_float(), r.valid)
        if c.type != "string":
            return r
        assert c.words is not None and r.words is not None
        place = {w: i for i, w in enumerate(c.words.to_pylist())}
        added: list[str] = []
        codes = []
        for w in r.words.to_pylist():
            if w not in place:
                place[w] = len(place)
                added.append(w)
            codes.append(place[w])
        moved = np.array([*codes, 0], np.int64)[r.values]
        return Column("string", moved, r.valid, pa.concat_arrays([c.words, pa.array(added, c.words.type)]))

    def lane(self, features: list[WindowFeature]) -> dict[str, pa.Array]:
        """Compute features that see the same rows."""
        head = features[0]
        skipped = tuple(c for c in (head.column, head.over) if c is not None) if head.spec.skip_nulls else ()
        lane = self._lane(head.where, skipped)
        results: dict[str, pa.Array] = {}
        rest = []
        by_window = _windows(features)
        for window, members in by_window.items():
            picked = [f for f in members if f.spec.kind == "last"]
            if picked and not window[4] and all(f.spec.kind == "last" for f in members):
                rows = self.latest(lane, picked[0])
                for f in picked:
                    assert f.column is not None
                    results[f.name] = self.pick(f.column, rows)
            else:
                rest += members
        if rest:
            results.update(_Sweep(self, lane, rest).run())
        return results


def _true(c: Column) -> Bools:
    true: Bools = c.values != 0
    return true if c.valid is None else true & c.valid


class _Sweep:
    """The arrays of one `sweep` call: windows, folds, finals, picks and distinct counts of one lane."""

    def __init__(self, work: _Work, lane: _Lane, features: list[WindowFeature]) -> None:
        self.work = work
        self.lane = lane
        self.features = features
        self.grid = features[0].grid_us
        self.shift = (self.grid - 1).bit_length()
        self.types = work.history.types
        self.states: dict[tuple[str, str, str | None], int] = {}
        self.n_words = 0
        self.windows: list[tuple[int, ...]] = []
        self.folds: list[tuple[int, ...]] = []
        self.fold_columns: list[tuple[Fold, str, str | None]] = []
        self.finals: list[tuple[int, ...]] = []
        self.params: list[tuple[float, float]] = []
        self.picks: list[tuple[int, ...]] = []
        self.distincts: list[tuple[int, ...]] = []
        self.coded: dict[str, tuple[int, I32, int]] = {}
        self.outputs: list[WindowFeature] = []
        self.picked: dict[str, tuple[str, int]] = {}
        for window, members in _windows(features).items():
            self._window(window, members)

    def _window(self, window: tuple[int, ...], members: list[WindowFeature]) -> None:
        w = len(self.windows)
        self.windows.append(window)
        grouped: dict[tuple[str, str, str | None], list[tuple[WindowFeature, Fold]]] = {}
        positions: dict[int, int] = {}
        for f in members:
            kind = f.spec.kind
            if kind == "fold":
                assert f.column is not None
                fold = f.spec.folds[self.types[f.column]]
                grouped.setdefault((fold.fold, f.column, f.over), []).append((f, fold))
            elif kind == "distinct":
                assert f.column is not None
                number, _, size = self._codes(f.column)
                self.distincts.append((w, number, size, self._output(f)))
            else:
                code = ("count", "first", "last", "since").index(kind)
                if kind in ("first", "last"):
                    assert f.column is not None
                    if code not in positions:
                        positions[code] = self._output(f)
                        self.picks.append((w, code, positions[code]))
                    self.picked[f.name] = (f.column, positions[code])
                else:
                    self.picks.append((w, code, self._output(f)))
        for (name, column, over), sharing in grouped.items():
            first = len(self.finals)
            for f, fold in sharing:
                self.finals.append((FOLDS.index(fold), self._output(f)))
                self.params.append(((*f.params, 0.0, 0.0)[0], (*f.params, 0.0, 0.0)[1]))
            word = self._state(sharing[0][1], column, over)
            self.folds.append((w, FOLD_NAMES.index(name), word, first, len(self.finals)))
            self.fold_columns.append((sharing[0][1], column, over))

    def _output(self, f: WindowFeature) -> int:
        self.outputs.append(f)
        return len(self.outputs) - 1

    def _state(self, fold: Fold, column: str, over: str | None) -> int:
        key = (fold.fold, column, over)
        if key not in self.states:
            self.states[key] = self.n_words
            self.n_words += fold.words
        return self.states[key]

    def _codes(self, column: str) -> tuple[int, I32, int]:
        if column not in self.coded:
            values = self.work.history.columns[column].values.take(self.lane.rows)
            if values.dtype == np.float64:
                values = _canonical(values).view(np.int64)
            unique, codes = np.unique(values, return_inverse=True)
            self.coded[column] = (len(self.coded), codes.astype(np.int32), len(unique))
        return self.coded[column]

    def run(self) -> dict[str, pa.Array]:
        """Build the trie and the states, sweep the queries, wrap the results."""
        work, lane, k = self.work, self.lane, self.work.kernels
        includes = any(w[4] for w in self.windows)
        all_plain = bool(lane.plain.all())
        general = work.excludes or includes or not all_plain
        has_trie = bool(self.folds) or general
        n = len(lane.t)
        level = np.empty(n if has_trie else 0, np.uint8)
        links = np.empty((6, n if has_trie else 0), np.int32)
        extremes = np.empty((4, 2 * n if general else 0), np.int64)
        floats = np.empty((self.n_words, 2 * n if self.folds else 0), np.float64)
        if has_trie:
            self._grow(level, links, extremes, floats, general)
        n_out = len(self.outputs)
        out = np.empty((n_out, work.n), np.float64)
        ok = np.empty((n_out, work.n), np.uint8)
        request = self._request(includes)
        codes = np.empty((len(self.coded), n), np.int32)
        for number, row, _ in self.coded.values():
            codes[number] = row
        v = self._spread_times()
        mine = work._queries_for(lane)
        arguments = (
            mine,
            lane.starts,
            lane.t,
            v,
            lane.visible_from,
            lane.visible_until,
            lane.rows,
            lane.plain,
            int(has_trie),
            level,
            links,
            extremes,
            self.grid,
            self.shift,
            _matrix(self.windows, 5),
            _matrix(self.folds, 5),
            _matrix(self.finals, 2),
            np.array(self.params, np.float64).reshape(len(self.params), 2),
            _matrix(self.picks, 3),
            _matrix(self.distincts, 4),
            codes,
            *request,
            floats,
            floats.view(np.int64),
            int(np.diff(lane.starts).max(initial=0)),
            out,
            out.view(np.int64),
            ok,
        )
        work._spread(lambda a, b: k.sweep(a, b, *arguments), work.n)
        return self._wrap(out, ok)

    def _spread_times(self) -> I64:
        t = self.lane.t
        if self.grid == 1:
            return t
        cells = t // self.grid
        return (cells << self.shift) + (t - cells * self.grid)

    def _grow(self, level: U8, links: I32, extremes: I64, floats: F64, general: bool) -> None:
        work, lane, k = self.work, self.lane, self.work.kernels
        v = self._spread_times()
        n_keys = len(lane.starts) - 1
        inputs = []
        zeros = np.zeros(0)
        for fold, column, over in dict.fromkeys(self.fold_columns):
            x = self._values(fold, work.history.columns[column])
            y = self._values(fold, work.history.columns[over]) if over is not None else None
            xf = x if x.dtype == np.float64 else zeros
            xi = x if x.dtype == np.int64 else zeros.view(np.int64)
            if y is None:
                y = np.zeros(len(x)) if (fold.words and xf is not x) or over is None else x
            word = self.states[(fold.fold, column, over)]
            inputs.append((FOLD_NAMES.index(fold.fold), xf, xi, np.asarray(y, np.float64), word))

        def build(a: int, b: int) -> None:
            k.grow(v, lane.starts, a, b, level, *links, np.empty(80, np.int64))
            if general:
                k.grow_visibility(
                    lane.starts,
                    lane.visible_from,
                    lane.visible_until,
                    a,
                    b,
                    links[0],
                    links[1],
                    links[5],
                    *extremes,
                )
            for code, xf, xi, y, word in inputs:
                k.build_states(
                    code,
                    xf,
                    xi,
                    y,
                    lane.starts,
                    a,
                    b,
                    links[0],
                    links[1],
                    links[5],
                    floats,
                    floats.view(np.int64),
                    word,
                )

        half = int(np.searchsorted(lane.starts, len(lane.t) // 2))
        if self.work.threads == 1 or len(lane.t) < 4096 or not 0 < half < n_keys:
            build(0, n_keys)
        else:
            with ThreadPoolExecutor(2) as pool:
                for done in [pool.submit(build, 0, half), pool.submit(build, half, n_keys)]:
                    done.result()

    def _values(self, fold: Fold, c: Column) -> F64 | I64:
        if fold.state == "int64":
            return c.values.take(self.lane.rows)
        return _canonical(c.as_float().take(self.lane.rows))

    def _request(self, includes: bool) -> tuple[U8, F64, I64, F64, I64]:
        """Which requests take part in this lane, and their values per fold and per distinct count."""
        n = self.work.n if includes else 0
        has = np.zeros(self.work.n, np.uint8)
        x = np.zeros((len(self.folds), n))
        xi = np.zeros((len(self.folds), n), np.int64)
        y = np.zeros((len(self.folds), n))
        codes = np.full((len(self.distincts), n), -1)
        if not includes:
            return has, x, xi, y, codes
        taking = ~null_keys(self.work.asked.keys)
        head = self.features[0]
        columns = self.work.history.columns
        if head.where is not None:
            taking &= _true(self.work._request_column(head.where, columns[head.where]))
        if head.spec.skip_nulls:
            for name in (head.column, head.over):
                if name is not None:
                    valid = self.work._request_column(name, columns[name]).valid
                    taking &= True if valid is None else valid
        has[:] = taking
        for row, (fold, column, over) in enumerate(self.fold_columns):
            r = self.work._request_column(column, columns[column])
            if fold.state == "int64":
                xi[row] = r.values
            else:
                x[row] = _canonical(r.as_float())
            if over is not None:
                y[row] = _canonical(self.work._request_column(over, columns[over]).as_float())
        by_number = {number: column for column, (number, _, _) in self.coded.items()}
        for row, (_, number, _, _) in enumerate(self.distincts):
            codes[row] = self._request_codes(by_number[number])
        return has, x, xi, y, codes

    def _request_codes(self, column: str) -> I64:
        c = self.work.history.columns[column]
        known = c.values.take(self.lane.rows)
        own = self.work._request_column(column, c).values
        if c.type == "float64":
            known, own = _canonical(known).view(np.int64), _canonical(own).view(np.int64)
        unique = np.unique(known)
        if not len(unique):
            return np.full(len(own), -1)
        place = np.minimum(np.searchsorted(unique, own), len(unique) - 1)
        return np.where(unique[place] == own, place, -1)

    def _wrap(self, out: F64, ok: U8) -> dict[str, pa.Array]:
        results: dict[str, pa.Array] = {}
        places = {f.name: o for o, f in enumerate(self.outputs)}
        for f in self.features:
            if f.name in self.picked:
                column, o = self.picked[f.name]
                results[f.name] = self.work.pick(column, out[o].view(np.int64))
                continue
            o = places[f.name]
            kind = f.output_type(self.types)
            values = out[o] if kind == "float64" else out[o].view(np.int64)
            valid = ok[o].view(bool)
            results[f.name] = write_column(kind, values, None if valid.all() else valid)
        return results


def _canonical(values: F64 | I64) -> F64:
    """One NaN, no -0.0."""
    clean = np.asarray(values, np.float64) + 0.0
    clean[np.isnan(clean)] = np.nan
    return clean
