"""Chunks of the online state: merging rows in, and reading windows out. A chunk is an array of 64-bit words.

Header (4 words): MAGIC, definition hash, number of rows | words per row << 32, heap words. Then the rows, in
(event_time, order, id)
order: event_time, order words, id high, id low, applied_at, null masks, values. Then the heap: each string is
    its length in bytes and its bytes padded to whole words; a string value is its offset in the heap.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, F64x2, I64r, I64x2
from volano.kernels.source.bits import bit_length, borrowed, spread
from volano.kernels.source.folds import finish_one, fold_windows, lift
from volano.kernels.source.rows import present, takes_part
from volano.kernels.source.sweep import window_end
from volano.kernels.source.tiled import raw_run, tiled_lane

ENTRY = ("merge_chunks", "read_many", "read_one")


def before(a: I64r, p: int, b: I64r, s: int, n: int) -> int:
    """-1, 0 or 1 as the row at word p of a sorts before, with or after the row at word s of b: time, order
    and id are n words."""
    for w in range(n):
        x = a[p + w]
        y = b[s + w]
        if x != y:
            return -1 if x < y else 1
    return 0


def merge_chunks(
    old: I64r,
    old_at: I64,
    gone_at: I64,
    gone: I64x2,
    new_at: I64,
    new_heap: I64,
    new: I64x2,
    layout: I64,
    strings: I64,
    prune_before: int,
    out: I64,
    out_at: I64,
) -> int:
    """Merge sorted new rows into chunks, without the rows whose id is gone; writes whole chunks to `out`.

    A new row with the time, order and id of an old one replaces it; among new rows the last wins. Rows that
    happened before `prune_before` are dropped. `layout` is definition hash, words per row, order words, first
    value's word, magic. A chunk without rows is left empty.

    Returns:
        The number of words written, or -1 - c when the bytes of chunk c are not of this layout.
    """
    definition, width, n_order, first_value, magic = layout[0], layout[1], layout[2], layout[3], layout[4]
    n_sort = n_order + 3
    end = 0
    for c in range(old_at.shape[0] - 1):
        out_at[c] = end
        a = old_at[c]
        n_old = 0
        old_heap = 0
        if old_at[c + 1] > a:
            if (
                old_at[c + 1] - a < 4
                or old[a] != magic
                or old[a + 1] != definition
                or old[a + 2] >> 32 != width
            ):
                return -1 - c
            n_old = old[a + 2] & 0xFFFFFFFF
            old_heap = a + 4 + n_old * width
            if old_heap + old[a + 3] != old_at[c + 1]:
                return -1 - c
        p = a + 4
        p_end = p + n_old * width
        s = new_at[c]
        s_end = new_at[c + 1]
        # How many rows remain is known after the merge: the heap is written behind the widest block, then moved.
        row_end = end + 4
        heap = row_end + (n_old + s_end - s) * width
        heap_end = heap
        flat = new.reshape(new.shape[0] * new.shape[1])
        while p < p_end or s < s_end:
            if s + 1 < s_end and before(flat, s * width, flat, (s + 1) * width, n_sort) == 0:
                s += 1
                continue
            side = 1
            if p < p_end:
                side = -1 if s == s_end else before(old, p, flat, s * width, n_sort)
            if side == 0:
                p += width
                continue
            if side < 0:
                keep = old[p] >= prune_before
                for g in range(gone_at[c], gone_at[c + 1]):
                    if gone[g, 0] == old[p + n_order + 1] and gone[g, 1] == old[p + n_order + 2]:
                        keep = False
                if keep:
                    for w in range(width):
                        out[row_end + w] = old[p + w]
                    for x in range(strings.shape[0]):
                        heap_end = copy_string(
                            old, old_heap, out, row_end + first_value + strings[x], heap, heap_end
                        )
                    row_end += width
                p += width
            else:
                if new[s, 0] >= prune_before:
                    for w in range(width):
                        out[row_end + w] = new[s, w]
                    for x in range(strings.shape[0]):
                        heap_end = copy_string(
                            new_heap, 0, out, row_end + first_value + strings[x], heap, heap_end
                        )
                    row_end += width
                s += 1
        n_rows = (row_end - end - 4) // width
        if n_rows == 0:
            continue
        if heap != row_end:
            for w in range(heap_end - heap):
                out[row_end + w] = out[heap + w]
        out[end] = magic
        out[end + 1] = definition
        out[end + 2] = n_rows | (width << 32)
        out[end + 3] = heap_end - heap
        end = row_end + heap_end - heap
    out_at[old_at.shape[0] - 1] = end
    return end


def copy_string(source: I64r, source_heap: int, out: I64, cell: int, heap: int, heap_end: int) -> int:
    """Copy the string that `out[cell]` points to in the source's heap to the end of the new heap; -1 is a null."""
    if out[cell] < 0:
        return heap_end
    at = source_heap + out[cell]
    out[cell] = heap_end - heap
    n = 1 + ((source[at] + 7) >> 3)
    for w in range(n):
        out[heap_end + w] = source[at + w]
    return int(heap_end + n)


