"""Chunks of the online state: merging rows in, and reading windows out. A chunk is an array of 64-bit words.

Header (4 words): MAGIC, definition hash, number of rows | words per row << 32, heap words. Then the rows, in
(event_time, order, id)
order: event_time, order words, id high, id low, applied_at, null masks, values. Then the heap: each string is
    its length in bytes and its bytes padded to whole words; a string value is its offset in the heap.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import F64, I64, U8
from volano.kernels.source.bits import bit_length, spread
from volano.kernels.source.folds import finish, lift
from volano.kernels.source.sweep import window_end
from volano.kernels.source.trie import append_request

ENTRY = {
    "merge_chunks": "R I I II I I II I I i I I -> i",
    "read_chunks": "R I I I II II I I II II II II FF II II II FF II UU -> i",
}


def before(a: I64, p: int, b: I64, s: int, n: int) -> int:
    """-1, 0 or 1 as the row at word p of a sorts before, with or after the row at word s of b: time, order
    and id are n words."""
    for w in range(n):
        x = a[p + w]
        y = b[s + w]
        if x != y:
            return -1 if x < y else 1
    return 0


def merge_chunks(
    old: I64,
    old_at: I64,
    gone_at: I64,
    gone: I64,
    new_at: I64,
    new_heap: I64,
    new: I64,
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


def copy_string(source: I64, source_heap: int, out: I64, cell: int, heap: int, heap_end: int) -> int:
    """Copy the string that `out[cell]` points to in the source's heap to the end of the new heap; -1 is a null."""
    if out[cell] < 0:
        return heap_end
    at = source_heap + out[cell]
    out[cell] = heap_end - heap
    n = 1 + ((source[at] + 7) >> 3)
    for w in range(n):
        out[heap_end + w] = source[at + w]
    return int(heap_end + n)


def present(words: I64, row: int, first_mask: int, column: int) -> bool:
    """Whether a value of the row at word `row` is not null."""
    return bool((words[row + first_mask + (column >> 6)] >> (column & 63)) & 1 == 0)


def takes_part(words: I64, row: int, first_mask: int, first_value: int, lane: I64) -> bool:
    """Whether a lane sees the row: its filter is true and its columns are not null."""
    for c in range(1, 3):
        if lane[c] >= 0 and not present(words, row, first_mask, lane[c]):
            return False
    where = lane[0]
    return bool(
        where < 0 or (present(words, row, first_mask, where) and words[row + first_value + where] != 0)
    )


def string_hash(words: I64, at: int) -> int:
    """A hash of the string at word `at`."""
    h = words[at]
    for w in range(1, 1 + ((words[at] + 7) >> 3)):
        h = (h ^ words[at + w]) * -4658895280553007687
        h = h ^ (h >> 31)
    return int(h)


def same_string(a: I64, p: int, b: I64, s: int) -> bool:
    """Whether two strings are equal; their padding is zero."""
    for w in range(1 + ((a[p] + 7) >> 3)):  # noqa: SIM110  Numba has no all()
        if a[p + w] != b[s + w]:
            return False
    return True


def distinct(
    buf: I64, i: int, j: int, lane_rows: I64, heaps: I64, rows: I64, cell: int, is_string: int, table: I64
) -> int:
    """Number of different values of lane rows [i, j). The table is left with their rows, for `unseen`."""
    size = 16
    while size < 2 * (j - i) + 2:
        size <<= 1
    for s in range(size):
        table[s] = -1
    n = 0
    for r in range(i, j):
        row = lane_rows[r]
        value = buf[rows[row] + cell]
        if unseen(buf, buf, heaps[row], value, lane_rows, heaps, rows, cell, is_string, table, size, r):
            n += 1
    return n


