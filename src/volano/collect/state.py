"""What a batch changes in online state: rows into and out of chunks, one rewrite a chunk. Computes no feature."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa

from volano.collect.dimensions import DimensionSteps, Enrichment
from volano.collect.sealing import resealed, stored_behind
from volano.errors import AuthorCodeError, StateMismatchError
from volano.kernels.arrays import I64, Bools
from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.kernels.features import WindowFeature
from volano.kernels.sealed import Horizon, Sealer, Tail, closed, is_sealed, opened
from volano.kernels.tiles import Rewritten, Tiles, is_head
from volano.plan.definitions import CompiledProject, CompiledView
from volano.plan.failed_rows import FailedRow, projected_views
from volano.plan.state import (
    PREFIX_BYTES,
    StateGroup,
    chunk_number,
    key_head,
    key_tail,
    window_arguments,
)
from volano.plan.state_index import Known
from volano.plan.state_rows import StateRowMap, StateRows, order_value
from volano.protocols.functions import Functions
from volano.protocols.key_history import KeyHistory
from volano.protocols.online_store import OnlineSnapshot
from volano.protocols.sql_engine import SqlEngine
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import BEGINNING, Instant
from volano.values.keys import EntityKey, canonical_keys, encode_key
from volano.values.schema import Scalar

_FLIP: Final = np.uint64(1 << 63)
_MOST_HEADS: Final = 1 << 16
"""How many keys a group remembers the heads of, from batch to batch; a head depends on nothing but its key."""
_LAST: Final = b"\xff" * 3
"""Behind every key of a group: the length of the entity key, two bytes, follows the prefix."""


Cells: TypeAlias = Sequence[Scalar]
"""One column of some rows, as Python values."""


class ViewFailure(NamedTuple):
    """A stored event that a view's projection could not take: the view's columns are null, those of others stand."""

    view: CompiledView
    row_id: bytes
    row: FailedRow


class Arrival(msgspec.Struct, frozen=True, gc=False):
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
        self.projected = projected_views([group])
        self.prefix = group.prefix
        self.rows_of = StateRowMap(project, group, sql_engine.query, functions.get)
        source = self.rows_of.source
        fields = self.rows_of.fields
        names = tuple(field.name for field in fields)
        self.enrichment: Enrichment | None = None
        self.layout = ChunkLayout(
            group.prefix,
            tuple((field.name, field.dtype.value) for field in group.columns.fields),
            order=len(source.order_by),
        )
        self._schema = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in fields])
        self._order = tuple((names.index(field.name), field.dtype) for field in self.rows_of.order_by)
        self._packer = Packer(self.layout)
        self._heads: dict[Any, bytes | None] = {}
        if not self.rows_of.is_projected:
            self._key_at = tuple(names.index(name) for name in group.key_columns)
            self._value_at = tuple(names.index(name) for name in group.columns.names)

    @cached_property
    def tiles(self) -> Tiles:
        """How hot chunks are written."""
        features = [
            WindowFeature(**window_arguments(view, feature))
            for view in self.group.views
            for feature in view.features
        ]
        return Tiles(features, self.layout, self.group.span_us, hot_rows=self.group.hot_rows)

    @cached_property
    def sealer(self) -> Sealer | None:
        """What seals its rows; None where they stay."""
        group = self.group
        if group.sealed_us is None:
            return None
        return Sealer(self.tiles, Horizon(group.sealed_us, group.align_us))

    @property
    def end(self) -> bytes:
        """Behind every online key of the group."""
        return self.prefix + _LAST

    def pack(
        self, arrivals: Sequence[Arrival], columns: Sequence[Cells], failures: list[ViewFailure]
    ) -> tuple[PackedRows, list[bytes | None]]:
        """Arrivals as packed rows, with the heads of their online keys; None where there is no key.

        Args:
            columns: the cells of the arrivals, column by column.
        """
        if self.rows_of.is_projected:
            parts, values = self._project(arrivals, columns, failures)
        else:
            parts = [columns[at] for at in self._key_at]
            values = [columns[at] for at in self._value_at]
        orders = [[order_value(cell, dtype) for cell in columns[at]] for at, dtype in self._order]
        if len(self._heads) > _MOST_HEADS:
            self._heads.clear()
        heads = canonical_keys(parts, encode=self.head, known=self._heads)
        return self._packer.pack(arrivals, orders, values), heads

    def head(self, key: EntityKey) -> bytes | None:
        """What the online keys of an entity key begin with; None where it is too long to be one."""
        return key_head(self.group, encode_key(key))

    # Of one row, where no projection computes its columns:

    def head_of(self, arrival: Arrival) -> bytes | None:
        """The head of a row's online key; None when a part of the key is null, or it is too long."""
        parts = tuple([arrival.cells[at] for at in self._key_at])
        return None if None in parts else self.head(parts)  # type: ignore[arg-type]

    def order_of(self, arrival: Arrival) -> tuple[int, ...]:
        """What orders rows of one instant, before their id."""
        return tuple([order_value(arrival.cells[at], dtype) for at, dtype in self._order])

    def values_of(self, arrival: Arrival) -> tuple[Scalar, ...]:
        """The stored columns of a row, as a chunk gives them back."""
        cells = [arrival.cells[at] for at in self._value_at]
        return tuple([cell + 0.0 if type(cell) is float else cell for cell in cells])

    def expired(self, snapshot: OnlineSnapshot, now: Instant, *, after: bytes = b"") -> Iterator[bytes]:
        """The keys of chunks whose rows no window that ends at `now` or later reaches, in order, behind a key."""
        if self.group.raw_us is None:
            return
        oldest = (now - self.group.raw_us) // self.group.span_us
        for key, _ in snapshot.scan(max(self.prefix, after), self.end):
            if chunk_number(key) < oldest:
                yield key

    def _project(
        self, arrivals: Sequence[Arrival], columns: Sequence[Cells], failures: list[ViewFailure]
    ) -> tuple[list[Cells], list[Cells]]:
        """The key parts and the stored columns as the views compute them."""
        table = pa.Table.from_arrays(
            [pa.array(values, field.type) for values, field in zip(columns, self._schema, strict=True)],
            schema=self._schema,
        )
        rows: StateRows = self.rows_of.map(table)
        views = {view.name: view for view in self.projected}
        failures += [self._failure(views[view], arrivals[row], error) for view, row, error in rows.failures]
        values: list[Cells] = [_scalars(rows.columns[name]) for name in self.group.columns.names]
        return [_scalars(column) for column in rows.keys], values

    def _failure(self, view: CompiledView, arrival: Arrival, error: AuthorCodeError) -> ViewFailure:
        row = FailedRow(view.name, self.group.source, arrival.event_id, arrival.applied_at, error.what)
        return ViewFailure(view, arrival.row_id, row)


