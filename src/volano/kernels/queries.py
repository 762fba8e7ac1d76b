"""Questions put to a history, and their sorted form. Computes no feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from volano.errors import DefinitionError
from volano.kernels.arrays import I64, NEVER, U8
from volano.kernels.columns import Column, combined, read_column
from volano.kernels.compiled import kernels
from volano.kernels.history import ArrayLike, History, id_words, instants, null_keys, sort_by_key_and_time
from volano.kernels.threads import parts, share


@dataclass(frozen=True, slots=True)
class Queries:
    """What is asked, in any order.

    Args:
        keys: the entity's key per query, or a tuple of columns; null and unknown keys get empty windows.
        q: the end of the windows, µs or Arrow timestamps.
        as_of: what was visible, µs or Arrow timestamps; None: everything that nothing supersedes.
        exclude_id: 128-bit ids of rows that the query must not see (the request's own event), null where none.
        request: for `include_request`, the request's own values by column name. A query takes no part in an aggregate
            whose filter is false or null for it, or whose column is null; nor does one with a null key.
    """

    keys: ArrayLike | tuple[ArrayLike, ...]
    q: ArrayLike
    as_of: ArrayLike | None = None
    exclude_id: ArrayLike | None = None
    request: Mapping[str, pa.Array | pa.ChunkedArray] = field(default_factory=dict)


class SortedQueries:
    """Queries by (key, q), and the way back.

    `matrix` rows are key code (-1 unknown), q, as_of, the position of the excluded row or -1, the caller's
    place. Null keys and unknown ones come first.
    """

    def __init__(self, history: History, queries: Queries, threads: int) -> None:
        self.history = history
        self.queries = queries
        self.threads = threads
        self.request = {name: read_column(name, array) for name, array in queries.request.items()}
        q = instants(queries.q)
        self.n = len(q)
        codes = history.index.find(queries.keys)
        target, sorted_q, starts = sort_by_key_and_time(codes + 1, q, history.index.n + 1, threads)
        self.matrix = np.empty((5, self.n), np.int64)
        self.matrix[0] = np.repeat(np.arange(-1, history.index.n), np.diff(starts))
        self.matrix[1] = sorted_q
        self.matrix[2] = NEVER - 1 if queries.as_of is None else instants(queries.as_of).take(target)
        self.matrix[3] = -1
        self.matrix[4] = target
        self.place = np.empty(self.n, np.int64)
        self.place[target] = np.arange(self.n)
        self.excludes = queries.exclude_id is not None
        if queries.exclude_id is not None:
            self._find_excluded(queries.exclude_id)

    def _find_excluded(self, ids: ArrayLike) -> None:
        h, k = self.history, kernels()
        if h.ids.shape[1] != len(h.rows):
            raise DefinitionError(
                "Queries exclude ids, but the history has none.", mend="pass row_id to History.build"
            )
        high, low = h.ids
        table = np.full(1 << max(4, (2 * len(high)).bit_length()), -1)
        following = np.empty(len(high), np.int64)
        k.index_ids(high, low, table, following)
        wanted = np.ones(self.n, np.int64)
        if isinstance(ids, (pa.Array, pa.ChunkedArray)):
            wanted = combined(ids).is_valid().to_numpy(zero_copy_only=False).astype(np.int64)
        elif not isinstance(ids, np.ndarray):
            wanted = np.array([i is not None for i in ids], np.int64)
        words = id_words(ids)
        k.find_ids(
            self.matrix,
            words[0],
            words[1],
            wanted,
            high,
            low,
            table,
            following,
            h.starts,
            h.visible_from,
            h.visible_until,
        )

    def for_lane(self, places: I64 | None) -> I64:
        """The matrix with excluded rows by the positions of a lane that keeps only `places` of the history."""
        if places is None or not self.excludes:
            return self.matrix
        inverse = np.full(len(self.history.rows), -1)
        inverse[places] = np.arange(len(places))
        mine = self.matrix.copy()
        held = mine[3] >= 0
        mine[3, held] = inverse[mine[3, held]]
        return mine

    def unsorted(self, values: I64, good: U8) -> tuple[I64, U8]:
        """Results in the caller's order."""
        out, out_good = np.empty_like(values), np.empty_like(good)
        k = kernels()
        share(
            lambda a, b: k.unsort(values, good, self.place, out, out_good, a, b), parts(self.n, self.threads)
        )
        return out, out_good

    def null_keys(self) -> U8:
        """1 where the query's key is null, in the caller's order."""
        return null_keys(self.queries.keys).astype(np.uint8)

    def request_column(self, name: str, c: Column) -> Column:
        """The request's column in the history's type and, for strings, in a dictionary that extends the history's."""
        r = self.request.get(name)
        if r is None:
            raise DefinitionError(f"The request brings no column {name!r}.", mend="add it to Queries.request")
        nothing = r.valid is not None and not r.valid.any()
        if c.type == "string" and (r.type == "string" or nothing):
            return _extended(c, r)
        if r.type == c.type:
            return r
        if c.type == "float64" and (r.type == "int64" or nothing):
            return Column("float64", r.as_float(), r.valid)
        if nothing:
            return Column(c.type, np.zeros(len(r.values), np.int64), r.valid)
        raise DefinitionError(
            f"The request's column {name!r} is {r.type}, the history's {c.type}.",
            mend="declare one type for both",
        )


def _extended(c: Column, r: Column) -> Column:
    assert c.words is not None
    place = {w: i for i, w in enumerate(c.words.to_pylist())}
    added: list[str] = []
    codes = []
    for w in r.words.to_pylist() if r.words is not None else []:
        if w not in place:
            place[w] = len(place)
            added.append(w)
        codes.append(place[w])
    moved = np.array([*codes, 0], np.int64)[np.asarray(r.values, np.int64)]
    return Column("string", moved, r.valid, pa.concat_arrays([c.words, pa.array(added, c.words.type)]))
