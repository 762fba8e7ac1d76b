"""What a server answers over HTTP, as its clients read it. Instants are ISO 8601 in UTC."""

from __future__ import annotations

import msgspec


class ReceiptAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one event.

    Args:
        receipt_id: ask `GET /v1/receipts/{id}` with it; empty when the event was not accepted.
        status: `pending` (kept, not applied yet), `stored`, `pending_parent` (stored; the decision that it names has
            not come yet), `duplicate`, `conflict`, `quarantined`; `refused` when it was not accepted: its source is
            unknown or the item has another shape.
        code, field, message: the problem, if there is one.
    """

    receipt_id: str
    status: str
    code: str = ""
    field: str = ""
    message: str = ""


class LoggedAnswer(msgspec.Struct, frozen=True, omit_defaults=True):
    """The answer to one decision that was made elsewhere.

    Args:
        decision_id: its own; empty when it was refused.
        status: `pending` (kept, not applied yet), `stored`, `duplicate`, `conflict`; `refused` when it does not fit.
        code, message: the problem, if there is one.
    """

    decision_id: str
    status: str
    code: str = ""
    message: str = ""


class Decided(msgspec.Struct, frozen=True):
    """The answer to one request for a decision.

    Args:
        action: what to do.
        propensity: the probability of that action, given the context; null where something else decided and nobody
            knows it.
        score: of the model; null when the fallback answered.
        fallback: why the fallback answered; empty when the policy did.
        model_version: empty before the first release.
    """

    decision_id: str
    action: str
    propensity: float | None
    score: float | None
    fallback: str
    model_version: str
    release_id: str
    decided_at: str
    features_as_of: str