class StateChange:
    """Rows that come and go in one batch, by group.

    Args:
        joined: the sources that some join reads.
    """

    def __init__(self, joined: Collection[str] = ()) -> None:
        self._coming: defaultdict[str, dict[bytes, Arrival]] = defaultdict(dict)
        # By group prefix: head of the online key, instant and id of a row.
        self._going: defaultdict[bytes, list[tuple[bytes, Instant, bytes]]] = defaultdict(list)
        self._steps = DimensionSteps(joined)
        self._any_joined = bool(joined)

    def insert(self, source: str, arrival: Arrival) -> None:
        """The row becomes visible in every group of its source; `effects` notes its places in `arrival.known`."""
        self._coming[source][arrival.row_id] = arrival
        if self._any_joined:
            self._steps.come(source, arrival)

    def remove(self, source: str, known: Known, row_id: bytes, stamp: Instant) -> None:
        """The standing row of an id is superseded: it leaves its chunks, or does not come in the first place."""
        coming = self._coming[source].pop(row_id, None)
        self._steps.go(source, coming, known.places, row_id, stamp)
        for head in known.places:
            assert known.event_time is not None
            self._going[head[:PREFIX_BYTES]].append((head, known.event_time, row_id))

    def effects(
        self,
        groups: Sequence[GroupState],
        snapshot: OnlineSnapshot,
        failures: list[ViewFailure],
        history: KeyHistory | None = None,
    ) -> tuple[dict[bytes, bytes], list[bytes]]:
        """Puts and deletes of chunks.

        Args:
            history: asked for the rows of keys where a row comes or goes that happened before their seal.
        """
        puts: dict[bytes, bytes] = {}
        deletes: list[bytes] = []
        arrivals = {source: list(coming.values()) for source, coming in self._coming.items()}
        columns = {source: _transposed(rows) for source, rows in arrivals.items()}
        for group in groups:
            source, going = group.group.source, self._going.get(group.prefix)
            coming, cells = arrivals.get(source, []), columns.get(source, [])
            if coming and group.enrichment is not None:
                cells = group.enrichment.enrich(coming, cells, self._steps, snapshot)
            if coming or going:
                _rewrite(group, coming, cells, going or (), snapshot, puts, deletes, failures, history)
        return puts, deletes


