"""What happened outside of Volano: decisions made elsewhere, what was shown, what was done. What clients write."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final

import msgspec

EXPOSURE: Final = "exposure"
ACTION_TAKEN: Final = "action_taken"
"""The names of the built-in sources (`plan.built_in`)."""


class DecisionElsewhere(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A decision that something else made: an older system, a person, a rule.

    Args:
        decision_id: its own; sent twice it counts once.
        request: what was asked, a JSON object with the fields of the decision's request.
        action: one of the decision's actions.
        decided_at: aware.
        propensity: the probability of that action given what was known; null where nobody knows it.
        propensity_method: how it was got, such as `deterministic`; `unknown` where nobody knows it.
        origin: what made it.
    """

    decision_id: str
    request: msgspec.Raw
    action: str
    decided_at: Annotated[datetime, msgspec.Meta(tz=True)]
    propensity: float | None
    propensity_method: str
    score: float | None = None
    origin: Annotated[str, msgspec.Meta(min_length=1, max_length=200)] = "external"
    cost: float | None = None
    subject: str | None = None
    purpose: str = ""


def exposure_event(
    decision: str,
    decision_id: str,
    *,
    exposure_id: str,
    exposed_at: datetime | str,
    shown: str | None = None,
    position: int | None = None,
    surface: str | None = None,
    subject: str | None = None,
    purpose: str | None = None,
) -> dict[str, Any]:
    """What was really shown of a decision.

    Args:
        exposure_id: the event's id; sent twice it counts once.
        exposed_at: aware, or ISO 8601 with a zone.
        shown: what was shown, where it was not the action itself.
        position: the place in a list, 0 the first.
        surface: where: a page, a screen, a channel.

    >>> exposure_event("get_offer", "d-1", exposure_id="e-1", exposed_at="2026-01-01T00:00:00Z")
    {'exposure_id': 'e-1', 'decision': 'get_offer', 'decision_id': 'd-1', 'exposed_at': '2026-01-01T00:00:00Z'}
    """
    optional = {
        "shown": shown,
        "position": position,
        "surface": surface,
        "subject": subject,
        "purpose": purpose,
    }
    return {
        "exposure_id": exposure_id,
        "decision": decision,
        "decision_id": decision_id,
        "exposed_at": exposed_at,
        **{name: value for name, value in optional.items() if value is not None},
    }


def action_event(
    decision: str,
    decision_id: str,
    *,
    action: str,
    action_id: str,
    taken_at: datetime | str,
    propensity: float | None = None,
    actor: str | None = None,
    reason: str | None = None,
    subject: str | None = None,
    purpose: str | None = None,
) -> dict[str, Any]:
    """What was really done about a decision.

    Args:
        action: what was done; it need not be one of the decision's actions.
        action_id: the event's id; sent twice it counts once.
        taken_at: aware, or ISO 8601 with a zone.
        propensity: the probability of that action, where whoever acted knows it.
        actor, reason: who did it, and why, where it is not what was decided.

    >>> action_event("get_offer", "d-1", action="call", action_id="a-1", taken_at="2026-01-01T00:00:00Z")["action"]
    'call'
    """
    optional = {
        "propensity": propensity,
        "actor": actor,
        "reason": reason,
        "subject": subject,
        "purpose": purpose,
    }
    return {
        "action_id": action_id,
        "decision": decision,
        "decision_id": decision_id,
        "taken_at": taken_at,
        "action": action,
        **{name: value for name, value in optional.items() if value is not None},
    }
