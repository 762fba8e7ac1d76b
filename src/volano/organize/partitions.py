"""Rows that do not fit memory: read by ranges of time, put aside by parts of their keys, taken part by part.

Says which part a key belongs to: the same on every run and machine. Keeps no rows itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.kernels.columns import combined
from volano.protocols.scratch import Scratch
from volano.values.instants import Instant

_ODD: Final = np.uint64(0x9E3779B97F4A7C15)
_HALF: Final = np.uint64(32)

Micros = NDArray[np.int64]


class Span(NamedTuple):
    """A range of event time, open where None."""

    since: Instant | None
    until: Instant | None


def part_of(keys: Sequence[pa.Array | pa.ChunkedArray], n_parts: int) -> Micros:
    """The part of each row by its key.

    Args:
        keys: a column a part of the key.
        n_parts: in all.

    Returns:
        Numbers from 0 to `n_parts` - 1, one a row.

    >>> part_of([pa.array([7, 8, 7, None])], 3).tolist()
    [0, 2, 0, 0]
    >>> part_of([pa.array(["a", "b", "a"]), pa.array([1, 1, 1])], 1 << 20).tolist()
    [1042939, 609089, 1042939]
    """
    mixed = np.zeros(len(keys[0]), np.uint64)
    for column in keys:
        mixed = (mixed ^ _bits(column)) * _ODD
        mixed ^= mixed >> _HALF
    return (mixed % np.uint64(n_parts)).astype(np.int64)


def in_parts(
    scratch: Scratch,
    name: str,
    readers: Iterable[Callable[[], pa.Table]],
    find_parts: Callable[[pa.Table], Micros],
    n_parts: int,
    after: int = 0,
) -> Iterator[tuple[int, pa.Table]]:
    """Read everything once, put it aside by parts, and give part after part.

    Args:
        scratch: holds as much as the readers give.
        name: of this work in the scratch space.
        readers: at least one; each gives rows, all of one schema; only the rows of one are in memory.
        find_parts: the part of each row.
        n_parts: in all.
        after: parts that are not wanted, from the first.

    Yields:
        Every part behind `after`, from 1, and its rows; an empty table where it has none.
    """
    nothing: pa.Table | None = None
    for read in readers:
        rows = read()
        parts = find_parts(rows)
        order = np.argsort(parts.astype(np.int32), kind="stable")
        rows, edges = rows.take(pa.array(order)), np.searchsorted(parts[order], np.arange(n_parts + 1))
        for part in range(after, n_parts):
            if edges[part + 1] > edges[part]:
                scratch.put(f"{name}-{part}", rows.slice(edges[part], edges[part + 1] - edges[part]))
        nothing = rows.slice(0, 0)
        del rows
    for part in range(after, n_parts):
        found = scratch.take(f"{name}-{part}")
        yield part + 1, nothing if found is None else found


def _bits(column: pa.Array | pa.ChunkedArray) -> NDArray[np.uint64]:
    """A number for each value: equal ones have equal numbers."""
    values = combined(column)
    if pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    if pa.types.is_integer(values.type) or pa.types.is_timestamp(values.type):
        numbers: Micros = values.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        return numbers.view(np.uint64)
    coded = values if pa.types.is_dictionary(values.type) else values.dictionary_encode()
    words = [
        crc32(word if isinstance(word, bytes) else str(word).encode())
        for word in coded.dictionary.to_pylist()
    ]
    indices = coded.indices.fill_null(len(words)).to_numpy(zero_copy_only=False)
    found: NDArray[np.uint64] = np.array([*words, 0], np.uint64)[indices]
    return found
