"""What a batch changes in online state: rows into and out of chunks, one rewrite a chunk. Computes no feature."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa

from volano.errors import AuthorCodeError
from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup
from volano.plan.state_index import Known
from volano.plan.state_rows import StateRowMap, StateRows, order_value
from volano.protocols.functions import Functions
from volano.protocols.online_store import OnlineSnapshot
from volano.protocols.sql_engine import SqlEngine
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import Instant
from volano.values.keys import encode_key
from volano.values.schema import Scalar

_HALF: Final = 2**63
_NAN: Final = float("nan")
_LAST: Final = b"\xff" * 3
"""Behind every key of a group: the length of the entity key, two bytes, follows the prefix."""


class ViewFailure(NamedTuple):
    """A stored event that a view's projection could not take: its columns are null in that view."""

    view: str
    source: str
    event_id: str
    error: AuthorCodeError


class Arrival(NamedTuple):
    """A row that becomes visible."""

    event_id: str
    row_id: bytes
    event_time: Instant
    applied_at: Instant
    cells: tuple[Scalar, ...]
    known: Known


class GroupState:
    """One state group, prepared: where its values stand in an event, and how a row is packed."""

    def __init__(
        self, project: CompiledProject, group: StateGroup, functions: Functions, sql_engine: SqlEngine
    ) -> None:
        self.group = group
        self.prefix = group.prefix
        self.rows_of = StateRowMap(project, group, sql_engine.query, functions.get)
        source = self.rows_of.source
        names = source.schema.names
        self.layout = ChunkLayout(
            group.prefix,
            tuple((field.name, field.dtype.value) for field in group.columns.fields),
            order=len(source.order_by),
        )
        self._schema = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in source.schema.fields])
        self._order = tuple((names.index(field.name), field.dtype) for field in self.rows_of.order_by)
        self._packer = _Packer(self.layout)
        if not self.rows_of.is_projected:
            self._key_at = tuple(names.index(name) for name in group.key_columns)
            self._value_at = tuple(names.index(name) for name in group.columns.names)

    def chunk_key(self, key: bytes, event_time: Instant) -> bytes:
        """`plan.state.chunk_key`, with the prefix at hand."""
        number = event_time // self.group.span_us + _HALF
        return self.prefix + len(key).to_bytes(2, "big") + key + number.to_bytes(8, "big")

    def pack(
        self, arrivals: Sequence[Arrival], failures: list[ViewFailure]
    ) -> tuple[PackedRows, list[bytes], list[Arrival]]:
        """Rows with a whole key: packed, with their canonical keys, beside their arrivals."""
        if self.rows_of.is_projected:
            rows = self._project(arrivals, failures)
        else:
            rows = [
                (
                    tuple([arrival.cells[at] for at in self._key_at]),
                    [arrival.cells[at] for at in self._value_at],
                )
                for arrival in arrivals
            ]
        keys: list[bytes] = []
        kept: list[Arrival] = []
        values: list[Sequence[Scalar]] = []
        for arrival, (key, row) in zip(arrivals, rows, strict=True):
            if None not in key:
                keys.append(encode_key(key))  # type: ignore[arg-type]
                kept.append(arrival)
                values.append(row)
        orders = [[order_value(arrival.cells[at], dtype) for at, dtype in self._order] for arrival in kept]
        return self._packer.pack(kept, orders, values), keys, kept

    def expired(self, snapshot: OnlineSnapshot, now: Instant) -> Iterator[bytes]:
        """The keys of chunks whose rows no window that ends at `now` or later reaches."""
        if self.group.raw_us is None:
            return
        oldest = (now - self.group.raw_us) // self.group.span_us + _HALF
        for key, _ in snapshot.scan(self.prefix, self.prefix + _LAST):
            if int.from_bytes(key[-8:], "big") < oldest:
                yield key

    def _project(
        self, arrivals: Sequence[Arrival], failures: list[ViewFailure]
    ) -> list[tuple[tuple[Scalar, ...], list[Scalar]]]:
        columns = zip(*(arrival.cells for arrival in arrivals), strict=True)
        table = pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)],
            schema=self._schema,
        )
        try:
            rows: StateRows = self.rows_of.map(table)
        except AuthorCodeError as error:
            # The projection itself is wrong. Its events stay stored; the state is rebuilt once it is mended.
            views = ", ".join(view.name for view in self.group.views if view.projection is not None)
            failures += [
                ViewFailure(views, self.group.source, arrival.event_id, error) for arrival in arrivals
            ]
            n_keys = len(self.group.key_columns)
            return [((None,) * n_keys, []) for _ in arrivals]
        failures += [
            ViewFailure(view, self.group.source, arrivals[row].event_id, error)
            for view, row, error in rows.failures
        ]
        keys = zip(*(_scalars(column) for column in rows.keys), strict=True)
        values = zip(*(_scalars(rows.columns[name]) for name in self.group.columns.names), strict=True)
        if not self.group.columns.fields:
            return [(key, []) for key in keys]
        return [(key, list(row)) for key, row in zip(keys, values, strict=True)]


