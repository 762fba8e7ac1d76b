"""Features of one request: keys from the request, one multi-get from one snapshot, then the kernel. Writes nothing.

Everything that does not depend on the request is planned once: which groups are read, with which fields as keys, how
far back, and into which slot each value goes. Slots hold every input of the model and of its on-demand functions, each
once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import pyarrow as pa

from volano.errors import StateMismatchError
from volano.kernels.chunks import ChunkLayout, ChunkReader, PackedRows
from volano.kernels.features import WindowFeature
from volano.kernels.joint_reader import JointReader
from volano.kernels.on_demand import call_on_demand
from volano.kernels.tiled_reader import TiledReader
from volano.kernels.tiles import Tiles, is_plain
from volano.plan.definitions import (
    CompiledFeature,
    CompiledOnDemand,
    CompiledProject,
    CompiledRequest,
    CompiledService,
    CompiledSource,
    CompiledView,
    FeatureInput,
)
from volano.plan.state import StateGroup, window_arguments
from volano.plan.state_index import decode_known, event_key, event_prefix
from volano.protocols.functions import Functions
from volano.protocols.online_store import OnlineReader, OnlineSnapshot
from volano.values.arrow import ARROW_TYPES
from volano.values.event_ids import ROW_ID_BYTES, event_id, row_id
from volano.values.instants import BEGINNING, Instant, floor_to
from volano.values.keys import MOST_KEY_BYTES, encode_key
from volano.values.schema import DType, Scalar

_SIGN: Final = 2**63
"""Chunk numbers are shifted by this in keys, so that byte order is time order."""
_EARLIEST: Final[Instant] = -62_135_596_800_000_000
"""The year 1: a lifetime window begins here."""


class OnlineFeatures:
    """Reads and computes the features of one service.

    Args:
        project: the definitions that the service is part of.
        service: the ordered inputs of the model.
        request: what keys and request fields are taken from.
        groups: the state that exists; those of the service's views are picked out.
        online: the store that holds it.
        functions: the author's code.

    Raises:
        StateMismatchError: a view has no state in `groups`.
    """

    def __init__(
        self,
        project: CompiledProject,
        service: CompiledService,
        *,
        request: CompiledRequest,
        groups: Sequence[StateGroup],
        online: OnlineReader,
        functions: Functions,
    ) -> None:
        slots = _Slots()
        self._served = [slots.of(given) for given in service.inputs]
        computed = _in_order(service.inputs, project.on_demand)
        self._on_demand = [_OnDemandCall(project.on_demand[name], slots, functions) for name in computed]
        self._n_slots = len(slots)
        self._is_plain = self._served == list(range(self._n_slots))
        self._from_request = [
            (slot, given.request_field) for given, slot in slots if given.request_field is not None
        ]
        self._lookups = _lookups(project, request, groups, slots)
        plain = [lookup for lookup in self._lookups if not lookup.takes_request]
        self._n_plain = len(plain)
        self._plain = JointReader([lookup.reader for lookup in plain]) if plain else None
        self._plain_slots = [slot for lookup in plain for slot in lookup.slots]
        if self._plain is not None:
            self._plain.read(
                [[]] * self._n_plain, 0
            )  # the compiled code is loaded now, not in the first request
        self._online = online

    @property
    def has_on_demand(self) -> bool:
        """Whether author code runs inside the request."""
        return bool(self._on_demand)

    def read(self, request: Mapping[str, Scalar], q: Instant) -> tuple[list[Scalar], Instant]:
        """Fill the slots of request fields and view features.

        An unknown entity, and a key with a null part, reads as an entity without rows.

        Args:
            request: the checked field values; instants for timestamps.
            q: the end of the windows.

        Returns:
            The slots, on-demand ones still None, and the stamp of the snapshot: `features_as_of`.

        Raises:
            StoreError: the store cannot be read, or a chunk does not fit its group.
        """
        slots: list[Scalar] = [None] * self._n_slots
        for slot, field in self._from_request:
            slots[slot] = request[field]
        with self._online.snapshot() as snapshot:
            stamp = snapshot.stamp
            if self._lookups:
                self._read_views(snapshot, request, q, slots)
        return slots, stamp

    def compute_on_demand(self, slots: list[Scalar]) -> None:
        """Fill the slots of on-demand features, each after those it reads.

        Raises:
            AuthorCodeError: a function raised or returned another type.
        """
        for call in self._on_demand:
            slots[call.slot] = call.value(slots)

    def served(self, slots: list[Scalar]) -> list[Scalar]:
        """The model's inputs, in the order of the service."""
        return slots if self._is_plain else [slots[slot] for slot in self._served]

    def _read_views(
        self, snapshot: OnlineSnapshot, request: Mapping[str, Scalar], q: Instant, slots: list[Scalar]
    ) -> None:
        keys: list[bytes] = []
        ends: list[int] = []
        for lookup in self._lookups:
            ends.append(lookup.add_keys(request, q, keys))
        found = snapshot.get_many(keys) if keys else []
        chunks: list[list[bytes]] = []
        begin = 0
        for end in ends:
            own: list[Any] = found[begin:end]
            chunks.append([chunk for chunk in own if chunk is not None] if None in own else own)
            begin = end
        try:
            if self._plain is not None:
                values: Sequence[Any] = self._plain.read(chunks[: self._n_plain], q)
                for slot, value in zip(self._plain_slots, values, strict=True):
                    slots[slot] = value
            for lookup, own in zip(self._lookups[self._n_plain :], chunks[self._n_plain :], strict=True):
                lookup.fill(slots, own, request, q)
        except StateMismatchError:
            # The head of a hot chunk is no chunk: looking for one is left to the kernel, which looks anyway.
            if all(is_plain(chunk) for own in chunks for chunk in own):
                raise
            self._read_hot(snapshot, keys, ends, found, request, q, slots)

    def _read_hot(
        self,
        snapshot: OnlineSnapshot,
        keys: Sequence[bytes],
        ends: Sequence[int],
        found: Sequence[bytes | None],
        request: Mapping[str, Scalar],
        q: Instant,
        slots: list[Scalar],
    ) -> None:
        """The same where some key has hot chunks: a second multi-get brings the rows at the ends of its windows."""
        begin = 0
        for lookup, end in zip(self._lookups, ends, strict=True):
            own = {
                key: chunk
                for key, chunk in zip(keys[begin:end], found[begin:end], strict=True)
                if chunk is not None
            }
            if not all(map(is_plain, own.values())):
                lookup.fill_hot(slots, own, snapshot, request, q)
            else:
                lookup.fill(slots, list(own.values()), request, q)
            begin = end


