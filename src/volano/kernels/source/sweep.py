"""Windows of many queries over many keys' rows, offline. Queries come, and results go, sorted by (key, q).

A *lane* is the rows that some aggregates see: where the filter holds and the column is not null. `sweep`
computes one window of
one lane, in blocks of queries: first the pieces of every query of the block, then fold after fold over the block.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I32, I64, U8, F64x2, I32x2, I64x2, U8x2
from volano.kernels.source.bits import spread
from volano.kernels.source.folds import finish, fold_block
from volano.kernels.source.trie import climb, cut, schedule_request

ENTRY = ("sweep", "latest")

BLOCK = 512


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
    queries: I64x2,
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
    queries: I64x2,
    starts: I64,
    t: I64,
    v: I64,
    visible_from: I64,
    visible_until: I64,
    rows: I64,
    plain: U8,
    has_trie: int,
    level: U8,
    links: I32x2,
    extremes: I64x2,
    window: I64,
    folds: I64x2,
    finals: I64x2,
    params: F64x2,
    picks: I64x2,
    distincts: I64x2,
    codes: I32x2,
    request_has: U8,
    request_x: F64x2,
    request_xi: I64x2,
    request_y: F64x2,
    request_codes: I64x2,
    sf: F64x2,
    si: I64x2,
    longest: int,
    out_f: F64x2,
    out_i: I64x2,
    ok: U8x2,
) -> int:
    """Every feature of one window of one lane for the sorted queries [n0, n1).

    Args (in `kernels.windows` terms): `queries` rows are key, q, as_of, excluded lane row or -1, the caller's
    place; `links` and `extremes` come from `grow` and `grow_visibility`; `window` is length (-1: whole past),
    offset, every, delay, include_request, grid, shift; `folds`: fold, word, first final, end of finals, row
    of the request's values; `finals`: code, output; `picks`: place in PICKS, output, how many outputs;
    `distincts`: row of `codes`, number of codes, output, row of the request's codes.
    """
    size = max(longest + 80, 8 * BLOCK)
    ids = np.empty(size, np.int64)
    pops = np.empty(size, np.uint8)
    begins = np.empty(size, np.int64)
    ends = np.empty(size, np.int64)
    at = np.zeros(BLOCK + 1, np.int64)
    middle = np.empty(BLOCK, np.int64)
    bounds = np.empty((BLOCK, 2), np.int64)
    total = np.empty(BLOCK, np.int64)
    asked = np.zeros(BLOCK, np.uint8)
    roots = np.empty(160, np.int64)
    spare = np.empty(160, np.int64)
    levels = np.empty(160, np.int64)
    state_f = np.empty((BLOCK, 4), np.float64)
    state_i = np.empty((BLOCK, 4), np.int64)
    stack_f = np.empty((160, 4), np.float64)
    stack_i = np.empty((160, 4), np.int64)
    widest = 0
    for d in range(distincts.shape[0]):
        widest = max(widest, distincts[d, 1])
    counts = np.zeros((distincts.shape[0], widest), np.int32)
    held = np.zeros((distincts.shape[0], 3), np.int64)
    length, offset, every, delay = window[0], window[1], window[2], window[3]
    previous = -2
    i = 0
    j = 0
    n = n0
    while n < n1:
        count = 0
        used = 0
        while count < BLOCK and n + count < n1:
            k = queries[0, n + count]
            q = queries[1, n + count]
            seen = queries[2, n + count]
            without = queries[3, n + count]
            end_key = 0
            if k >= 0:
                end_key = starts[k + 1]
            if k != previous:
                previous = k
                i = starts[k] if k >= 0 else 0
                j = i
            end = window_end(q, offset, every, delay)
            if length >= 0:
                i = seek(t, i, end_key, end - length)
            j = seek(t, max(i, j), end_key, end)
            # A simple query has at most 130 pieces, any other at most one per row; the first of a block always fits.
            simple = window[4] == 0 and without < 0 and (i == j or plain[k] != 0)
            if used + (min(j - i, 140) if simple else j - i) + 2 > size:
                break
            last = j
            m = used
            general = False
            whole = used
            if i < j:
                if plain[k] and visible_from[j - 1] > seen:
                    last = seek_back(visible_from, i, j, seen)
                general = i <= without < last or window[4] != 0
                if not plain[k] and not general:
                    m, whole = cut(i, j, v, level, links, ids, used, spare)
                    for p in range(used, m):
                        node = ids[p]
                        if extremes[1, node] > seen or extremes[2, node] <= seen:
                            general = True
                            break
                elif has_trie and not general and i < last:
                    m, whole = cut(i, last, v, level, links, ids, used, spare)
            n_rows = last - i
            first_row = i
            if general:
                m = climb(
                    i,
                    j,
                    v,
                    level,
                    links,
                    extremes,
                    visible_from,
                    visible_until,
                    seen,
                    without,
                    ids,
                    pops,
                    begins,
                    ends,
                    used,
                    roots,
                    spare,
                    levels,
                )
                n_rows = 0
                for p in range(used, m):
                    n_rows += ends[p] - begins[p]
                if m > used:
                    first_row = begins[used]
                    last = ends[m - 1]
            asked[count] = 0
            if window[4] != 0 and request_has[queries[4, n + count]] != 0:
                difference = v[last - 1] ^ spread(q, window[5], window[6]) if n_rows > 0 else -1
                schedule_request(used, m, difference, ids, pops, levels)
                m += 1
                n_rows += 1
                asked[count] = 1
                general = True
            at[count] = used
            middle[count] = -1 if general else whole
            total[count] = n_rows
            bounds[count, 0] = first_row
            bounds[count, 1] = last
            for d in range(distincts.shape[0]):
                slide(codes[distincts[d, 0]], counts[d], held[d], i, j)
                different = held[d, 2]
                if general:
                    stop = m - asked[count]
                    different = without_hidden(
                        codes[distincts[d, 0]], counts[d], different, i, j, used, stop, begins, ends
                    )
                    if asked[count]:
                        code = request_codes[distincts[d, 3], queries[4, n + count]]
                        if code < 0 or not occurs(codes[distincts[d, 0]], code, used, stop, begins, ends):
                            different += 1
                elif last < j:
                    begins[used] = i
                    ends[used] = last
                    stop = used + 1 if last > i else used
                    different = without_hidden(
                        codes[distincts[d, 0]], counts[d], different, i, j, used, stop, begins, ends
                    )
                out_i[distincts[d, 2], n + count] = different
                ok[distincts[d, 2], n + count] = 1
            used = m
            count += 1
        at[count] = used
        for p in range(picks.shape[0]):
            if picks[p, 0] > 3:
                pick_several(
                    picks[p, 0] == 4,
                    picks[p, 1],
                    picks[p, 2],
                    n,
                    count,
                    rows,
                    total,
                    bounds,
                    asked,
                    middle,
                    at,
                    begins,
                    ends,
                    out_i,
                    ok,
                )
                continue
            pick_block(
                picks[p, 0],
                n,
                count,
                queries,
                rows,
                t,
                total,
                bounds,
                asked,
                out_f[picks[p, 1]],
                out_i[picks[p, 1]],
                ok[picks[p, 1]],
            )
        for f in range(folds.shape[0]):
            request_row = folds[f, 4]
            fold_block(
                folds[f, 0],
                folds[f, 1],
                sf,
                si,
                at,
                middle,
                count,
                ids,
                pops,
                stack_f,
                stack_i,
                request_x,
                request_xi,
                request_y,
                request_row,
                queries,
                n,
                state_f,
                state_i,
            )
            for g in range(folds[f, 2], folds[f, 3]):
                finish(
                    finals[g, 0],
                    state_f,
                    state_i,
                    total,
                    count,
                    params[g, 0],
                    params[g, 1],
                    out_f[finals[g, 1]],
                    out_i[finals[g, 1]],
                    ok[finals[g, 1]],
                    n,
                )
        n += count
    return 0


def pick_block(
    kind: int,
    n: int,
    count: int,
    queries: I64x2,
    rows: I64,
    t: I64,
    total: I64,
    bounds: I64x2,
    asked: U8,
    out_f: F64,
    out_i: I64,
    ok: U8,
) -> None:
    """Count, first, last or time since last of a block; a row comes out by the caller's number, -1 none, -2
    the request's own."""
    for b in range(count):
        n_rows = total[b] - asked[b]
        ok[n + b] = total[b] > 0
        if kind == 0:
            out_i[n + b] = total[b]
            ok[n + b] = 1
        elif total[b] == 0:
            out_i[n + b] = -1 if kind < 3 else 0
        elif kind == 1:
            out_i[n + b] = rows[bounds[b, 0]] if n_rows > 0 else -2
        elif kind == 2:
            out_i[n + b] = -2 if asked[b] else rows[bounds[b, 1] - 1]
        else:
            out_f[n + b] = 0.0 if asked[b] else (queries[1, n + b] - t[bounds[b, 1] - 1]) / 1e6