class StateChange:
    """Rows that come and go in one batch, by group."""

    def __init__(self) -> None:
        self._coming: defaultdict[GroupState, dict[bytes, Arrival]] = defaultdict(dict)
        self._going: defaultdict[bytes, list[tuple[bytes, Instant, bytes]]] = defaultdict(list)

    def insert(self, groups: Sequence[GroupState], arrival: Arrival) -> None:
        """The row becomes visible in every group; its places are noted in `arrival.known` by `effects`."""
        for group in groups:
            self._coming[group][arrival.row_id] = arrival

    def remove(self, groups: Sequence[GroupState], known: Known, row_id: bytes) -> None:
        """The standing row of an id is superseded: it leaves its chunks, or does not come in the first place."""
        for group in groups:
            self._coming[group].pop(row_id, None)
        for prefix, key in known.places:
            assert known.event_time is not None
            self._going[prefix].append((key, known.event_time, row_id))

    def effects(
        self, groups: Sequence[GroupState], snapshot: OnlineSnapshot, failures: list[ViewFailure]
    ) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Puts and deletes of chunks."""
        puts: dict[bytes, bytes] = {}
        deletes: list[bytes] = []
        for group in groups:
            coming, going = self._coming.get(group), self._going.get(group.prefix)
            if coming or going:
                _rewrite(group, list((coming or {}).values()), going or (), snapshot, puts, deletes, failures)
        return puts, deletes


def group_states(
    project: CompiledProject, groups: Sequence[StateGroup], functions: Functions, sql_engine: SqlEngine
) -> dict[str, list[GroupState]]:
    """Groups, prepared, by source."""
    states: dict[str, list[GroupState]] = {}
    for group in groups:
        states.setdefault(group.source, []).append(GroupState(project, group, functions, sql_engine))
    return states


def _rewrite(
    group: GroupState,
    coming: Sequence[Arrival],
    going: Sequence[tuple[bytes, Instant, bytes]],
    snapshot: OnlineSnapshot,
    puts: dict[bytes, bytes],
    deletes: list[bytes],
    failures: list[ViewFailure],
) -> None:
    """Merge the batch's rows of one group into its chunks, each chunk once."""
    place_of: dict[bytes, int] = {}
    rows, owners = None, None
    if coming:
        rows, keys, kept = group.pack(coming, failures)
        owners = []
        for key, arrival in zip(keys, kept, strict=True):
            arrival.known.places.append((group.prefix, key))
            chunk = group.chunk_key(key, arrival.event_time)
            owners.append(place_of.setdefault(chunk, len(place_of)))
    gone = [
        (
            place_of.setdefault(group.chunk_key(key, event_time), len(place_of)),
            int.from_bytes(row_id, "big"),
        )
        for key, event_time, row_id in going
    ]
    chunk_keys = list(place_of)
    found = snapshot.get_many(chunk_keys)
    merged = group.layout.merge([chunk or b"" for chunk in found], rows, owners, gone=gone)
    for chunk_key, old, new in zip(chunk_keys, found, merged, strict=True):
        if new:
            puts[chunk_key] = new
        elif old is not None:
            deletes.append(chunk_key)


class _Packer:
    """Packs a few rows at a time from Python values, to the same words as `ChunkLayout.encode` does from Arrow."""

    def __init__(self, layout: ChunkLayout) -> None:
        self._layout = layout
        kinds = [kind for _, kind in layout.columns]
        self._n_masks = layout.first_value - layout.first_mask
        self._words = struct.Struct(
            "<" + "q" * layout.first_value + "".join("d" if kind == "float64" else "q" for kind in kinds)
        )
        self._floats = tuple(c for c, kind in enumerate(kinds) if kind == "float64")
        self._texts = tuple(c for c, kind in enumerate(kinds) if kind == "string")

    def pack(
        self, arrivals: Sequence[Arrival], orders: Sequence[Sequence[int]], values: Sequence[Sequence[Any]]
    ) -> PackedRows:
        heap = bytearray()
        packed = b"".join(
            [
                self._row(arrival, order, list(row), heap)
                for arrival, order, row in zip(arrivals, orders, values, strict=True)
            ]
        )
        # Over bytearrays, because the kernels are compiled for writable arrays.
        words = np.frombuffer(bytearray(packed), np.int64).reshape(len(arrivals), self._layout.width)
        return PackedRows(words, np.frombuffer(heap, np.int64))

    def _row(self, arrival: Arrival, order: Sequence[int], cells: list[Any], heap: bytearray) -> bytes:
        masks = [0] * self._n_masks
        if None in cells:
            for c, cell in enumerate(cells):
                if cell is None:
                    masks[c >> 6] |= 1 << (c & 63)
                    cells[c] = 0
            masks = [mask - 2**64 if mask >= _HALF else mask for mask in masks]
        for c in self._texts:
            cell = cells[c]
            if cell == 0 and type(cell) is int:
                cells[c] = -1
                continue
            raw = cell.encode()
            cells[c] = len(heap) >> 3
            heap += len(raw).to_bytes(8, "little") + raw + bytes(-len(raw) % 8)
        for c in self._floats:
            # One NaN, no negative zero.
            cell = cells[c]
            cells[c] = cell + 0.0 if cell == cell else _NAN
        row_id = arrival.row_id
        return self._words.pack(
            arrival.event_time,
            *order,
            int.from_bytes(row_id[:8], "big") - _HALF,
            int.from_bytes(row_id[8:], "big") - _HALF,
            arrival.applied_at,
            *masks,
            *cells,
        )


def _scalars(column: pa.Array) -> list[Scalar]:
    """An Arrow column as Python values; timestamps as instants."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Scalar] = column.to_pylist()
    return values
