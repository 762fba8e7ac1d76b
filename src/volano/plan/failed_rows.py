"""Rows that a view's projection could not take, as they stand beside online state: keys and content.

An entry is written in the transaction that writes the row, by applier and backfill alike, and goes when the row is
replaced or the view is built again. So what is there now is what is null now. The event itself is stored, whatever its
views say.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from volano.plan.definitions import CompiledView
from volano.plan.state import StateGroup
from volano.values.identities import short_hash
from volano.values.instants import Instant

FAILED_PREFIX: Final = b"\x00volfld\x00"
_MOST_TEXT: Final = 300
_VIEW_BYTES: Final = 8


class FailedRow(msgspec.Struct, frozen=True):
    """A stored event whose columns are null in a view, because the view's projection could not take it.

    Args:
        event_id: of the event; `applied_at` its stamp.
        reason: what the author's function or SQL said, in one line.
    """

    view: str
    source: str
    event_id: str
    applied_at: Instant
    reason: str


class FailingView(msgspec.Struct, frozen=True):
    """How many rows a view lacks now, with one of them."""

    view: str
    source: str
    n_rows: int
    event_id: str
    reason: str


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[FailedRow]] = msgspec.msgpack.Decoder(FailedRow)


def failed_key(view: CompiledView, row_id: bytes) -> bytes:
    """The online key of a view's entry for an event, by its `values.event_ids.row_id`."""
    return failed_prefix(view) + row_id


def encode_failed(row: FailedRow) -> bytes:
    """The stored form of an entry."""
    reason = row.reason.replace("\n", " ")[:_MOST_TEXT]
    return _ENCODER.encode(msgspec.structs.replace(row, reason=reason))


def decode_failed(data: bytes) -> FailedRow:
    """The entry of a stored form."""
    return _DECODER.decode(data)


def projected_views(groups: Iterable[StateGroup]) -> list[CompiledView]:
    """The views of some groups that author code computes."""
    return [view for group in groups for view in group.views if view.projection is not None]


def failed_prefix(view: CompiledView) -> bytes:
    """What the keys of a view's entries begin with."""
    return FAILED_PREFIX + short_hash(f"{view.name}\x00{view.definition_hash}".encode())[:_VIEW_BYTES]