def string_hash(words: I64r, at: int) -> int:
    """A hash of the string at word `at`."""
    h = words[at]
    for w in range(1, 1 + ((words[at] + 7) >> 3)):
        h = (h ^ words[at + w]) * -4658895280553007687
        h = h ^ (h >> 31)
    return int(h)


def same_string(a: I64r, p: int, b: I64r, s: int) -> bool:
    """Whether two strings are equal; their padding is zero."""
    for w in range(1 + ((a[p] + 7) >> 3)):  # noqa: SIM110  Numba has no all()
        if a[p + w] != b[s + w]:
            return False
    return True


def distinct(
    buf: I64r, i: int, j: int, lane_rows: I64, heaps: I64, rows: I64, cell: int, is_string: int, table: I64
) -> int:
    """Number of different values of lane rows [i, j). The table is left with their rows, for `unseen`."""
    size = table_size(j - i)
    for s in range(size):
        table[s] = -1
    n = 0
    for r in range(i, j):
        row = lane_rows[r]
        value = buf[rows[row] + cell]
        if unseen(buf, buf, heaps[row], value, lane_rows, heaps, rows, cell, is_string, table, size, r):
            n += 1
    return n


def table_size(n: int) -> int:
    """A power of two of at least twice n."""
    size = 16
    while size < 2 * n + 2:
        size <<= 1
    return size


def unseen(
    words: I64r,
    buf: I64r,
    heap: int,
    value: int,
    lane_rows: I64,
    heaps: I64,
    rows: I64,
    cell: int,
    is_string: int,
    table: I64,
    size: int,
    r: int,
) -> bool:
    """Whether the value is new to the table; a row r >= 0 is entered."""
    h = string_hash(words, heap + value) if is_string else value * -4658895280553007687
    s = (h ^ (h >> 29)) & (size - 1)
    while table[s] >= 0:
        other = lane_rows[table[s]]
        held = buf[rows[other] + cell]
        if is_string:
            if same_string(words, heap + value, buf, heaps[other] + held):
                return False
        elif held == value:
            return False
        s = (s + 1) & (size - 1)
    if r >= 0:
        table[s] = r
    return True


def check(buf: I64r, begin: int, end: int, spec: I64) -> int:
    """The number of rows and tiles in the chunks of words [begin, end), or -1 when they are not of this layout or
    out of order."""
    definition, magic = spec[0], spec[4]
    n_rows = 0
    latest = -9223372036854775808
    p = begin
    while p < end:
        if end - p < 4 or buf[p + 1] != definition:
            return -1
        tiles = buf[p] == spec[9] and spec[8] > 0
        width = spec[8] if tiles else spec[1]
        if (buf[p] != magic and not tiles) or buf[p + 2] >> 32 != width:
            return -1
        here = buf[p + 2] & 0xFFFFFFFF
        heap = p + 4 + here * width
        if heap + buf[p + 3] > end or buf[p + 3] < 0:
            return -1
        if here > 0:
            if buf[p + 4 + (2 * here if tiles else 0)] < latest:
                return -1
            latest = buf[p + 3 + 4 * here] if tiles else buf[heap - width]
        n_rows += here
        p = heap + buf[p + 3]
    return n_rows


def read_many(
    buf: I64r, asks: I64x2, request: I64x2, request_heap: I64, spec: I64, params: F64, out: I64x2
) -> int:
    """Every feature of one view for many keys, from their chunks laid end to end in time order.

    Args (in `kernels.chunks` terms): `asks` columns per key are first word, last word + 1, q, as_of, has excluded id,
    its high and low word; `request` is one packed row per key or none; `spec` is written by `_spec`; a row of `out`
    holds the values of a key, then a bit per null.

    Returns:
        0, or -1 - key when its bytes are of another definition or out of order.
    """
    n_most = 0
    for n in range(asks.shape[0]):
        n_rows = check(buf, asks[n, 0], asks[n, 1], spec)
        if n_rows < 0:
            return -1 - n
        n_most = max(n_most, n_rows)
    indices = np.empty((7, n_most), np.int64)
    states = np.empty((spec[5], n_most), np.float64)
    small = np.empty((6, spec[12] + 80), np.int64)
    stack = np.empty((spec[12] + 80, 4), np.float64)
    for n in range(asks.shape[0]):
        read_key(
            borrowed(buf),
            asks[n, 0],
            asks[n, 1],
            asks[n, 2],
            asks[n, 3],
            asks[n, 4],
            asks[n, 5],
            asks[n, 6],
            n,
            borrowed(request),
            borrowed(request_heap),
            borrowed(spec),
            borrowed(params),
            borrowed(out)[n],
            borrowed(indices),
            borrowed(states),
            borrowed(small),
            borrowed(stack),
        )
    # What is borrowed is held until here.
    return int(0 * (indices.shape[0] + states.shape[0] + small.shape[0] + stack.shape[0]))


