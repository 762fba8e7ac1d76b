"""Hot keys: a chunk with many rows becomes a head of tiles and blocks of rows, so that neither a read nor a write
touches every row. Pure: bytes in, bytes out; stores keep them.

A *block* is a packed chunk of the rows of one node of the binary trie (decision record 0010), at most `block_rows` of
them unless they are of one instant. The *head* stands in the place of the chunk and holds a *tile* for each block:
the states of every fold over the block's rows. Features with `every=` associate over their own grid, so the head has a
section of tiles for each grid. Blocks lie under the chunk's key followed by their own eight bytes.

A read takes the tiles of the nodes inside its windows and the rows of the few at their ends: the same pieces of the
same trie, hence the same bits. Distinct counts, and a row to leave out, need the rows themselves.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from volano.kernels.arrays import ALWAYS, I64
from volano.kernels.chunks import (
    MAGIC,
    TILE_MAGIC,
    ChunkLayout,
    ChunkReader,
    PackedRows,
    TilePlaces,
    Value,
    lane_of,
    tile_places,
)
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature

HOT_ROWS = 2048
"""A chunk with more rows gets a head and blocks: below, writing it whole is cheaper."""
BLOCK_ROWS = 512
SUFFIX_BYTES = 8
"""What the key of a block has behind that of its chunk."""
_HEAD_MAGIC = b"VOLHEAD\x01"
_HALF = 1 << 63


def _begin(suffix: bytes) -> int:
    return int.from_bytes(suffix, "big") - _HALF


def is_head(value: bytes) -> bool:
    """Whether a stored value is the head of a hot chunk."""
    return value[:8] == _HEAD_MAGIC


def block_suffix(begin: int) -> bytes:
    """What the key of the block has behind that of its chunk; `begin` is where its node begins."""
    return (begin + _HALF).to_bytes(SUFFIX_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A hot chunk after a change: its head, b"" when no row is left, and by suffix the blocks that changed, b"" for
    one that is gone."""

    head: bytes
    blocks: dict[bytes, bytes]


