"""The packed online state: one value per entity key and span of time. Pure: bytes in, bytes out; stores keep them.

A chunk holds the currently visible rows of one key whose event_time falls into one span, in (event_time,
order, id) order. The applier merges rows in by `merge`; a decision reads features with a `ChunkReader`,
through the same compiled aggregates as `kernels.windows`, hence to the same bits. Which chunks a read needs
follows from q alone: `chunk_grid.chunk_numbers`.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa

from volano.errors import DefinitionError, StateMismatchError
from volano.kernels.aggregates import FOLD_NAMES, FOLDS, PICKS, Fold
from volano.kernels.arrays import ALWAYS, F64, FARTHEST, I64, NEVER, AnyArray
from volano.kernels.chunk_grid import reach_us
from volano.kernels.columns import combined, read_column, write_column
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.history import ArrayLike, id_words, instants

Value: TypeAlias = Any
"""A float, int, bool or str, a list of one of them, or None."""

MAGIC = int.from_bytes(b"VOLCHNK\x01", "little")
TILE_MAGIC = int.from_bytes(b"VOLTILE\x01", "little")
_EMPTY = np.empty(0, np.int64)


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

    def numbers(self) -> I64:
        """Definition, words per row, order words, first value's word, magic: what kernels check and skip by."""
        name = int.from_bytes(self.definition, "little", signed=True)
        return np.array([name, self.width, self.order, self.first_value, MAGIC], np.int64)

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
            by = self._in_order(words, owner)
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
            self.numbers(),
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

    def _in_order(self, words: I64, owner: I64) -> I64:
        """Rows by owner, time, order and id; most differ in owner or time already."""
        by: I64 = np.lexsort((words[:, 0], owner))
        times, owners = words[by, 0], owner[by]
        if ((times[1:] == times[:-1]) & (owners[1:] == owners[:-1])).any():
            by = np.lexsort([words[:, c] for c in range(self.order + 2, -1, -1)] + [owner])
        return by

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
        numbers = self.numbers()
        if len(head) < 4 or head[0] != MAGIC or head[1] != numbers[0] or head[2] >> 32 != self.width:
            raise self.mismatch(chunk)
        n = int(head[2] & 0xFFFFFFFF)
        words = np.frombuffer(chunk, np.int64, n * self.width, 32).reshape(n, self.width)
        return words, chunk[32 + 8 * n * self.width :]

    def mismatch(self, chunk: bytes) -> StateMismatchError:
        found = chunk[8:16].hex() if chunk[:8] == MAGIC.to_bytes(8, "little") else "no chunk of ours"
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