def read_one(
    buf: I64r,
    q: int,
    as_of: int,
    excludes: int,
    high: int,
    low: int,
    request: I64x2,
    request_heap: I64,
    spec: I64,
    params: F64,
    out: I64,
) -> int:
    """`read_many` of one key whose chunks are all of `buf`."""
    n_rows = check(buf, 0, buf.shape[0], spec)
    if n_rows < 0:
        return -1
    indices = np.empty((7, n_rows), np.int64)
    states = np.empty((spec[5], n_rows), np.float64)
    small = np.empty((6, spec[12] + 80), np.int64)
    stack = np.empty((spec[12] + 80, 4), np.float64)
    read_key(
        borrowed(buf),
        0,
        buf.shape[0],
        q,
        as_of,
        excludes,
        high,
        low,
        0,
        borrowed(request),
        borrowed(request_heap),
        borrowed(spec),
        borrowed(params),
        borrowed(out),
        borrowed(indices),
        borrowed(states),
        borrowed(small),
        borrowed(stack),
    )
    # What is borrowed is held until here.
    return int(0 * (indices.shape[0] + states.shape[0] + small.shape[0] + stack.shape[0]))


def read_key(
    buf: I64r,
    begin: int,
    end: int,
    q: int,
    as_of: int,
    excludes: int,
    high: int,
    low: int,
    n: int,
    request: I64x2,
    request_heap: I64,
    spec: I64,
    params: F64,
    out: I64,
    indices: I64x2,
    states: F64x2,
    small: I64x2,
    stack: F64x2,
) -> None:
    """The features of one key into `out`.

    Where tiles (`kernels.tiles`) stand for rows, each counts as many and brings its state; none lies across the end
    of a window, or where a row is picked or told from others.

    Scratch: `indices` has 7 rows and `states` a row per word, as long as the key has rows; `small` has 6 rows and
    `stack` is as long, 80 more than a lane has windows.
    """
    width, n_order, first_value = spec[1], spec[2], spec[3]
    first_mask = n_order + 4
    n_outputs = spec[13]
    rows, heaps, lane_rows, t, gaps = indices[0], indices[1], indices[2], indices[3], indices[4]
    begins, ends, totals, asked, own_gaps, levels = small[0], small[1], small[2], small[3], small[4], small[5]
    state = stack[80:]
    state_i = state.view(np.int64)
    stack_i = stack.view(np.int64)
    floats = buf.view(np.float64)
    own = request.reshape(request.shape[0] * request.shape[1])
    own_at = n * width
    out_f = out.view(np.float64)
    integers = states.view(np.int64)
    for o in range(n_outputs, out.shape[0]):
        out[o] = 0
    # No window reaches further back, nor nearer.
    oldest = -9223372036854775808 if spec[10] < 0 else q - spec[10]
    newest_end = q - spec[11]
    n_rows = gather(
        buf, begin, end, oldest, newest_end, as_of, excludes, high, low, width, spec[9], n_order, rows, heaps
    )
    tiled = n_rows < 0
    if tiled:
        n_rows = -1 - n_rows
    # The last instant of an item, which is its only one unless it is a tile; and how many rows lie up to it.
    until = indices[5] if tiled else indices[3]
    counted = indices[6]
    for lane in range(spec[6], spec[7], 12):
        where, x, y = spec[lane], spec[lane + 1], spec[lane + 2]
        m = 0
        if tiled:
            m = tiled_lane(buf, n_rows, spec, lane, rows, heaps, lane_rows, t, until, counted)
        elif where < 0 and x < 0 and y < 0:
            for r in range(n_rows):
                lane_rows[r] = r
                t[r] = buf[rows[r]]
            m = n_rows
        else:
            for r in range(n_rows):
                if takes_part(buf, rows[r], first_mask, first_value, where, x, y):
                    lane_rows[m] = r
                    t[m] = buf[rows[r]]
                    m += 1
        has_request = request.shape[0] > 0 and takes_part(own, own_at, first_mask, first_value, where, x, y)
        n_windows = spec[lane + 4]
        earliest = m
        newest = 0
        for w in range(n_windows):
            window = spec[lane + 3] + 7 * w
            stop = window_end(q, spec[window + 1], spec[window + 2], spec[window + 3])
            j = first_from(t, 0, m, stop)
            i = 0
            if spec[window] >= 0:
                i = first_from(t, 0, j, stop - spec[window])
            begins[w] = i
            ends[w] = j
            asked[w] = has_request and spec[window + 4] != 0
            totals[w] = asked[w]
            if not tiled:
                totals[w] += j - i
            elif i < j:
                totals[w] += counted[j - 1] - (counted[i - 1] if i > 0 else 0)
            if i < j:
                earliest = min(earliest, i)
                newest = max(newest, j)
                if asked[w]:
                    grid, shift = spec[window + 5], spec[window + 6]
                    own_gaps[w] = bit_length(spread(until[j - 1], grid, shift) ^ spread(q, grid, shift))
        for p in range(spec[lane + 7], spec[lane + 8], 6):
            if spec[p + 1] == 0:
                out[spec[p + 2]] = totals[spec[p]]
                continue
            pick_one(
                spec[p : p + 6],
                q,
                begins,
                ends,
                totals,
                asked,
                until,
                rows,
                heaps,
                lane_rows,
                buf,
                own,
                own_at,
                first_mask,
                first_value,
                out,
                out_f,
                n_outputs,
            )
        for s in range(spec[lane + 5], spec[lane + 6], 9):
            a = earliest
            while a < newest:
                b = newest
                if tiled:
                    a, b = raw_run(
                        buf,
                        a,
                        newest,
                        rows,
                        heaps,
                        lane_rows,
                        spec[s + 1],
                        spec[s + 7],
                        spec[s + 8],
                        integers,
                    )
                lift(
                    spec[s],
                    spec[s + 1],
                    a,
                    b,
                    buf,
                    floats,
                    rows,
                    lane_rows,
                    first_value + spec[s + 2],
                    first_value + spec[s + 3],
                    spec[s + 4],
                    states,
                    integers,
                )
                a = b
        first = 0
        while first < n_windows and spec[lane + 5] < spec[lane + 6]:
            # Windows are ordered by their grid: the levels between rows are computed once for each.
            grid, shift = spec[spec[lane + 3] + 7 * first + 5], spec[spec[lane + 3] + 7 * first + 6]
            last = first + 1
            while last < n_windows and spec[spec[lane + 3] + 7 * last + 5] == grid:
                last += 1
            for r in range(earliest + 1, newest):
                gaps[r] = bit_length(spread(until[r - 1], grid, shift) ^ spread(t[r], grid, shift))
            for s in range(spec[lane + 5], spec[lane + 6], 9):
                own_x = 0.0
                own_y = 0.0
                own_xi = 0
                if has_request:
                    own_xi = own[own_at + first_value + spec[s + 2]]
                    own_x = as_float(own_xi, spec[s + 4] & 1)
                    own_y = as_float(own[own_at + first_value + spec[s + 3]], spec[s + 4] & 2)
                fold_windows(
                    spec[s],
                    spec[s + 1],
                    states,
                    integers,
                    begins,
                    ends,
                    first,
                    last,
                    gaps,
                    levels,
                    asked,
                    own_gaps,
                    own_x,
                    own_xi,
                    own_y,
                    stack,
                    stack_i,
                    state,
                    state_i,
                )
                for f in range(spec[s + 5], spec[s + 6], 4):
                    w, o, p = spec[f], spec[f + 2], spec[f + 3]
                    if first <= w < last:
                        word, good = finish_one(
                            spec[f + 1],
                            state[w, 0],
                            state[w, 1],
                            state[w, 2],
                            state[w, 3],
                            state_i[w, 0],
                            state_i[w, 1],
                            state_i[w, 2],
                            state_i[w, 3],
                            totals[w],
                            params[p],
                            params[p + 1],
                        )
                        out[o] = word
                        if good == 0:
                            out[n_outputs + (o >> 6)] |= 1 << (o & 63)
            first = last
        for d in range(spec[lane + 9], spec[lane + 10], 4):
            w, cell, is_string, o = spec[d], first_value + spec[d + 1], spec[d + 2], spec[d + 3]
            i, j = begins[w], ends[w]
            table = np.empty(table_size(j - i), np.int64)
            out[o] = distinct(buf, i, j, lane_rows, heaps, rows, cell, is_string, table)
            if asked[w]:
                value = own[own_at + cell]
                words = request_heap if is_string else own
                out[o] += unseen(
                    words, buf, 0, value, lane_rows, heaps, rows, cell, is_string, table, table.shape[0], -1
                )


