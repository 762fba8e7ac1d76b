"""The layout of online state, as data: which rows lie under which key. Built by `compile`, read by the
stages.

A state group packs every view of one entity over one source (with the same key columns). The rows of one
entity key lie in chunks that are aligned to an absolute time grid of `span_us`; the online key of a chunk is

    group hash (8 bytes) | length of the key (2 bytes) | canonical entity key | chunk number (8 bytes)

with big-endian numbers, where the chunk number is `event_time // span_us`, shifted by 2**63 so that byte order is
time order. A changed definition changes the group's hash, so old and new state live side by side until
nobody needs the old one. A chunk of very many rows holds the head of a hot chunk instead (`kernels.tiles`); its blocks
lie behind it, under its key and eight bytes more. In front of either may stand the tail of rows that are sealed
(`kernels.sealed`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from volano.plan.definitions import CompiledFeature, CompiledView
from volano.values.instants import Instant
from volano.values.keys import MOST_KEY_BYTES
from volano.values.schema import Field, Schema

PREFIX_BYTES: Final = 8
"""How long the hash of a group is in front of its online keys."""


class GroupJoin(msgspec.Struct, frozen=True):
    """Where the rows of a group get columns of a dimension from.

    Args:
        group: hash of the dimension's own state group.
        on: columns of the group's source that hold the dimension's key.
        columns: pairs of the name in the group's rows and the column of the dimension's rows.
        fields: the same columns as fields, in the same order.
        valid_to: the dimension's column until which a row holds.
    """

    group: str
    on: tuple[str, ...]
    columns: tuple[tuple[str, str], ...]
    fields: tuple[Field, ...]
    valid_to: str | None


class StateGroup(msgspec.Struct, frozen=True, omit_defaults=True):
    """The state of one entity over one source; or of a dimension, for joins.

    Args:
        hash: 16 hex characters over everything that shapes the stored rows and their meaning.
        key_columns: columns of the source (after projection) that hold the entity key.
        views: the views it serves; all have this entity, source and these key columns.
        columns: what a stored row carries for the features, view columns prefixed `view.column` where
            projected.
        span_us: width of a chunk.
        raw_us: rows older than the newest read minus this are not needed (longest window plus offset plus
            accept_late); None keeps them for ever (a lifetime window).
        sealed_us: rows older than the newest read minus this become tiles (`kernels.sealed`); None: they stay.
        align_us: what the instant up to which they do is a multiple of.
        tail_bytes: about how much the tiles of one key take at most.
        joins: columns that its rows get before projection, as of their event.
        is_dimension: joins read it, no decision does; its rows count from their known_at on.
    """

    hash: str
    entity: str
    source: str
    key_columns: tuple[str, ...]
    views: tuple[CompiledView, ...]
    columns: Schema
    span_us: int
    raw_us: int | None
    accept_late_us: int | None
    joins: tuple[GroupJoin, ...] = ()
    is_dimension: bool = False
    sealed_us: int | None = None
    align_us: int = 0
    tail_bytes: int = 0

    @property
    def hot_rows(self) -> int | None:
        """Most rows of a plain chunk, None: as many as is usual. A dimension's are whole: joins read all of a key."""
        return 2**40 if self.is_dimension else None

    @property
    def prefix(self) -> bytes:
        """The first eight bytes of every online key of the group."""
        return bytes.fromhex(self.hash)


def stored_column(view: CompiledView, column: str) -> str:
    """The name under which a group's rows carry a view's column: `column`, or `View.column` where it is projected."""
    return column if view.projection is None else f"{view.name}.{column}"


def window_arguments(view: CompiledView, feature: CompiledFeature) -> dict[str, Any]:
    """The arguments of `kernels.features.WindowFeature`, its columns named as the group stores them."""
    arguments = {name: getattr(feature, name) for name in _SAME}
    stored = {name: getattr(feature, name) for name in ("column", "where", "over")}
    arguments |= {
        name: None if column is None else stored_column(view, column) for name, column in stored.items()
    }
    return arguments | {"name": f"{view.name}.{feature.name}"}


_SAME: Final = (
    "aggregate",
    "window_us",
    "offset_us",
    "every_us",
    "publish_delay_us",
    "n",
    "params",
    "include_request",
)


def key_head(group: StateGroup, key: bytes) -> bytes | None:
    """What every online key of one entity key begins with; None for a key that is too long, which counts as none."""
    if len(key) > MOST_KEY_BYTES:
        return None
    return group.prefix + len(key).to_bytes(2, "big") + key


def key_tail(number: int) -> bytes:
    """What the online key of a chunk ends with, by its number `event_time // span_us`."""
    return (number + 2**63).to_bytes(8, "big")


def chunk_number(key: bytes) -> int:
    """The number of the chunk that an online key belongs to: of the chunk itself, or of a block of it."""
    at = PREFIX_BYTES + 2 + int.from_bytes(key[PREFIX_BYTES : PREFIX_BYTES + 2], "big")
    return int.from_bytes(key[at : at + 8], "big") - 2**63


def is_chunk_key(key: bytes) -> bool:
    """Whether an online key is that of a chunk itself, not of what lies behind it."""
    return len(key) == PREFIX_BYTES + 10 + int.from_bytes(key[PREFIX_BYTES : PREFIX_BYTES + 2], "big")


def chunk_key(group: StateGroup, key: bytes, event_time: Instant) -> bytes:
    """The online key of the chunk that holds an entity key's rows around an instant."""
    head = key_head(group, key)
    assert head is not None
    return head + key_tail(event_time // group.span_us)
