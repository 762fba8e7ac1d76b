"""The rows of many keys, sorted by (key, event_time, order, id). Holds columns and visibility; computes no
feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.kernels.arrays import ALWAYS, I64, NEVER, U8, AnyArray, Bools
from volano.kernels.columns import Column, combined, read_column
from volano.kernels.compiled import kernels
from volano.kernels.threads import THREADS, key_parts, share

ArrayLike: TypeAlias = "pa.Array | pa.ChunkedArray | AnyArray | Sequence[Any]"


def instants(values: ArrayLike) -> I64:
    """Instants as int64 µs: from integers or from Arrow timestamps of any unit."""
    if isinstance(values, pa.ChunkedArray):
        values = combined(values)
    if isinstance(values, pa.Array):
        if pa.types.is_timestamp(values.type):
            values = values.cast(pa.timestamp("us", tz=values.type.tz)).cast(pa.int64())
        values = values.to_numpy(zero_copy_only=False)
    return np.ascontiguousarray(values, dtype=np.int64)


def id_words(ids: ArrayLike) -> I64:
    """128-bit ids as two rows of int64 (high, low) whose order is the ids' unsigned order.

    Args:
        ids: an (n, 2) uint64 array, an Arrow fixed_size_binary(16) array, or a sequence of 16 bytes.
    """
    if isinstance(ids, np.ndarray) and ids.ndim == 2:
        words = ids.astype(np.uint64, copy=False).T
    else:
        array = (
            combined(ids) if isinstance(ids, (pa.Array, pa.ChunkedArray)) else pa.array(ids, pa.binary(16))
        )
        filled = (
            array.cast(pa.binary(16)).fill_null(bytes(16)) if array.null_count else array.cast(pa.binary(16))
        )
        data = filled.buffers()[1]
        flat = b"" if data is None else data[16 * filled.offset : 16 * (filled.offset + len(filled))]
        words = np.frombuffer(flat, ">u8").reshape(-1, 2).T.astype(np.uint64)
    return np.ascontiguousarray(words ^ np.uint64(1 << 63)).view(np.int64)


@dataclass(frozen=True, slots=True)
class KeyIndex:
    """Turns entity keys into dense codes, the same for rows and for queries. Null keys and unknown keys get -1."""

    low: int
    n: int
    known: pa.Array | None
    parts: tuple[KeyIndex, ...] = ()
    """Of a composite key: the index of all columns but the last, of the last, and of their pairs."""

    @staticmethod
    def build(keys: ArrayLike | tuple[ArrayLike, ...]) -> tuple[KeyIndex, I64]:
        """The index over `keys` and their codes; a tuple of columns is a composite key."""
        if isinstance(keys, tuple):
            if len(keys) == 1:
                return KeyIndex.build(keys[0])
            # Two at a time, made dense in between: the product of many sizes does not fit 64 bits.
            (first, first_codes), (last, last_codes) = KeyIndex.build(keys[:-1]), KeyIndex.build(keys[-1])
            mixed = _mix(first_codes, last.n, last_codes)
            index, codes = KeyIndex.build(mixed)
            codes[mixed < 0] = -1
            return KeyIndex(0, index.n, None, (first, last, index)), codes
        array = (
            keys
            if isinstance(keys, np.ndarray)
            else combined(keys)
            if isinstance(keys, (pa.Array, pa.ChunkedArray))
            else pa.array(keys)
        )
        if (isinstance(array, np.ndarray) and array.dtype.kind not in "iu") or (
            isinstance(array, np.ndarray) and array.dtype == np.uint64
        ):
            array = pa.array(array)
        numbers = _plain_integers(array)
        if numbers is not None and len(numbers):
            low, high = int(numbers.min()), int(numbers.max())
            if high - low <= 4 * len(numbers) + 1024:
                return KeyIndex(low, high - low + 1, None), numbers - low
        if isinstance(array, np.ndarray):
            array = pa.array(array)
        coded = (
            array.dictionary_encode()
            if not pa.types.is_dictionary(array.type)
            else array.dictionary_decode().dictionary_encode()
        )
        return KeyIndex(0, len(coded.dictionary), coded.dictionary), _codes(coded.indices)

    def find(self, keys: ArrayLike | tuple[ArrayLike, ...]) -> I64:
        """Codes of other keys."""
        if self.parts:
            assert isinstance(keys, tuple)
            first, last, index = self.parts
            mixed = _mix(first.find(keys[:-1]), last.n, last.find(keys[-1]))
            codes = index.find(mixed)
            codes[mixed < 0] = -1
            return codes
        if isinstance(keys, tuple):
            (keys,) = keys
        array = (
            keys
            if isinstance(keys, np.ndarray)
            else combined(keys)
            if isinstance(keys, (pa.Array, pa.ChunkedArray))
            else pa.array(keys)
        )
        if self.known is None:
            numbers = _plain_integers(array)
            if numbers is None:
                if isinstance(array, np.ndarray):
                    array = pa.array(array)
                missing = array.is_null().to_numpy(zero_copy_only=False)
                numbers = np.where(missing, self.low - 1, array.cast(pa.int64()).fill_null(0).to_numpy())
            codes = numbers - self.low
            codes[(numbers < self.low) | (codes >= self.n)] = -1
            return np.ascontiguousarray(codes)
        if isinstance(array, np.ndarray):
            array = pa.array(array)
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if array.type != self.known.type:
            array = array.cast(self.known.type)
        codes = _codes(pc.index_in(array, value_set=self.known))
        if array.null_count:
            codes[array.is_null().to_numpy(zero_copy_only=False)] = -1
        return codes


def null_keys(keys: ArrayLike | tuple[ArrayLike, ...]) -> Bools:
    """Which keys are null, in any column."""
    if isinstance(keys, tuple):
        found: Bools = np.logical_or.reduce([null_keys(part) for part in keys])
        return found
    if isinstance(keys, np.ndarray) and keys.dtype.kind in "iu":
        return np.zeros(len(keys), bool)
    array = combined(keys) if isinstance(keys, (pa.Array, pa.ChunkedArray)) else pa.array(keys)
    found = array.is_null().to_numpy(zero_copy_only=False)
    return found


def _plain_integers(array: pa.Array | AnyArray) -> I64 | None:
    if isinstance(array, np.ndarray):
        return (
            array.astype(np.int64, copy=False)
            if array.dtype.kind in "iu" and array.dtype != np.uint64
            else None
        )
    if pa.types.is_integer(array.type) and not pa.types.is_uint64(array.type) and array.null_count == 0:
        return np.asarray(array.to_numpy(zero_copy_only=False)).astype(np.int64, copy=False)
    return None


def _codes(indices: pa.Array) -> I64:
    filled = indices.fill_null(-1) if indices.null_count else indices
    return np.ascontiguousarray(filled.to_numpy(zero_copy_only=False), dtype=np.int64)


def _mix(first: I64, n_last: int, last: I64) -> I64:
    """One number for each pair of codes; -1 where either is unknown."""
    mixed = first * max(n_last, 1) + last
    mixed[(first < 0) | (last < 0)] = -1
    return mixed


def sort_by_key_and_time(codes: I64, t: I64, n_keys: int, threads: int) -> tuple[I64, I64, I64]:
    """Sort rows by (code, t), stably, leaving out those of a negative code.

    Returns:
        The rows in order, their times, and each key's first position.
    """
    k = kernels()
    starts = np.empty(n_keys + 1, np.int64)
    n = int(k.count_keys(codes, starts))
    rows, sorted_t = np.empty(n, np.int64), np.empty(n, np.int64)
    k.scatter_by_key(codes, t, starts.copy(), rows, sorted_t)
    share(lambda a, b: k.sort_segments(sorted_t, rows, starts, a, b), key_parts(starts, threads))
    return rows, sorted_t, starts


@dataclass(frozen=True, slots=True)
class History:
    """Sorted rows. Build with `History.build`; position r below means the sorted place, row means the caller's.

    `starts[k]:starts[k+1]` are the positions of key code k. A row is visible to a query at `as_of` iff
    visible_from ≤ as_of < visible_until.
    """

    index: KeyIndex
    starts: I64
    event_time: I64
    visible_from: I64
    visible_until: I64
    plain: U8
    rows: I64
    ids: I64
    columns: Mapping[str, Column]
    n_rows: int
    longest: int = field(default=0)

    @staticmethod
    def build(
        keys: ArrayLike | tuple[ArrayLike, ...],
        event_time: ArrayLike,
        *,
        columns: Mapping[str, pa.Array | pa.ChunkedArray | Column],
        order: Sequence[ArrayLike] = (),
        row_id: ArrayLike | None = None,
        visible_from: ArrayLike | None = None,
        visible_until: ArrayLike | None = None,
        threads: int = THREADS,
    ) -> History:
        """Sort rows and index their keys.

        Args:
            keys: one value per row, or a tuple of columns; rows with a null key are left out.
            event_time: when each happened, µs or Arrow timestamps.
            columns: Arrow columns by name.
            order: integer columns that order rows of equal time (the source's `order_by`).
            row_id: 128-bit ids: the last tie-break, and what a query excludes. Without it ties keep the
                caller's order.
            visible_from: first instant at which the row counts (`known_at` or `applied_at`); None: always.
            visible_until: first instant at which it no longer counts (superseded); None: never.
            threads: how many threads sort.
        """
        k = kernels()
        index, codes = KeyIndex.build(keys)
        t = instants(event_time)
        since = None if visible_from is None else instants(visible_from)
        until = None if visible_until is None else instants(visible_until)
        ids = None if row_id is None else id_words(row_id)
        rows, sorted_t, starts = sort_by_key_and_time(codes, t, index.n, threads)
        tied = np.zeros(len(rows), np.uint8)
        if k.mark_ties(sorted_t, starts, tied):
            places = np.flatnonzero(tied)
            among = rows[places]
            by: list[I64] = [among]
            by += [] if until is None else [until[among]]
            by += [] if since is None else [since[among]]
            if ids is not None:
                by += [ids[1][among], ids[0][among]]
            by += [instants(o)[among] for o in reversed(order)]
            by += [t[among], codes[among]]
            rows[places] = among[np.lexsort(by)]
        n = len(rows)
        from_sorted = np.full(n, ALWAYS) if since is None else _take(since, rows)
        until_sorted = np.full(n, NEVER) if until is None else _take(until, rows)
        plain = np.ones(index.n, np.uint8)
        if since is not None or until is not None:
            k.mark_plain(sorted_t, from_sorted, until_sorted, starts, plain)
        return History(
            index=index,
            starts=starts,
            event_time=sorted_t,
            visible_from=from_sorted,
            visible_until=until_sorted,
            plain=plain,
            rows=rows,
            ids=np.empty((2, 0), np.int64)
            if ids is None
            else np.stack([_take(ids[0], rows), _take(ids[1], rows)]),
            columns={
                name: c if isinstance(c, Column) else read_column(name, c) for name, c in columns.items()
            },
            n_rows=len(t),
            longest=int(np.diff(starts).max(initial=0)),
        )

    @property
    def types(self) -> dict[str, str]:
        """Column name to type."""
        return {name: c.type for name, c in self.columns.items()}


def _take(values: I64, rows: I64) -> I64:
    return values.take(rows)
