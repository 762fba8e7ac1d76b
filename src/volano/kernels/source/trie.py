"""The canonical association: the binary trie of the rows' times. Holds its building and the cutting of a
window into pieces.

Rows r and r+1 of a key meet in *gap* r, at level bit_length(v[r] ^ v[r+1]). Leaf r has number 2r, the node of
gap g has number 2g+1, so numbers follow time. A window is a run of rows; it is cut into *pieces*, whole nodes
of the trie, and a small program
says in which order pieces merge: `pops[p]` merges happen before piece p is pushed, the rest at the end.
    Dropping a row from the
trie changes no other merge: that is why hidden rows, filters and nulls cost nothing but a descent.
"""

from __future__ import annotations

import numpy as np

from volano.kernels.arrays import I64, U8, I32x2, I64x2
from volano.kernels.source.bits import bit_length

ENTRY = ("grow", "grow_visibility")


def grow(v: I64, starts: I64, k0: int, k1: int, level: U8, links: I32x2) -> int:
    """Build the tries of keys [k0, k1) in one pass each.

    Per gap `links` holds in rows 0 to 3 the left and right child and the first row and end of its node; in
    row 5 the gaps with children before parents. Row 4 holds per row the node of all rows of its instant.
    """
    stack = np.empty(80, np.int64)
    for k in range(k0, k1):
        a = starts[k]
        b = starts[k + 1]
        n_done = a
        depth = 0
        for r in range(a, b):
            last = r + 1 == b
            d = 65 if last else bit_length(v[r] ^ v[r + 1])
            node = 2 * r
            first = r
            while depth > 0 and level[stack[depth - 1]] <= d:
                depth -= 1
                g = stack[depth]
                links[1, g] = node
                links[3, g] = r + 1
                node = 2 * g + 1
                first = links[2, g]
                links[5, n_done] = g
                n_done += 1
            if not last:
                level[r] = d
                links[0, r] = node
                links[2, r] = first
                stack[depth] = r
                depth += 1
        group = a
        for r in range(a, b):
            if r + 1 == b or level[r] != 0:
                node = 2 * r if group == r else 2 * (r - 1) + 1
                for s in range(group, r + 1):
                    links[4, s] = node
                group = r + 1
    return 0


def grow_visibility(
    starts: I64, visible_from: I64, visible_until: I64, k0: int, k1: int, links: I32x2, extremes: I64x2
) -> int:
    """For every node the extremes of visibility, so that wholly visible and wholly hidden nodes need no descent.

    Rows of `extremes`: least and greatest visible_from, least and greatest visible_until.
    """
    for k in range(k0, k1):
        for r in range(starts[k], starts[k + 1]):
            extremes[0, 2 * r] = visible_from[r]
            extremes[1, 2 * r] = visible_from[r]
            extremes[2, 2 * r] = visible_until[r]
            extremes[3, 2 * r] = visible_until[r]
        for p in range(starts[k], starts[k + 1] - 1):
            g = links[5, p]
            x = links[0, g]
            y = links[1, g]
            z = 2 * g + 1
            extremes[0, z] = min(extremes[0, x], extremes[0, y])
            extremes[1, z] = max(extremes[1, x], extremes[1, y])
            extremes[2, z] = min(extremes[2, x], extremes[2, y])
            extremes[3, z] = max(extremes[3, x], extremes[3, y])
    return 0


def cut(i: int, j: int, v: I64, level: U8, links: I32x2, ids: I64, at: int, spare: I64) -> tuple[int, int]:
    """Cut rows [i, j), all taken, into pieces, written to `ids` from `at` on.

    Left of the highest gap nodes are met going up and fold from the left; right of it they fold from the right.

    Returns:
        The end of the pieces in `ids`, and the first piece right of the gap.
    """
    node = links[4, i]
    ids[at] = node
    n = at + 1
    split = bit_length(v[i] ^ v[j - 1])
    if split == 0:
        return n, n
    end = i + 1 if node & 1 == 0 else links[3, node >> 1]
    while level[end - 1] < split:
        ids[n] = links[1, end - 1]
        n += 1
        end = links[3, end - 1]
    middle = n
    node = links[4, j - 1]
    spare[0] = node
    n_right = 1
    begin = j - 1 if node & 1 == 0 else links[2, node >> 1]
    while level[begin - 1] < split:
        spare[n_right] = links[0, begin - 1]
        n_right += 1
        begin = links[2, begin - 1]
    for p in range(n_right):
        ids[n] = spare[n_right - 1 - p]
        n += 1
    return n, middle


def climb(
    i: int,
    j: int,
    v: I64,
    level: U8,
    links: I32x2,
    extremes: I64x2,
    visible_from: I64,
    visible_until: I64,
    as_of: int,
    exclude: int,
    ids: I64,
    pops: U8,
    begins: I64,
    ends: I64,
    at: int,
    roots: I64,
    spare: I64,
    levels: I64,
) -> int:
    """Cut the visible rows of [i, j) into pieces and their program, written from `at` on; returns their end.

    Descends only where some rows are hidden. `levels` keeps the open gaps.
    """
    n_roots, _ = cut(i, j, v, level, links, roots, 0, spare)
    n = at
    depth = 0
    for p in range(n_roots):
        n_todo = 1
        spare[0] = roots[p]
        while n_todo > 0:
            n_todo -= 1
            node = spare[n_todo]
            g = node >> 1
            begin = g
            end = g + 1
            if extremes[0, node] > as_of or extremes[3, node] <= as_of:
                continue
            if node & 1:
                begin = links[2, g]
                end = links[3, g]
                if extremes[1, node] > as_of or extremes[2, node] <= as_of or begin <= exclude < end:
                    if level[g] > 0:
                        spare[n_todo] = links[1, g]
                        spare[n_todo + 1] = links[0, g]
                        n_todo += 2
                        continue
                    # Rows of one instant are a left comb, as deep as they are many: they are walked, not descended.
                    for r in range(begin, end):
                        if visible_from[r] <= as_of < visible_until[r] and r != exclude:
                            ids[n] = 2 * r
                            begins[n] = r
                            ends[n] = r + 1
                            depth = schedule(
                                v[ends[n - 1] - 1] ^ v[r] if n > at else -1, n, depth, pops, levels
                            )
                            n += 1
                    continue
            elif g == exclude:
                continue
            ids[n] = node
            begins[n] = begin
            ends[n] = end
            depth = schedule(v[ends[n - 1] - 1] ^ v[begin] if n > at else -1, n, depth, pops, levels)
            n += 1
    return n


def schedule(difference: int, n: int, depth: int, pops: U8, levels: I64) -> int:
    """Set how many merges come before piece n, which differs in these bits from the piece before it; -1 for none.

    `levels[:depth]` are the gaps between pieces that still wait; returns the new depth.
    """
    pops[n] = 0
    if difference == -1:
        return 0
    d = bit_length(difference)
    while depth > 0 and levels[depth - 1] <= d:
        depth -= 1
        pops[n] += 1
    levels[depth] = d
    return depth + 1


def schedule_request(at: int, n: int, difference: int, ids: I64, pops: U8, levels: I64) -> None:
    """Add the request's own event, number -1, behind the pieces [at, n); as `schedule`, with the open gaps
    counted from `pops`."""
    depth = max(0, n - at - 1)
    for p in range(at, n):
        depth -= pops[p]
    ids[n] = -1
    schedule(difference if n > at else -1, n, depth, pops, levels)