class ChunkReader:
    """Reads one view's features from chunks. Built once per view; thread-safe.

    Args:
        features: what to compute, in the order of the result.
        layout: the layout that the chunks were written with.
        tile_places: of `tile_places`, where tiles may stand between the chunks.

    >>> import pyarrow as pa
    >>> layout = ChunkLayout(b"landings", (("delay", "float64"),))
    >>> rows = layout.encode([10, 20], [bytes(16), bytes(15) + b"1"], [11, 21], {"delay": pa.array([5.0, 7.0])})
    >>> chunk, = layout.merge([b""], rows, [0, 0])
    >>> reader = ChunkReader([WindowFeature("mean_delay", "mean", "delay", window_us=100)], layout)
    >>> reader.read([chunk], 30)
    (6.0,)
    """

    def __init__(
        self, features: Sequence[WindowFeature], layout: ChunkLayout, tile_places: TilePlaces | None = None
    ) -> None:
        self.features = tuple(features)
        self.layout = layout
        self.types = tuple(f.output_type(layout.types) for f in self.features)
        self._one, self._many = kernels().read_one, kernels().read_many
        self.spec, self.params = _spec(self.features, layout, tile_places)
        self.places = _places(self.features)
        """The first output word of each feature, and the end."""
        self._n_outputs = self.places[-1]
        self.n_words = self._n_outputs + (self._n_outputs + 63) // 64
        self._no_request = PackedRows(np.empty((0, layout.width), np.int64), _EMPTY)
        kinds = list(zip(self.places, self.types, strict=False))
        self._integers = tuple(o for o, kind in kinds if kind in ("int64", "timestamp"))
        self._odd = tuple(
            (p, o) for p, (o, kind) in enumerate(kinds) if kind not in ("float64", "int64", "timestamp")
        )
        self._has_lists = self._n_outputs != len(self.features)
        self._local = threading.local()

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
            chunks: the key's chunks that `chunk_grid.chunk_numbers` names, oldest first; missing ones are left out.
            q: the end of the windows, µs.
            as_of: ignore rows applied later; None takes all.
            exclude_id: unsigned 128-bit id of a row to leave out.
            request: one packed row, the request's own event, for `include_request`.

        Returns:
            One value per feature; None is null; timestamps are µs.

        Raises:
            StateMismatchError: a chunk was written by another definition.
        """
        joined = b"".join(chunks)
        buf = np.frombuffer(joined, np.int64) if joined else _EMPTY
        try:
            out, out_f = self._local.out
        except AttributeError:
            out = np.empty(self.n_words, np.int64)
            out_f = out.view(np.float64)
            self._local.out = out, out_f
        excludes, high, low = (0, 0, 0) if exclude_id is None else (1, *_halves(exclude_id))
        own = self._no_request if request is None else request
        seen = NEVER - 1 if as_of is None else as_of
        if self._one(buf, q, seen, excludes, high, low, own.words, own.heap, self.spec, self.params, out) < 0:
            raise self.layout.mismatch(chunks[0])
        return self.values(out.tolist(), out_f.tolist(), joined, own, 0)

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
        n = len(chunks)
        asks = np.zeros((n, 7), np.int64)
        parts = list(map(b"".join, chunks))
        asks[:, 1] = [*accumulate(map(len, parts))]
        asks[:, 1] >>= 3
        asks[1:, 0] = asks[:-1, 1]
        asks[:, 2] = q
        asks[:, 3] = NEVER - 1 if as_of is None else as_of
        for k, i in enumerate(exclude_ids or ()):
            if i is not None:
                asks[k, 4:] = 1, *_halves(i)
        joined = b"".join(parts)
        buf = np.frombuffer(joined, np.int64) if joined else _EMPTY
        own = self._no_request if requests is None else requests
        out = np.empty((n, self.n_words), np.int64)
        done = self._many(buf, asks, own.words, own.heap, self.spec, self.params, out)
        if done < 0:
            raise self.layout.mismatch(chunks[-1 - done][0])
        return self._many_values(out, joined, own)

    def _many_values(self, out: I64, joined: bytes, request: PackedRows) -> list[tuple[Value, ...]]:
        """Python values from a matrix of results, column by column: several times faster than row by row."""
        n_outputs = self._n_outputs
        columns: list[list[Any]] = out.view(np.float64)[:, :n_outputs].T.tolist()
        for o in self._integers:
            columns[o] = out[:, o].tolist()
        for p, o in self._odd:
            words = out[:, o : self.places[p + 1]].tolist()
            columns[o] = [self.odd_value(p, own, joined, request, n) for n, own in enumerate(words)]
        if out[:, n_outputs:].any():
            bits = np.unpackbits(out[:, n_outputs:].copy().view(np.uint8), axis=1, bitorder="little")
            for o in np.flatnonzero(bits.any(axis=0)).tolist():
                column = columns[o]
                for n in np.flatnonzero(bits[:, o]).tolist():
                    column[n] = None
        if self._has_lists:
            columns = [columns[o] for o in self.places[:-1]]
        return list(zip(*columns, strict=True)) if columns else [()] * len(out)

    def values(
        self,
        words: list[int],
        floats: list[Any],
        joined: bytes,
        request: PackedRows | None = None,
        n: int = 0,
    ) -> tuple[Value, ...]:
        """Python values from the words of one result and the same as floats, which are replaced in place.

        `joined` is what was read; `request` and its row n are where a string of the request's own stands.
        """
        n_outputs = self._n_outputs
        for o in self._integers:
            floats[o] = words[o]
        for p, o in self._odd:
            floats[o] = self.odd_value(p, words[o : self.places[p + 1]], joined, request, n)
        for w in range(n_outputs, self.n_words):
            nulls = words[w] & 0xFFFFFFFFFFFFFFFF
            while nulls:
                bit = nulls & -nulls
                floats[64 * (w - n_outputs) + bit.bit_length() - 1] = None
                nulls ^= bit
        if self._has_lists:
            return tuple([floats[o] for o in self.places[:-1]])
        del floats[n_outputs:]
        return tuple(floats)

    def odd_value(
        self, p: int, words: list[int], joined: bytes, request: PackedRows | None = None, n: int = 0
    ) -> Value:
        """The value of feature p, whose type is not a number, from its words; the rest as `values` takes it."""
        match self.types[p]:
            case "bool":
                return words[0] != 0
            case "string":
                return self._text(p, words[0], joined, request, n)
            case "list<float64>":
                return list(
                    struct.unpack(f"{words[0]}d", struct.pack(f"{words[0]}q", *words[1 : 1 + words[0]]))
                )
            case "list<string>":
                texts = [self._text(p, word, joined, request, n) for word in words[1 : 1 + words[0]]]
                return [text for text in texts if text is not None]
            case _:
                return list(words[1 : 1 + words[0]])

    def _text(self, p: int, word: int, joined: bytes, request: PackedRows | None, n: int) -> str | None:
        if word == -2 and request is not None:
            column = list(self.layout.types).index(str(self.features[p].column))
            at = int(request.words[n, self.layout.first_value + column])
            return read_text(request.heap.tobytes(), 8 * at) if at >= 0 else None
        return read_text(joined, 8 * word) if word > 0 else None


def _places(features: Sequence[WindowFeature]) -> tuple[int, ...]:
    """The first output word of each feature, and the end; a list takes its length and its values."""
    sizes = [1 if f.n is None else 1 + f.n for f in features]
    return tuple(accumulate(sizes, initial=0))


def _halves(row_id: int) -> tuple[int, int]:
    return (row_id >> 64) - (1 << 63), (row_id & (2**64 - 1)) - (1 << 63)


def _window(f: WindowFeature) -> tuple[int, ...]:
    """A window as kernels take it: length (-1: whole past), offset, every, delay, include_request, grid, shift."""
    length = -1 if f.window_us is None else f.window_us
    grid = f.grid_us
    return (
        length,
        f.offset_us,
        f.every_us or 0,
        f.publish_delay_us,
        int(f.include_request),
        grid,
        (grid - 1).bit_length(),
    )


def _windows(features: Iterable[WindowFeature]) -> list[tuple[int, ...]]:
    """Different windows, ordered by grid."""
    return sorted(dict.fromkeys(map(_window, features)), key=lambda window: window[5])


@dataclass(frozen=True, slots=True)
class TilePlaces:
    """Where the words of a tile stand: of each lane, and of each lane's states; and how many words there are."""

    lanes: dict[tuple[int, int, int], int]
    states: dict[tuple[int, int, int, str, str, str | None], int]
    width: int