class _Slots:
    """One slot for each thing that is read, whatever it is called; iterates in the order of first use."""

    def __init__(self) -> None:
        self._slot_of: dict[tuple[object, ...], int] = {}
        self._inputs: list[FeatureInput] = []

    def of(self, given: FeatureInput) -> int:
        read = (given.view, given.feature, given.keys, given.on_demand, given.request_field)
        slot = self._slot_of.setdefault(read, len(self._inputs))
        if slot == len(self._inputs):
            self._inputs.append(given)
        return slot

    def __len__(self) -> int:
        return len(self._inputs)

    def __iter__(self) -> Iterator[tuple[FeatureInput, int]]:
        return ((given, slot) for slot, given in enumerate(self._inputs))


class _OnDemandCall:
    """One author function, bound to the slots it reads and the one it fills."""

    __slots__ = ("_arguments", "_dtype", "_function", "_timestamps", "slot")

    def __init__(self, definition: CompiledOnDemand, slots: _Slots, functions: Functions) -> None:
        self._function: Callable[..., Any] = functions.get(definition.code)
        self._arguments = [(name, slots.of(given)) for name, given in definition.arguments]
        self._timestamps = frozenset(
            name for name, given in definition.arguments if given.dtype is DType.TIMESTAMP
        )
        self._dtype = definition.dtype
        self.slot = slots.of(FeatureInput(definition.name, definition.dtype, on_demand=definition.name))

    def value(self, slots: list[Scalar]) -> Scalar:
        arguments: dict[str, Scalar] = {}
        for name, slot in self._arguments:
            arguments[name] = slots[slot]
        return call_on_demand(self._function, arguments, timestamps=self._timestamps, dtype=self._dtype)


def _in_order(inputs: Iterable[FeatureInput], known: Mapping[str, CompiledOnDemand]) -> list[str]:
    """The on-demand functions that some inputs need, each after those it reads."""
    ordered: list[str] = []
    for given in inputs:
        if given.on_demand is not None and given.on_demand not in ordered:
            needed = (argument for _, argument in known[given.on_demand].arguments)
            ordered += [name for name in _in_order(needed, known) if name not in ordered]
            ordered.append(given.on_demand)
    return ordered


class _ChunkNumbers:
    """The numbers of the chunks that some windows touch, as the last eight bytes of their keys."""

    __slots__ = ("_last", "_reach", "_span_us")

    def __init__(self, reach: _Reach, span_us: int) -> None:
        self._reach = reach
        self._span_us = span_us
        self._last: tuple[Instant | None, tuple[int, int], list[bytes]] = (None, (0, -1), [])

    def at(self, q: Instant) -> list[bytes]:
        """Oldest first. Kept for the lookups of one request, and as long as requests touch the same chunks."""
        last_q, last, numbers = self._last
        if q == last_q:
            return numbers
        touched = _chunk_range(self._reach, q, self._span_us)
        if touched != last:
            numbers = [(number + _SIGN).to_bytes(8, "big") for number in range(touched[0], touched[1] + 1)]
        self._last = (q, touched, numbers)
        return numbers


