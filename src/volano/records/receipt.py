"""Receipts: what the caller of `log_observation` is answered, and how it ends."""

from __future__ import annotations

from enum import StrEnum
from typing import TypeAlias

import msgspec

from volano.values.instants import Instant

ReceiptProblem: TypeAlias = tuple[str, str, str]
"""Code, field and message."""


class ReceiptStatus(StrEnum):
    """Where an accepted event stands. Every accepted event ends in one of the last four.

    `PENDING`: in the journal, not applied yet. `PENDING_PARENT`: stored, and the decision that it names has not come
    yet; the account counts it as stored. Invariant: accepted = the sum over all other statuses.
    """

    PENDING = "pending"
    PENDING_PARENT = "pending_parent"
    STORED = "stored"
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    QUARANTINED = "quarantined"


class Receipt(msgspec.Struct, frozen=True):
    """The answer to one event.

    Args:
        receipt_id: ask with it later.
        status: known so far.
        problem: code, field and message, when it was quarantined or conflicts; or is stored and came too late to
            change a feature (`too_late`), or waits for its decision in vain (`parent_expired`).
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


class Account(msgspec.Struct, frozen=True):
    """What became of everything accepted, by kind: events, decisions, scores of shadows, what was decided about rows
    that were set aside."""

    events: Reconciliation
    decisions: Reconciliation
    shadows: Reconciliation
    resolutions: Reconciliation = Reconciliation(0, 0, 0, 0, 0, 0)

    @property
    def total(self) -> Reconciliation:
        """All kinds together."""
        kinds = self._kinds
        return Reconciliation(
            *(sum(getattr(kind, name) for kind in kinds) for name in Reconciliation.__struct_fields__)
        )

    @property
    def is_exact(self) -> bool:
        """Whether each kind adds up."""
        return all(kind.is_exact for kind in self._kinds)

    @property
    def _kinds(self) -> tuple[Reconciliation, ...]:
        return self.events, self.decisions, self.shadows, self.resolutions


class Applied(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What the applier did with one journal record.

    Args:
        status: a `ReceiptStatus` value; no decision or shadow score is quarantined.
        applied_at: its stamp; every record that is stored has its own, strictly increasing.
        problem: for conflicts and quarantine.
        attempt: of a decision, where it is not the one in the record.
        late: whether a stored event came later than its source accepted then, so that it changes no feature. None
            in logs from before it was written down.
    """

    status: str
    applied_at: Instant
    problem: tuple[str, str, str] | None = None
    attempt: int | None = None
    late: bool | None = None


class ApplyBatch(msgspec.Struct, frozen=True):
    """One entry of the apply log: journal ranges and the fate of every record in them, in order.

    Args:
        sequence: 1, 2, 3, ...; the exactly-once version of every commit made from it.
        ranges: (segment, start offset, end offset), the records of the first range first.
        applied: one a record.
        last_stamp: the newest stamp given so far, in this batch or before.
        bundle: of the definitions that the fates were decided by; empty in logs from before it was written down.
    """

    sequence: int
    ranges: tuple[tuple[str, int, int], ...]
    applied: tuple[Applied, ...]
    last_stamp: Instant
    bundle: str = ""
