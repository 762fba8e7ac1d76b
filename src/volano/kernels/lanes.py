"""Lanes and their tries: the rows that some aggregates see, ready to be asked. Knows no query."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from volano.kernels.aggregates import FOLD_NAMES, Fold
from volano.kernels.arrays import F64, I32, I64, U8, Bools
from volano.kernels.columns import Column
from volano.kernels.compiled import kernels
from volano.kernels.history import History
from volano.kernels.threads import key_parts, share


@dataclass(frozen=True, slots=True)
class Lane:
    """The rows that pass a filter and whose column is not null.

    Args:
        starts: first position of every key.
        t: event times.
        visible_from, visible_until: when each row counts.
        plain: 1 for keys whose visible rows are always a prefix.
        rows: the caller's row numbers.
        places: positions in the history; None when all rows are in.
    """

    starts: I64
    t: I64
    visible_from: I64
    visible_until: I64
    plain: U8
    rows: I64
    places: I64 | None

    @staticmethod
    def of(history: History, where: str | None = None, skipped: tuple[str, ...] = ()) -> Lane:
        """The lane of a filter column and of the columns whose nulls are left out."""
        h = history
        nullable = [c.valid for c in (h.columns[name] for name in skipped) if c.valid is not None]
        if where is None and not nullable:
            return Lane(h.starts, h.event_time, h.visible_from, h.visible_until, h.plain, h.rows, None)
        mask = np.ones(h.n_rows, bool) if where is None else true(h.columns[where])
        for valid in nullable:
            mask = mask & valid
        kept = mask.take(h.rows)
        places = np.flatnonzero(kept)
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(kept)])
        starts = before[h.starts]
        t, since, until = h.event_time.take(places), h.visible_from.take(places), h.visible_until.take(places)
        plain = np.ones(len(starts) - 1, np.uint8)
        kernels().mark_plain(t, since, until, starts, plain)
        return Lane(starts, t, since, until, plain, h.rows.take(places), places)


@dataclass(frozen=True, slots=True)
class Trie:
    """The canonical association of a lane over one grid, and the states of its nodes.

    Args:
        v: event times spread over the grid.
        level, links, extremes: see `source.trie`; `extremes` is empty when no row is ever hidden.
        states: one row per word of a fold, one column per node.
        word: the first row of each (fold, column, second column).
    """

    v: I64
    level: U8
    links: I32
    extremes: I64
    states: F64
    word: dict[tuple[str, str, str | None], int]


def grow(
    history: History,
    lane: Lane,
    grid: int,
    folds: dict[tuple[str, str, str | None], Fold],
    *,
    hides: bool,
    threads: int,
) -> Trie:
    """Build a lane's trie.

    Args:
        history: where the columns are.
        lane: the rows.
        grid: the features' `grid_us`.
        folds: what states to keep, by (fold, column, second column).
        hides: whether a query may hide rows within a window.
        threads: how many threads share the keys.
    """
    k = kernels()
    n = len(lane.t)
    v = spread(lane.t, grid)
    level, links = np.empty(n, np.uint8), np.empty((6, n), np.int32)
    extremes = np.empty((4, 2 * n if hides else 0), np.int64)
    word: dict[tuple[str, str, str | None], int] = {}
    n_words = 0
    for key, fold in folds.items():
        word[key] = n_words
        n_words += fold.words
    states = np.empty((n_words, 2 * n))
    inputs = []
    for key, fold in folds.items():
        _, column, over = key
        x = _values(fold, history.columns[column], lane.rows)
        y = (
            np.zeros(0 if fold.state == "int64" else n)
            if over is None
            else _values(fold, history.columns[over], lane.rows)
        )
        none = np.empty(0)
        floats, integers = (none, x) if fold.state == "int64" else (x, none.view(np.int64))
        inputs.append((FOLD_NAMES.index(fold.fold), floats, integers, y, word[key]))

    def build(a: int, b: int) -> None:
        k.grow(v, lane.starts, a, b, level, links)
        if hides:
            k.grow_visibility(lane.starts, lane.visible_from, lane.visible_until, a, b, links, extremes)
        for code, floats, integers, y, w in inputs:
            k.build_states(
                code, floats, integers, y, lane.starts, a, b, links, states, states.view(np.int64), w
            )

    share(build, key_parts(lane.starts, threads))
    return Trie(v, level, links, extremes, states, word)


def spread(t: I64, grid: int) -> I64:
    """`source.bits.spread` of many instants."""
    if grid == 1:
        return t
    cells = t // grid
    return (cells << (grid - 1).bit_length()) + (t - cells * grid)


def true(c: Column) -> Bools:
    """Where a bool column is true; null is not."""
    found: Bools = c.values != 0
    return found if c.valid is None else found & c.valid


def canonical(values: F64 | I64) -> F64:
    """Floats with one NaN and no -0.0."""
    clean = np.asarray(values, np.float64) + 0.0
    clean[np.isnan(clean)] = np.nan
    return clean


def _values(fold: Fold, c: Column, rows: I64) -> F64 | I64:
    if fold.state == "int64":
        return np.asarray(c.values.take(rows), np.int64)
    return canonical(c.values.take(rows))
