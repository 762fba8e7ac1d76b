"""Witnesses: rows of a hot chunk that stand for all of a node where different values are counted. Pure.

A *page* holds one row for each different value that a node of many blocks has, for one column under one filter. A count
of different values reads the pages of the nodes inside its window and the blocks at its ends: what it reads grows with
the values, never with the rows. A node gets no page unless its rows are several times its values; its children then
stand for it.

Pages are made now and then, from the pages below. In between, the head lists the blocks that changed since: a read
takes them beside the page. A row that goes takes the pages with it in which it was a witness.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from volano.kernels.arrays import I64, Bools
from volano.kernels.chunks import ChunkLayout, PackedRows, lane_of, read_text
from volano.kernels.features import WindowFeature

DIRTY_BLOCKS: Final = 8
"""Pages are made again when so many blocks changed."""
_ROWS_A_VALUE: Final = 4
"""A node with fewer rows for each of its values gets no page."""
_FEWEST_BLOCKS: Final = 4
"""A node of fewer blocks gets no page: they are read themselves."""
NO_PAGE: Final = -1
"""Stands for the number of witnesses of a node that has too many to keep them."""
_HALF: Final = 1 << 63
_NONE: Final = np.empty(0, np.int64)
_NOTHING_MADE: Final = np.empty((3, 0), np.int64)


class Counted(NamedTuple):
    """What different values are counted of: the rows that take part, as `chunks.lane_of`, and a column."""

    lane: tuple[int, int, int]
    column: int
    is_string: bool


def counted(feature: WindowFeature, layout: ChunkLayout) -> Counted:
    """What a `count_distinct` counts."""
    column = list(layout.types).index(str(feature.column))
    return Counted(lane_of(feature, layout), column, layout.columns[column][1] == "string")


def all_counted(features: Iterable[WindowFeature], layout: ChunkLayout) -> tuple[Counted, ...]:
    """The same of all features that count different values, each once."""
    return tuple(dict.fromkeys(counted(f, layout) for f in features if f.spec.kind == "distinct"))


def takes_part(layout: ChunkLayout, lane: tuple[int, int, int], words: I64) -> Bools:
    """Which packed rows a lane sees."""
    where, *skipped = lane
    seen = np.ones(len(words), bool)
    for column in (where, *skipped):
        if column >= 0:
            seen &= (words[:, layout.first_mask + (column >> 6)] >> (column & 63)) & 1 == 0
    if where >= 0:
        seen &= words[:, layout.first_value + where] != 0
    return seen


def first_of_each(layout: ChunkLayout, what: Counted, rows: PackedRows) -> I64:
    """The earliest row of each different value, in order."""
    seen = np.flatnonzero(takes_part(layout, what.lane, rows.words))
    cells = rows.words[seen, layout.first_value + what.column]
    if not what.is_string:
        _, first = np.unique(cells, return_index=True)
        return np.sort(seen[first])
    heap = memoryview(rows.heap.tobytes())
    texts: dict[str, int] = {}
    for row, cell in zip(seen.tolist(), cells.tolist(), strict=True):
        texts.setdefault(read_text(heap, 8 * cell), row)
    return np.array(list(texts.values()), np.int64)


def page_suffix(node: int, number: int) -> bytes:
    """What the key of a page has behind that of its chunk: its node, and the place of what is counted."""
    return (node + _HALF).to_bytes(8, "big") + bytes([number])


@dataclass(frozen=True, slots=True)
class Pages:
    """What a head says about its pages. A node of the trie is named by its middle instant.

    Args:
        dirty: where the blocks begin that changed since pages were made.
        made: for each thing that is counted, columns of nodes: the node, its rows when it was looked at, its witnesses;
            NO_PAGE when they were too many.
    """

    dirty: I64
    made: tuple[I64, ...]

    def words(self) -> I64:
        """The stored form."""
        sizes = [len(self.dirty), *(made.shape[1] for made in self.made)]
        return np.concatenate([np.array(sizes, np.int64), self.dirty, *(made.ravel() for made in self.made)])

    @staticmethod
    def of(words: I64, n_counted: int) -> Pages:
        """What a stored form says; of none, nothing was made."""
        if not len(words):
            return Pages(_NONE, (_NOTHING_MADE,) * n_counted)
        at = 1 + n_counted
        sizes = words[:at].tolist()
        dirty = words[at : at + sizes[0]]
        at += sizes[0]
        made = []
        for n in sizes[1:]:
            made.append(words[at : at + 3 * n].reshape(3, n))
            at += 3 * n
        return Pages(dirty, tuple(made))

    def values(self, number: int) -> dict[int, int]:
        """How many witnesses each node has that one thing was looked for in."""
        nodes, _, n_values = self.made[number]
        return dict(zip(nodes.tolist(), n_values.tolist(), strict=True))

    def around(self, times: Sequence[int]) -> list[tuple[int, int]]:
        """The pages whose nodes hold some instants: what is counted, and the node."""
        found = []
        rising = np.unique(np.asarray(times, np.int64))
        for number, made in enumerate(self.made):
            nodes = made[0, made[2] > 0]
            half = nodes & -nodes
            holds = np.searchsorted(rising, nodes - half) < np.searchsorted(rising, nodes + half)
            found += [(number, node) for node in nodes[holds].tolist()]
        return found

    def without(self, gone: Iterable[tuple[int, int]]) -> Pages:
        """The same without some pages."""
        made = list(self.made)
        for number, node in gone:
            made[number] = made[number][:, made[number][0] != node]
        return Pages(self.dirty, tuple(made))

    def after(self, blocks: I64, written: Iterable[int]) -> Pages:
        """The same, when these are the blocks by where they begin, and some were written."""
        dirty = np.union1d(self.dirty, np.array(list(written), np.int64))
        return Pages(dirty[np.isin(dirty, blocks)], self.made)


class Piece(NamedTuple):
    """A part of what a count reads: a page and the blocks to be read beside it, or only blocks, by where they begin."""

    page: bytes | None
    blocks: list[int]


class BlockTrie:
    """The nodes above the blocks of a hot chunk.

    Args:
        tiles: of the blocks, a record as a column: see `source.tiled`.
    """

    def __init__(self, tiles: I64) -> None:
        self.begins = tiles[0]
        self.firsts, self.lasts = tiles[2], tiles[3]
        self.counts = np.concatenate([np.zeros(1, np.int64), np.cumsum(tiles[4])])
        differ = (self.begins[1:] ^ self.begins[:-1]).view(np.uint64)
        # Level of the node that parts each block from the one before; 64 across the epoch.
        self.levels = np.concatenate([np.zeros(1, np.int64), _bit_lengths(differ)])

    def node(self, i: int, j: int) -> tuple[int, int]:
        """The node of blocks [i, j), two at least, and where its second half begins."""
        middle = i + 1 + int(np.argmax(self.levels[i + 1 : j]))
        half = int(self.levels[middle]) - 1
        return int(self.begins[middle]) >> half << half, middle

    def nodes(self, fewest: int) -> list[tuple[int, int, int]]:
        """All nodes of so many blocks, lower ones first, each with its blocks [i, j)."""
        levels = self.levels[1:]
        half = np.minimum(levels, 63) - 1
        nodes = self.begins[1:] >> half << half
        i = np.searchsorted(self.begins, nodes - (np.int64(1) << half))
        j = np.searchsorted(self.begins, nodes + (np.int64(1) << half))
        # The node across the epoch has no page: its halves have.
        order = np.flatnonzero((j - i >= fewest) & (levels < 63))
        order = order[np.argsort(levels[order], kind="stable")]
        return [(int(nodes[n]), int(i[n]), int(j[n])) for n in order]

    def pieces(
        self,
        pages: Pages,
        number: int,
        begin: int,
        end: int,
        *,
        unsure: Iterable[int] = (),
    ) -> list[Piece]:
        """What stands for the rows of a window [begin, end), in time order.

        Args:
            unsure: places of blocks in which rows may be hidden: no page stands for them.
        """
        made = pages.values(number)
        a = int(np.searchsorted(self.lasts, begin))
        b = int(np.searchsorted(self.firsts, end))
        hidden = np.array(sorted(unsure), np.int64)
        dirty = np.flatnonzero(np.isin(self.begins, pages.dirty))
        found: list[Piece] = []

        def walk(i: int, j: int) -> None:
            if j - i <= 1:
                found.extend(Piece(None, [int(each)]) for each in self.begins[i:j])
                return
            node, middle = self.node(i, j)
            inside = self.firsts[i] >= begin and self.lasts[j - 1] < end
            n_values = made.get(node, NO_PAGE)
            if inside and n_values != NO_PAGE and not _any_in(hidden, i, j):
                beside = dirty[np.searchsorted(dirty, i) : np.searchsorted(dirty, j)]
                page = page_suffix(node, number) if n_values else None
                found.append(Piece(page, self.begins[beside].tolist()))
                return
            walk(i, middle)
            walk(middle, j)

        if a < b:
            # From the root of all blocks, or a node that holds the window: the nodes are those that pages were made of.
            self._descend(0, len(self.begins), a, b, walk)
        return found

    def _descend(self, i: int, j: int, a: int, b: int, walk: Callable[[int, int], None]) -> None:
        """Walk the whole nodes within blocks [a, b)."""
        if i >= b or j <= a:
            return
        if (a <= i and j <= b) or j - i <= 1:
            walk(i, j)
            return
        _, middle = self.node(i, j)
        self._descend(i, middle, a, b, walk)
        self._descend(middle, j, a, b, walk)


def _any_in(places: I64, i: int, j: int) -> bool:
    return bool(np.searchsorted(places, i) < np.searchsorted(places, j))


def _bit_lengths(words: np.ndarray[tuple[int], np.dtype[np.uint64]]) -> I64:
    """The number of bits of each word."""
    found = np.zeros(len(words), np.int64)
    left = words.copy()
    for step in (32, 16, 8, 4, 2, 1):
        wide = left >= np.uint64(1) << np.uint64(step)
        found[wide] += step
        left[wide] >>= np.uint64(step)
    return found + (left > 0)


class Witnesses:
    """Makes the pages of one layout.

    Args:
        counted: what different values are counted of.
        dirty_blocks: see DIRTY_BLOCKS.
    """

    def __init__(self, layout: ChunkLayout, counted: Sequence[Counted], dirty_blocks: int) -> None:
        self.layout = layout
        self.counted = tuple(counted)
        self._dirty_blocks = dirty_blocks

    def are_due(self, pages: Pages) -> bool:
        """Whether pages are to be made again."""
        return len(pages.dirty) >= self._dirty_blocks

    def held(self, page: bytes, row_ids: Iterable[int]) -> bool:
        """Whether one of some rows is a witness, or has half its id: then the page is made anew for nothing."""
        lows = np.array([(row_id & (2**64 - 1)) - _HALF for row_id in row_ids], np.int64)
        return bool(np.isin(self.layout.packed(page).words[:, self.layout.order + 2], lows).any())

    def joined(self, chunks: Sequence[bytes]) -> bytes:
        """The rows of chunks as one chunk, each row once."""
        if not chunks:
            return b""
        parts = [self.layout.packed(chunk) for chunk in chunks]
        shifts = np.cumsum([0, *(len(part.heap) for part in parts[:-1])])
        words = np.concatenate([part.words for part in parts])
        owners = np.repeat(shifts, [len(part) for part in parts])
        for c, (_, kind) in enumerate(self.layout.columns):
            if kind == "string":
                cells = words[:, self.layout.first_value + c]
                cells[cells >= 0] += owners[cells >= 0]
        rows = PackedRows(words, np.concatenate([part.heap for part in parts]))
        return self.layout.merge([b""], rows, np.zeros(len(words), np.int64))[0]

    def made(
        self, tiles: I64, pages: Pages, get: Callable[[Sequence[bytes]], Sequence[bytes]]
    ) -> tuple[Pages, dict[bytes, bytes]]:
        """Pages for the nodes that changed.

        Args:
            tiles: of the blocks.
            get: what is stored under suffixes, blocks and pages.

        Returns:
            What the head then says, and by suffix the pages, b"" for one that is gone.
        """
        trie = BlockTrie(tiles)
        nodes = trie.nodes(_FEWEST_BLOCKS)
        dirty = np.flatnonzero(np.isin(trie.begins, pages.dirty))
        puts: dict[bytes, bytes] = {}
        every = []
        for number, old in enumerate(pages.made):
            before = {node: (n_rows, n_values) for node, n_rows, n_values in old.T.tolist()}
            # A node that no longer parts blocks has nothing to stand for.
            now = {node: before.pop(node) for node, _, _ in nodes if node in before}
            puts.update({page_suffix(node, number): b"" for node, (_, n) in before.items() if n > 0})
            maker = _PageMaker(self, number, trie, now, get, puts)
            for node, i, j in nodes:
                changed = dirty[np.searchsorted(dirty, i) : np.searchsorted(dirty, j)]
                if node not in now or len(changed):
                    maker.make(node, i, j, changed.tolist())
            columns = [(node, *each) for node, each in now.items()]
            every.append(np.array(columns, np.int64).reshape(len(columns), 3).T)
        return Pages(_NONE, tuple(every)), puts


class _PageMaker:
    """The pages of one thing that is counted."""

    def __init__(
        self,
        witnesses: Witnesses,
        number: int,
        trie: BlockTrie,
        made: dict[int, tuple[int, int]],
        get: Callable[[Sequence[bytes]], Sequence[bytes]],
        puts: dict[bytes, bytes],
    ) -> None:
        self._witnesses = witnesses
        self._number = number
        self._trie = trie
        self._made = made
        self._get = get
        self._puts = puts

    def make(self, node: int, i: int, j: int, changed: Sequence[int]) -> None:
        """Make a node's page of its old one and the blocks [i, j) of it that changed, or of its children."""
        n_rows = int(self._trie.counts[j] - self._trie.counts[i])
        rows_then, n_values = self._made.get(node, (0, NO_PAGE))
        if n_values == NO_PAGE and n_rows < 2 * rows_then:
            return  # it had too many values, and hardly has more rows by now
        suffix = page_suffix(node, self._number)
        if n_values == NO_PAGE:
            _, middle = self._trie.node(i, j)
            parts = [*self._below(i, middle), *self._below(middle, j)]
        else:
            parts = [suffix] * (n_values > 0) + [self._block(place) for place in changed]
        layout = self._witnesses.layout
        rows = layout.packed(self._witnesses.joined(self._found(parts)))
        kept = first_of_each(layout, self._witnesses.counted[self._number], rows)
        fits = len(kept) * _ROWS_A_VALUE <= n_rows
        self._made[node] = (n_rows, len(kept) if fits else NO_PAGE)
        if fits and len(kept):
            self._puts[suffix] = layout.merge([b""], rows.take(kept), np.zeros(len(kept), np.int64))[0]
        elif n_values > 0:
            self._puts[suffix] = b""

    def _below(self, i: int, j: int) -> Iterator[bytes]:
        """What stands for blocks [i, j): the page of their node, or of the nodes below."""
        if j - i == 1:
            yield self._block(i)
            return
        node, middle = self._trie.node(i, j)
        n_values = self._made.get(node, (0, NO_PAGE))[1]
        if n_values != NO_PAGE:
            if n_values:
                yield page_suffix(node, self._number)
            return
        yield from self._below(i, middle)
        yield from self._below(middle, j)

    def _block(self, place: int) -> bytes:
        return (int(self._trie.begins[place]) + _HALF).to_bytes(8, "big")

    def _found(self, suffixes: Sequence[bytes]) -> list[bytes]:
        there = self._puts
        asked = [suffix for suffix in suffixes if suffix not in there]
        stored = dict(zip(asked, self._get(asked), strict=True))
        found = [there.get(suffix) or stored.get(suffix, b"") for suffix in suffixes]
        if not all(found):
            raise self._witnesses.layout.mismatch(b"")
        return found
