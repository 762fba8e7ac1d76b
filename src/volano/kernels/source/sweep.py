"""Windows of many queries over many keys' rows, offline. Queries come sorted by (key, q); results go to their
own places.

A *lane* is the rows that some aggregates see: where the filter holds and the column is not null. Everything
here is about one lane.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I32, I64, U8
from volano.kernels.source.bits import spread
from volano.kernels.source.folds import finish
from volano.kernels.source.trie import append_request, climb, cut

ENTRY = {
    "sweep": "i i II I I I I I I U i U WW II i i II II II FF II II WW U FF II FF II FF II i FF II UU -> i",
    "latest": "i i II I I I I I i i i i I -> i",
}


def seek(t: I64, a: int, b: int, x: int) -> int:
    """First position in [a, b) whose time is x or later, searched from a outwards."""
    if a >= b or t[a] >= x:
        return a
    step = 1
    i = a
    while i + step < b and t[i + step] < x:
        i += step
        step <<= 1
    low = i + 1
    high = min(i + step, b)
    while low < high:
        mid = (low + high) >> 1
        if t[mid] < x:
            low = mid + 1
        else:
            high = mid
    return low


def seek_back(t: I64, a: int, b: int, x: int) -> int:
    """First position in [a, b) whose value exceeds x, of a rising array, searched from b backwards."""
    step = 1
    high = b
    while high - step >= a and t[high - step] > x:
        high -= step
        step <<= 1
    low = max(a, high - step)
    while low < high:
        mid = (low + high) >> 1
        if t[mid] <= x:
            low = mid + 1
        else:
            high = mid
    return low


def window_end(q: int, offset: int, every: int, delay: int) -> int:
    """The open end of a window at q."""
    if every > 0:
        q = (q - delay) // every * every
    return q - offset


def latest(
    n0: int,
    n1: int,
    queries: I64,
    starts: I64,
    t: I64,
    visible_from: I64,
    visible_until: I64,
    rows: I64,
    window: int,
    offset: int,
    every: int,
    delay: int,
    out: I64,
) -> int:
    """The last visible row of one window for each query, by the caller's numbering; -1 when there is none.
    Needs no trie."""
    previous = -1
    p = 0
    for n in range(n0, n1):
        k = queries[0, n]
        at = queries[4, n]
        out[at] = -1
        if k < 0:
            continue
        begin_key = starts[k]
        if k != previous:
            previous = k
            p = begin_key
        end = window_end(queries[1, n], offset, every, delay)
        p = seek(t, p, starts[k + 1], end)
        floor = end - window if window >= 0 else -9223372036854775808
        seen = queries[2, n]
        without = queries[3, n]
        for r in range(p - 1, begin_key - 1, -1):
            if t[r] < floor:
                break
            if visible_from[r] <= seen < visible_until[r] and r != without:
                out[at] = rows[r]
                break
    return 0


def count_row(code: int, sign: int, counts: I32) -> int:
    """Add or remove one occurrence; returns the change in the number of different values."""
    before = counts[code]
    counts[code] = before + sign
    if before == 0:
        return 1
    if before + sign == 0:
        return -1
    return 0


def sweep(
    n0: int,
    n1: int,
    queries: I64,
    starts: I64,
    t: I64,
    v: I64,
    visible_from: I64,
    visible_until: I64,
    rows: I64,
    plain: U8,
    has_trie: int,
    level: U8,
    links: I32,
    extremes: I64,
    grid: int,
    shift: int,
    windows: I64,
    folds: I64,
    finals: I64,
    params: F64,
    picks: I64,
    distincts: I64,
    codes: I32,
    request_has: U8,
    request_x: F64,
    request_xi: I64,
    request_y: F64,
    request_codes: I64,
    sf: F64,
    si: I64,
    longest: int,
    out_f: F64,
    out_i: I64,
    ok: U8,
) -> int:
    """Every feature of one lane for the sorted queries [n0, n1).

    Args (in `kernels.windows` terms): `queries` rows are key, q, as_of, excluded lane row or -1, place of the
    result; `links` rows are left, right, lo, hi, top, order; `extremes` rows are min/max visible_from,
    min/max visible_until per node; `windows` columns are length (-1: whole past), offset, every, delay,
    include_request; `folds`: window, fold, word, first final, end of finals; `finals`: code, output; `picks`:
    window, 0 count | 1 first | 2 last | 3 since, output; `distincts`: window, row of `codes`, number of
    codes, output.
    """
    n_windows = windows.shape[0]
    left, right, lo, hi, top = links[0], links[1], links[2], links[3], links[4]
    size = longest + 80
    ids = np.empty(size, np.int64)
    pops = np.empty(size, np.uint8)
    begins = np.empty(size, np.int64)
    ends = np.empty(size, np.int64)
    roots = np.empty(160, np.int64)
    spare = np.empty(160, np.int64)
    levels = np.empty(160, np.int64)
    stack_f = np.empty((160, 4), np.float64)
    stack_i = np.empty((160, 4), np.int64)
    pi = np.zeros(n_windows, np.int64)
    pj = np.zeros(n_windows, np.int64)
    n_distincts = distincts.shape[0]
    widest = 0
    for d in range(n_distincts):
        widest = max(widest, distincts[d, 2])
    counts = np.zeros((n_distincts, widest), np.int32)
    held = np.zeros((n_distincts, 3), np.int64)
    previous = -1
    for n in range(n0, n1):
        k = queries[0, n]
        at = queries[4, n]
        q = queries[1, n]
        seen = queries[2, n]
        without = queries[3, n]
        if k != previous:
            previous = k
            for w in range(n_windows):
                pi[w] = starts[k] if k >= 0 else 0
                pj[w] = pi[w]
        begin_key = starts[k] if k >= 0 else 0
        end_key = starts[k + 1] if k >= 0 else 0
        fold_at = 0
        pick_at = 0
        distinct_at = 0
        for w in range(n_windows):
            end = window_end(q, windows[w, 1], windows[w, 2], windows[w, 3])
            if windows[w, 0] >= 0:
                pi[w] = seek(t, pi[w], end_key, end - windows[w, 0])
            else:
                pi[w] = begin_key
            pj[w] = seek(t, max(pj[w], pi[w]), end_key, end)
            i = pi[w]
            j = pj[w]
            simple = True
            if i < j:
                if plain[k]:
                    if visible_from[j - 1] > seen:
                        j = seek_back(visible_from, i, j, seen)
                else:
                    simple = False
                if i <= without < j:
                    simple = False
            has_request = windows[w, 4] != 0 and request_has[at] != 0
            m = 0
            first = i
            last = j - 1
            total = j - i
            if simple and not has_request:
                if has_trie and i < j:
                    m = cut(i, j, v, level, left, right, lo, hi, top, ids, pops, spare)
            elif i < j:
                m = climb(
                    i,
                    j,
                    v,
                    level,
                    left,
                    right,
                    lo,
                    hi,
                    top,
                    seen,
                    without,
                    extremes[0],
                    extremes[1],
                    extremes[2],
                    extremes[3],
                    visible_from,
                    visible_until,
                    ids,
                    pops,
                    begins,
                    ends,
                    roots,
                    spare,
                    levels,
                )
                total = 0
                for p in range(m):
                    total += ends[p] - begins[p]
                if m > 0:
                    first = begins[0]
                    last = ends[m - 1] - 1
            n_rows = total
            if has_request:
                append_request(m, v[last] if total > 0 else 0, spread(q, grid, shift), pops, ids, levels)
                m += 1
                n_rows += 1
            while pick_at < picks.shape[0] and picks[pick_at, 0] == w:
                kind = picks[pick_at, 1]
                o = picks[pick_at, 2]
                ok[o, at] = n_rows > 0
                if kind == 0:
                    out_i[o, at] = n_rows
                    ok[o, at] = 1
                elif n_rows == 0:
                    out_i[o, at] = -1 if kind < 3 else 0
                elif kind == 1:
                    out_i[o, at] = rows[first] if total > 0 else -2
                elif kind == 2:
                    out_i[o, at] = -2 if has_request else rows[last]
                else:
                    out_f[o, at] = 0.0 if has_request else (q - t[last]) / 1e6
                pick_at += 1
            while fold_at < folds.shape[0] and folds[fold_at, 0] == w:
                rx = 0.0
                rxi = 0
                ry = 0.0
                if has_request:
                    rx = request_x[fold_at, at]
                    rxi = request_xi[fold_at, at]
                    ry = request_y[fold_at, at]
                finish(
                    folds[fold_at, 1],
                    folds[fold_at, 2],
                    ids,
                    pops,
                    m,
                    sf,
                    si,
                    stack_f,
                    stack_i,
                    rx,
                    rxi,
                    ry,
                    n_rows,
                    finals,
                    folds[fold_at, 3],
                    folds[fold_at, 4],
                    params,
                    out_f,
                    out_i,
                    ok,
                    at,
                )
                fold_at += 1
            while distinct_at < n_distincts and distincts[distinct_at, 0] == w:
                row = codes[distincts[distinct_at, 1]]
                c = counts[distinct_at]
                h = held[distinct_at]
                slide(row, c, h, i, j)
                different = h[2]
                if not simple or has_request:
                    different = without_hidden(
                        row, c, different, i, j, m - (1 if has_request else 0), begins, ends
                    )
                    if has_request:
                        code = request_codes[distinct_at, at]
                        if code < 0 or not occurs(row, code, total, m - 1, begins, ends, c, i, j):
                            different += 1
                o = distincts[distinct_at, 3]
                out_i[o, at] = different
                ok[o, at] = 1
                distinct_at += 1
    return 0


def slide(row: I32, counts: I32, held: I64, i: int, j: int) -> None:
    """Move the counted run of rows to [i, j); `held` is its begin, end and number of different values."""
    a = held[0]
    b = held[1]
    if i >= b or j <= a or i < a or j < b:
        for r in range(a, b):
            held[2] += count_row(row[r], -1, counts)
        a = i
        b = i
    while b < j:
        held[2] += count_row(row[b], 1, counts)
        b += 1
    while a < i:
        held[2] += count_row(row[a], -1, counts)
        a += 1
    held[0] = a
    held[1] = b


def without_hidden(
    row: I32, counts: I32, different: int, i: int, j: int, m: int, begins: I64, ends: I64
) -> int:
    """The number of different values among the pieces, from the counts of all rows [i, j)."""
    at = i
    for p in range(m + 1):
        stop = begins[p] if p < m else j
        for r in range(at, stop):
            different += count_row(row[r], -1, counts)
        at = ends[p] if p < m else j
    at = i
    for p in range(m + 1):
        stop = begins[p] if p < m else j
        for r in range(at, stop):
            counts[row[r]] += 1
        at = ends[p] if p < m else j
    return different


def occurs(
    row: I32, code: int, total: int, m: int, begins: I64, ends: I64, counts: I32, i: int, j: int
) -> bool:
    """Whether a visible row has this code."""
    if counts[code] == 0:
        return False
    for p in range(m):
        for r in range(begins[p], ends[p]):
            if row[r] == code:
                return True
    return False
