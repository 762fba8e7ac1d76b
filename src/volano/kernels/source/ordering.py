"""Sorting rows and queries by key and time. Stable counting sort over dense key codes; never compares strings."""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, U8

ENTRY = {
    "is_sorted": "R -> i",
    "count_keys": "R I -> i",
    "scatter_by_key": "R I I I -> i",
    "mark_ties": "I I U -> i",
    "mark_plain": "I I I U -> i",
    "take_int": "R R I i i -> i",
    "take_float": "RF R F i i -> i",
    "index_ids": "I I I I -> i",
    "find_ids": "II I I I I I I I I I I -> i",
}


def is_sorted(t: I64) -> int:
    """1 when `t` never falls."""
    for r in range(1, t.shape[0]):
        if t[r] < t[r - 1]:
            return 0
    return 1


def count_keys(code: I64, starts: I64) -> int:
    """Fill `starts` (number of keys + 1) with each key's first position; rows with a negative code are left out."""
    starts[:] = 0
    for r in range(code.shape[0]):
        if code[r] >= 0:
            starts[code[r] + 1] += 1
    for k in range(1, starts.shape[0]):
        starts[k] += starts[k - 1]
    return int(starts[starts.shape[0] - 1])


def scatter_by_key(code: I64, by_time: I64, cursor: I64, out: I64) -> int:
    """Distribute rows, taken in the order `by_time` (empty: as they are), to their key's range; `cursor` is a
    copy of `starts`."""
    n = code.shape[0]
    ordered = by_time.shape[0] == n
    for p in range(n):
        r = by_time[p] if ordered else p
        k = code[r]
        if k >= 0:
            out[cursor[k]] = r
            cursor[k] += 1
    return 0


def mark_ties(t: I64, starts: I64, tied: U8) -> int:
    """Mark rows that share key and time with a neighbour; returns how many."""
    n = 0
    for k in range(starts.shape[0] - 1):
        for r in range(starts[k] + 1, starts[k + 1]):
            if t[r] == t[r - 1]:
                n += 1
                tied[r] = 1
                tied[r - 1] = 1
    return n


def mark_plain(visible_from: I64, visible_until: I64, starts: I64, plain: U8) -> int:
    """Mark keys whose visible rows are always a prefix: `visible_from` never falls, nothing is superseded."""
    n = 0
    for k in range(starts.shape[0] - 1):
        good = 1
        for r in range(starts[k], starts[k + 1]):
            if visible_until[r] != 9223372036854775807 or (
                r > starts[k] and visible_from[r] < visible_from[r - 1]
            ):
                good = 0
                break
        plain[k] = good
        n += good
    return n


def take_int(values: I64, rows: I64, out: I64, a: int, b: int) -> int:
    """out[p] = values[rows[p]] for p in [a, b), 0 for a negative row."""
    for p in range(a, b):
        out[p] = values[rows[p]] if rows[p] >= 0 else 0
    return 0


def take_float(values: F64, rows: I64, out: F64, a: int, b: int) -> int:
    """The same for floats, with one NaN and no -0.0."""
    for p in range(a, b):
        if rows[p] >= 0:
            x = values[rows[p]]
            out[p] = x + 0.0 if x == x else np.nan
        else:
            out[p] = 0.0
    return 0


def slot_of(high: int, low: int, mask: int) -> int:
    """A place in a table of mask + 1 entries for a 128-bit id."""
    h = (high ^ (low * -7046029254386353131)) * -4658895280553007687
    return (h ^ (h >> 29)) & mask


def index_ids(high: I64, low: I64, table: I64, following: I64) -> int:
    """Open addressing over the ids of rows; rows with equal ids are chained through `following`. `table`
    starts as -1."""
    mask = table.shape[0] - 1
    for r in range(high.shape[0]):
        s = slot_of(high[r], low[r], mask)
        while table[s] >= 0 and (high[table[s]] != high[r] or low[table[s]] != low[r]):
            s = (s + 1) & mask
        following[r] = table[s]
        table[s] = r
    return 0


def find_ids(
    queries: I64,
    wanted_high: I64,
    wanted_low: I64,
    wanted: I64,
    high: I64,
    low: I64,
    table: I64,
    following: I64,
    starts: I64,
    visible_from: I64,
    visible_until: I64,
) -> int:
    """Put into row 3 of `queries` the row of the query's key that has its excluded id and is visible to it,
    else -1."""
    mask = table.shape[0] - 1
    for n in range(queries.shape[1]):
        queries[3, n] = -1
        at = queries[4, n]
        k = queries[0, n]
        if wanted[at] == 0 or k < 0:
            continue
        s = slot_of(wanted_high[at], wanted_low[at], mask)
        while table[s] >= 0 and (high[table[s]] != wanted_high[at] or low[table[s]] != wanted_low[at]):
            s = (s + 1) & mask
        r = table[s]
        while r >= 0:
            if starts[k] <= r < starts[k + 1] and visible_from[r] <= queries[2, n] < visible_until[r]:
                queries[3, n] = r
            r = following[r]
    return 0
