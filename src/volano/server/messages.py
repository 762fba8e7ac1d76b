"""What goes over the wire besides events and requests. Instants are ISO 8601 in UTC."""

from __future__ import annotations

from typing import Any

import msgspec

from volano.records.journal import DecisionMade, Operation
from volano.records.receipt import Receipt
from volano.values.instants import format_instant


class ReceiptAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one event.

    Args:
        receipt_id: ask `GET /v1/receipts/{id}` with it; empty when the event was not accepted.
        status: `pending` (kept, not applied yet), `stored`, `duplicate`, `conflict`, `quarantined`; `refused` when
            it was not accepted: its source is unknown or the item has another shape.
        code, field, message: the problem, if there is one.
    """

    receipt_id: str
    status: str
    code: str = ""
    field: str = ""
    message: str = ""


class Decided(msgspec.Struct, frozen=True):
    """The answer to one request for a decision.

    Args:
        action: what to do.
        propensity: the probability of that action, given the context.
        score: of the model; null when the fallback answered.
        fallback: why the fallback answered; empty when the policy did.
        model_version: empty before the first release.
    """

    decision_id: str
    action: str
    propensity: float
    score: float | None
    fallback: str
    model_version: str
    release_id: str
    decided_at: str
    features_as_of: str


class Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One event of a mixed batch.

    Args:
        source: name of a source that takes pushed events.
        event: a JSON object.
        operation: `insert` states a row; `correct` and `retract` replace it by id.
        revision: 0 for an insert, higher for what replaces it.
    """

    source: str
    event: msgspec.Raw
    operation: Operation = Operation.INSERT
    revision: int = 0


def receipt_answer(receipt: Receipt) -> ReceiptAnswer:
    """A receipt as it goes out."""
    return ReceiptAnswer(receipt.receipt_id, receipt.status.value, *(receipt.problem or ()))


def decided(made: DecisionMade) -> Decided:
    """What the caller of a decision is told; the log holds more."""
    return Decided(
        made.decision_id,
        made.action,
        made.propensity,
        made.score,
        made.fallback,
        made.model_version,
        made.release_id,
        format_instant(made.decided_at),
        format_instant(made.features_as_of),
    )


def encode(value: Any) -> bytes:
    """JSON."""
    return msgspec.json.encode(value)
