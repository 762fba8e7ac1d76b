"""Folding tiles and rows into the tiles of wider nodes: what sealing does (`kernels.sealed`)."""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import I64, I64r, I64x2
from volano.kernels.source.bits import bit_length, spread
from volano.kernels.source.folds import fold_windows, lift
from volano.kernels.source.packed import gather
from volano.kernels.source.tiled import raw_run, tiled_lane

ENTRY = ("fold_nodes",)


def fold_nodes(buf: I64r, n_items: int, spec: I64, grid: int, shift: int, edges: I64x2, out: I64x2) -> int:
    """Fill the records of tiles from the third word on, each from some neighbouring tiles and rows.

    Args:
        buf: runs of tiles and packed chunks laid end to end, in time order; `n_items` tiles and rows in all.
        spec: of `kernels.chunks`, with places of tiles.
        grid, shift: the map of instants of the windows that the tiles serve.
        edges: for each node its first item and the end of its items.
        out: a record as a column.
    """
    width, n_order, first_value = spec[1], spec[2], spec[3]
    least = -9223372036854775808
    most = 9223372036854775807
    all_rows = np.empty(n_items, np.int64)
    all_heaps = np.empty(n_items, np.int64)
    gather(buf, 0, buf.shape[0], least, most, most, 0, 0, 0, width, spec[9], n_order, all_rows, all_heaps)
    n_most = 0
    for k in range(edges.shape[0]):
        n_most = max(n_most, edges[k, 1] - edges[k, 0])
    lane_rows = np.empty(n_most, np.int64)
    t = np.empty(n_most, np.int64)
    until = np.empty(n_most, np.int64)
    counted = np.empty(n_most, np.int64)
    gaps = np.empty(n_most, np.int64)
    states = np.empty((spec[5], n_most), np.float64)
    integers = states.view(np.int64)
    stack = np.empty((80, 4), np.float64)
    state = np.empty((1, 4), np.float64)
    state_i = state.view(np.int64)
    floats = buf.view(np.float64)
    begins = np.zeros(1, np.int64)
    ends = np.zeros(1, np.int64)
    asked = np.zeros(1, np.int64)
    levels = np.empty(80, np.int64)
    for k in range(edges.shape[0]):
        rows = all_rows[edges[k, 0] : edges[k, 1]]
        heaps = all_heaps[edges[k, 0] : edges[k, 1]]
        n = rows.shape[0]
        out[4, k] = 0
        for r in range(n):
            if rows[r] < 0:
                at = -1 - rows[r]
                first, last, here, seen = (
                    buf[at + 2 * heaps[r]],
                    buf[at + 3 * heaps[r]],
                    buf[at + 4 * heaps[r]],
                    buf[at + 5 * heaps[r]],
                )
            else:
                first, last, here, seen = buf[rows[r]], buf[rows[r]], 1, buf[rows[r] + n_order + 3]
            if r == 0:
                out[2, k] = first
                out[5, k] = seen
            out[3, k] = last
            out[4, k] += here
            out[5, k] = max(out[5, k], seen)
        for lane in range(spec[6], spec[7], 12):
            m = tiled_lane(buf, n, spec, lane, rows, heaps, lane_rows, t, until, counted)
            tile = spec[lane + 11]
            out[tile, k] = counted[m - 1] if m > 0 else 0
            out[tile + 1, k] = t[0] if m > 0 else 0
            out[tile + 2, k] = until[m - 1] if m > 0 else 0
            for r in range(1, m):
                gaps[r] = bit_length(spread(until[r - 1], grid, shift) ^ spread(t[r], grid, shift))
            ends[0] = m
            for s in range(spec[lane + 5], spec[lane + 6], 9):
                a = 0
                while a < m:
                    a, b = raw_run(
                        buf, a, m, rows, heaps, lane_rows, spec[s + 1], spec[s + 7], spec[s + 8], integers
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
                if m > 0:
                    fold_windows(
                        spec[s],
                        spec[s + 1],
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
                        state_i,
                    )
                for w in range(spec[s + 7]):
                    out[spec[s + 8] + w, k] = state_i[0, w] if m > 0 else 0
    return 0