def lane_of(f: WindowFeature, layout: ChunkLayout) -> tuple[int, int, int]:
    """The rows that a feature sees: the column of its filter, and the columns whose nulls are skipped; -1 for none."""
    place = {name: c for c, name in enumerate(layout.types)}
    skipped = [place[c] for c in (f.column, f.over) if c is not None] if f.spec.skip_nulls else []
    x, y = (*skipped, -1, -1)[:2]
    return -1 if f.where is None else place[f.where], x, y


def tile_places(features: Sequence[WindowFeature], layout: ChunkLayout) -> TilePlaces:
    """What a tile keeps so that all of these features, or some, can be read from it."""
    lanes: dict[tuple[int, int, int], int] = {}
    states: dict[tuple[int, int, int, str, str, str | None], int] = {}
    width = 6
    for f in features:
        lane = lane_of(f, layout)
        if lane not in lanes:
            lanes[lane] = width
            width += 3
        if f.spec.kind == "fold":
            fold = f.spec.folds[layout.types[str(f.column)]]
            state = (*lane, fold.fold, str(f.column), f.over)
            if state not in states:
                states[state] = width
                width += fold.words
    return TilePlaces(lanes, states, width)


def _spec(
    features: tuple[WindowFeature, ...], layout: ChunkLayout, tiles: TilePlaces | None
) -> tuple[I64, F64]:
    """What `read_key` computes, as one array of words, and the parameters.

    Words 0 to 4 describe the layout; then the words of states, begin and end of lanes, words of a tile or 0, what
    tiles begin with, how far before q the farthest window begins (-1: no end) and the nearest ends at least, the most
    windows of a lane, the number of outputs. A lane is filter, two columns
    whose nulls are skipped, first window, number of windows, begin and end of its states, picks and distinct
    counts, and its place in a tile. A window is length (-1: all), offset, every, delay, include_request, grid,
    shift. A state is fold, word, x, y, bit 0 and 1 when they are integers, begin and end of its finals, how many
    words, its place in a tile; a final is window, code, output, parameters. A pick is window, place in PICKS,
    output, column, is string, n; a distinct count is window, column, is string, output.
    """
    types = layout.types
    place = {name: c for c, name in enumerate(types)}
    lanes: dict[tuple[int, int, int], list[tuple[int, WindowFeature]]] = {}
    *places, n_outputs = _places(features)
    for o, f in zip(places, features, strict=True):
        lanes.setdefault(lane_of(f, layout), []).append((o, f))
    tile_width = 0 if tiles is None else tiles.width
    reach = reach_us(features)
    nearest = min((f.offset_us + f.publish_delay_us for f in features), default=0)
    spec: list[int] = [*layout.numbers().tolist(), 0, 0, 0, tile_width, TILE_MAGIC]
    spec += [-1 if reach is None or reach >= 2 * FARTHEST else reach, nearest, 0, n_outputs]
    params: list[float] = [0.0, 0.0]
    n_lanes = len(lanes)
    spec[6], spec[7] = len(spec), len(spec) + 12 * n_lanes
    spec += [0] * (12 * n_lanes)
    for number, (lane, members) in enumerate(lanes.items()):
        windows = {window: w for w, window in enumerate(_windows(f for _, f in members))}
        states: dict[tuple[str, str, str | None], list[list[int]]] = {}
        words: dict[tuple[str, str, str | None], Fold] = {}
        picks: list[int] = []
        distincts: list[int] = []
        for o, f in members:
            w = windows[_window(f)]
            column = 0 if f.column is None else place[f.column]
            is_string = int(f.column is not None and types[f.column] == "string")
            match f.spec.kind:
                case "fold":
                    fold = f.spec.folds[types[str(f.column)]]
                    key = (fold.fold, str(f.column), f.over)
                    words[key] = fold
                    states.setdefault(key, []).append(
                        [w, FOLDS.index(fold), o, len(params) if f.params else 0]
                    )
                    params += (*f.params, 0.0, 0.0)[:2] if f.params else ()
                case "distinct":
                    distincts += [w, column, is_string, o]
                case kind:
                    picks += [w, PICKS.index(kind), o, column, is_string, f.n or 1]
        at = [len(spec), len(windows)]
        spec += [n for window in windows for n in window]
        at.append(len(spec))
        spec += [0] * (9 * len(states))
        at.append(len(spec))
        word = 0
        for n, (key, finals) in enumerate(states.items()):
            name, column_name, over = key
            second = column_name if over is None else over
            integers = int(types[column_name] != "float64") + 2 * int(types[second] != "float64")
            head = [FOLD_NAMES.index(name), word, place[column_name], place[second], integers]
            kept = 0 if tiles is None else tiles.states[(*lane, *key)]
            head += [len(spec), len(spec) + 4 * len(finals), words[key].words, kept]
            spec[at[2] + 9 * n : at[2] + 9 * n + 9] = head
            spec += [n for final in finals for n in final]
            word += words[key].words
        for more in (picks, distincts):
            at += [len(spec), len(spec) + len(more)]
            spec += more
        at.append(0 if tiles is None else tiles.lanes[lane])
        spec[spec[6] + 12 * number : spec[6] + 12 * number + 12] = [*lane, *at]
        spec[5] = max(spec[5], word)
        spec[12] = max(spec[12], len(windows))
    return np.array(spec, np.int64), np.array(params, np.float64)