def pick_several(
    from_first: bool,
    o: int,
    n_values: int,
    n: int,
    count: int,
    rows: I64,
    total: I64,
    bounds: I64x2,
    asked: U8,
    middle: I64,
    at: I64,
    begins: I64,
    ends: I64,
    out_i: I64x2,
    ok: U8x2,
) -> None:
    """The first or last rows of a block, oldest first, in outputs o, o + 1, ...; -1 fills up, -2 is the
    request's own."""
    for b in range(count):
        found = min(n_values, total[b])
        for slot in range(n_values):
            ok[o + slot, n + b] = 1
            out_i[o + slot, n + b] = -1
        n_rows = total[b] - asked[b]
        first = 0 if from_first else total[b] - found
        if asked[b] and first + found > n_rows:
            out_i[o + n_rows - first, n + b] = -2
            found -= 1
        if middle[b] >= 0:
            for slot in range(found):
                out_i[o + slot, n + b] = rows[bounds[b, 0] + first + slot]
            continue
        before = 0
        slot = 0
        for p in range(at[b], at[b + 1] - asked[b]):
            size = ends[p] - begins[p]
            r = begins[p] + max(0, first - before)
            while r < ends[p] and slot < found:
                out_i[o + slot, n + b] = rows[r]
                slot += 1
                r += 1
            before += size
            if slot == found:
                break


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
    row: I32, counts: I32, different: int, i: int, j: int, p0: int, p1: int, begins: I64, ends: I64
) -> int:
    """The number of different values among pieces [p0, p1), from the counts of all rows [i, j)."""
    for sign in (-1, 1):
        r = i
        for p in range(p0, p1 + 1):
            stop = begins[p] if p < p1 else j
            while r < stop:
                change = count_row(row[r], sign, counts)
                if sign < 0:
                    different += change
                r += 1
            if p < p1:
                r = ends[p]
    return different


def occurs(row: I32, code: int, p0: int, p1: int, begins: I64, ends: I64) -> bool:
    """Whether a row of pieces [p0, p1) has this code."""
    for p in range(p0, p1):
        for r in range(begins[p], ends[p]):
            if row[r] == code:
                return True
    return False
