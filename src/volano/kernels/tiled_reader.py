"""Reading hot and sealed keys: which tiles, blocks and pages a read takes, and the features from them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import assert_never

import numpy as np

from volano.kernels.arrays import ALWAYS, I64
from volano.kernels.chunks import MAGIC, ChunkLayout, ChunkReader, PackedRows, Value, lane_of
from volano.kernels.features import WindowFeature
from volano.kernels.sealed import Tail, is_sealable, opened, tile_run
from volano.kernels.tiles import Grid, Tiles, block_suffix, is_head
from volano.kernels.witnesses import BlockTrie, Piece, counted


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
    """What one read takes: tiles, and what is still to be fetched.

    Args:
        counts: for each feature that counts different values, by the place of the value, what stands for its rows.
    """

    def __init__(
        self,
        tiles: Tiles,
        opened: Sequence[tuple[Tail | None, bytes]],
        runs: list[list[_Run]],
        rows: list[I64 | None],
        counts: Sequence[Sequence[list[Piece] | None]],
        parts: Sequence[_Part],
    ) -> None:
        self._tiles = tiles
        self._opened = opened
        self._parts = parts
        self._runs = runs
        self._rows = rows
        self._counts = counts
        self._needed: dict[tuple[int, int, int], list[int]] = {}
        seen: dict[tuple[int, bytes], None] = {}
        for p, own in enumerate(runs):
            for place, run in enumerate(own):
                for node in sorted(run.opened):
                    begins = self._overlapping(parts[p].grid, place, run, node)
                    self._needed[p, place, node] = begins
                    seen.update(dict.fromkeys((place, block_suffix(begin)) for begin in begins))
        for feature in counts:
            for place, pieces in enumerate(feature):
                for piece in pieces or ():
                    seen.update(dict.fromkeys((place, suffix) for suffix in _suffixes(piece)))
        self.blocks: list[tuple[int, bytes]] = list(seen)
        """The blocks and pages to fetch: the place of their chunk among the values, and their suffix."""

    def _overlapping(self, g: int, place: int, run: _Run, node: int) -> list[int]:
        rows = self._rows[place]
        assert run.nodes is not None and rows is not None
        if g == 0:
            return [int(rows[0, node])]
        first, last = run.nodes[2, node], run.nodes[3, node]
        begins: list[int] = rows[
            0, np.searchsorted(rows[3], first) : np.searchsorted(rows[2], last, "right")
        ].tolist()
        return begins

    def chunks(self, part: int, blocks: Sequence[bytes]) -> list[bytes]:
        """What the reader of a part takes, in time order, once the blocks are there."""
        found = dict(zip(self.blocks, blocks, strict=True))
        taken: list[bytes] = []
        grid = self._parts[part].grid
        for place, run in enumerate(self._runs[part]):
            tail = self._opened[place][0]
            if tail is not None:
                taken.append(self._parts[part].sealed(tail))
            if run.nodes is None:
                taken.append(run.value)
                continue
            first = run.first
            for node in sorted(run.opened):
                taken += self._tile_run(run.nodes, first, node)
                for begin in self._needed[part, place, node]:
                    block = found[place, block_suffix(begin)]
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

    def counted(self, number: int, blocks: Sequence[bytes], *, sealable: bool) -> list[bytes]:
        """What the reader of a feature that counts different values takes, in time order."""
        found = dict(zip(self.blocks, blocks, strict=True))
        taken: list[bytes] = []
        for place, ((tail, value), pieces) in enumerate(zip(self._opened, self._counts[number], strict=True)):
            if tail is not None and sealable:
                taken.append(tail.witnesses)
            if pieces is None:
                taken.append(value)
            for piece in pieces or ():
                chunks = [found[place, suffix] for suffix in _suffixes(piece)]
                if not all(chunks):
                    raise self._tiles.layout.mismatch(value)
                # The blocks beside a page lie between its witnesses.
                taken += [self._tiles.witnesses.joined(chunks)] if piece.page is not None else chunks
        return taken

    def _tile_run(self, nodes: I64, a: int, b: int) -> list[bytes]:
        return [tile_run(self._tiles.layout, nodes, a, b)]


def _suffixes(piece: Piece) -> list[bytes]:
    page = [] if piece.page is None else [piece.page]
    return page + [block_suffix(begin) for begin in piece.blocks]


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


class _Sealed(Enum):
    """What a feature reads of rows that are sealed."""

    NOTHING = 0
    TILES = 1
    WITNESSES = 2


def _sealed(f: WindowFeature) -> _Sealed:
    if not is_sealable(f):
        return _Sealed.NOTHING
    return _Sealed.TILES if f.spec.kind in ("fold", "count", "since") else _Sealed.WITNESSES


class _Part:
    """Features that one reader computes: of one grid, with the same view of sealed rows."""

    def __init__(
        self, features: Sequence[WindowFeature], own: Sequence[int], tiles: Tiles, grid: int, sealed: _Sealed
    ) -> None:
        self.own = own
        self.grid = grid
        self._sealed = sealed
        places = tiles.grids[grid].places
        self.reader = ChunkReader([features[n] for n in own], tiles.layout, places)
        self.needs = [_Need(f, tiles.grids[grid], tiles.layout) for f in self.reader.features]

    def sealed(self, tail: Tail) -> bytes:
        """What stands for the rows of a tail."""
        match self._sealed:
            case _Sealed.NOTHING:
                return b""
            case _Sealed.TILES:
                return tail.runs[self.grid]
            case _Sealed.WITNESSES:
                return tail.witnesses
        assert_never(self._sealed)


class TiledReader:
    """Reads features where some of a key's chunks are hot or sealed. Built once; thread-safe.

    Args:
        features: what to compute, in the order of the result; each among the features of `tiles`.
        tiles: how the chunks were written.
    """

    def __init__(self, features: Sequence[WindowFeature], tiles: Tiles) -> None:
        self.tiles = tiles
        members: dict[tuple[int, _Sealed], list[int]] = {}
        grids = [grid.grid for grid in tiles.grids]
        for n, f in enumerate(features):
            if f.spec.kind != "distinct":
                members.setdefault((grids.index(f.grid_us), _sealed(f)), []).append(n)
        self._parts = [_Part(features, own, tiles, *key) for key, own in members.items()]
        of = tiles.witnesses.counted
        self._counts = [
            (n, ChunkReader([f], tiles.layout), of.index(counted(f, tiles.layout)))
            for n, f in enumerate(features)
            if f.spec.kind == "distinct"
        ]
        self._n = len(features)

    def read_sealed(
        self,
        values: Sequence[bytes],
        q: int,
        *,
        exclude_id: int | None = None,
        request: PackedRows | None = None,
    ) -> tuple[Value, ...] | None:
        """The features of one key that has sealed chunks and no hot one; None when one is hot.

        Args:
            values, q, exclude_id, request: as `plan` and `read` take them.

        Raises:
            SealedStateError: the windows end before rows were sealed.
            StateMismatchError: written by another definition.
        """
        both = [opened(value, self.tiles) for value in values]
        for tail, inner in both:
            if is_head(inner):
                return None
            if tail is not None:
                tail.check(q)
        found: list[Value] = [None] * self._n
        for part in self._parts:
            chunks: list[bytes] = []
            for tail, inner in both:
                chunks += (inner,) if tail is None else (part.sealed(tail), inner)
            own = part.reader.read(chunks, q, exclude_id=exclude_id, request=request)
            for n, value in zip(part.own, own, strict=True):
                found[n] = value
        for n, reader, _ in self._counts:
            sealable = is_sealable(reader.features[0])
            rows: list[bytes] = []
            for tail, inner in both:
                rows += (tail.witnesses, inner) if tail is not None and sealable else (inner,)
            (found[n],) = reader.read(rows, q, exclude_id=exclude_id, request=request)
        return tuple(found)

    def plan(
        self,
        values: Sequence[bytes],
        q: int,
        *,
        as_of: int | None = None,
        exclude_id: int | None = None,
        exclude_at: int | None = None,
    ) -> ReadPlan:
        """What a read takes.

        Args:
            values: what is stored under the key's chunks, oldest first; missing ones are left out.
            q: the end of the windows, µs.
            as_of: ignore rows applied later; None takes all. Not known of rows that are sealed.
            exclude_id: a row to leave out.
            exclude_at: its event_time. Without it the row may be in any block, so all rows are read.

        Raises:
            SealedStateError: the windows end before rows were sealed.
        """
        both = [opened(value, self.tiles) for value in values]
        for tail, _ in both:
            if tail is not None:
                tail.check(q)
        heads = [self.tiles.nodes(value) if is_head(value) else None for _, value in both]
        runs: list[list[_Run]] = []
        for part in self._parts:
            g, needs = part.grid, part.needs
            own = [
                _Run(v) if h is None else _Run(v, h[g], 0, h[g].shape[1])
                for (_, v), h in zip(both, heads, strict=True)
            ]
            runs.append(own)
            windows = [window_at(need.feature, q) for need in needs]
            low, high = min(w[0] for w in windows), max(w[1] for w in windows)
            edges = sorted({edge for window in windows for edge in window})
            for run in own:
                if run.nodes is not None and run.end:
                    _open(run, run.nodes, edges, low, high)
                    hidden = _unsure(run.nodes, as_of, exclude_id, exclude_at)
                    run.unsure.update(n for n in hidden if run.first <= n < run.end)
                    run.opened |= run.unsure
            if any(need.feature.include_request for need in needs):
                for run in own:
                    _open_around(run, q)
            for need, window in zip(needs, windows, strict=True):
                need.open(own, *window)
        rows = [None if head is None else head[0] for head in heads]
        counts: list[list[list[Piece] | None]] = [[None] * len(values) for _ in self._counts]
        for place, tiles in enumerate(rows):
            if tiles is not None and self._counts:
                trie, pages = BlockTrie(tiles), self.tiles.pages(both[place][1])
                hidden = _unsure(tiles, as_of, exclude_id, exclude_at)
                for n, (_, reader, number) in enumerate(self._counts):
                    window = window_at(reader.features[0], q)
                    counts[n][place] = trie.pieces(pages, number, *window, unsure=hidden)
        return ReadPlan(self.tiles, both, runs, rows, counts, self._parts)

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
        for p, part in enumerate(self._parts):
            chunks = plan.chunks(p, blocks)
            found = part.reader.read(chunks, q, as_of=as_of, exclude_id=exclude_id, request=request)
            for n, value in zip(part.own, found, strict=True):
                values[n] = value
        for number, (n, reader, _) in enumerate(self._counts):
            chunks = plan.counted(number, blocks, sealable=is_sealable(reader.features[0]))
            (values[n],) = reader.read(chunks, q, as_of=as_of, exclude_id=exclude_id, request=request)
        return tuple(values)


def _unsure(nodes: I64, as_of: int | None, exclude_id: int | None, exclude_at: int | None) -> list[int]:
    """The tiles with rows that a read may not see."""
    if exclude_id is not None and exclude_at is None:
        return list(range(nodes.shape[1]))
    hidden = np.zeros(nodes.shape[1], bool)
    if as_of is not None:
        hidden |= nodes[5] > as_of
    if exclude_id is not None:
        hidden |= (nodes[2] <= exclude_at) & (nodes[3] >= exclude_at)
    found: list[int] = np.flatnonzero(hidden).tolist()
    return found


def _open(run: _Run, nodes: I64, edges: Sequence[int], low: int, high: int) -> None:
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


def _open_around(run: _Run, q: int) -> None:
    """Open the tile in whose node the request's own event falls: it joins some of those rows before the others do."""
    if run.nodes is None or run.first >= run.end:
        return
    node = int(np.searchsorted(run.nodes[0], q, "right")) - 1
    if run.first <= node < run.end and q - int(run.nodes[0, node]) < 1 << int(run.nodes[1, node]):
        run.opened.add(node)


def window_at(f: WindowFeature, q: int) -> tuple[int, int]:
    """The half-open window of a feature at q."""
    at = q if f.every_us is None else (q - f.publish_delay_us) // f.every_us * f.every_us
    end = at - f.offset_us
    return (ALWAYS if f.window_us is None else end - f.window_us), end


class _Need:
    """Which rows a feature needs itself, because it picks them or tells them apart."""

    def __init__(self, feature: WindowFeature, grid: Grid, layout: ChunkLayout) -> None:
        self.feature = feature
        self.lane = grid.places.lanes[lane_of(feature, layout)]

    def open(self, runs: Sequence[_Run], begin: int, end: int) -> None:
        """Open the tiles whose rows the feature needs."""
        kind = self.feature.spec.kind
        missing = self.feature.n or 1
        if kind in ("first", "first_n", "last", "last_n"):
            backwards = kind.startswith("last")
            for run in reversed(runs) if backwards else runs:
                if run.nodes is not None and missing > 0:
                    missing -= self._open_some(run, run.nodes, begin, end, missing, backwards=backwards)

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
