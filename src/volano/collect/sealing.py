"""Sealing of online state: rows that no read needs one by one any more become tiles, and what changes one of them.

Everything about one key happens in one transaction of the store, so a kill leaves a key sealed or as it was. Which rows
may be sealed says `kernels.sealed.Horizon`. Never reads the clock.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from volano.kernels import sealed as sealed_state
from volano.kernels.chunks import PackedRows
from volano.kernels.sealed import Sealer, Tail, closed, n_before, opened, parted
from volano.kernels.tiles import is_head
from volano.plan.state import chunk_number, is_chunk_key
from volano.protocols.online_store import OnlineSnapshot
from volano.values.instants import Instant

if TYPE_CHECKING:
    from volano.collect.state import GroupState


WORTH = 1.0
"""A chunk is sealed when this times its size is more than what it would take."""


class SealedChunk(NamedTuple):
    """What sealing changes of one chunk."""

    key: bytes
    puts: dict[bytes, bytes]
    deletes: list[bytes]


def sealed_chunks(
    group: GroupState, snapshot: OnlineSnapshot, now: Instant, *, after: bytes, n_chunks: int
) -> tuple[list[SealedChunk], bytes]:
    """Chunks of a group that get smaller by sealing.

    Args:
        now: no later read asks for windows that end before it.
        after: the key behind which to go on; b"" begins.
        n_chunks: how many to look at.

    Returns:
        What changes, and the last key that was looked at; b"" when there was none.
    """
    sealer = group.sealer
    if sealer is None:
        return [], b""
    keys = snapshot.scan(max(group.prefix, after + b"\x00"), group.end)
    looked_at = list(islice(((key, value) for key, value in keys if is_chunk_key(key)), n_chunks))
    found = _sealed(group, sealer, snapshot, now, looked_at)
    return list(found), looked_at[-1][0] if looked_at else b""


def _sealed(
    group: GroupState,
    sealer: Sealer,
    snapshot: OnlineSnapshot,
    now: Instant,
    chunks: Sequence[tuple[bytes, bytes]],
) -> Iterator[SealedChunk]:
    until = sealer.horizon.seal(now)
    for key, value in chunks:
        number = chunk_number(key)
        seal = min(until, (number + 1) * group.group.span_us)
        tail, inner = opened(value, group.tiles)
        if seal <= number * group.group.span_us or (tail is not None and seal <= tail.seal):
            continue
        if is_head(inner):
            done = _of_hot(group, sealer, snapshot, key, tail, inner, seal)
        else:
            if n_before(group.layout, inner, seal) < sealed_state.FEWEST_ROWS:
                continue
            before, left = parted(group.layout, inner, seal)
            sealed = closed(sealer.seal(tail, before, seal, number), left, group.layout)
            # Few rows take less room than the tiles of their nodes: they stay as they are.
            done = SealedChunk(key, {key: sealed}, []) if len(sealed) < WORTH * len(value) else None
        if done is not None:
            yield done


def _of_hot(
    group: GroupState,
    sealer: Sealer,
    snapshot: OnlineSnapshot,
    key: bytes,
    tail: Tail | None,
    head: bytes,
    seal: Instant,
) -> SealedChunk | None:
    """The same of a hot chunk: its older rows leave their blocks."""
    tiles, number = group.tiles, chunk_number(key)
    stored = partial(stored_behind, snapshot, key)
    blocks = stored(tiles.older(head, seal))
    before, _ = parted(group.layout, tiles.witnesses.joined(blocks), seal)
    if not before:
        return None
    first = group.layout.order + 1
    words = group.layout.packed(before).words
    highs, lows = ((words[:, first + n].view(np.uint64) ^ np.uint64(1 << 63)).tolist() for n in (0, 1))
    going = [(t, high << 64 | low) for t, high, low in zip(words[:, 0].tolist(), highs, lows, strict=True)]
    touched = tiles.touched(head, number, [], [t for t, _ in going])
    none = PackedRows(np.empty((0, group.layout.width), np.int64), np.empty(0, np.int64))
    done = tiles.rewrite(head, number, dict(zip(touched, stored(touched), strict=True)), none, going)
    done = tiles.with_pages(done, stored)
    sealed = closed(sealer.seal(tail, before, seal, number), done.head, group.layout)
    puts = {key: sealed} | {key + suffix: block for suffix, block in done.blocks.items() if block}
    return SealedChunk(key, puts, [key + suffix for suffix, block in done.blocks.items() if not block])


def resealed(
    group: GroupState,
    tail: Tail,
    number: int,
    before: bytes,
    coming: PackedRows,
    going: Sequence[int],
) -> Tail | None:
    """A tail built again from all its rows; None when there is none left.

    Args:
        before: its rows before the change, from the lake.
        coming, going: the rows that come, and the ids of those that go.
    """
    assert group.sealer is not None
    (left,) = group.layout.merge(
        [before], coming, np.zeros(len(coming), np.int64), gone=[(0, i) for i in going]
    )
    return group.sealer.seal(None, left, tail.seal, number) if left else None


def stored_behind(snapshot: OnlineSnapshot, chunk_key: bytes, suffixes: Sequence[bytes]) -> list[bytes]:
    """What stands behind a chunk's key under suffixes; b"" for what is not there."""
    return [value or b"" for value in snapshot.get_many([chunk_key + suffix for suffix in suffixes])]