class _Lookup:
    """Features of one group for one key of the request, all with the request's own event or all without."""

    __slots__ = (
        "_field",
        "_fields",
        "_group",
        "_head",
        "_index",
        "_numbers",
        "_own_event",
        "_tiled",
        "reader",
        "slots",
    )

    def __init__(
        self,
        project: CompiledProject,
        group: StateGroup,
        fields: tuple[str, ...],
        wanted: Sequence[tuple[int, WindowFeature]],
        numbers: _ChunkNumbers,
        own_event: _OwnEvent | None,
    ) -> None:
        source = project.sources[group.source]
        self.reader = ChunkReader([feature for _, feature in wanted], chunk_layout(group, source))
        self.slots = [slot for slot, _ in wanted]
        self._group = group
        self._tiled: TiledReader | None = None
        self._fields = fields
        self._field = fields[0] if len(fields) == 1 else None
        self._head = group.prefix
        self._index = event_prefix(project.namespace, source.name)
        self._numbers = numbers
        self._own_event = own_event

    @property
    def takes_request(self) -> bool:
        """Whether the request's own event counts as the last row."""
        return self._own_event is not None

    def add_keys(self, request: Mapping[str, Scalar], q: Instant, keys: list[bytes]) -> int:
        """Append the online keys that the windows at q touch, none without a key: a part is null, or it is too long.

        Returns:
            How many keys there are then.
        """
        parts: Any
        if self._field is not None:
            parts = (request[self._field],)
        else:
            parts = tuple([request[field] for field in self._fields])
        if None not in parts:
            key = encode_key(parts)
            if len(key) > MOST_KEY_BYTES:
                return len(keys)
            head = self._head + len(key).to_bytes(2, "big") + key
            for number in self._numbers.at(q):
                keys.append(head + number)
        return len(keys)

    def fill(
        self, slots: list[Scalar], chunks: Sequence[bytes], request: Mapping[str, Scalar], q: Instant
    ) -> None:
        """Compute the features with the request's own event as the last row; without a key there is no row."""
        values: Sequence[Any]
        if self._own_event is None or any(request[field] is None for field in self._fields):
            values = self.reader.read(chunks, q)
        else:
            row, own_id = self._own_event.of(request, q)
            values = self.reader.read(chunks, q, exclude_id=own_id, request=row)
        for slot, value in zip(self.slots, values, strict=True):
            slots[slot] = value

    def fill_hot(
        self,
        slots: list[Scalar],
        found: Mapping[bytes, bytes],
        snapshot: OnlineSnapshot,
        request: Mapping[str, Scalar],
        q: Instant,
    ) -> None:
        """Compute the features where some chunks are hot or sealed; `found` is what is stored, by key."""
        if self._tiled is None:
            self._tiled = TiledReader(self.reader.features, group_tiles(self._group, self.reader.layout))
        row, own_id, own_at = None, None, None
        if self._own_event is not None and all(request[field] is not None for field in self._fields):
            row, own_id = self._own_event.of(request, q)
            own_at = self._own_time(snapshot, own_id)
            own_id = None if own_at is None else own_id
        values = self._tiled.read_sealed(list(found.values()), q, exclude_id=own_id, request=row)
        if values is None:
            values = self._read_blocks(self._tiled, found, snapshot, q, own_id, own_at, row)
        for slot, value in zip(self.slots, values, strict=True):
            slots[slot] = value

    def _read_blocks(
        self,
        tiled: TiledReader,
        found: Mapping[bytes, bytes],
        snapshot: OnlineSnapshot,
        q: Instant,
        own_id: int | None,
        own_at: Instant | None,
        row: PackedRows | None,
    ) -> tuple[Any, ...]:
        """The features where some chunk is hot: a second multi-get brings the blocks that they need."""
        keys = list(found)
        plan = tiled.plan(list(found.values()), q, exclude_id=own_id, exclude_at=own_at)
        blocks = snapshot.get_many([keys[place] + suffix for place, suffix in plan.blocks])
        return tiled.read(plan, [block or b"" for block in blocks], q, exclude_id=own_id, request=row)

    def _own_time(self, snapshot: OnlineSnapshot, own_id: int) -> Instant | None:
        """When the request's own event happened, if it is visible: only there a row is to be left out."""
        (entry,) = snapshot.get_many([event_key(self._index, own_id.to_bytes(ROW_ID_BYTES, "big"))])
        return None if entry is None else decode_known(entry).event_time


