"""Sorting rows and queries by key and time. Stable counting sort over dense key codes; never compares strings."""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, U8, F64r, I64r, I64x2, U8x2

ENTRY = (
    "count_keys",
    "scatter_by_key",
    "sort_segments",
    "unsort",
    "mark_ties",
    "mark_plain",
    "take_int",
    "take_float",
    "index_ids",
    "find_ids",
)


def count_keys(code: I64r, starts: I64) -> int:
    """Fill `starts` (number of keys + 1) with each key's first position; rows with a negative code are left out."""
    starts[:] = 0
    for r in range(code.shape[0]):
        if code[r] >= 0:
            starts[code[r] + 1] += 1
    for k in range(1, starts.shape[0]):
        starts[k] += starts[k - 1]
    return int(starts[starts.shape[0] - 1])


def scatter_by_key(code: I64r, t: I64r, cursor: I64, rows: I64, out_t: I64) -> int:
    """Distribute rows and their times to their key's range, in the caller's order; `cursor` is a copy of `starts`."""
    for r in range(code.shape[0]):
        k = code[r]
        if k >= 0:
            rows[cursor[k]] = r
            out_t[cursor[k]] = t[r]
            cursor[k] += 1
    return 0


def sort_segments(t: I64, rows: I64, starts: I64, k0: int, k1: int) -> int:
    """Sort every key of [k0, k1) by time, stably: merging for short segments, a radix sort for long ones."""
    longest = 0
    for k in range(k0, k1):
        longest = max(longest, starts[k + 1] - starts[k])
    spare_t = np.empty(longest, np.int64)
    spare_rows = np.empty(longest, np.int64)
    counts = np.empty(2048, np.int64)
    for k in range(k0, k1):
        a = starts[k]
        b = starts[k + 1]
        falls = False
        for r in range(a + 1, b):
            if t[r] < t[r - 1]:
                falls = True
                break
        if falls and b - a <= 2048:
            merge_sort(t[a:b], rows[a:b], spare_t, spare_rows)
        elif falls:
            radix_sort(t[a:b], rows[a:b], spare_t, spare_rows, counts)
    return 0


def merge_sort(t: I64, rows: I64, spare_t: I64, spare_rows: I64) -> None:
    """Stable merge sort over runs of 12 that insertion sorted."""
    n = t.shape[0]
    for a in range(0, n, 12):
        for r in range(a + 1, min(a + 12, n)):
            x = t[r]
            row = rows[r]
            s = r - 1
            while s >= a and t[s] > x:
                t[s + 1] = t[s]
                rows[s + 1] = rows[s]
                s -= 1
            t[s + 1] = x
            rows[s + 1] = row
    run = 12
    while run < n:
        for a in range(0, n - run, 2 * run):
            half = a + run
            end = min(half + run, n)
            if t[half - 1] <= t[half]:
                continue
            for r in range(a, half):
                spare_t[r - a] = t[r]
                spare_rows[r - a] = rows[r]
            left = 0
            right = half
            out = a
            while left < run and right < end:
                if t[right] < spare_t[left]:
                    t[out] = t[right]
                    rows[out] = rows[right]
                    right += 1
                else:
                    t[out] = spare_t[left]
                    rows[out] = spare_rows[left]
                    left += 1
                out += 1
            while left < run:
                t[out] = spare_t[left]
                rows[out] = spare_rows[left]
                left += 1
                out += 1
        run *= 2


def radix_sort(t: I64, rows: I64, spare_t: I64, spare_rows: I64, counts: I64) -> None:
    """Stable sort by 11 bits at a time of the distance from the earliest."""
    n = t.shape[0]
    least = t[0]
    greatest = t[0]
    for r in range(n):
        least = min(least, t[r])
        greatest = max(greatest, t[r])
    shift = 0
    swapped = False
    while (greatest - least) >> shift > 0:
        counts[:] = 0
        source_t, source_rows = (spare_t, spare_rows) if swapped else (t, rows)
        target_t, target_rows = (t, rows) if swapped else (spare_t, spare_rows)
        for r in range(n):
            counts[((source_t[r] - least) >> shift) & 2047] += 1
        total = 0
        for d in range(2048):
            c = counts[d]
            counts[d] = total
            total += c
        for r in range(n):
            d = ((source_t[r] - least) >> shift) & 2047
            target_t[counts[d]] = source_t[r]
            target_rows[counts[d]] = source_rows[r]
            counts[d] += 1
        swapped = not swapped
        shift += 11
    if swapped:
        for r in range(n):
            t[r] = spare_t[r]
            rows[r] = spare_rows[r]


def unsort(values: I64x2, good: U8x2, place: I64, out: I64x2, out_good: U8x2, a: int, b: int) -> int:
    """Bring sorted results back to the caller's order: out[:, p] = values[:, place[p]] for p in [a, b);
    returns how many are null."""
    n_null = 0
    for c in range(values.shape[0]):
        for p in range(a, b):
            out[c, p] = values[c, place[p]]
        for p in range(a, b):
            g = good[c, place[p]]
            out_good[c, p] = g
            n_null += 1 - g
    return n_null


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


def mark_plain(t: I64, visible_from: I64, visible_until: I64, starts: I64, plain: U8) -> int:
    """Mark keys whose visible rows are always a prefix of whole instants.

    So `visible_from` never falls, is the same for rows of equal time, and nothing is superseded.
    """
    n = 0
    for k in range(starts.shape[0] - 1):
        good = 1
        for r in range(starts[k], starts[k + 1]):
            falls = r > starts[k] and visible_from[r] < visible_from[r - 1]
            cuts = r > starts[k] and t[r] == t[r - 1] and visible_from[r] != visible_from[r - 1]
            if falls or cuts or visible_until[r] != 9223372036854775807:
                good = 0
                break
        plain[k] = good
        n += good
    return n


def take_int(values: I64r, rows: I64r, out: I64, a: int, b: int) -> int:
    """out[p] = values[rows[p]] for p in [a, b), 0 for a negative row."""
    for p in range(a, b):
        out[p] = values[rows[p]] if rows[p] >= 0 else 0
    return 0


def take_float(values: F64r, rows: I64r, out: F64, a: int, b: int) -> int:
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
    queries: I64x2,
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
