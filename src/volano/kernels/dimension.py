"""The rows of one key of a dimension, as of an instant: which one holds for an event. Pure; decodes chunks.

The same rule as `last` over the whole past in `kernels.windows`: the newest row in (event_time, order, id) that
happened strictly before q and is visible at `as_of`. Made for many questions about few keys, among them keys that
change between two questions of one batch.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, NamedTuple

import numpy as np

from volano.kernels.arrays import NEVER
from volano.kernels.chunks import ChunkLayout, read_text
from volano.values.schema import Scalar


class _Row(NamedTuple):
    """One row. `place` orders rows: event_time, order words, id words, and the instant it became visible."""

    place: tuple[int, ...]
    values: tuple[Scalar, ...]


class DimensionRows:
    """What is known of one key: rows that came, and rows that went.

    Args:
        layout: of the chunks.
        chunks: the key's chunks as they stood before any `come` and `go`; in any order, empty ones left out.

    >>> rows = DimensionRows(ChunkLayout(b"planes  ", (("maker", "string"),)))
    >>> rows.come(10, (), 1, 12, ("Fokker",))
    >>> rows.newest(10, 99), rows.newest(11, 11), rows.newest(11, 12)
    (None, None, ('Fokker',))
    >>> rows.go(1, 15)
    >>> rows.newest(11, 14), rows.newest(11, 15)
    (('Fokker',), None)
    """

    def __init__(self, layout: ChunkLayout, *chunks: bytes) -> None:
        self._rows: list[_Row] = []
        self._until: dict[tuple[int, ...], int] = {}
        for chunk in chunks:
            self._rows += _decoded(layout, chunk)
        self._rows.sort(key=_place)

    def come(
        self, event_time: int, order: tuple[int, ...], row_id: int, known_at: int, values: tuple[Scalar, ...]
    ) -> None:
        """A row becomes visible.

        Args:
            row_id: unsigned, 128 bits.
        """
        insort(self._rows, _Row((event_time, *order, row_id, known_at), values), key=_place)

    def go(self, row_id: int, at: int) -> None:
        """The visible row of an id is superseded or retracted; a row that is not there changes nothing."""
        for row in self._rows:
            if row.place[-2] == row_id and row.place not in self._until:
                self._until[row.place] = at

    def newest(self, q: int, as_of: int) -> tuple[Scalar, ...] | None:
        """The values of the row that holds at q, of what was visible at `as_of`; None when there is none."""
        before: tuple[int, ...] = (q,)
        for n in range(bisect_left(self._rows, before, key=_place) - 1, -1, -1):
            place, values = self._rows[n]
            if place[-1] <= as_of < self._until.get(place, NEVER):
                return values
        return None


def _place(row: _Row) -> tuple[int, ...]:
    return row.place


def _decoded(layout: ChunkLayout, chunk: bytes) -> list[_Row]:
    packed = layout.packed(chunk)
    words = packed.words
    flipped = words[:, layout.order + 1 : layout.order + 3].view(np.uint64) ^ np.uint64(1 << 63)
    columns = [
        _values(kind, words, layout, c, packed.heap.tobytes()) for c, (_, kind) in enumerate(layout.columns)
    ]
    values = list(zip(*columns, strict=True)) if columns else [()] * len(words)
    heads = words[:, : layout.order + 1].tolist()
    known = words[:, layout.order + 3].tolist()
    return [
        _Row((*head, (high << 64) | low, at), row)
        for head, (high, low), at, row in zip(heads, flipped.tolist(), known, values, strict=True)
    ]


def _values(kind: str, words: Any, layout: ChunkLayout, column: int, heap: bytes) -> list[Scalar]:
    cells = np.ascontiguousarray(words[:, layout.first_value + column])
    missing = ((words[:, layout.first_mask + column // 64] >> (column % 64)) & 1).tolist()
    found: list[Any] = (cells.view(np.float64) if kind == "float64" else cells).tolist()
    if kind == "string":
        found = [None if null else read_text(heap, 8 * at) for at, null in zip(found, missing, strict=True)]
    elif kind == "bool":
        found = [cell != 0 for cell in found]
    return [None if null else cell for cell, null in zip(found, missing, strict=True)]
