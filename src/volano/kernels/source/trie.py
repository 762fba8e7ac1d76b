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

from volano.kernels.arrays import I32, I64, U8
from volano.kernels.source.bits import bit_length

ENTRY = {
    "grow": "I I i i U W W W W W W I -> i",
    "grow_visibility": "I I I i i W W W I I I I -> i",
}


def grow(
    v: I64,
    starts: I64,
    k0: int,
    k1: int,
    level: U8,
    left: I32,
    right: I32,
    lo: I32,
    hi: I32,
    top: I32,
    order: I32,
    stack: I64,
) -> int:
    """Build the tries of keys [k0, k1) in one pass each; `order` lists gaps with children before parents."""
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
                right[g] = node
                hi[g] = r + 1
                node = 2 * g + 1
                first = lo[g]
                order[n_done] = g
                n_done += 1
            if not last:
                level[r] = d
                left[r] = node
                lo[r] = first
                stack[depth] = r
                depth += 1
        group = a
        for r in range(a, b):
            if r + 1 == b or level[r] != 0:
                node = 2 * r if group == r else 2 * (r - 1) + 1
                for s in range(group, r + 1):
                    top[s] = node
                group = r + 1
    return 0


def grow_visibility(
    starts: I64,
    visible_from: I64,
    visible_until: I64,
    k0: int,
    k1: int,
    left: I32,
    right: I32,
    order: I32,
    min_from: I64,
    max_from: I64,
    min_until: I64,
    max_until: I64,
) -> int:
    """For every node the extremes of visibility, so that wholly visible and wholly hidden nodes need no descent."""
    for k in range(k0, k1):
        for r in range(starts[k], starts[k + 1]):
            min_from[2 * r] = visible_from[r]
            max_from[2 * r] = visible_from[r]
            min_until[2 * r] = visible_until[r]
            max_until[2 * r] = visible_until[r]
        for p in range(starts[k], starts[k + 1] - 1):
            g = order[p]
            x = left[g]
            y = right[g]
            z = 2 * g + 1
            min_from[z] = min(min_from[x], min_from[y])
            max_from[z] = max(max_from[x], max_from[y])
            min_until[z] = min(min_until[x], min_until[y])
            max_until[z] = max(max_until[x], max_until[y])
    return 0


def cut(
    i: int,
    j: int,
    v: I64,
    level: U8,
    left: I32,
    right: I32,
    lo: I32,
    hi: I32,
    top: I32,
    ids: I64,
    pops: U8,
    spare: I64,
) -> int:
    """Cut rows [i, j), all taken, into pieces and their program; returns the number of pieces.

    Left of the highest gap nodes are met going up and fold from the left; right of it they fold from the right.
    """
    ids[0] = top[i]
    pops[0] = 0
    split = bit_length(v[i] ^ v[j - 1])
    if split == 0:
        return 1
    n = 1
    node = top[i]
    end = i + 1 if node & 1 == 0 else hi[node >> 1]
    while level[end - 1] < split:
        ids[n] = right[end - 1]
        pops[n] = 1 if n >= 2 else 0
        n += 1
        end = hi[end - 1]
    middle = n
    node = top[j - 1]
    spare[0] = node
    n_right = 1
    begin = j - 1 if node & 1 == 0 else lo[node >> 1]
    while level[begin - 1] < split:
        spare[n_right] = left[begin - 1]
        n_right += 1
        begin = lo[begin - 1]
    for p in range(n_right):
        ids[n] = spare[n_right - 1 - p]
        pops[n] = 0
        n += 1
    if middle >= 2:
        pops[middle] = 1
    return n


def climb(
    i: int,
    j: int,
    v: I64,
    level: U8,
    left: I32,
    right: I32,
    lo: I32,
    hi: I32,
    top: I32,
    as_of: int,
    exclude: int,
    min_from: I64,
    max_from: I64,
    min_until: I64,
    max_until: I64,
    visible_from: I64,
    visible_until: I64,
    ids: I64,
    pops: U8,
    begins: I64,
    ends: I64,
    roots: I64,
    spare: I64,
    levels: I64,
) -> int:
    """Cut the visible rows of [i, j) into pieces; descends only where some rows are hidden. Returns the
    number of pieces."""
    n_roots = cut(i, j, v, level, left, right, lo, hi, top, roots, pops, spare)
    n = 0
    depth = 0
    for p in range(n_roots):
        n_todo = 1
        spare[0] = roots[p]
        while n_todo > 0:
            n_todo -= 1
            node = spare[n_todo]
            g = node >> 1
            if node & 1:
                if min_from[node] > as_of or max_until[node] <= as_of:
                    continue
                begin = lo[g]
                end = hi[g]
                if max_from[node] <= as_of and min_until[node] > as_of and not (begin <= exclude < end):
                    depth = append(n, depth, node, begin, end, v, ids, pops, begins, ends, levels)
                    n += 1
                elif level[g] > 0:
                    spare[n_todo] = right[g]
                    spare[n_todo + 1] = left[g]
                    n_todo += 2
                else:
                    for r in range(begin, end):
                        if visible_from[r] <= as_of < visible_until[r] and r != exclude:
                            depth = append(n, depth, 2 * r, r, r + 1, v, ids, pops, begins, ends, levels)
                            n += 1
            elif visible_from[g] <= as_of < visible_until[g] and g != exclude:
                depth = append(n, depth, node, g, g + 1, v, ids, pops, begins, ends, levels)
                n += 1
    return n


def append(
    n: int,
    depth: int,
    node: int,
    begin: int,
    end: int,
    v: I64,
    ids: I64,
    pops: U8,
    begins: I64,
    ends: I64,
    levels: I64,
) -> int:
    """Append one piece to the program; returns the new depth of the stack of open gaps."""
    ids[n] = node
    begins[n] = begin
    ends[n] = end
    pops[n] = 0
    if n > 0:
        d = bit_length(v[ends[n - 1] - 1] ^ v[begin])
        while depth > 0 and levels[depth - 1] <= d:
            depth -= 1
            pops[n] += 1
        levels[depth] = d
        depth += 1
    return depth


def append_request(n: int, last: int, at: int, pops: U8, ids: I64, levels: I64) -> None:
    """Append the request's own event, number -1, after n pieces; `last` and `at` are spread instants.

    The open gaps are read from `pops`: each push opened one and each pop closed one.
    """
    ids[n] = -1
    pops[n] = 0
    if n == 0:
        return
    depth = n - 1
    for p in range(n):
        depth -= pops[p]
    d = bit_length(last ^ at)
    while depth > 0 and levels[depth - 1] <= d:
        depth -= 1
        pops[n] += 1
