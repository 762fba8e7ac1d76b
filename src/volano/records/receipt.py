"""Receipts: what the caller of `log_observation` is answered, and how it ends."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from volano.values.instants import Instant


class ReceiptStatus(StrEnum):
    """Where an accepted event stands. Every accepted event ends in one of the last four.

    `PENDING`: in the journal, not applied yet. Invariant: accepted = the sum over all statuses.
    """

    PENDING = "pending"
    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"


class Receipt(msgspec.Struct, frozen=True):
    """The answer to one event.

    Args:
        receipt_id: ask with it later.
        status: known so far.
        problem: code, field and message, when it was quarantined or conflicts.
    """

    receipt_id: str
    status: ReceiptStatus
    problem: tuple[str, str, str] | None = None


class Reconciliation(msgspec.Struct, frozen=True):
    """The account of everything accepted. `accepted` is counted in the journal, the rest where they ended."""

    accepted: int
    stored: int
    duplicate: int
    conflict: int
    quarantined: int
    pending: int

    @property
    def is_exact(self) -> bool:
        """Whether accepted = stored + duplicate + conflict + quarantined + pending."""
        return self.accepted == self.stored + self.duplicate + self.conflict + self.quarantined + self.pending


class Applied(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the applier did with one journal record.

    Args:
        status: a `ReceiptStatus` value (decisions and shadow scores are stored or duplicate).
        applied_at: its stamp; every record that is stored has its own, strictly increasing.
        problem: for conflicts and quarantine.
    """

    status: str
    applied_at: Instant
    problem: tuple[str, str, str] | None = None


class ApplyBatch(msgspec.Struct, frozen=True):
    """One entry of the apply log: journal ranges and the fate of every record in them, in order.

    Args:
        sequence: 1, 2, 3, ...; the exactly-once version of every commit made from it.
        ranges: (segment, start offset, end offset), the records of the first range first.
        applied: one a record.
        last_stamp: the newest stamp given so far, in this batch or before.
    """

    sequence: int
    ranges: tuple[tuple[str, int, int], ...]
    applied: tuple[Applied, ...]
    last_stamp: Instant
