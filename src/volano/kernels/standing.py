"""Which row stands: the newest of each key. For append-only tables whose current state is a view."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


def as_micros(column: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Instants of a column as int64 µs, whether it holds timestamps or integers; it must not hold nulls.

    >>> as_micros(pa.array([1, 2], pa.timestamp("us", "UTC"))).tolist()
    [1, 2]
    """
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", column.type.tz))
    values: NDArray[np.int64] = column.cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values


def as_array(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """A column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def newest_rows(keys: pa.ChunkedArray | pa.Array, at: NDArray[Any]) -> NDArray[np.int64]:
    """Positions of the newest row of each key, in the order of first appearance after sorting by time, newest
    first.

    Args:
        keys: text, one a row, not null.
        at: when each row was written; of two rows at one instant the later in the table stands.

    >>> newest_rows(pa.array(["a", "b", "a"]), np.array([1, 5, 2])).tolist()
    [1, 2]
    """
    newest_first = np.argsort(np.asarray(at), kind="stable")[::-1]
    codes = pc.dictionary_encode(as_array(keys).take(pa.array(newest_first))).indices
    _, first = np.unique(codes.to_numpy(zero_copy_only=False), return_index=True)
    chosen: NDArray[np.int64] = newest_first[first]
    return chosen