def gather(
    buf: I64r,
    begin: int,
    end: int,
    oldest: int,
    newest_end: int,
    as_of: int,
    excludes: int,
    high: int,
    low: int,
    width: int,
    tile_magic: int,
    n_order: int,
    rows: I64,
    heaps: I64,
) -> int:
    """Where each visible row of [oldest, newest_end) and its heap begin; returns their number n, or -1 - n when there
    are tiles.

    A tile stands as -1 - its first word, and in `heaps` how far its words lie apart.
    """
    n = 0
    tiled = False
    p = begin
    while p < end:
        if buf[p] == tile_magic:
            here = buf[p + 2] & 0xFFFFFFFF
            for tile in range(here):
                rows[n] = -1 - (p + 4 + tile)
                heaps[n] = here
                n += 1
            tiled = True
            p += 4 + here * (buf[p + 2] >> 32)
            continue
        here = buf[p + 2] & 0xFFFFFFFF
        heap = p + 4 + here * width
        first = p + 4
        last = heap
        if here > 0 and buf[first] < oldest:
            first += width * row_from(buf, first, width, here, oldest)
        if here > 0 and buf[heap - width] >= newest_end:
            last = p + 4 + width * row_from(buf, p + 4, width, here, newest_end)
        for row in range(first, last, width):
            if buf[row + n_order + 3] > as_of:
                continue
            if excludes and buf[row + n_order + 1] == high and buf[row + n_order + 2] == low:
                continue
            rows[n] = row
            heaps[n] = heap
            n += 1
        p = heap + buf[p + 3]
    return -1 - n if tiled else n