def group_states(
    project: CompiledProject, groups: Sequence[StateGroup], functions: Functions, sql_engine: SqlEngine
) -> dict[str, list[GroupState]]:
    """Groups, prepared, by source."""
    found = {group.hash: GroupState(project, group, functions, sql_engine) for group in groups}
    states: dict[str, list[GroupState]] = {}
    for state in found.values():
        group = state.group
        if group.joins:
            state.enrichment = Enrichment(state.rows_of.source.schema.names, group.joins, found)
        states.setdefault(group.source, []).append(state)
    return states


def _rewrite(
    group: GroupState,
    coming: Sequence[Arrival],
    columns: Sequence[Cells],
    going: Sequence[tuple[bytes, Instant, bytes]],
    snapshot: OnlineSnapshot,
    puts: dict[bytes, bytes],
    deletes: list[bytes],
    failures: list[ViewFailure],
    history: KeyHistory | None,
) -> None:
    """Merge the batch's rows of one group into its chunks, each chunk once."""
    place_of: dict[bytes, int] = {}
    rows, owners = None, None
    if coming:
        rows, heads = group.pack(coming, columns, failures)
        owners = chunk_places(group.group, coming, rows.words[:, 0], heads, place_of)
        if (owners < 0).any():
            kept = np.flatnonzero(owners >= 0)
            rows, owners = rows.take(kept), owners[kept]
    gone = [
        (
            place_of.setdefault(head + key_tail(event_time // group.group.span_us), len(place_of)),
            int.from_bytes(row_id, "big"),
            event_time,
        )
        for head, event_time, row_id in going
    ]
    chunk_keys = list(place_of)
    found = snapshot.get_many(chunk_keys)
    tails = _take_tails(group, found)
    if tails:
        rows, owners, gone = _reseal(group, tails, chunk_keys, rows, owners, gone, snapshot, history)
    hot = [place for place, chunk in enumerate(found) if chunk is not None and is_head(chunk)]
    if hot:
        rows, owners, gone = _rewrite_hot(
            group, hot, chunk_keys, found, rows, owners, gone, snapshot, tails, puts, deletes
        )
    left = [(place, row_id) for place, row_id, _ in gone]
    merged = group.layout.merge([chunk or b"" for chunk in found], rows, owners, gone=left)
    is_hot = group.tiles.is_hot
    for place, (chunk_key, old, new) in enumerate(zip(chunk_keys, found, merged, strict=True)):
        if hot and place in hot:
            continue
        tail = tails.get(place)
        if new and is_hot(new):
            done = group.tiles.split(new, chunk_number(chunk_key))
            _put_hot(group, chunk_key, tail, done, puts, deletes)
        elif new or tail is not None:
            puts[chunk_key] = closed(tail, new, group.layout)
        elif old is not None:
            deletes.append(chunk_key)


_Gone: TypeAlias = list[tuple[int, int, Instant]]


def _take_tails(group: GroupState, found: list[bytes | None]) -> dict[int, Tail | None]:
    """The tails among some values, by place; what is behind them is left in their place."""
    tails: dict[int, Tail | None] = {}
    for place, value in enumerate(found):
        if value is not None and is_sealed(value):
            tails[place], found[place] = opened(value, group.tiles)
    return tails


def _reseal(
    group: GroupState,
    tails: dict[int, Tail | None],
    chunk_keys: Sequence[bytes],
    rows: PackedRows | None,
    owners: I64 | None,
    gone: _Gone,
    snapshot: OnlineSnapshot,
    history: KeyHistory | None,
) -> tuple[PackedRows | None, I64 | None, _Gone]:
    """Build those tails again in which a row comes or goes, from the lake.

    Returns:
        The rows that are left, the places of their chunks, and what goes otherwise.
    """
    if rows is None:
        rows = PackedRows(np.empty((0, group.layout.width), np.int64), np.empty(0, np.int64))
    seals = np.full(len(chunk_keys), BEGINNING, np.int64)
    for place, tail in tails.items():
        seals[place] = BEGINNING if tail is None else tail.seal
    at = np.empty(0, np.int64) if owners is None else owners
    deep = rows.words[:, 0] < seals[at] if len(at) else np.zeros(0, bool)
    lost = [each for each in gone if each[2] < seals[each[0]]]
    places = sorted({*at[deep].tolist(), *(place for place, _, _ in lost)})
    if not places:
        return rows, owners, gone
    if history is None:
        raise StateMismatchError(
            f"A row of {group.group.source!r} changed that is sealed, and nothing here reads the lake.",
            where=f"state group {group.group.hash}",
            mend="run the applier of the project, which does",
        )
    numbers = {place: chunk_number(chunk_keys[place]) for place in places}
    wanted: list[dict[bytes, tuple[int, Instant, Instant]]] = []
    for place in places:
        head = chunk_keys[place][: -len(key_tail(0))]
        # Two chunks of one key are asked for one after the other; all keys at once.
        ask = next((each for each in wanted if head not in each), None)
        if ask is None:
            wanted.append(ask := {})
        ask[head] = (place, numbers[place] * group.group.span_us, int(seals[place]))
    rows_before = {}
    for ask in wanted:
        found = history.rows(
            group.group,
            {head: (begin, seal) for head, (_, begin, seal) in ask.items()},
            stamp=snapshot.stamp,
            sequence=snapshot.sequence,
        )
        rows_before.update({place: found[head] for head, (place, _, _) in ask.items()})
    for place in places:
        tail = tails[place]
        assert tail is not None
        coming = rows.take(np.flatnonzero(deep & (at == place)))
        going = [row_id for owner, row_id, _ in lost if owner == place]
        tails[place] = resealed(group, tail, numbers[place], rows_before[place], coming, going)
    kept = np.flatnonzero(~deep)
    left = [each for each in gone if each[2] >= seals[each[0]]]
    return rows.take(kept), at[kept], left


def _rewrite_hot(
    group: GroupState,
    hot: Sequence[int],
    chunk_keys: Sequence[bytes],
    found: list[bytes | None],
    rows: PackedRows | None,
    owners: I64 | None,
    gone: _Gone,
    snapshot: OnlineSnapshot,
    tails: Mapping[int, Tail | None],
    puts: dict[bytes, bytes],
    deletes: list[bytes],
) -> tuple[PackedRows, I64, _Gone]:
    """Change the hot chunks among `found`, each by the few blocks that the batch touches, and take them out of it.

    Returns:
        The rows that are left, the places of their chunks, and what goes from other chunks.
    """
    if rows is None:
        rows = PackedRows(np.empty((0, group.layout.width), np.int64), np.empty(0, np.int64))
    at = np.empty(0, np.int64) if owners is None else owners
    times = rows.words[:, 0]
    todo = []
    for place in hot:
        head = found[place]
        assert head is not None
        mine = np.flatnonzero(at == place)
        going = [(event_time, row_id) for owner, row_id, event_time in gone if owner == place]
        number = chunk_number(chunk_keys[place])
        touched = group.tiles.touched(head, number, times[mine].tolist(), [at for at, _ in going])
        todo.append((place, head, number, mine, going, touched))
        found[place] = None
    blocks = iter(
        snapshot.get_many([chunk_keys[place] + suffix for place, *_, suffixes in todo for suffix in suffixes])
    )
    for place, head, number, mine, going, suffixes in todo:
        present = {suffix: next(blocks) or b"" for suffix in suffixes}
        done = group.tiles.rewrite(head, number, present, rows.take(mine), going)
        done = group.tiles.with_pages(done, partial(stored_behind, snapshot, chunk_keys[place]))
        _put_hot(group, chunk_keys[place], tails.get(place), done, puts, deletes)
    kept = np.flatnonzero(~np.isin(at, hot))
    return rows.take(kept), at[kept], [each for each in gone if each[0] not in hot]


def _put_hot(
    group: GroupState,
    chunk_key: bytes,
    tail: Tail | None,
    done: Rewritten,
    puts: dict[bytes, bytes],
    deletes: list[bytes],
) -> None:
    for suffix, value in ((b"", closed(tail, done.head, group.layout)), *done.blocks.items()):
        if value:
            puts[chunk_key + suffix] = value
        else:
            deletes.append(chunk_key + suffix)


def chunk_places(
    group: StateGroup,
    coming: Sequence[Arrival],
    times: I64,
    heads: Sequence[bytes | None],
    place_of: dict[bytes, int],
) -> I64:
    """The place of the chunk of each row, -1 for a row without a key. Notes new chunks, and where each row lies."""
    owners = np.full(len(heads), -1, np.int64)
    for head, arrival in zip(heads, coming, strict=True):
        if head is not None:
            arrival.known.places.append(head)
    numbers = times // group.span_us
    for number in np.unique(numbers).tolist():
        at = np.flatnonzero(numbers == number)
        mine = heads if len(at) == len(heads) else [heads[place] for place in at.tolist()]
        tail = key_tail(number)
        # Heads are the same objects from batch to batch, so their hashes are known; those of whole keys are not.
        owner_of: dict[bytes | None, int] = dict.fromkeys(mine, -1)
        for head in owner_of:
            if head is not None:
                owner_of[head] = place_of[head + tail] = len(place_of)
        owners[at] = list(map(owner_of.__getitem__, mine))
    return owners


def _transposed(arrivals: Sequence[Arrival]) -> list[Cells]:
    return list(zip(*[arrival.cells for arrival in arrivals], strict=True))


class Packer:
    """Packs rows from Python values, to the same words as `ChunkLayout.encode` does from Arrow."""

    def __init__(self, layout: ChunkLayout) -> None:
        self._layout = layout

    def pack(
        self, arrivals: Sequence[Arrival], orders: Sequence[Sequence[int]], values: Sequence[Cells]
    ) -> PackedRows:
        """Rows of a layout: its order columns and its values, column by column."""
        layout = self._layout
        n = len(arrivals)
        words = np.zeros((n, layout.width), np.int64)
        words[:, 0] = [arrival.event_time for arrival in arrivals]
        for at, order in enumerate(orders):
            words[:, 1 + at] = order
        ids = np.frombuffer(b"".join([arrival.row_id for arrival in arrivals]), ">u8").reshape(n, 2)
        words[:, layout.order + 1 : layout.order + 3] = (ids ^ _FLIP).astype(np.uint64).view(np.int64)
        words[:, layout.order + 3] = [arrival.applied_at for arrival in arrivals]
        heap = bytearray()
        for c, ((_, kind), cells) in enumerate(zip(layout.columns, values, strict=True)):
            place = words[:, layout.first_value + c]
            match kind:
                case "float64":
                    valid = _put_floats(cells, place)
                case "string":
                    valid = _put_texts(cells, place, heap)
                case _:
                    valid = _put_integers(cells, place)
            if valid is not None:
                words[:, layout.first_mask + c // 64] |= (~valid).astype(np.int64) << (c % 64)
        return PackedRows(words, np.frombuffer(heap, np.int64))


def _put_floats(cells: Cells, place: I64) -> Bools | None:
    """Write a column of floats; returns which are not null, None when all are."""
    values = np.array(cells, np.float64)  # a null becomes NaN
    strange = np.isnan(values)
    if not strange.any():
        place[:] = (values + 0.0).view(np.int64)  # no negative zero
        return None
    values[strange] = np.nan  # one NaN
    valid = np.array([cell is not None for cell in cells], bool)
    values[~valid] = 0.0
    place[:] = (values + 0.0).view(np.int64)
    return valid


def _put_integers(cells: Cells, place: I64) -> Bools | None:
    if None not in cells:
        place[:] = list(cells)  # type: ignore[assignment]
        return None
    place[:] = [0 if cell is None else cell for cell in cells]
    return np.array([cell is not None for cell in cells], bool)


def _put_texts(cells: Cells, place: I64, heap: bytearray) -> Bools | None:
    starts: list[int] = []
    for cell in cells:
        if cell is None:
            starts.append(-1)
            continue
        raw = cell.encode()  # type: ignore[union-attr]
        starts.append(len(heap) >> 3)
        heap += len(raw).to_bytes(8, "little") + raw + bytes(-len(raw) % 8)
    place[:] = starts
    return None if None not in cells else np.array([cell is not None for cell in cells], bool)


def _scalars(column: pa.Array) -> list[Scalar]:
    """An Arrow column as Python values; timestamps as instants."""
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    values: list[Scalar] = column.to_pylist()
    return values
