"""What was set aside, and what somebody decided about it. Nothing is erased: a resolution is a record of its own."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from volano.values.instants import Instant


class Fate(StrEnum):
    """What became of a row that was set aside."""

    OPEN = "open"
    REPLAYED = "replayed"
    """It was sent in again, as it was or mended; the new receipt says how that ended."""
    DISCARDED = "discarded"


class Resolution(msgspec.Struct, frozen=True, tag="resolution", tag_field="type", omit_defaults=True):
    """What was decided about one row that was set aside; the first one stands.

    Args:
        receipt_id: of the row.
        source: that the row was sent to.
        fate: `replayed` or `discarded`.
        actor: who decided; `reason` why, a sentence of theirs.
        replayed_as: the receipt of the event that was sent in its place.
    """

    receipt_id: str
    namespace: str
    source: str
    fate: Fate
    actor: str
    resolved_at: Instant
    reason: str = ""
    replayed_as: str | None = None


class QuarantinedRow(msgspec.Struct, frozen=True):
    """An event that was set aside, as it came, and what became of it.

    Args:
        status: `quarantined` (it does not fit) or `conflict` (its id is taken by other content).
        reason, field, message: why: a code, the field if there is one, a sentence.
        payload: the bytes as they came; None in a list, which leaves them out.
        fate, actor, resolved_at, resolution, replayed_as: what was decided about it.
    """

    receipt_id: str
    source: str
    event_id: str
    operation: str
    revision: int
    status: str
    reason: str
    field: str
    message: str
    received_at: Instant
    applied_at: Instant
    payload: bytes | None = None
    fate: Fate = Fate.OPEN
    actor: str = ""
    resolved_at: Instant | None = None
    resolution: str = ""
    replayed_as: str | None = None


class Replay(msgspec.Struct, frozen=True):
    """What came of sending one row in again.

    Args:
        receipt_id: of the row that was set aside.
        replayed_as: the receipt of the new event; empty when the row still does not fit, and stays as it was.
        status: of the new event as far as it is known; `unfit` when it was not sent.
        problem: code, field and message of what is still wrong.
    """

    receipt_id: str
    replayed_as: str
    status: str
    problem: tuple[str, str, str] | None = None


Edits = dict[str, Any]
"""Field values to set before an event is sent in again; None as a value is null."""
