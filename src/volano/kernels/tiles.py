"""Hot keys: a chunk with many rows becomes a head of tiles and blocks of rows, so that neither a read nor a write
touches every row. Pure: bytes in, bytes out; stores keep them.

A *block* is a packed chunk of the rows of one node of the binary trie (decision record 0010), at most `block_rows` of
them unless they are of one instant. The *head* stands in the place of the chunk and holds a *tile* for each block:
the states of every fold over the block's rows. Features with `every=` associate over their own grid, so the head has a
section of tiles for each grid. Blocks lie under the chunk's key followed by their own eight bytes.

A read takes the tiles of the nodes inside its windows and the rows of the few at their ends: the same pieces of the
same trie, hence the same bits. Counts of different values take pages of witnesses (`kernels.witnesses`) instead; a row
to leave out opens the block of its instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from volano.kernels.arrays import I64
from volano.kernels.chunks import MAGIC, ChunkLayout, ChunkReader, PackedRows, TilePlaces, tile_places
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.witnesses import DIRTY_BLOCKS, Pages, Witnesses, all_counted, page_suffix

HOT_ROWS = 2048
"""A chunk with more rows gets a head and blocks: below, writing it whole is cheaper."""
BLOCK_ROWS = 512
SUFFIX_BYTES = 8
"""What the key of a block has behind that of its chunk."""
_PLAIN_MAGIC = MAGIC.to_bytes(8, "little")
_HEAD_MAGIC = b"VOLHEAD\x01"
_HALF = 1 << 63


def _begin(suffix: bytes) -> int:
    return int.from_bytes(suffix, "big") - _HALF


def is_head(value: bytes) -> bool:
    """Whether a stored value is the head of a hot chunk."""
    return value[:8] == _HEAD_MAGIC


def is_plain(value: bytes) -> bool:
    """Whether a stored value is a packed chunk and nothing else."""
    return value[:8] == _PLAIN_MAGIC


def block_suffix(begin: int) -> bytes:
    """What the key of the block has behind that of its chunk; `begin` is where its node begins."""
    return (begin + _HALF).to_bytes(SUFFIX_BYTES, "big")


@dataclass(frozen=True, slots=True)
class Rewritten:
    """A hot chunk after a change: its head, b"" when no row is left, and by suffix the blocks that changed, b"" for
    one that is gone."""

    head: bytes
    blocks: dict[bytes, bytes]
    """Blocks, and pages of witnesses."""


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
                found.append(widest(place, *free))
            at = int(np.searchsorted(places, found[-1][0] + (1 << found[-1][1])))
        return found


def widest(place: int, low: int, high: int) -> tuple[int, int]:
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
        dirty_blocks: see `kernels.witnesses.DIRTY_BLOCKS`.
    """

    def __init__(
        self,
        features: Sequence[WindowFeature],
        layout: ChunkLayout,
        span_us: int,
        *,
        hot_rows: int | None = None,
        block_rows: int | None = None,
        dirty_blocks: int = DIRTY_BLOCKS,
    ) -> None:
        self.features = tuple(features)
        self.layout = layout
        self.span_us = span_us
        self.hot_rows = HOT_ROWS if hot_rows is None else hot_rows
        self.block_rows = BLOCK_ROWS if block_rows is None else block_rows
        self._plain_bytes = 32 + 8 * layout.width * self.hot_rows
        grids = sorted({1} | {f.grid_us for f in features})
        self.grids = tuple(Grid(grid, features, layout) for grid in grids)
        self.witnesses = Witnesses(layout, all_counted(features, layout), dirty_blocks)

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

    def pages(self, head: bytes) -> Pages:
        """What a head says about pages of witnesses."""
        words = np.frombuffer(head, np.int64)
        n = int(words[3]) if len(words) else 0
        return Pages.of(words[len(words) - n :], len(self.witnesses.counted))

    def touched(
        self, head: bytes, number: int, times: Sequence[int], going: Sequence[int] = ()
    ) -> list[bytes]:
        """The suffixes of the blocks and pages that `rewrite` needs.

        Args:
            times: of rows that come.
            going: of rows that go.
        """
        nodes = self.nodes(head)
        order = np.unique(np.asarray([*times, *going], np.int64))
        rows = nodes[0]
        picked = np.zeros(rows.shape[1], bool)
        for grid, tiles in zip(self.grids, nodes, strict=True):
            for begin, level in grid.spans(tiles, order, *self.limits(grid, number)):
                first, end = grid.instant(begin), grid.instant(begin + (1 << level))
                picked[np.searchsorted(rows[3], first) : np.searchsorted(rows[2], end)] = True
        pages = [page_suffix(node, n) for n, node in self.pages(head).around(going)] if going else []
        return [block_suffix(begin) for begin in rows[0, picked].tolist()] + pages

    def older(self, head: bytes, instant: int) -> list[bytes]:
        """The suffixes of the blocks with rows that happened before an instant, in time order."""
        rows = self.nodes(head)[0]
        return [block_suffix(begin) for begin in rows[0, rows[2] < instant].tolist()]

    def is_hot(self, chunk: bytes) -> bool:
        """Whether a packed chunk has so many rows that it is to be split."""
        return len(chunk) > self._plain_bytes and int.from_bytes(chunk[16:20], "little") > self.hot_rows

    def split(self, chunk: bytes, number: int) -> Rewritten:
        """A packed chunk as a head, blocks and pages."""
        done = self.rewrite(b"", number, {}, self.layout.packed(chunk))
        return self.with_pages(done, lambda suffixes: [done.blocks.get(suffix, b"") for suffix in suffixes])

    def with_pages(self, done: Rewritten, stored: Callable[[Sequence[bytes]], Sequence[bytes]]) -> Rewritten:
        """A change, and pages made again when that is due.

        Args:
            stored: what is stored under suffixes before the change; b"" for what is not there.
        """
        if not done.head or not self.witnesses.are_due(pages := self.pages(done.head)):
            return done

        def get(suffixes: Sequence[bytes]) -> Sequence[bytes]:
            asked = [suffix for suffix in suffixes if suffix not in done.blocks]
            found = dict(zip(asked, stored(asked), strict=True)) | done.blocks
            return [found[suffix] for suffix in suffixes]

        sections = self.nodes(done.head)
        pages, puts = self.witnesses.made(sections[0], pages, get)
        return Rewritten(self._head(sections, pages), done.blocks | puts)

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
        pages, lost = self._pages_left(head, blocks, rows, gone)
        blocks = {suffix: block for suffix, block in blocks.items() if len(suffix) == SUFFIX_BYTES}
        changed = np.unique(np.concatenate([rows.words[:, 0], np.array([t for t, _ in gone], np.int64)]))
        spans = self.grids[0].spans(old[0], changed, *self.limits(self.grids[0], number))
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
                grid.spans(tiles, changed, *self.limits(grid, number)) if n else spans,
                buf,
                times,
            )
            for n, (grid, tiles) in enumerate(zip(self.grids, old, strict=True))
        ]
        puts = {block_suffix(begin): block for begin, block in written.items()}
        puts |= {
            block_suffix(begin): b"" for begin, block in present.items() if block and begin not in written
        }
        puts |= dict.fromkeys(lost, b"")
        if not sections[0].shape[1]:
            return Rewritten(b"", puts | dict.fromkeys(_suffixes(pages), b""))
        return Rewritten(self._head(sections, pages.after(sections[0][0], written)), puts)

    def _pages_left(
        self, head: bytes, stored: Mapping[bytes, bytes], rows: PackedRows, gone: Sequence[tuple[int, int]]
    ) -> tuple[Pages, list[bytes]]:
        """What is left of the pages when rows come and go, and the suffixes of those that are not."""
        pages = self.pages(head)
        if not self.witnesses.counted or not any(made.shape[1] for made in pages.made):
            return pages, []
        going = [row_id for _, row_id in gone]
        lost = [
            (number, node)
            for number, node in pages.around([t for t, _ in gone])
            if (suffix := page_suffix(node, number)) not in stored
            or self.witnesses.held(stored[suffix], going)
        ]
        lost += pages.around(self._replaced(stored, rows))
        return pages.without(lost), [page_suffix(node, number) for number, node in lost]

    def _replaced(self, stored: Mapping[bytes, bytes], rows: PackedRows) -> list[int]:
        """The instants of rows that come and are there already: another value may stand in them."""
        at = self.layout.order + 1
        new = rows.words[:, at + 1]
        found: list[int] = []
        for suffix, block in stored.items():
            if len(suffix) == SUFFIX_BYTES:
                words = self.layout.packed(block).words
                found += words[np.isin(words[:, at + 1], new), 0].tolist()
        return found

    def limits(self, grid: Grid, number: int) -> tuple[int, int]:
        """Where a chunk begins and ends, in the trie of a grid."""
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

    def _head(self, sections: Sequence[I64], pages: Pages) -> bytes:
        kept = pages.words() if self.witnesses.counted else np.empty(0, np.int64)
        sizes = np.array([len(sections), len(kept)], np.int64)
        parts = [_HEAD_MAGIC + self.layout.definition + sizes.tobytes()]
        for nodes in sections:
            parts.append(np.array([nodes.shape[1], nodes.shape[0]], np.int64).tobytes() + nodes.tobytes())
        return b"".join([*parts, kept.tobytes()])


def _suffixes(pages: Pages) -> list[bytes]:
    """The suffixes of all pages."""
    return [
        page_suffix(node, number)
        for number, made in enumerate(pages.made)
        for node in made[0, made[2] > 0].tolist()
    ]
