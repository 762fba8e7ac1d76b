"""The packed online state: one value per entity key and span of time. Pure: bytes in, bytes out; stores keep them.

A chunk holds the currently visible rows of one key whose event_time falls into one span, in (event_time,
order, id) order. The applier merges rows in by `merge`; a decision reads features with a `ChunkReader`,
through the same compiled aggregates as `kernels.windows`, hence to the same bits. Which chunks a read needs
follows from q alone: `chunk_numbers`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from volano.errors import DefinitionError, StateMismatchError
from volano.kernels.aggregates import FOLD_NAMES, FOLDS
from volano.kernels.arrays import ALWAYS, F64, I64, NEVER, AnyArray
from volano.kernels.columns import ARROW_TYPES, combined, read_column, write_column
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.history import ArrayLike, id_words, instants

Value: TypeAlias = "float | int | bool | str | None"

_MAGIC = int.from_bytes(b"VOLCHNK\x01", "little")
_EMPTY = np.empty(0, np.int64)
_NO_ID = (0, 0, 0)
_MIN_SPAN = 1 << 26  # 67 s


@dataclass(frozen=True, slots=True)
class PackedRows:
    """Rows in the words of a layout; strings stand in `heap`. Slices and takes share it."""

    words: I64
    heap: I64

    def __len__(self) -> int:
        return len(self.words)

    def take(self, indices: ArrayLike) -> PackedRows:
        """These rows, in this order."""
        return PackedRows(np.ascontiguousarray(self.words[np.asarray(indices)]), self.heap)


@dataclass(frozen=True, slots=True)
class ChunkLayout:
    """What the words of a chunk mean.

    Args:
        definition: 8 bytes that name the definition which wrote the state; reading under another one is an error.
        columns: (name, type) of every value, in order.
        order: how many integer columns order rows of equal time.
    """

    definition: bytes
    columns: tuple[tuple[str, str], ...]
    order: int = 0

    @property
    def types(self) -> dict[str, str]:
        """Column name to type."""
        return dict(self.columns)

    @property
    def first_mask(self) -> int:
        """The first word of the null masks; before it event_time, order, id (2), applied_at."""
        return self.order + 4

    @property
    def first_value(self) -> int:
        """The first word of the values."""
        return self.first_mask + (len(self.columns) + 63) // 64

    @property
    def width(self) -> int:
        """Words per row."""
        return self.first_value + len(self.columns)

    def _numbers(self, n_words: int = 0) -> I64:
        name = int.from_bytes(self.definition, "little", signed=True)
        return np.array([name, self.width, self.order, self.first_value, _MAGIC, n_words], np.int64)

    def _strings(self) -> I64:
        return np.array([c for c, (_, kind) in enumerate(self.columns) if kind == "string"], np.int64)

    def encode(
        self,
        event_time: ArrayLike,
        row_id: ArrayLike,
        applied_at: ArrayLike,
        columns: Mapping[str, pa.Array | pa.ChunkedArray],
        *,
        order: Sequence[ArrayLike] = (),
    ) -> PackedRows:
        """Pack rows.

        Args:
            event_time: µs or Arrow timestamps.
            row_id: 128-bit ids, see `history.id_words`.
            applied_at: when each became visible.
            columns: one Arrow array per column of the layout.
            order: one integer column per order word.

        Raises:
            DefinitionError: a column is missing or has another type.
        """
        t = instants(event_time)
        words = np.zeros((len(t), self.width), np.int64)
        words[:, 0] = t
        for n, values in enumerate(order):
            words[:, 1 + n] = instants(values)
        words[:, self.order + 1 : self.order + 3] = id_words(row_id).T
        words[:, self.order + 3] = instants(applied_at)
        heap = bytearray()
        for c, (name, kind) in enumerate(self.columns):
            if name not in columns:
                raise DefinitionError(
                    f"Rows lack the column {name!r}.", mend=f"give all of: {', '.join(self.types)}"
                )
            cell = words[:, self.first_value + c]
            if kind == "string":
                valid = _pack_strings(columns[name], cell, heap)
            else:
                valid = _pack_numbers(name, kind, columns[name], cell)
            if valid is not None:
                words[:, self.first_mask + c // 64] |= (~valid).astype(np.int64) << (c % 64)
        return PackedRows(words, np.frombuffer(heap, np.int64) if heap else _EMPTY)

    def merge(
        self,
        chunks: Sequence[bytes],
        rows: PackedRows | None = None,
        chunk_of_row: ArrayLike | None = None,
        *,
        gone: Sequence[tuple[int, int]] = (),
        prune_before: int = ALWAYS,
    ) -> list[bytes]:
        """Merge rows into many chunks at once. The order of arrival changes nothing.

        Args:
            chunks: the present bytes, b"" for a chunk that does not exist yet.
            rows: what to insert; a row with the (event_time, order, id) of a present one replaces it.
            chunk_of_row: for each row the position in `chunks`.
            gone: (position in `chunks`, unsigned 128-bit id) of rows to take out: superseded or retracted.
            prune_before: rows that happened earlier are dropped.

        Returns:
            The new bytes of every chunk; b"" when no row is left, which the store deletes.

        Raises:
            StateMismatchError: a chunk was written by another definition.
        """
        words = np.empty((0, self.width), np.int64) if rows is None else rows.words
        owner = np.zeros(0, np.int64) if chunk_of_row is None else np.asarray(chunk_of_row, np.int64)
        if len(words) > 1:
            by = np.lexsort([words[:, c] for c in range(self.order + 2, -1, -1)] + [owner])
            words, owner = np.ascontiguousarray(words[by]), owner[by]
        n = len(chunks)
        new_at = np.searchsorted(owner, np.arange(n + 1))
        sizes = [len(c) >> 3 for c in chunks]
        old_at = np.zeros(n + 1, np.int64)
        np.cumsum(sizes, out=old_at[1:])
        old = np.frombuffer(b"".join(chunks), np.int64) if old_at[-1] else _EMPTY
        gone_ids, gone_at = _gone(gone, n)
        heap = _EMPTY if rows is None else rows.heap
        out = np.empty(4 * n + int(old_at[-1]) + words.size + len(heap), np.int64)
        out_at = np.empty(n + 1, np.int64)
        done = kernels().merge_chunks(
            old,
            old_at,
            gone_at,
            gone_ids,
            new_at,
            heap,
            words,
            self._numbers(),
            self._strings(),
            prune_before,
            out,
            out_at,
        )
        if done < 0:
            raise self.mismatch(chunks[-1 - done])
        edges = (out_at * 8).tolist()
        whole = out.data.cast("B")
        return [bytes(whole[a:b]) for a, b in pairwise(edges)]

    def decode(self, chunk: bytes) -> pa.Table:
        """The rows of one chunk as a table: event_time, order_0.., row_id, applied_at and the columns.

        Raises:
            StateMismatchError: written by another definition.
        """
        words, heap = self._rows(chunk)
        at = pa.timestamp("us", tz="UTC")
        ids = (
            (words[:, self.order + 1 : self.order + 3].view(np.uint64) ^ np.uint64(1 << 63))
            .astype(">u8")
            .tobytes()
        )
        table = {"event_time": pa.array(words[:, 0], pa.int64()).cast(at)}
        table |= {f"order_{n}": pa.array(words[:, 1 + n]) for n in range(self.order)}
        table["row_id"] = pa.array([ids[16 * r : 16 * r + 16] for r in range(len(words))], pa.binary(16))
        table["applied_at"] = pa.array(words[:, self.order + 3], pa.int64()).cast(at)
        for c, (name, kind) in enumerate(self.columns):
            valid = (words[:, self.first_mask + c // 64] >> (c % 64)) & 1 == 0
            cell = np.ascontiguousarray(words[:, self.first_value + c])
            if kind == "string":
                texts = [read_text(heap, 8 * int(x)) if v else None for x, v in zip(cell, valid, strict=True)]
                table[name] = pa.array(texts, pa.string())
            else:
                table[name] = write_column(kind, cell.view(np.float64) if kind == "float64" else cell, valid)
        return pa.table(table)

    def packed(self, chunk: bytes) -> PackedRows:
        """The rows of one chunk as packed rows, to be merged elsewhere."""
        words, heap = self._rows(chunk)
        return PackedRows(words.copy(), np.frombuffer(bytearray(heap), np.int64) if heap else _EMPTY)

    def _rows(self, chunk: bytes) -> tuple[I64, bytes]:
        if not chunk:
            return np.empty((0, self.width), np.int64), b""
        head = np.frombuffer(chunk, np.int64, min(4, len(chunk) // 8))
        numbers = self._numbers()
        if len(head) < 4 or head[0] != _MAGIC or head[1] != numbers[0] or head[2] >> 32 != self.width:
            raise self.mismatch(chunk)
        n = int(head[2] & 0xFFFFFFFF)
        words = np.frombuffer(chunk, np.int64, n * self.width, 32).reshape(n, self.width)
        return words, chunk[32 + 8 * n * self.width :]

    def mismatch(self, chunk: bytes) -> StateMismatchError:
        """The error for a chunk that is not of this layout."""
        found = chunk[8:16].hex() if chunk[:8] == _MAGIC.to_bytes(8, "little") else "no chunk of ours"
        return StateMismatchError(
            "Online state was written by another definition, or is damaged.",
            where=f"expected definition {self.definition.hex()} with {self.width} words per row, found {found}",
            mend="rebuild the view's online state from the lake",
        )


def _gone(gone: Sequence[tuple[int, int]], n: int) -> tuple[I64, I64]:
    ordered = sorted(gone)
    flip = 1 << 63
    ids = np.array([[(i >> 64) ^ flip, (i & (2**64 - 1)) ^ flip] for _, i in ordered], np.uint64).reshape(
        len(ordered), 2
    )
    return ids.view(np.int64), np.searchsorted(np.array([c for c, _ in ordered], np.int64), np.arange(n + 1))


def _pack_numbers(name: str, kind: str, array: pa.Array | pa.ChunkedArray, cell: I64) -> AnyArray | None:
    c = read_column(name, array)
    if c.type != kind and not (
        kind == "float64" and (c.type == "int64" or (c.valid is not None and not c.valid.any()))
    ):
        if c.valid is None or c.valid.any():
            raise DefinitionError(
                f"Column {name!r} is {c.type}, the view declares {kind}.", mend="cast it in the projection"
            )
        cell[:] = 0
        return c.valid
    if kind == "float64":
        values = c.as_float() + 0.0
        values[np.isnan(values)] = np.nan
        cell[:] = values.view(np.int64)
    else:
        cell[:] = c.values
    return c.valid


def _pack_strings(array: pa.Array | pa.ChunkedArray, cell: I64, heap: bytearray) -> AnyArray | None:
    texts = combined(array).to_pylist()
    for r, text in enumerate(texts):
        if text is None:
            cell[r] = -1
            continue
        raw = text.encode()
        cell[r] = len(heap) >> 3
        heap += len(raw).to_bytes(8, "little") + raw + bytes(-len(raw) % 8)
    valid = np.array([text is not None for text in texts], bool)
    return None if valid.all() else valid


def read_text(heap: bytes | memoryview, at: int) -> str:
    """The text that begins at a byte of a heap."""
    n = int.from_bytes(heap[at : at + 8], "little")
    return str(heap[at + 8 : at + 8 + n], "utf-8")


def reach_us(features: Sequence[WindowFeature]) -> int | None:
    """How far before q the features look; None when one looks at the whole past."""
    reach = 0
    for f in features:
        if f.window_us is None:
            return None
        reach = max(reach, f.window_us + f.offset_us + (f.every_us or 0) + f.publish_delay_us)
    return reach


def retention_us(features: Sequence[WindowFeature], accept_late_us: int) -> int | None:
    """How long raw rows are kept behind the newest instant; None is for ever."""
    reach = reach_us(features)
    return None if reach is None else reach + accept_late_us


def chunk_span_us(features: Sequence[WindowFeature], accept_late_us: int) -> int:
    """The span of one chunk: a power of two near an eighth of the reach, so that a read touches at most 10 chunks.

    0 when a feature looks at the whole past: then a key has a single chunk.
    """
    del accept_late_us  # lateness changes which chunk is written, not how many are read
    reach = reach_us(features)
    if reach is None:
        return 0
    return max(_MIN_SPAN, 1 << max(0, (reach // 8).bit_length()))


def chunk_number(event_time: ArrayLike, span_us: int) -> I64:
    """The chunk of each instant."""
    t = instants(event_time)
    return np.zeros(len(t), np.int64) if span_us == 0 else t >> (span_us.bit_length() - 1)


def chunk_numbers(features: Sequence[WindowFeature], span_us: int, q: int) -> range:
    """The chunks that a read at q needs, oldest first."""
    if span_us == 0:
        return range(1)
    begin, end = q, q - (1 << 62)
    for f in features:
        at = q if f.every_us is None else (q - f.publish_delay_us) // f.every_us * f.every_us
        assert f.window_us is not None
        begin = min(begin, at - f.offset_us - f.window_us)
        end = max(end, at - f.offset_us)
    shift = span_us.bit_length() - 1
    return range(begin >> shift, ((end - 1) >> shift) + 1)


class ChunkReader:
    """Reads one view's features from chunks. Built once per view; thread-safe.

    Args:
        features: what to compute, in the order of the result.
        layout: the layout that the chunks were written with.

    >>> import pyarrow as pa
    >>> layout = ChunkLayout(b"landings", (("delay", "float64"),))
    >>> rows = layout.encode([10, 20], [bytes(16), bytes(15) + b"1"], [11, 21], {"delay": pa.array([5.0, 7.0])})
    >>> chunk, = layout.merge([b""], rows, [0, 0])
    >>> reader = ChunkReader([WindowFeature("mean_delay", "mean", "delay", window_us=100)], layout)
    >>> reader.read([chunk], 30)
    (6.0,)
    """

    def __init__(self, features: Sequence[WindowFeature], layout: ChunkLayout) -> None:
        self.features = tuple(features)
        self.layout = layout
        types = layout.types
        self.types = tuple(f.output_type(types) for f in self.features)
        self._kernels = kernels()
        spec = _ReaderSpec(self.features, layout)
        self.spec = spec.arrays()
        self.numbers = layout._numbers(spec.n_words)
        self._no_request = np.empty((0, layout.width), np.int64)
        self._integers = tuple(n for n, kind in enumerate(self.types) if kind != "float64")

    def read(
        self,
        chunks: Sequence[bytes],
        q: int,
        *,
        as_of: int | None = None,
        exclude_id: int | None = None,
        request: PackedRows | None = None,
    ) -> tuple[Value, ...]:
        """The features of one key.

        Args:
            chunks: the key's chunks that `chunk_numbers` names, oldest first; missing ones are left out.
            q: the end of the windows, µs.
            as_of: ignore rows applied later; None takes all.
            exclude_id: unsigned 128-bit id of a row to leave out.
            request: one packed row, the request's own event, for `include_request`.

        Returns:
            One value per feature; None is null; timestamps are µs.

        Raises:
            StateMismatchError: a chunk was written by another definition.
        """
        return self.read_many(
            [chunks],
            [q],
            as_of=None if as_of is None else [as_of],
            exclude_ids=None if exclude_id is None else [exclude_id],
            requests=request,
        )[0]

    def read_many(
        self,
        chunks: Sequence[Sequence[bytes]],
        q: Sequence[int] | I64,
        *,
        as_of: Sequence[int] | I64 | None = None,
        exclude_ids: Sequence[int | None] | None = None,
        requests: PackedRows | None = None,
    ) -> list[tuple[Value, ...]]:
        """The features of many keys, or of one key at many instants; see `read`."""
        out, ok, joined, request = self._run(chunks, q, as_of, exclude_ids, requests)
        columns: list[list[Any]] = out.tolist()
        integers = out.view(np.int64)
        for o in self._integers:
            columns[o] = self._decoded(o, integers[o], joined, request)
        if not ok.all():
            for o, n in zip(*np.nonzero(ok == 0), strict=True):
                columns[o][n] = None
        return list(zip(*columns, strict=True)) if columns else [()] * len(chunks)

    def read_arrow(
        self,
        chunks: Sequence[Sequence[bytes]],
        q: Sequence[int] | I64,
        *,
        as_of: Sequence[int] | I64 | None = None,
        exclude_ids: Sequence[int | None] | None = None,
        requests: PackedRows | None = None,
    ) -> pa.Table:
        """The same as a table, one row per key."""
        rows = self.read_many(chunks, q, as_of=as_of, exclude_ids=exclude_ids, requests=requests)
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(self.features)
        return pa.table(
            {
                f.name: pa.array(values, ARROW_TYPES[kind])
                for f, kind, values in zip(self.features, self.types, columns, strict=True)
            }
        )

    def _run(
        self,
        chunks: Sequence[Sequence[bytes]],
        q: Sequence[int] | I64,
        as_of: Sequence[int] | I64 | None,
        exclude_ids: Sequence[int | None] | None,
        requests: PackedRows | None,
    ) -> tuple[F64, AnyArray, bytes, PackedRows]:
        n = len(chunks)
        key_at = np.zeros(n + 1, np.int64)
        at = 0
        for k, own in enumerate(chunks):
            for chunk in own:
                at += len(chunk)
            key_at[k + 1] = at >> 3
        joined = b"".join([chunk for own in chunks for chunk in own])
        buf = np.frombuffer(joined, np.int64) if joined else _EMPTY
        excluded = np.zeros((n, 3), np.int64)
        if exclude_ids is not None:
            flip = 1 << 63
            for k, i in enumerate(exclude_ids):
                if i is not None:
                    excluded[k] = 1, (i >> 64) - flip, (i & (2**64 - 1)) - flip
        request = PackedRows(self._no_request, _EMPTY) if requests is None else requests
        out = np.empty((len(self.features), n))
        ok = np.empty((len(self.features), n), np.uint8)
        done = self._kernels.read_chunks(
            buf,
            key_at,
            np.asarray(q, np.int64),
            np.full(n, NEVER) if as_of is None else np.asarray(as_of, np.int64),
            excluded,
            request.words,
            request.heap,
            self.numbers,
            *self.spec,
            out,
            out.view(np.int64),
            ok,
        )
        if done < 0:
            raise self.layout.mismatch(chunks[-1 - done][0])
        return out, ok, joined, request

    def _decoded(self, o: int, values: I64, joined: bytes, request: PackedRows) -> list[Any]:
        match self.types[o]:
            case "bool":
                return [x != 0 for x in values.tolist()]
            case "string":
                column = [name for name, _ in self.layout.columns].index(str(self.features[o].column))
                own = request.words[:, self.layout.first_value + column].tolist() if len(request) else []
                heap = request.heap.tobytes()
                found: list[str | None] = []
                for n, x in enumerate(values.tolist()):
                    if x == -2:
                        found.append(read_text(heap, 8 * own[n]) if own[n] >= 0 else None)
                    else:
                        found.append(read_text(joined, 8 * x) if x > 0 else None)
                return found
            case _:
                numbers: list[int] = values.tolist()
                return numbers


class _ReaderSpec:
    """The arrays that tell `read_chunks` what to compute: lanes, windows, states, folds, finals, picks and
    distinct counts."""

    def __init__(self, features: tuple[WindowFeature, ...], layout: ChunkLayout) -> None:
        self.types = layout.types
        self.place = {name: c for c, (name, _) in enumerate(layout.columns)}
        self.lanes: list[tuple[int, ...]] = []
        self.windows: list[tuple[int, ...]] = []
        self.states: list[tuple[int, ...]] = []
        self.folds: list[tuple[int, ...]] = []
        self.finals: list[tuple[int, ...]] = []
        self.params: list[tuple[float, float]] = []
        self.picks: list[tuple[int, ...]] = []
        self.distincts: list[tuple[int, ...]] = []
        self.n_words = 0
        lanes: dict[tuple[int, ...], list[tuple[int, WindowFeature]]] = {}
        for o, f in enumerate(features):
            skipped = (
                [self.place[c] for c in (f.column, f.over) if c is not None] if f.spec.skip_nulls else []
            )
            lane = (-1 if f.where is None else self.place[f.where], *(*skipped, -1, -1)[:2])
            lanes.setdefault(lane, []).append((o, f))
        for lane, members in lanes.items():
            self._lane(lane, members)

    def _lane(self, lane: tuple[int, ...], members: list[tuple[int, WindowFeature]]) -> None:
        first_window, first_state = len(self.windows), len(self.states)
        shared: dict[tuple[str, str, str | None], int] = {}
        windows: dict[tuple[int, ...], list[tuple[int, WindowFeature]]] = {}
        for o, f in members:
            grid = f.grid_us
            window: tuple[int, ...] = (
                -1 if f.window_us is None else f.window_us,
                f.offset_us,
                f.every_us or 0,
                f.publish_delay_us,
                int(f.include_request),
                grid,
                (grid - 1).bit_length(),
            )
            windows.setdefault(window, []).append((o, f))
        word = 0
        for window, inside in windows.items():
            w = len(self.windows)
            self.windows.append(window)
            grouped: dict[tuple[str, str, str | None], list[tuple[int, WindowFeature]]] = {}
            for o, f in inside:
                match f.spec.kind:
                    case "fold":
                        assert f.column is not None
                        grouped.setdefault(
                            (f.spec.folds[self.types[f.column]].fold, f.column, f.over), []
                        ).append((o, f))
                    case "distinct":
                        assert f.column is not None
                        self.distincts.append(
                            (w, self.place[f.column], int(self.types[f.column] == "string"), o)
                        )
                    case kind:
                        code = ("count", "first", "last", "since").index(kind)
                        column = 0 if f.column is None else self.place[f.column]
                        is_string = (
                            code in (1, 2) and f.column is not None and self.types[f.column] == "string"
                        )
                        self.picks.append((w, code, o, column, int(is_string)))
            for key, sharing in grouped.items():
                name, column_name, over = key
                fold = sharing[0][1].spec.folds[self.types[column_name]]
                if key not in shared:
                    shared[key] = len(self.states)
                    second = column_name if over is None else over
                    integers = int(self.types[column_name] != "float64") + 2 * int(
                        self.types[second] != "float64"
                    )
                    self.states.append(
                        (FOLD_NAMES.index(name), word, self.place[column_name], self.place[second], integers)
                    )
                    word += fold.words
                state = shared[key]
                first = len(self.finals)
                for o, f in sharing:
                    self.finals.append((FOLDS.index(f.spec.folds[self.types[column_name]]), o))
                    self.params.append(((*f.params, 0.0, 0.0)[0], (*f.params, 0.0, 0.0)[1]))
                self.folds.append(
                    (w, FOLD_NAMES.index(name), self.states[state][1], first, len(self.finals), state)
                )
        self.n_words = max(self.n_words, word)
        self.lanes.append((*lane, first_window, len(self.windows), first_state, len(self.states)))

    def arrays(self) -> tuple[AnyArray, ...]:
        """In the order that `read_chunks` takes them."""

        def matrix(rows: list[tuple[int, ...]], width: int) -> I64:
            return np.array(rows, np.int64).reshape(len(rows), width)

        return (
            matrix(self.lanes, 7),
            matrix(self.windows, 7),
            matrix(self.states, 5),
            matrix(self.folds, 6),
            np.array(self.params, np.float64).reshape(len(self.params), 2),
            matrix(self.finals, 2),
            matrix(self.picks, 5),
            matrix(self.distincts, 4),
        )
