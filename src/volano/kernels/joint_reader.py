"""Reads the features of one request from chunks of several layouts, in one call of the compiled kernel.

The same computation as a `ChunkReader` for each key, hence the same bits; what is saved is the crossing from Python,
which costs more than a small window does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from itertools import accumulate
from operator import itemgetter
from typing import Any

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
    (5.0, None)
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
        self._values = _Values(self._readers, self._out_at.tolist())
        self._local = threading.local()

    def read(self, chunks: Sequence[Sequence[bytes]], q: int) -> tuple[Value, ...]:
        """The features of one request.

        Args:
            chunks: for each reader the chunks of its key, oldest first; missing ones are left out.
            q: the end of the windows, µs.

        Returns:
            One value per feature of every reader; None is null; timestamps are µs.

        Raises:
            StateMismatchError: a chunk was written by another definition.
        """
        try:
            key_at, out, floats = self._local.scratch
        except AttributeError:
            key_at, out = np.zeros(len(self._readers) + 1, np.int64), np.empty(self._out_at[-1], np.int64)
            floats = out.view(np.float64)
            self._local.scratch = key_at, out, floats
        n_bytes = 0
        flat: list[bytes] = []
        for k, own in enumerate(chunks, 1):
            flat += own
            n_bytes += sum(map(len, own))
            key_at[k] = n_bytes >> 3
        joined = b"".join(flat)
        buf = np.frombuffer(joined, np.int64) if joined else _EMPTY
        done = self._read(
            buf, key_at, q, self._spec_at, self._specs, self._param_at, self._params, self._out_at, out
        )
        if done < 0:
            raise self._readers[-1 - done].layout.mismatch(chunks[-1 - done][0])
        return self._values.of(out.tolist(), floats.tolist(), joined)


class _Values:
    """The Python values in the words of a joint result; where each stands is worked out once."""

    def __init__(self, readers: Sequence[ChunkReader], at: Sequence[int]) -> None:
        self._integers: list[int] = []
        self._odd: list[tuple[int, int, ChunkReader, int]] = []
        self._nulls: list[tuple[int, int]] = []
        places: list[int] = []
        for reader, begin, end in zip(readers, at, at[1:], strict=False):
            edges = [begin + edge for edge in reader.places]
            places += edges[:-1]
            for p, kind in enumerate(reader.types):
                if kind in ("int64", "timestamp"):
                    self._integers.append(edges[p])
                elif kind != "float64":
                    self._odd.append((edges[p], edges[p + 1], reader, p))
            self._nulls += [(word, begin + 64 * n) for n, word in enumerate(range(edges[-1], end))]
        self._pick = _picker(places)

    def of(self, words: list[int], floats: list[Any], joined: bytes) -> tuple[Value, ...]:
        """The values of all features from the words of a result and the same as floats, which are replaced in place."""
        for o in self._integers:
            floats[o] = words[o]
        for begin, end, reader, p in self._odd:
            floats[begin] = reader.odd_value(p, words[begin:end], joined)
        for word, first in self._nulls:
            nulls = words[word] & 0xFFFFFFFFFFFFFFFF
            while nulls:
                bit = nulls & -nulls
                floats[first + bit.bit_length() - 1] = None
                nulls ^= bit
        return self._pick(floats)


def _picker(places: Sequence[int]) -> Callable[[list[Any]], tuple[Value, ...]]:
    """What takes the elements at some places out of a list."""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple([values[place] for place in places])


def _edges(sizes: list[int]) -> I64:
    return np.array([*accumulate(sizes, initial=0)], np.int64)