class _OwnEvent:
    """The request as the row that its event will be, for `include_request`; request fields are columns by name."""

    def __init__(self, group: StateGroup, source: CompiledSource, request: CompiledRequest) -> None:
        self._layout = chunk_layout(group, source)
        self._id_columns = request.id_columns
        # A field of another type is another thing: no feature that includes the request reads it.
        types = {field.name: field.dtype for field in request.schema.fields}
        self._columns = [
            (name, name if types.get(name) is DType(kind) else None, ARROW_TYPES[DType(kind)])
            for name, kind in self._layout.columns
        ]

    def of(self, request: Mapping[str, Scalar], q: Instant) -> tuple[PackedRows, int]:
        """The packed row, and the id under which its own event may already be visible."""
        own = row_id(event_id([request[column] for column in self._id_columns]))
        columns = {
            name: pa.array([None if field is None else request[field]], dtype)
            for name, field, dtype in self._columns
        }
        row = self._layout.encode([q], [own], [q], columns, order=[[0]] * self._layout.order)
        return row, int.from_bytes(own, "big")


def _lookups(
    project: CompiledProject, request: CompiledRequest, groups: Sequence[StateGroup], slots: _Slots
) -> list[_Lookup]:
    """One lookup for each group, key, and whether the request's own event counts; those without it first."""
    wanted: dict[tuple[str, tuple[str, ...], bool], list[tuple[int, WindowFeature]]] = {}
    group_of: dict[str, StateGroup] = {}
    for given, slot in slots:
        if given.view is None:
            continue
        view = project.views[given.view]
        group = _group_of(view, groups)
        group_of[group.hash] = group
        feature = next(each for each in view.features if each.name == given.feature)
        read = (group.hash, given.keys, feature.include_request)
        wanted.setdefault(read, []).append((slot, window_feature(view, feature)))
    lookups = []
    numbers: dict[tuple[_Reach, int], _ChunkNumbers] = {}
    for (name, fields, with_own), features in sorted(wanted.items(), key=lambda item: item[0][2]):
        group = group_of[name]
        source = project.sources[group.source]
        own_event = _OwnEvent(group, source, request) if with_own else None
        reach = _reaches([feature for _, feature in features])
        touched = numbers.setdefault((reach, group.span_us), _ChunkNumbers(reach, group.span_us))
        lookups.append(_Lookup(project, group, fields, features, touched, own_event))
    return lookups


def _group_of(view: CompiledView, groups: Sequence[StateGroup]) -> StateGroup:
    for group in groups:
        if view in group.views:
            return group
    raise StateMismatchError(
        f"There is no online state for view {view.name!r} as this bundle defines it.",
        where=f"view {view.name}, definition {view.definition_hash[:12]}",
        mend="run `volano apply`, which builds it",
    )


def chunk_layout(group: StateGroup, source: CompiledSource) -> ChunkLayout:
    """What the words of a group's chunks mean; the applier writes by the same rule."""
    columns = tuple((field.name, str(field.dtype)) for field in group.columns.fields)
    return ChunkLayout(group.prefix, columns, order=len(source.order_by))


def group_tiles(group: StateGroup, layout: ChunkLayout) -> Tiles:
    """How a group's hot chunks are read; the applier writes by the same rule."""
    features = [window_feature(view, feature) for view in group.views for feature in view.features]
    return Tiles(features, layout, group.span_us)


def window_feature(view: CompiledView, feature: CompiledFeature) -> WindowFeature:
    """The kernel's form of a feature, its columns named as the group stores them."""
    return WindowFeature(**window_arguments(view, feature))


_Reach: TypeAlias = tuple[tuple[int | None, int, int, int | None], ...]
"""For each grid: (every_us or None, publish_delay_us, nearest offset, farthest offset + window or None)."""


def _reaches(features: Sequence[WindowFeature]) -> _Reach:
    """How far the windows reach behind q, the windows of one grid taken together."""
    grids: dict[tuple[int | None, int], list[WindowFeature]] = {}
    for feature in features:
        grids.setdefault((feature.every_us, feature.publish_delay_us), []).append(feature)
    return tuple(
        (
            every,
            delay,
            min(feature.offset_us for feature in inside),
            None
            if any(feature.window_us is None for feature in inside)
            else max(feature.offset_us + (feature.window_us or 0) for feature in inside),
        )
        for (every, delay), inside in grids.items()
    )


def _chunk_range(reach: _Reach, q: Instant, span_us: int) -> tuple[int, int]:
    """The first and the last chunk number that windows at q touch; the last is below the first when none is."""
    begin, end = q, BEGINNING
    for every, delay, nearest, farthest in reach:
        at = q if every is None else floor_to(q - delay, every)
        begin = min(begin, _EARLIEST if farthest is None else at - farthest)
        end = max(end, at - nearest)
    return begin // span_us, (end - 1) // span_us
