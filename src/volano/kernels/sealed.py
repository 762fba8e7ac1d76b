"""Sealed state: rows older than any read needs them, folded into tiles of whole nodes. Pure: bytes in, bytes out.

A lifetime window takes all rows before its end, and a window with `every=` begins and ends on its grid. So rows that
are older than every plain window, and than what may still come late, are needed one by one no more: of a lifetime
window the tiles of the widest nodes before the *seal*, of `every=` a tile for each cell. Where rows are picked, or
different values counted, the few rows that can be picked stay, as *witnesses*.

A sealed value stands in the place of a chunk: the *tail*, which is what became of the rows before the seal, and behind
it what the chunk was otherwise: a packed chunk, the head of a hot one, or nothing. Tiles fold the same rows in the same
order as a read would (decision record 0010), whatever the seals in between were: no bit changes.

Which features can be sealed, and when, is said by `horizon`; docs/decisions/0015-sealed-state.md says why.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np

from volano.errors import SealedStateError
from volano.kernels.arrays import I64, Bools
from volano.kernels.chunks import TILE_MAGIC, ChunkLayout, PackedRows, lane_of, read_text, tile_places
from volano.kernels.compiled import kernels
from volano.kernels.features import WindowFeature
from volano.kernels.tiles import Grid, Tiles, widest
from volano.kernels.witnesses import takes_part

SEAL_MAGIC: Final = b"VOLSEAL\x01"
FEWEST_ROWS: Final = 64
"""Fewer rows are not sealed: they wait until more can be."""
MARGIN_US: Final = 3_600_000_000
"""How much older than necessary rows are before they are sealed: clocks of readers may be behind."""
_DAY_US: Final = 86_400_000_000
_MOST_ALIGNED_US: Final = 400 * _DAY_US
_HEAD_WORDS: Final = 5
_NODES: Final = 24
"""About how many nodes make up a lifetime."""
_PICKED: Final = ("first", "last", "first_n", "last_n", "distinct")


class Horizon(NamedTuple):
    """When rows of a group are sealed.

    Args:
        raw_us: how long they stay before.
        align_us: a seal lies on a multiple of this.
    """

    raw_us: int
    align_us: int

    def seal(self, now: int) -> int:
        """Up to where rows may be sealed when no later read ends before `now`."""
        return (now - self.raw_us - MARGIN_US) // self.align_us * self.align_us


def is_sealable(feature: WindowFeature) -> bool:
    """Whether a feature can be read from tiles where its rows are old: a lifetime window, or one with `every=`."""
    return feature.window_us is None or feature.every_us is not None


def horizon(features: Sequence[WindowFeature], accept_late_us: int | None) -> Horizon | None:
    """When rows that these features read are sealed; None: never.

    Never where nothing is gained (plain windows alone), where rows of any age may come (no `accept_late`), where a
    lifetime window includes the request's own event (an old one would have to be taken out of a tile), and where
    grids have no common multiple within 400 days.
    """
    sealable = [f for f in features if is_sealable(f)]
    if not sealable or accept_late_us is None:
        return None
    if any(f.include_request and f.window_us is None for f in features):
        return None
    align = math.lcm(*(f.grid_us for f in sealable))
    if align > _MOST_ALIGNED_US:
        return None
    raw = 0
    for f in features:
        if f.every_us is None:
            raw = max(raw, f.offset_us + (f.window_us or 0))
        elif f.window_us is None:
            raw = max(raw, f.offset_us + f.every_us + f.publish_delay_us)
    return Horizon(raw + accept_late_us, align * -(-_DAY_US // align))


@dataclass(frozen=True, slots=True)
class Tail:
    """What became of the rows before a seal.

    Args:
        seal: the instant; every row of the chunk that happened before it is in here.
        readable_from: a window that ends earlier may need the rows.
        runs: the tiles of each grid as a reader takes them; b"" when there are none.
        witnesses: a packed chunk.
    """

    seal: int
    readable_from: int
    runs: tuple[bytes, ...]
    witnesses: bytes

    def bytes_of(self, layout: ChunkLayout) -> bytes:
        """The stored form."""
        parts = [*self.runs, self.witnesses]
        sizes = [len(part) // 8 for part in parts]
        head = struct.pack(f"{3 + len(sizes)}q", self.seal, self.readable_from, len(sizes), *sizes)
        return b"".join([SEAL_MAGIC, layout.definition, head, *parts])

    def nodes(self, grid: int, width: int) -> I64:
        """The tiles of a grid, a record as a column."""
        words = np.frombuffer(self.runs[grid], np.int64)
        return words[4:].reshape(width, -1) if len(words) else np.empty((width, 0), np.int64)

    def check(self, q: int) -> None:
        """Refuse a read that the sealed rows do not allow.

        Raises:
            SealedStateError: the windows end too early.
        """
        if q < self.readable_from:
            raise SealedStateError(
                f"Features were asked for at {q} µs, which is before {self.readable_from} µs: rows that their windows "
                "reach are sealed.",
                where="online state",
                mend="ask for the present; features of the past are computed from the lake",
            )


def tile_run(layout: ChunkLayout, nodes: I64, a: int, b: int) -> bytes:
    """Tiles [a, b) as a reader takes them."""
    if a >= b:
        return b""
    head = np.array([TILE_MAGIC, 0, (b - a) | nodes.shape[0] << 32, 0], np.int64)
    head[1] = int.from_bytes(layout.definition, "little", signed=True)
    return head.tobytes() + nodes[:, a:b].tobytes()


def is_sealed(value: bytes) -> bool:
    """Whether a stored value has a tail."""
    return value[:8] == SEAL_MAGIC


def opened(value: bytes, tiles: Tiles) -> tuple[Tail | None, bytes]:
    """The tail of a stored value, if it has one, and what is behind it.

    Raises:
        StateMismatchError: written by another definition.
    """
    if not is_sealed(value):
        return None, value
    layout = tiles.layout
    if len(value) < 8 * _HEAD_WORDS or value[8:16] != layout.definition:
        raise layout.mismatch(value)
    seal, readable_from, n_parts = struct.unpack_from("3q", value, 16)
    if n_parts != len(tiles.grids) + 1:
        raise layout.mismatch(value)
    at = 8 * (_HEAD_WORDS + n_parts)
    parts = []
    for size in struct.unpack_from(f"{n_parts}q", value, 8 * _HEAD_WORDS):
        parts.append(value[at : at + 8 * size])
        at += 8 * size
    return Tail(seal, readable_from, tuple(parts[:-1]), parts[-1]), value[at:]


def closed(tail: Tail | None, inner: bytes, layout: ChunkLayout) -> bytes:
    """A stored value of a tail and what is behind it."""
    return inner if tail is None else tail.bytes_of(layout) + inner


def tail_bytes(features: Sequence[WindowFeature], layout: ChunkLayout) -> int:
    """About how many bytes the tail of one key has at most, where rows fall into every cell.

    A lifetime window takes some tens of nodes: one of each width. Each value that is counted is taken as one. Some rows
    wait to be sealed.
    """
    total = 8 * (_HEAD_WORDS + layout.width * FEWEST_ROWS)
    for grid in {1} | {f.grid_us for f in features}:
        own = [f for f in features if f.grid_us == grid]
        reaches = [f.offset_us + f.window_us for f in own if f.window_us is not None and is_sealable(f)]
        n_cells = -(-max(reaches, default=0) // grid)
        n_nodes = n_cells + (_NODES if any(f.window_us is None for f in own) else 0)
        total += 8 * tile_places(own, layout).width * n_nodes
        picked = [f for f in own if is_sealable(f) and f.spec.kind in _PICKED]
        total += sum(8 * layout.width * (f.n or 1) * (1 if f.window_us is None else n_cells) for f in picked)
    return total


class Sealer:
    """Seals chunks of one group of views.

    Args:
        tiles: how the group's hot chunks are written; tails keep the same tiles.
        horizon: of the group.
    """

    def __init__(self, tiles: Tiles, horizon: Horizon) -> None:
        self.tiles = tiles
        self.horizon = horizon
        self._features = [f for f in tiles.features if is_sealable(f)]

    def seal(self, tail: Tail | None, rows: bytes, seal: int, number: int) -> Tail:
        """A tail with more rows in it.

        Args:
            tail: what was sealed before; None, when nothing was.
            rows: a packed chunk of all other rows before the seal; b"" when there are none.
            seal: of the horizon, or the end of the chunk if that is earlier.
            number: the chunk's.
        """
        layout = self.tiles.layout
        runs = []
        for n, grid in enumerate(self.tiles.grids):
            own = [f for f in self._features if f.grid_us == grid.grid]
            old = None if tail is None else tail.nodes(n, grid.places.width)
            nodes = self._nodes(grid, own, old, rows, seal, number)
            runs.append(tile_run(layout, nodes, 0, nodes.shape[1]))
        present = [chunk for chunk in (b"" if tail is None else tail.witnesses, rows) if chunk]
        witnesses = self._witnesses(self.tiles.witnesses.joined(present), seal) if present else b""
        return Tail(seal, seal + self.horizon.raw_us, tuple(runs), witnesses)

    def _apart(self, grid: int, own: Iterable[WindowFeature], seal: int) -> int:
        """From where on the cells of a grid stay apart: a window may begin at each of them."""
        reaches = [
            f.publish_delay_us + (f.every_us or 0) + f.offset_us + f.window_us
            for f in own
            if f.window_us is not None
        ]
        return min(seal, (seal + self.horizon.raw_us - max(reaches)) // grid * grid) if reaches else seal

    def _nodes(
        self, grid: Grid, own: Sequence[WindowFeature], old: I64 | None, rows: bytes, seal: int, number: int
    ) -> I64:
        """The tiles of a grid; none where no feature reads them."""
        layout = self.tiles.layout
        if not own:
            return np.empty((grid.places.width, 0), np.int64)
        before = np.empty((grid.places.width, 0), np.int64) if old is None else old
        times = layout.packed(rows).words[:, 0]
        firsts = np.concatenate([before[2], times])
        lasts = np.concatenate([before[3], times])
        # A cell without a lifetime window over it that no window reaches any more goes.
        apart = self._apart(grid.grid, own, seal)
        at = 0 if any(f.window_us is None for f in own) else int(np.searchsorted(firsts, apart))
        low, high = self.tiles.limits(grid, number)
        high = min(high, grid.spread(seal))
        places, ends = grid.spread_all(firsts), grid.spread_all(lasts)
        middle = grid.spread(apart)
        found: list[tuple[int, int, int, int]] = []
        while at < len(places):
            place = int(places[at])
            if place < middle:
                begin, level = widest(place, low, min(high, middle))
            else:
                cell = place >> grid.shift << grid.shift
                begin, level = widest(place, max(low, middle, cell), min(high, cell + (1 << grid.shift)))
            end = int(np.searchsorted(ends, begin + (1 << level)))
            found.append((at, end, begin, level))
            at = end
        new = np.zeros((grid.places.width, len(found)), np.int64)
        if found:
            new[0] = [begin for _, _, begin, _ in found]
            new[1] = [level for _, _, _, level in found]
            edges = np.array([(i, j) for i, j, _, _ in found], np.int64)
            joined = tile_run(layout, before, 0, before.shape[1]) + rows
            buf = np.frombuffer(joined, np.int64)
            kernels().fold_nodes(buf, len(firsts), grid.spec, grid.grid, grid.shift, edges, new)
        return new

    def _witnesses(self, chunk: bytes, seal: int) -> bytes:
        """The rows of a chunk that some feature may pick, or count as a value."""
        layout = self.tiles.layout
        rows = layout.packed(chunk)
        times = rows.words[:, 0]
        needed = np.zeros(len(rows), bool)
        for f in self._features:
            if f.spec.kind not in _PICKED:
                continue
            seen = takes_part(layout, lane_of(f, layout), rows.words)
            cells = np.zeros(len(rows), np.int64)
            if f.window_us is not None:
                own = [each for each in self._features if each.grid_us == f.grid_us]
                seen &= times >= self._apart(f.grid_us, own, seal)
                cells = times // f.grid_us
            needed[_kept(layout, f, rows, np.flatnonzero(seen), cells)] = True
        kept = np.flatnonzero(needed)
        if not len(kept):
            return b""
        return layout.merge([b""], rows.take(kept), np.zeros(len(kept), np.int64))[0]


def _kept(layout: ChunkLayout, f: WindowFeature, rows: PackedRows, seen: I64, cells: I64) -> I64:
    """Of the rows that a feature sees, in order, those that it may take within each cell."""
    own = cells[seen]
    if f.spec.kind != "distinct":
        n = f.n or 1
        if f.spec.kind.startswith("first"):
            return seen[_first_of_run(own, n)]
        return seen[_first_of_run(own[::-1], n)[::-1]]
    column = list(layout.types).index(str(f.column))
    words = rows.words[seen, layout.first_value + column]
    if layout.columns[column][1] != "string":
        _, first = np.unique(np.stack([own, words], axis=1), axis=0, return_index=True)
        return seen[first]
    heap = memoryview(rows.heap.tobytes())
    texts: dict[tuple[int, str], int] = {}
    for row, cell, word in zip(seen.tolist(), own.tolist(), words.tolist(), strict=True):
        texts.setdefault((cell, read_text(heap, 8 * word)), row)
    return np.array(list(texts.values()), np.int64)


def _first_of_run(cells: I64, n: int) -> Bools:
    """Which are among the first n of their run of equal cells."""
    if not len(cells):
        return np.zeros(0, bool)
    starts = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]]))
    lengths = np.diff(np.append(starts, len(cells)))
    kept: Bools = np.arange(len(cells)) - np.repeat(starts, lengths) < n
    return kept


def n_before(layout: ChunkLayout, chunk: bytes, seal: int) -> int:
    """How many rows of a packed chunk happened before an instant."""
    if not chunk:
        return 0
    words = np.frombuffer(chunk, np.int64)
    n = int(words[2] & 0xFFFFFFFF)
    return int(np.searchsorted(words[4 : 4 + n * layout.width : layout.width], seal))


def parted(layout: ChunkLayout, chunk: bytes, seal: int) -> tuple[bytes, bytes]:
    """A packed chunk as the rows before an instant and the others."""
    if not chunk:
        return b"", b""
    rows = layout.packed(chunk)
    n = int(np.searchsorted(rows.words[:, 0], seal))
    if n == 0:
        return b"", chunk
    (before,) = layout.merge([b""], rows.take(np.arange(n)), np.zeros(n, np.int64))
    (after,) = layout.merge([chunk], prune_before=seal)
    return before, after