def unseen(
    words: I64,
    buf: I64,
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


def read_chunks(
    buf: I64,
    key_at: I64,
    q: I64,
    as_of: I64,
    exclude: I64,
    request: I64,
    request_heap: I64,
    layout: I64,
    lanes: I64,
    windows: I64,
    states: I64,
    folds: I64,
    params: F64,
    finals: I64,
    picks: I64,
    distincts: I64,
    out_f: F64,
    out_i: I64,
    ok: U8,
) -> int:
    """Every feature of one view for many keys, from their chunks laid end to end in time order.

    Args (in `kernels.chunks` terms): `key_at` are word offsets per key; `exclude` is (has, high, low) per
    key; `request` one row per key or none; `lanes`: filter, skipped, skipped, first and last+1 of windows and
    of states; `windows`: length (-1: all), offset, every, delay, include_request, grid, shift; `states`:
    fold, word, x, y, x is integer; `folds`, `finals` as in `sweep`; `picks`: window, kind, output, column, is
    string; `distincts`: window, column, is string, output.

    Returns:
        0, or -1 - key when its bytes are of another definition or out of order.
    """
    definition, width, n_order, first_value, magic, n_words = (
        layout[0],
        layout[1],
        layout[2],
        layout[3],
        layout[4],
        layout[5],
    )
    first_mask = n_order + 4
    n_most = 0
    for n in range(key_at.shape[0] - 1):
        p = key_at[n]
        n_rows = 0
        while p < key_at[n + 1]:
            if (
                key_at[n + 1] - p < 4
                or buf[p] != magic
                or buf[p + 1] != definition
                or buf[p + 2] >> 32 != width
            ):
                return -1 - n
            n_rows += buf[p + 2] & 0xFFFFFFFF
            p += 4 + (buf[p + 2] & 0xFFFFFFFF) * width + buf[p + 3]
        if p != key_at[n + 1]:
            return -1 - n
        n_most = max(n_most, n_rows)
    rows = np.empty(n_most, np.int64)
    heaps = np.empty(n_most, np.int64)
    lane_rows = np.empty(n_most, np.int64)
    t = np.empty(n_most, np.int64)
    ids = np.empty(n_most + 1, np.int64)
    pops = np.empty(n_most + 1, np.uint8)
    sf = np.empty((n_words, n_most), np.float64)
    si = sf.view(np.int64)
    levels = np.empty(80, np.int64)
    stack_f = np.empty((80, 4), np.float64)
    stack_i = np.empty((80, 4), np.int64)
    begin_of = np.empty(windows.shape[0], np.int64)
    end_of = np.empty(windows.shape[0], np.int64)
    table = np.empty(4 * n_most + 16 if distincts.shape[0] > 0 else 0, np.int64)
    floats = buf.view(np.float64)
    own = request.reshape(request.shape[0] * request.shape[1])
    own_floats = own.view(np.float64)
    for n in range(key_at.shape[0] - 1):
        n_rows = 0
        p = key_at[n]
        latest_time = -9223372036854775808
        while p < key_at[n + 1]:
            in_chunk = buf[p + 2] & 0xFFFFFFFF
            heap = p + 4 + in_chunk * width
            row = p + 4
            if in_chunk > 0 and buf[row] < latest_time:
                return -1 - n
            while row < heap:
                hidden = buf[row + n_order + 3] > as_of[n]
                if (
                    exclude[n, 0] != 0
                    and buf[row + n_order + 1] == exclude[n, 1]
                    and buf[row + n_order + 2] == exclude[n, 2]
                ):
                    hidden = True
                if not hidden:
                    rows[n_rows] = row
                    heaps[n_rows] = heap
                    n_rows += 1
                row += width
            if in_chunk > 0:
                latest_time = buf[heap - width]
            p = heap + buf[p + 3]
        fold_at = 0
        pick_at = 0
        distinct_at = 0
        for lane in range(lanes.shape[0]):
            m = 0
            for r in range(n_rows):
                if takes_part(buf, rows[r], first_mask, first_value, lanes[lane]):
                    lane_rows[m] = r
                    t[m] = buf[rows[r]]
                    m += 1
            n_lane = m
            asked = request.shape[0] > 0 and takes_part(own, n * width, first_mask, first_value, lanes[lane])
            low = n_lane
            high = 0
            for w in range(lanes[lane, 3], lanes[lane, 4]):
                end = window_end(q[n], windows[w, 1], windows[w, 2], windows[w, 3])
                j = n_lane
                while j > 0 and t[j - 1] >= end:
                    j -= 1
                i = 0
                if windows[w, 0] >= 0:
                    step = j
                    while i < step:
                        middle = (i + step) >> 1
                        if t[middle] < end - windows[w, 0]:
                            i = middle + 1
                        else:
                            step = middle
                begin_of[w] = i
                end_of[w] = j
                if i < j:
                    low = min(low, i)
                    high = max(high, j)
            for s in range(lanes[lane, 5], lanes[lane, 6]):
                lift(
                    states[s, 0],
                    states[s, 1],
                    low,
                    high,
                    buf,
                    floats,
                    rows,
                    lane_rows,
                    first_value + states[s, 2],
                    first_value + states[s, 3],
                    states[s, 4],
                    sf,
                    si,
                )
            for w in range(lanes[lane, 3], lanes[lane, 4]):
                i = begin_of[w]
                j = end_of[w]
                total = j - i
                m = 0
                if fold_at < folds.shape[0] and folds[fold_at, 0] == w and i < j:
                    m = leaves(i, j, t, windows[w, 5], windows[w, 6], ids, pops, levels)
                has_request = asked and windows[w, 4] != 0
                if has_request:
                    total += 1
                    if fold_at < folds.shape[0] and folds[fold_at, 0] == w:
                        last = spread(t[j - 1], windows[w, 5], windows[w, 6]) if i < j else 0
                        append_request(m, last, spread(q[n], windows[w, 5], windows[w, 6]), pops, ids, levels)
                        m += 1
                while pick_at < picks.shape[0] and picks[pick_at, 0] == w:
                    pick_one(
                        picks[pick_at],
                        n,
                        q[n],
                        i,
                        j,
                        total,
                        has_request,
                        t,
                        rows,
                        heaps,
                        lane_rows,
                        buf,
                        own,
                        width,
                        first_mask,
                        first_value,
                        out_f,
                        out_i,
                        ok,
                    )
                    pick_at += 1
                while fold_at < folds.shape[0] and folds[fold_at, 0] == w:
                    rx = 0.0
                    rxi = 0
                    ry = 0.0
                    if has_request:
                        state = states[folds[fold_at, 5]]
                        rxi = own[n * width + first_value + state[2]]
                        rx = float(rxi) if state[4] & 1 else own_floats[n * width + first_value + state[2]]
                        ry = (
                            float(own[n * width + first_value + state[3]])
                            if state[4] & 2
                            else own_floats[n * width + first_value + state[3]]
                        )
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
                        total,
                        finals,
                        folds[fold_at, 3],
                        folds[fold_at, 4],
                        params,
                        out_f,
                        out_i,
                        ok,
                        n,
                    )
                    fold_at += 1
                while distinct_at < distincts.shape[0] and distincts[distinct_at, 0] == w:
                    cell = first_value + distincts[distinct_at, 1]
                    is_string = distincts[distinct_at, 2]
                    different = distinct(buf, i, j, lane_rows, heaps, rows, cell, is_string, table)
                    if has_request:
                        size = 16
                        while size < 2 * (j - i) + 2:
                            size <<= 1
                        value = own[n * width + cell]
                        if is_string:
                            different += unseen(
                                request_heap,
                                buf,
                                0,
                                value,
                                lane_rows,
                                heaps,
                                rows,
                                cell,
                                is_string,
                                table,
                                size,
                                -1,
                            )
                        else:
                            different += unseen(
                                buf, buf, 0, value, lane_rows, heaps, rows, cell, is_string, table, size, -1
                            )
                    o = distincts[distinct_at, 3]
                    out_i[o, n] = different
                    ok[o, n] = 1
                    distinct_at += 1
    return 0


