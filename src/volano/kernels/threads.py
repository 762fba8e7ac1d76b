"""Sharing one computation among threads. Kernels release the interpreter lock; no result depends on how work
is cut."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np

from volano.kernels.arrays import I64

THREADS = 2
"""The default number of threads."""

_SMALL = 4096


def parts(n: int, threads: int) -> list[tuple[int, int]]:
    """[0, n) in about equal parts, one per thread; small work is not cut."""
    if threads <= 1 or n < _SMALL:
        return [(0, n)]
    return list(pairwise(n * p // threads for p in range(threads + 1)))


def key_parts(starts: I64, threads: int) -> list[tuple[int, int]]:
    """The keys in parts of about equally many rows; `starts` are the first positions of keys, the end last."""
    n_keys, n = len(starts) - 1, int(starts[-1])
    if threads <= 1 or n < _SMALL:
        return [(0, n_keys)]
    edges = [0, *(int(np.searchsorted(starts, n * p // threads)) for p in range(1, threads)), n_keys]
    return [(a, b) for a, b in pairwise(edges) if a < b]


def share(work: Callable[[int, int], object], cut: list[tuple[int, int]]) -> None:
    """Run `work(a, b)` for every part, in threads when there are several."""
    if len(cut) == 1:
        work(*cut[0])
        return
    with ThreadPoolExecutor(len(cut)) as pool:
        for done in [pool.submit(work, a, b) for a, b in cut]:
            done.result()
