"""Reads one view's features of many keys at one instant as columns: one join, one compiled call, no object a key.

The same computation as a `ChunkReader` for each key, hence the same bits. Writes nothing, fetches nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from volano.kernels.arrays import NEVER, AnyArray, Bools, I64x2
from volano.kernels.chunks import ChunkReader
from volano.kernels.columns import arrow_type, write_column
from volano.kernels.compiled import kernels


@dataclass(frozen=True, slots=True)
class FeatureColumns:
    """The features of many keys, a row of `words` an output word, a column a key.

    Args:
        reader: whose features they are.
        words: what the kernel wrote, shape (reader.n_words, keys).
        joined: the chunks that were read; texts stand in them.
    """

    reader: ChunkReader
    words: I64x2
    joined: bytes

    def valid(self, feature: int) -> Bools:
        """Which keys have a value of the feature at this place, shape (keys,)."""
        output = self.reader.places[feature]
        nulls = self.words[self.reader.places[-1] + output // 64]
        found: Bools = nulls >> (output % 64) & 1 == 0
        return found

    def numbers(self, feature: int) -> AnyArray:
        """The values of a float64, int64 or timestamp feature, shape (keys,), without a copy; anything where it is
        not `valid`."""
        column: AnyArray = self.words[self.reader.places[feature]]
        if self.reader.types[feature] == "float64":
            column = column.view(np.float64)
        return column

    def to_arrow(self) -> pa.RecordBatch:
        """One column a feature, one row a key."""
        return pa.RecordBatch.from_arrays(
            [self._column(p, kind) for p, kind in enumerate(self.reader.types)],
            names=[feature.name for feature in self.reader.features],
        )

    def _column(self, feature: int, kind: str) -> pa.Array:
        valid = self.valid(feature)
        if kind in ("float64", "int64", "timestamp"):
            return write_column(kind, self.numbers(feature), valid)
        a, b = self.reader.places[feature : feature + 2]
        values = [
            self.reader.odd_value(feature, words, self.joined) if there else None
            for words, there in zip(self.words[a:b].T.tolist(), valid.tolist(), strict=True)
        ]
        return pa.array(values, arrow_type(kind))


class BatchReader:
    """Reads the features of a `ChunkReader` for many keys. Built once; thread-safe.

    >>> import pyarrow as pa
    >>> from volano.kernels.chunks import ChunkLayout
    >>> from volano.kernels.features import WindowFeature
    >>> layout = ChunkLayout(b"landings", (("delay", "float64"),))
    >>> rows = layout.encode([10], [bytes(16)], [11], {"delay": pa.array([5.0])})
    >>> chunk, = layout.merge([b""], rows, [0])
    >>> reader = ChunkReader([WindowFeature("mean_delay", "mean", "delay", window_us=100)], layout)
    >>> BatchReader(reader).read([None, chunk, None, None], 2, 30).to_arrow().to_pylist()
    [{'mean_delay': 5.0}, {'mean_delay': None}]
    """

    def __init__(self, reader: ChunkReader) -> None:
        self._reader = reader
        self._read = kernels().read_many
        self._no_request = np.empty((0, reader.layout.width), np.int64)
        self._no_heap = np.empty(0, np.int64)

    def read(self, found: Sequence[bytes | None], n_chunks: int, q: int) -> FeatureColumns:
        """The features of many keys.

        Args:
            found: what a multi-get gave for the chunks that `chunk_grid.chunk_numbers` names, key after key, each
                oldest first; None for one that is not there.
            n_chunks: how many of them each key has.
            q: the end of the windows, µs.

        Raises:
            StateMismatchError: a chunk was written by another definition, or is the head of a hot one, which a
                `TiledReader` reads.
        """
        chunks: Sequence[Any] = found
        try:
            joined = b"".join(chunks)
        except TypeError:  # some are not there; looking for them would cost more than the join
            chunks = [chunk or b"" for chunk in found]
            joined = b"".join(chunks)
        sizes = np.fromiter(map(len, chunks), np.int64, len(chunks))
        ends = np.cumsum(sizes)[n_chunks - 1 :: n_chunks] >> 3
        asks = np.zeros((len(ends), 7), np.int64)
        asks[:, 1] = ends
        asks[1:, 0] = ends[:-1]
        asks[:, 2] = q
        asks[:, 3] = NEVER - 1
        out = np.empty((len(ends), self._reader.n_words), np.int64)
        done = self._read(
            np.frombuffer(joined, np.int64) if joined else self._no_heap,
            asks,
            self._no_request,
            self._no_heap,
            self._reader.spec,
            self._reader.params,
            out,
        )
        if done < 0:
            a, b = n_chunks * (-1 - done), n_chunks * -done
            raise self._reader.layout.mismatch(next(chunk for chunk in found[a:b] if chunk))
        return FeatureColumns(self._reader, out.T, joined)
