"""Tiles: many rows of one node of the trie as one record, so that a read need not touch each. Words of a tile, every
word a column of all tiles side by side: where its node begins, the node's level, first and last event_time, number of
rows, latest applied_at; then for each lane the number of its rows, the first and last event_time of them, and states.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import I64, F64r, F64x2, I64r, I64x2
from volano.kernels.source.bits import bit_length, spread
from volano.kernels.source.folds import fold_windows, lift
from volano.kernels.source.rows import takes_part

ENTRY = ("fold_tiles",)


def tiled_lane(
    buf: I64r,
    n_items: int,
    spec: I64,
    lane: int,
    rows: I64,
    heaps: I64,
    lane_rows: I64,
    t: I64,
    until: I64,
    counted: I64,
) -> int:
    """The rows and tiles that a lane sees, their first and last instants, and how many rows lie up to each."""
    where, x, y, tile = spec[lane], spec[lane + 1], spec[lane + 2], spec[lane + 11]
    m = 0
    total = 0
    for r in range(n_items):
        row = rows[r]
        if row >= 0:
            if takes_part(buf, row, spec[2] + 4, spec[3], where, x, y):
                total += 1
                lane_rows[m] = r
                t[m] = buf[row]
                until[m] = buf[row]
                counted[m] = total
                m += 1
        else:
            at = -1 - row + tile * heaps[r]
            if buf[at] > 0:
                total += buf[at]
                lane_rows[m] = r
                t[m] = buf[at + heaps[r]]
                until[m] = buf[at + 2 * heaps[r]]
                counted[m] = total
                m += 1
    return m


def raw_run(
    buf: I64r,
    a: int,
    end: int,
    rows: I64,
    heaps: I64,
    lane_rows: I64,
    word: int,
    n_words: int,
    tile: int,
    integers: I64x2,
) -> tuple[int, int]:
    """Take over the states of the tiles from item a on; returns the run of rows behind them."""
    while a < end and rows[lane_rows[a]] < 0:
        r = lane_rows[a]
        at = -1 - rows[r] + tile * heaps[r]
        for k in range(n_words):
            integers[word + k, a] = buf[at + k * heaps[r]]
        a += 1
    b = a
    while b < end and rows[lane_rows[b]] >= 0:
        b += 1
    return a, b


def fold_tiles(buf: I64r, spec: I64, grid: int, shift: int, edges: I64x2, out: I64x2) -> int:
    """Fill the records of tiles, from the rows of packed chunks laid end to end, from the third word on.

    Args:
        spec: of `kernels.chunks`, with places of tiles.
        grid, shift: the map of instants of the windows that the tiles serve.
        edges: for each tile its first row and the end of its rows.
        out: a record as a column.
    """
    width, n_order, first_value = spec[1], spec[2], spec[3]
    first_mask = n_order + 4
    n_rows = 0
    p = 0
    while p < buf.shape[0]:
        n_rows += buf[p + 2] & 0xFFFFFFFF
        p += 4 + (buf[p + 2] & 0xFFFFFFFF) * width + buf[p + 3]
    rows = np.empty(n_rows, np.int64)
    n = 0
    p = 0
    while p < buf.shape[0]:
        heap = p + 4 + (buf[p + 2] & 0xFFFFFFFF) * width
        for row in range(p + 4, heap, width):
            rows[n] = row
            n += 1
        p = heap + buf[p + 3]
    n_most = 0
    for k in range(edges.shape[0]):
        n_most = max(n_most, edges[k, 1] - edges[k, 0])
    lane_rows = np.empty(n_most, np.int64)
    t = np.empty(n_most, np.int64)
    gaps = np.empty(n_most, np.int64)
    states = np.empty((spec[5], n_most), np.float64)
    stack = np.empty((80, 4), np.float64)
    state = np.empty((1, 4), np.float64)
    state_i = state.view(np.int64)
    floats = buf.view(np.float64)
    begins = np.zeros(1, np.int64)
    ends = np.zeros(1, np.int64)
    asked = np.zeros(1, np.int64)
    levels = np.empty(80, np.int64)
    for k in range(edges.shape[0]):
        a = edges[k, 0]
        b = edges[k, 1]
        out[2, k] = buf[rows[a]]
        out[3, k] = buf[rows[b - 1]]
        out[4, k] = b - a
        out[5, k] = buf[rows[a] + n_order + 3]
        for r in range(a, b):
            out[5, k] = max(out[5, k], buf[rows[r] + n_order + 3])
        for lane in range(spec[6], spec[7], 12):
            m = 0
            for r in range(a, b):
                if takes_part(
                    buf, rows[r], first_mask, first_value, spec[lane], spec[lane + 1], spec[lane + 2]
                ):
                    lane_rows[m] = r
                    t[m] = buf[rows[r]]
                    if m > 0:
                        gaps[m] = bit_length(spread(t[m - 1], grid, shift) ^ spread(t[m], grid, shift))
                    m += 1
            tile = spec[lane + 11]
            out[tile, k] = m
            out[tile + 1, k] = t[0] if m > 0 else 0
            out[tile + 2, k] = t[m - 1] if m > 0 else 0
            ends[0] = m
            for s in range(spec[lane + 5], spec[lane + 6], 9):
                if m > 0:
                    fold_all(
                        spec[s : s + 9],
                        m,
                        buf,
                        floats,
                        rows,
                        lane_rows,
                        first_value,
                        states,
                        begins,
                        ends,
                        gaps,
                        levels,
                        asked,
                        stack,
                        state,
                    )
                for w in range(spec[s + 7]):
                    out[spec[s + 8] + w, k] = state_i[0, w] if m > 0 else 0
    return 0


def fold_all(
    record: I64,
    m: int,
    buf: I64r,
    floats: F64r,
    rows: I64,
    lane_rows: I64,
    first_value: int,
    states: F64x2,
    begins: I64,
    ends: I64,
    gaps: I64,
    levels: I64,
    asked: I64,
    stack: F64x2,
    state: F64x2,
) -> None:
    """One state over m rows of a lane, into the first row of `state`."""
    integers = states.view(np.int64)
    lift(
        record[0],
        record[1],
        0,
        m,
        buf,
        floats,
        rows,
        lane_rows,
        first_value + record[2],
        first_value + record[3],
        record[4],
        states,
        integers,
    )
    fold_windows(
        record[0],
        record[1],
        states,
        integers,
        begins,
        ends,
        0,
        1,
        gaps,
        levels,
        asked,
        asked,
        0.0,
        0,
        0.0,
        stack,
        stack.view(np.int64),
        state,
        state.view(np.int64),
    )