def row_from(buf: I64r, at: int, width: int, n: int, x: int) -> int:
    """How many of the n rows from word `at` on happened before x."""
    low = 0
    high = n
    while low < high:
        middle = (low + high) >> 1
        if buf[at + middle * width] < x:
            low = middle + 1
        else:
            high = middle
    return low


def first_from(t: I64, low: int, high: int, x: int) -> int:
    """First position of [low, high) whose time is x or later."""
    while low < high:
        middle = (low + high) >> 1
        if t[middle] < x:
            low = middle + 1
        else:
            high = middle
    return low


def pick_one(
    pick: I64,
    q: int,
    begins: I64,
    ends: I64,
    totals: I64,
    asked: I64,
    until: I64,
    rows: I64,
    heaps: I64,
    lane_rows: I64,
    buf: I64r,
    own: I64,
    own_at: int,
    first_mask: int,
    first_value: int,
    out: I64,
    out_f: F64,
    n_outputs: int,
) -> None:
    """What needs positions only and is no count: first, last, time since last, the first or last few.

    A string comes out as the word where it stands, the request's own as -2; a list as its length and then its values.
    """
    w, kind, o, column, is_string = pick[0], pick[1], pick[2], pick[3], pick[4]
    i, j = begins[w], ends[w]
    out[o] = 0
    good = totals[w] > 0
    if not good:
        pass
    elif kind > 3:
        found = min(pick[5], totals[w])
        first = i if kind == 4 else j + asked[w] - found
        out[o] = found
        for slot in range(found):
            r = first + slot
            if r < j:
                row = lane_rows[r]
                out[o + 1 + slot] = buf[rows[row] + first_value + column] + (heaps[row] if is_string else 0)
            else:
                out[o + 1 + slot] = -2 if is_string else own[own_at + first_value + column]
    else:
        from_request = asked[w] != 0 and (kind != 1 or i == j)
        if kind == 3:
            out_f[o] = 0.0 if from_request else (q - until[j - 1]) / 1e6
        elif from_request:
            good = present(own, own_at, first_mask, column)
            out[o] = -2 if is_string else own[own_at + first_value + column]
        else:
            row = lane_rows[i if kind == 1 else j - 1]
            good = present(buf, rows[row], first_mask, column)
            if good:
                out[o] = buf[rows[row] + first_value + column] + (heaps[row] if is_string else 0)
    if not good:
        out[n_outputs + (o >> 6)] |= 1 << (o & 63)


def as_float(word: int, is_integer: int) -> float:
    """A value word as a number: from an integer, or from a float's bits, which the compiled module reinterprets."""
    return float(word) if is_integer else float(np.int64(word).view(np.float64))
