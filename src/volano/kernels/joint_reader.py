"""Reads the features of one request from chunks of several layouts, in one call of the compiled kernel.

The same computation as a `ChunkReader` for each key, hence the same bits; what is saved is the crossing from Python,
which costs more than a small window does.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

from volano.kernels.arrays import F64, I64
from volano.kernels.chunks import ChunkReader, Value, read_text
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
        self._kernels = kernels()
        specs: list[I64] = []
        params: list[F64] = []
        starts: list[int] = []
        at = first_param = first_out = 0
        for reader in self._readers:
            lanes, windows, states, folds, own_params, finals, picks, distincts = reader.spec
            last_out = first_out + len(reader.features)
            matrices = (lanes, windows, states, folds, finals, picks, distincts)
            counts = [len(matrix) for matrix in matrices]
            head = np.array([*reader.numbers, *counts, first_param, first_out, last_out], np.int64)
            spec = np.concatenate([head, *(matrix.ravel() for matrix in matrices)])
            specs.append(spec)
            params.append(own_params)
            starts.append(at)
            at += len(spec)
            first_param += len(own_params)
            first_out = last_out
        self._specs = np.concatenate([_EMPTY, *specs])
        self._params = np.ascontiguousarray(np.concatenate([np.empty((0, 2)), *params]))
        self._starts = np.array(starts, np.int64)
        kinds = [kind for reader in self._readers for kind in reader.types]
        self._n_out = len(kinds)
        self._integers = [o for o, kind in enumerate(kinds) if kind in ("int64", "timestamp")]
        self._bools = [o for o, kind in enumerate(kinds) if kind == "bool"]
        self._strings = [o for o, kind in enumerate(kinds) if kind == "string"]

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
        out = np.empty(self._n_out)
        ok = np.empty(self._n_out, np.uint8)
        whole = out.view(np.int64)
        done = self._kernels.read_joint(
            buf, key_at, q, self._starts, self._specs, self._params, out, whole, ok
        )
        if done < 0:
            raise self._readers[-1 - done].layout.mismatch(chunks[-1 - done][0])
        values: list[Value] = list(out.tolist())
        if self._integers or self._bools or self._strings:
            words: list[int] = whole.tolist()
            for o in self._integers:
                values[o] = words[o]
            for o in self._bools:
                values[o] = words[o] != 0
            for o in self._strings:
                values[o] = read_text(joined, 8 * words[o]) if words[o] > 0 else None
        if 0 in (good := ok.tobytes()):
            for o, is_good in enumerate(good):
                if not is_good:
                    values[o] = None
        return values
