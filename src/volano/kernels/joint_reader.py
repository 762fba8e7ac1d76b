"""Reads the features of one request from chunks of several layouts, in one call of the compiled kernel.

The same computation as a `ChunkReader` for each key, hence the same bits; what is saved is the crossing from Python,
which costs more than a small window does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from volano.kernels.arrays import F64, I64
from volano.kernels.chunks import ChunkReader, Value
from volano.kernels.compiled import kernels

_EMPTY = np.empty(0, np.int64)


class JointReader:
    """Several chunk readers as one. Built once; thread-safe.

    Args:
        readers: one for each key of a request; the values come in their order, then in that of their features.

    >>> import pyarrow as pa
    >>> from volano.kernels.chunks import ChunkLayout
    >>> from volano.kernels.features import WindowFeature
    >>> layout = ChunkLayout(b"landings", (("delay", "float64"),))
    >>> rows = layout.encode([10], [bytes(16)], [11], {"delay": pa.array([5.0])})
    >>> chunk, = layout.merge([b""], rows, [0])
    >>> reader = ChunkReader([WindowFeature("mean_delay", "mean", "delay", window_us=100)], layout)
    >>> JointReader([reader, reader]).read([[chunk], []], 30)
    [5.0, None]
    """

    def __init__(self, readers: Sequence[ChunkReader]) -> None:
        self._readers = tuple(readers)
        self._read = kernels().read_joint
        none: tuple[I64, F64] = (np.empty(0, np.int64), np.empty(0))
        self._specs = np.concatenate([none[0], *(reader.spec for reader in self._readers)])
        self._params = np.concatenate([none[1], *(reader.params for reader in self._readers)])
        self._spec_at = _edges([len(reader.spec) for reader in self._readers])
        self._param_at = _edges([len(reader.params) for reader in self._readers])
        self._out_at = _edges([reader.n_words for reader in self._readers])
        ends = self._out_at.tolist()
        self._parts = tuple(zip(self._readers, ends, ends[1:], strict=False))

    def read(self, chunks: Sequence[Sequence[bytes]], q: int) -> list[Value]:
        """The features of one request.

        Args:
            chunks: for each reader the chunks of its key, oldest first; missing ones are left out.
            q: the end of the windows, µs.

        Returns:
            One value per feature of every reader; None is null; timestamps are µs.

        Raises:
            StateMismatchError: a chunk was written by another definition.
        """
        joined = b"".join([chunk for own in chunks for chunk in own])
        buf = np.frombuffer(joined, np.int64) if joined else _EMPTY
        key_at = np.array([*accumulate([sum(map(len, own)) >> 3 for own in chunks], initial=0)])
        out = np.empty(self._out_at[-1], np.int64)
        done = self._read(
            buf, key_at, q, self._spec_at, self._specs, self._param_at, self._params, self._out_at, out
        )
        if done < 0:
            raise self._readers[-1 - done].layout.mismatch(chunks[-1 - done][0])
        words, floats = out.tolist(), out.view(np.float64).tolist()
        values: list[Value] = []
        for reader, a, b in self._parts:
            values += reader.values(words[a:b], floats[a:b], joined)
        return values


def _edges(sizes: list[int]) -> I64:
    return np.array([*accumulate(sizes, initial=0)], np.int64)