def leaves(i: int, j: int, t: I64, grid: int, shift: int, ids: I64, pops: U8, levels: I64) -> int:
    """The program of rows [i, j), every row a piece."""
    ids[0] = i
    pops[0] = 0
    depth = 0
    previous = spread(t[i], grid, shift)
    for r in range(i + 1, j):
        v = spread(t[r], grid, shift)
        d = bit_length(previous ^ v)
        previous = v
        n = 0
        while depth > 0 and levels[depth - 1] <= d:
            depth -= 1
            n += 1
        levels[depth] = d
        depth += 1
        ids[r - i] = r
        pops[r - i] = n
    return j - i


def pick_one(
    pick: I64,
    n: int,
    q: int,
    i: int,
    j: int,
    total: int,
    has_request: bool,
    t: I64,
    rows: I64,
    heaps: I64,
    lane_rows: I64,
    buf: I64,
    own: I64,
    width: int,
    first_mask: int,
    first_value: int,
    out_f: F64,
    out_i: I64,
    ok: U8,
) -> None:
    """Count, first, last or time since last. A string comes out as the word where it stands, the request's
    own as -2."""
    kind = pick[1]
    o = pick[2]
    column = pick[3]
    ok[o, n] = total > 0
    out_i[o, n] = 0
    if kind == 0:
        out_i[o, n] = total
        ok[o, n] = 1
    elif total > 0:
        from_request = has_request and (kind != 1 or i == j)
        if kind == 3:
            out_f[o, n] = 0.0 if from_request else (q - t[j - 1]) / 1e6
        elif from_request:
            ok[o, n] = present(own, n * width, first_mask, column)
            out_i[o, n] = -2 if pick[4] else own[n * width + first_value + column]
        else:
            r = lane_rows[i if kind == 1 else j - 1]
            ok[o, n] = present(buf, rows[r], first_mask, column)
            if ok[o, n]:
                out_i[o, n] = buf[rows[r] + first_value + column] + (heaps[r] if pick[4] else 0)
