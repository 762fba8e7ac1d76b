"""What goes over the wire besides events and requests, and how records become answers (`records.answers`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from volano.records.answers import Decided, LoggedAnswer, ReceiptAnswer
from volano.records.journal import DecisionMade, Operation
from volano.records.receipt import Applied, Receipt
from volano.values.instants import format_instant


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
    if receipt.problem is None:
        return ReceiptAnswer(receipt.receipt_id, receipt.status)
    return ReceiptAnswer(receipt.receipt_id, receipt.status, *receipt.problem)


def ended(answers: list[ReceiptAnswer], fates: Mapping[str, Applied]) -> list[ReceiptAnswer]:
    """Answers with what became of their events, as far as it is known."""
    return [
        ReceiptAnswer(answer.receipt_id, fate.status, *(fate.problem or ()))
        if (fate := fates.get(answer.receipt_id)) is not None
        else answer
        for answer in answers
    ]


def logged_ended(answers: list[LoggedAnswer], fates: Mapping[str, Applied]) -> list[LoggedAnswer]:
    """Answers with what became of their decisions, as far as it is known."""
    return [
        LoggedAnswer(answer.decision_id, fate.status, *_without_field(fate))
        if (fate := fates.get(answer.decision_id)) is not None
        else answer
        for answer in answers
    ]


def _without_field(fate: Applied) -> tuple[str, ...]:
    return () if fate.problem is None else (fate.problem[0], fate.problem[2])


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