class Grid:
    """The tiles of one grid: which nodes there are, and what stands in them."""

    def __init__(self, grid: int, features: Sequence[WindowFeature], layout: ChunkLayout) -> None:
        self.grid = grid
        self.shift = (grid - 1).bit_length()
        self.features = tuple(f for f in features if f.grid_us == grid)
        self.places: TilePlaces = tile_places(self.features, layout)
        self.spec = ChunkReader(self.features, layout, self.places).spec

    def spread(self, t: int) -> int:
        """The instant as the trie of this grid has it."""
        return (t // self.grid << self.shift) + t % self.grid

    def spread_all(self, times: I64) -> I64:
        """The same of many."""
        return times if self.grid == 1 else (times // self.grid << self.shift) + times % self.grid

    def instant(self, place: int) -> int:
        """The earliest instant at or behind a place in the trie."""
        return (place >> self.shift) * self.grid + min(place & ((1 << self.shift) - 1), self.grid)

    def ends(self, nodes: I64) -> I64:
        """Where the node of each tile ends, in the trie."""
        ends: I64 = nodes[0] + (np.int64(1) << nodes[1])
        return ends

    def spans(self, nodes: I64, times: I64, low: int, high: int) -> list[tuple[int, int]]:
        """The nodes (begin, level) that some rising instants lie in, in order: those of the tiles, or new ones between
        them, as wide as fits into [low, high) of the trie."""
        places = self.spread_all(times)
        begins, ends = nodes[0].tolist(), self.ends(nodes).tolist()
        found: list[tuple[int, int]] = []
        at = 0
        while at < len(places):
            place = int(places[at])
            after = bisect_left(begins, place + 1)
            if after and place < ends[after - 1]:
                found.append((begins[after - 1], int(nodes[1, after - 1])))
            else:
                free = (
                    max(low, ends[after - 1] if after else low),
                    min(high, begins[after] if after < len(begins) else high),
                )
                if found:
                    free = max(free[0], found[-1][0] + (1 << found[-1][1])), free[1]
                found.append(_widest(place, *free))
            at = int(np.searchsorted(places, found[-1][0] + (1 << found[-1][1])))
        return found


def _widest(place: int, low: int, high: int) -> tuple[int, int]:
    """The largest aligned node around a place within [low, high)."""
    level = 0
    while level < 61:
        begin = place >> (level + 1) << (level + 1)
        if begin < low or begin + (2 << level) > high:
            break
        level += 1
    return place >> level << level, level


def _cut(places: I64, i: int, j: int, begin: int, level: int, most: int) -> list[tuple[int, int, int, int]]:
    """Rows [i, j) of a node as nodes of at most so many rows: (first row, end, begin, level)."""
    if i == j:
        return []
    if j - i <= most or level == 0:
        return [(i, j, begin, level)]
    half = begin + (1 << (level - 1))
    middle = int(np.searchsorted(places, half))
    return _cut(places, i, middle, begin, level - 1, most) + _cut(places, middle, j, half, level - 1, most)


class Tiles:
    """How the hot chunks of one group of views are written.

    Args:
        features: of all views of the group: what tiles keep.
        layout: of the chunks.
        span_us: of a chunk.
        hot_rows: most rows of a plain chunk; HOT_ROWS unless given.
        block_rows: most rows of a block; BLOCK_ROWS unless given.
    """

    def __init__(
        self,
        features: Sequence[WindowFeature],
        layout: ChunkLayout,
        span_us: int,
        *,
        hot_rows: int | None = None,
        block_rows: int | None = None,
    ) -> None:
        self.features = tuple(features)
        self.layout = layout
        self.span_us = span_us
        self.hot_rows = HOT_ROWS if hot_rows is None else hot_rows
        self.block_rows = BLOCK_ROWS if block_rows is None else block_rows
        self._plain_bytes = 32 + 8 * layout.width * self.hot_rows
        grids = sorted({1} | {f.grid_us for f in features})
        self.grids = tuple(Grid(grid, features, layout) for grid in grids)

    def nodes(self, head: bytes) -> list[I64]:
        """The tiles of each grid, a record as a column, in time order; of no bytes there are none.

        Raises:
            StateMismatchError: written by another definition.
        """
        if not head:
            return [np.empty((grid.places.width, 0), np.int64) for grid in self.grids]
        words = np.frombuffer(head, np.int64)
        if head[8:16] != self.layout.definition or words[2] != len(self.grids):
            raise self.layout.mismatch(head)
        found = []
        at = 4
        for grid in self.grids:
            n, width = int(words[at]), int(words[at + 1])
            if width != grid.places.width:
                raise self.layout.mismatch(head)
            found.append(words[at + 2 : at + 2 + n * width].reshape(width, n))
            at += 2 + n * width
        return found

    def touched(self, head: bytes, number: int, times: Sequence[int]) -> list[bytes]:
        """The suffixes of the blocks that `rewrite` needs for rows of these instants to come or go."""
        nodes = self.nodes(head)
        order = np.unique(np.asarray(times, np.int64))
        rows = nodes[0]
        picked = np.zeros(rows.shape[1], bool)
        for grid, tiles in zip(self.grids, nodes, strict=True):
            for begin, level in grid.spans(tiles, order, *self._limits(grid, number)):
                first, end = grid.instant(begin), grid.instant(begin + (1 << level))
                picked[np.searchsorted(rows[3], first) : np.searchsorted(rows[2], end)] = True
        return [block_suffix(begin) for begin in rows[0, picked].tolist()]

    def is_hot(self, chunk: bytes) -> bool:
        """Whether a packed chunk has so many rows that it is to be split."""
        return len(chunk) > self._plain_bytes and int.from_bytes(chunk[16:20], "little") > self.hot_rows

    def split(self, chunk: bytes, number: int) -> Rewritten:
        """A packed chunk as a head and blocks."""
        return self.rewrite(b"", number, {}, self.layout.packed(chunk))

    def rewrite(
        self,
        head: bytes,
        number: int,
        blocks: Mapping[bytes, bytes],
        rows: PackedRows,
        gone: Sequence[tuple[int, int]] = (),
    ) -> Rewritten:
        """Put rows into a hot chunk and take rows out. The order of arrival changes no answer.

        Args:
            head: its head.
            number: the chunk's.
            blocks: by suffix, those that `touched` names; b"" for one that is not there.
            rows: what to insert; a row with the (event_time, order, id) of a present one replaces it.
            gone: (event_time, unsigned 128-bit id) of rows to take out.

        Raises:
            StateMismatchError: written by another definition, or a block is missing.
        """
        old = self.nodes(head)
        if not all(blocks.values()):
            raise self.layout.mismatch(head)
        changed = np.unique(np.concatenate([rows.words[:, 0], np.array([t for t, _ in gone], np.int64)]))
        spans = self.grids[0].spans(old[0], changed, *self._limits(self.grids[0], number))
        begins = np.array([begin for begin, _ in spans], np.int64)
        levels = dict(spans)
        present = {begin: blocks.get(block_suffix(begin), b"") for begin in begins.tolist()}
        owners = np.searchsorted(begins, rows.words[:, 0], "right") - 1
        left = [(int(np.searchsorted(begins, t, "right")) - 1, row_id) for t, row_id in gone]
        merged = self.layout.merge(list(present.values()), rows, owners, gone=left)
        written: dict[int, bytes] = {}
        for begin, block in zip(present, merged, strict=True):
            written.update(self._blocks(begin, levels[begin], block))
        after = {_begin(suffix): block for suffix, block in blocks.items()} | written
        after = {begin: block for begin, block in after.items() if begin in written or begin not in present}
        joined = b"".join([after[begin] for begin in sorted(after)])
        buf = np.frombuffer(joined, np.int64) if joined else np.empty(0, np.int64)
        times = self._times(after)
        sections = [
            self._section(
                grid,
                tiles,
                grid.spans(tiles, changed, *self._limits(grid, number)) if n else spans,
                buf,
                times,
            )
            for n, (grid, tiles) in enumerate(zip(self.grids, old, strict=True))
        ]
        puts = {block_suffix(begin): block for begin, block in written.items()}
        puts |= {
            block_suffix(begin): b"" for begin, block in present.items() if block and begin not in written
        }
        return Rewritten(self._head(sections) if sections[0].shape[1] else b"", puts)

    def _limits(self, grid: Grid, number: int) -> tuple[int, int]:
        if self.span_us == 0:
            return -(1 << 62), 1 << 62
        return grid.spread(number * self.span_us), grid.spread((number + 1) * self.span_us)

    def _blocks(self, begin: int, level: int, block: bytes) -> dict[int, bytes]:
        """One merged block, cut where it has too many rows."""
        if not block:
            return {}
        n = int.from_bytes(block[16:20], "little")
        if n <= self.block_rows or level == 0:
            return {begin: block}
        rows = self.layout.packed(block)
        pieces = _cut(np.ascontiguousarray(rows.words[:, 0]), 0, n, begin, level, self.block_rows)
        owners = np.repeat(np.arange(len(pieces)), [j - i for i, j, _, _ in pieces])
        cut = self.layout.merge([b""] * len(pieces), rows, owners)
        return {piece[2]: each for piece, each in zip(pieces, cut, strict=True)}

    def _times(self, blocks: Mapping[int, bytes]) -> I64:
        """The event times of blocks, in time order."""
        width = self.layout.width
        parts = []
        for begin in sorted(blocks):
            words = np.frombuffer(blocks[begin], np.int64)
            n = int(words[2] & 0xFFFFFFFF)
            parts.append(words[4 : 4 + n * width : width])
        return np.concatenate(parts) if parts else np.empty(0, np.int64)

    def _section(self, grid: Grid, old: I64, spans: Sequence[tuple[int, int]], buf: I64, times: I64) -> I64:
        """The tiles of a grid after a change, from the rows of all nodes that changed."""
        places = grid.spread_all(times)
        pieces: list[tuple[int, int, int, int]] = []
        for begin, level in spans:
            i, j = np.searchsorted(places, (begin, begin + (1 << level))).tolist()
            pieces += _cut(places, i, j, begin, level, self.block_rows)
        new = np.zeros((grid.places.width, len(pieces)), np.int64)
        if pieces:
            new[0] = [begin for _, _, begin, _ in pieces]
            new[1] = [level for _, _, _, level in pieces]
            edges = np.array([(i, j) for i, j, _, _ in pieces], np.int64)
            kernels().fold_tiles(buf, grid.spec, grid.grid, grid.shift, edges, new)
        keep = np.ones(old.shape[1], bool)
        for node in np.searchsorted(old[0], [begin for begin, _ in spans]).tolist():
            # A new node lies between the old ones; one that changed begins where it did.
            if node < len(keep) and (int(old[0, node]), int(old[1, node])) in spans:
                keep[node] = False
        both = np.concatenate([old[:, keep], new], axis=1)
        return np.ascontiguousarray(both[:, np.argsort(both[0], kind="stable")])

    def _head(self, sections: Sequence[I64]) -> bytes:
        parts = [_HEAD_MAGIC + self.layout.definition + np.array([len(sections), 0], np.int64).tobytes()]
        for nodes in sections:
            parts.append(np.array([nodes.shape[1], nodes.shape[0]], np.int64).tobytes() + nodes.tobytes())
        return b"".join(parts)


@dataclass(slots=True)
class _Run:
    """What a read takes of one stored value: all of a packed chunk, or tiles [first, end) of a head, some opened, some
    of those because rows in them may be hidden."""

    value: bytes
    nodes: I64 | None = None
    first: int = 0
    end: int = 0
    opened: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)


class ReadPlan:
    """What one read takes: tiles, and blocks that are still to be fetched."""

    def __init__(self, tiles: Tiles, runs: list[list[_Run]], rows: list[I64 | None]) -> None:
        self._tiles = tiles
        self._runs = runs
        self._rows = rows
        self.blocks: list[tuple[int, bytes]] = []
        """The blocks to fetch: the place of their chunk among the values, and their suffix."""
        self._needed: dict[tuple[int, int, int], list[int]] = {}
        seen: dict[tuple[int, int], None] = {}
        for g, (grid, own) in enumerate(zip(tiles.grids, runs, strict=True)):
            for place, run in enumerate(own):
                for node in sorted(run.opened):
                    begins = self._overlapping(grid, g, place, run, node)
                    self._needed[g, place, node] = begins
                    seen.update(dict.fromkeys((place, begin) for begin in begins))
        self.blocks = [(place, block_suffix(begin)) for place, begin in seen]
        self._order = list(seen)

    def _overlapping(self, grid: Grid, g: int, place: int, run: _Run, node: int) -> list[int]:
        rows = self._rows[place]
        assert run.nodes is not None and rows is not None
        if g == 0:
            return [int(rows[0, node])]
        first, last = run.nodes[2, node], run.nodes[3, node]
        begins: list[int] = rows[
            0, np.searchsorted(rows[3], first) : np.searchsorted(rows[2], last, "right")
        ].tolist()
        return begins

    def chunks(self, grid: int, blocks: Sequence[bytes]) -> list[bytes]:
        """What the reader of a grid takes, in time order, once the blocks are there."""
        found = dict(zip(self._order, blocks, strict=True))
        taken: list[bytes] = []
        for place, run in enumerate(self._runs[grid]):
            if run.nodes is None:
                taken.append(run.value)
                continue
            first = run.first
            for node in sorted(run.opened):
                taken += self._tile_run(run.nodes, first, node)
                for begin in self._needed[grid, place, node]:
                    block = found[place, begin]
                    if not block:
                        raise self._tiles.layout.mismatch(run.value)
                    if grid:
                        block = _between(
                            self._tiles.layout, block, int(run.nodes[2, node]), int(run.nodes[3, node])
                        )
                    taken.append(block)
                first = node + 1
            taken += self._tile_run(run.nodes, first, run.end)
        return taken

    def _tile_run(self, nodes: I64, a: int, b: int) -> list[bytes]:
        if a >= b:
            return []
        head = np.array([TILE_MAGIC, 0, (b - a) | nodes.shape[0] << 32, 0], np.int64)
        head[1] = int.from_bytes(self._tiles.layout.definition, "little", signed=True)
        return [head.tobytes() + nodes[:, a:b].tobytes()]


def _between(layout: ChunkLayout, block: bytes, first: int, last: int) -> bytes:
    """The rows of a block in [first, last]."""
    words = np.frombuffer(block, np.int64)
    n = int(words[2] & 0xFFFFFFFF)
    rows = words[4 : 4 + n * layout.width].reshape(n, layout.width)
    times = np.ascontiguousarray(rows[:, 0])
    a, b = int(np.searchsorted(times, first)), int(np.searchsorted(times, last, "right"))
    if a >= b:
        return b""
    head = np.array([MAGIC, words[1], (b - a) | layout.width << 32, words[3]], np.int64)
    return head.tobytes() + rows[a:b].tobytes() + block[32 + 8 * n * layout.width :]


class TiledReader:
    """Reads features where some of a key's chunks are hot. Built once; thread-safe.

    Args:
        features: what to compute, in the order of the result; each among the features of `tiles`.
        tiles: how the chunks were written.
    """

    def __init__(self, features: Sequence[WindowFeature], tiles: Tiles) -> None:
        self.tiles = tiles
        self._parts = []
        for grid in tiles.grids:
            own = [n for n, f in enumerate(features) if f.grid_us == grid.grid]
            reader = ChunkReader([features[n] for n in own], tiles.layout, grid.places)
            self._parts.append((own, reader, [_Need(f, grid, tiles.layout) for f in reader.features]))
        self._n = len(features)

    def plan(
        self,
        values: Sequence[bytes],
        q: int,
        *,
        as_of: int | None = None,
        exclude_id: int | None = None,
    ) -> ReadPlan:
        """What a read takes.

        Args:
            values: what is stored under the key's chunks, oldest first; missing ones are left out.
            q: the end of the windows, µs.
            as_of: ignore rows applied later; None takes all.
            exclude_id: a row to leave out; it may be in any block, so all rows are read.
        """
        heads = [self.tiles.nodes(value) if is_head(value) else None for value in values]
        runs: list[list[_Run]] = []
        for g, (_, _, needs) in enumerate(self._parts):
            own = [
                _Run(v) if h is None else _Run(v, h[g], 0, h[g].shape[1])
                for v, h in zip(values, heads, strict=True)
            ]
            runs.append(own)
            if not needs:
                for run in own:
                    run.value, run.end = b"", 0
                continue
            windows = [need.window(q) for need in needs]
            low, high = min(w[0] for w in windows), max(w[1] for w in windows)
            edges = sorted({edge for window in windows for edge in window})
            for run in own:
                if run.nodes is not None and run.end:
                    _open(run, run.nodes, edges, low, high, as_of, everything=exclude_id is not None)
            if any(need.feature.include_request for need in needs):
                for run in own:
                    _open_around(run, q)
            for need, window in zip(needs, windows, strict=True):
                need.open(own, *window)
        return ReadPlan(self.tiles, runs, [None if head is None else head[0] for head in heads])

    def read(
        self,
        plan: ReadPlan,
        blocks: Sequence[bytes],
        q: int,
        *,
        as_of: int | None = None,
        exclude_id: int | None = None,
        request: PackedRows | None = None,
    ) -> tuple[Value, ...]:
        """The features of one key; see `ChunkReader.read`.

        Args:
            plan: of the same q, as_of and exclude_id.
            blocks: what `plan.blocks` asks for, in that order; b"" for one that is not there.

        Raises:
            StateMismatchError: written by another definition, or a block is missing.
        """
        values: list[Value] = [None] * self._n
        for g, (own, reader, _) in enumerate(self._parts):
            if own:
                found = reader.read(
                    plan.chunks(g, blocks), q, as_of=as_of, exclude_id=exclude_id, request=request
                )
                for n, value in zip(own, found, strict=True):
                    values[n] = value
        return tuple(values)


def _open(
    run: _Run, nodes: I64, edges: Sequence[int], low: int, high: int, as_of: int | None, *, everything: bool
) -> None:
    """Narrow a run to the windows, and open the tiles that lie across an end of one."""
    firsts, lasts = nodes[2], nodes[3]
    begin, end = int(firsts[0]), int(lasts[-1])
    if low > begin:
        run.first = int(np.searchsorted(lasts, low))
    if high <= end:
        run.end = int(np.searchsorted(firsts, high))
    for edge in edges:
        if begin < edge <= end:
            node = int(np.searchsorted(lasts, edge))
            if firsts[node] < edge and run.first <= node < run.end:
                run.opened.add(node)
    if everything:
        run.unsure.update(range(run.first, run.end))
    elif as_of is not None:
        run.unsure.update((run.first + np.flatnonzero(nodes[5, run.first : run.end] > as_of)).tolist())
    run.opened |= run.unsure


def _open_around(run: _Run, q: int) -> None:
    """Open the tile in whose node the request's own event falls: it joins some of those rows before the others do."""
    if run.nodes is None or run.first >= run.end:
        return
    node = int(np.searchsorted(run.nodes[0], q, "right")) - 1
    if run.first <= node < run.end and q - int(run.nodes[0, node]) < 1 << int(run.nodes[1, node]):
        run.opened.add(node)


class _Need:
    """Which rows a feature needs itself, because it picks them or tells them apart."""

    def __init__(self, feature: WindowFeature, grid: Grid, layout: ChunkLayout) -> None:
        self.feature = feature
        self.lane = grid.places.lanes[lane_of(feature, layout)]

    def window(self, q: int) -> tuple[int, int]:
        """The half-open window at q."""
        f = self.feature
        at = q if f.every_us is None else (q - f.publish_delay_us) // f.every_us * f.every_us
        end = at - f.offset_us
        return (ALWAYS if f.window_us is None else end - f.window_us), end

    def open(self, runs: Sequence[_Run], begin: int, end: int) -> None:
        """Open the tiles whose rows the feature needs."""
        kind = self.feature.spec.kind
        missing = self.feature.n or 1
        if kind in ("first", "first_n", "last", "last_n"):
            backwards = kind.startswith("last")
            for run in reversed(runs) if backwards else runs:
                if run.nodes is not None and missing > 0:
                    missing -= self._open_some(run, run.nodes, begin, end, missing, backwards=backwards)
        elif kind == "distinct":
            for run in runs:
                if run.nodes is not None:
                    run.opened.update(range(*_inside(run, run.nodes, begin, end)))

    def _open_some(
        self, run: _Run, nodes: I64, begin: int, end: int, missing: int, *, backwards: bool
    ) -> int:
        """Open tiles from one end of the window until they hold as many rows; returns how many they hold for sure."""
        a, b = _inside(run, nodes, begin, end)
        if a >= b:
            return 0
        counts = nodes[self.lane, a:b].copy()
        # A tile across an end of the window holds rows outside it, and others may hold rows unseen.
        if nodes[2, a] < begin:
            counts[0] = 0
        if nodes[3, b - 1] >= end:
            counts[-1] = 0
        for node in run.unsure:
            if a <= node < b:
                counts[node - a] = 0
        order = range(b - 1, a - 1, -1) if backwards else range(a, b)
        upto = np.cumsum(counts[::-1] if backwards else counts)
        enough = min(int(np.searchsorted(upto, missing)) + 1, b - a)
        run.opened.update(n for n in order[:enough] if counts[n - a])
        return int(upto[enough - 1])


def _inside(run: _Run, nodes: I64, begin: int, end: int) -> tuple[int, int]:
    """The tiles of a run that hold rows of a window."""
    first = int(np.searchsorted(nodes[3], begin)) if begin > ALWAYS else 0
    last = int(np.searchsorted(nodes[2], end))
    return max(run.first, first), min(run.end, last)
