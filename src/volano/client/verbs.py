"""What a client can do, once for both: each verb is one call, and how it is sent is the client's."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, TypeVar

from volano.client.calls import (
    Call,
    decide_call,
    log_decision_call,
    new_id,
    now,
    observe_call,
    observe_many_call,
    receipt_call,
)
from volano.records.elsewhere import ACTION_TAKEN, EXPOSURE, action_event, exposure_event

D = TypeVar("D", covariant=True)
R = TypeVar("R", covariant=True)
M = TypeVar("M", covariant=True)
G = TypeVar("G", covariant=True)


class Verbs(Generic[D, R, M, G]):
    """The verbs of a client; D, R, M and G are what it gives for a decision, a receipt, several, a logged decision."""

    @abstractmethod
    def _send(self, call: Call[Any]) -> Any:
        """Send a call, and again while that may help."""

    def decide(self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None) -> D:
        """Ask for a decision.

        Args:
            name: of the decision.
            request: field values by name, or JSON.
            decision_id: yours, to find it by later; one is made when None.

        Raises:
            RefusedError: the request does not fit, the decision is unknown, or the token may not.
            UnreachableError: no answer after all retries.
        """
        return self._send(decide_call(name, request, decision_id))  # type: ignore[no-any-return]

    def observe(
        self,
        source: str,
        event: Mapping[str, Any] | bytes,
        *,
        operation: str = "insert",
        revision: int = 0,
        wait: bool = False,
    ) -> R:
        """Send one event; it is on the server's disk when this returns.

        Args:
            operation: `insert` states a row; `correct` and `retract` replace it by id.
            revision: 0 for an insert, higher for what replaces it.
            wait: let the answer say how the event ended, where that is known within a second.
        """
        return self._send(observe_call(source, event, operation, revision, wait))  # type: ignore[no-any-return]

    def observe_many(
        self, source: str, events: Sequence[Mapping[str, Any] | bytes], *, wait: bool = False
    ) -> M:
        """Send events of one source in one request; one receipt each, in order."""
        return self._send(observe_many_call(source, events, wait))  # type: ignore[no-any-return]

    def log_exposure(
        self,
        decision: str,
        decision_id: str,
        *,
        exposure_id: str | None = None,
        exposed_at: datetime | str | None = None,
        **fields: Any,
    ) -> R:
        """Note what was really shown of a decision, also before the decision itself has come.

        Args:
            exposure_id: the exposure's own; sent twice it counts once. One is made when None.
            exposed_at: now when None.
            fields: `shown`, `position`, `surface`, `subject`, `purpose`.
        """
        event = exposure_event(
            decision,
            decision_id,
            exposure_id=exposure_id or new_id(),
            exposed_at=exposed_at or now(),
            **fields,
        )
        return self.observe(EXPOSURE, event)

    def log_action(
        self,
        decision: str,
        decision_id: str,
        action: str,
        *,
        action_id: str | None = None,
        taken_at: datetime | str | None = None,
        **fields: Any,
    ) -> R:
        """Note what was really done about a decision.

        Args:
            action: need not be one of the decision's actions.
            action_id: the action's own; sent twice it counts once. One is made when None.
            taken_at: now when None.
            fields: `propensity`, `actor`, `reason`, `subject`, `purpose`.
        """
        event = action_event(
            decision,
            decision_id,
            action=action,
            action_id=action_id or new_id(),
            taken_at=taken_at or now(),
            **fields,
        )
        return self.observe(ACTION_TAKEN, event)

    def log_decision(
        self,
        name: str,
        decision_id: str,
        request: Mapping[str, Any],
        action: str,
        *,
        decided_at: datetime | str,
        propensity: float | None,
        propensity_method: str,
        wait: bool = False,
        **fields: Any,
    ) -> G:
        """Log a decision that something else made; it is labelled and trained on like ours.

        Args:
            decision_id: its own; sent twice it counts once.
            action: one of the decision's actions.
            decided_at: aware, or ISO 8601 with a zone.
            propensity: the probability of that action; None where nobody knows it.
            propensity_method: how it was got, such as `deterministic`; `unknown` where nobody knows it.
            fields: `score`, `origin`, `cost`, `subject`, `purpose`.
        """
        body = {
            "decision_id": decision_id,
            "request": request,
            "action": action,
            "decided_at": decided_at,
            "propensity": propensity,
            "propensity_method": propensity_method,
            **fields,
        }
        return self._send(log_decision_call(name, body, wait))  # type: ignore[no-any-return]

    def receipt(self, receipt_id: str) -> R:
        """How an accepted event ended, as far as it has."""
        return self._send(receipt_call(receipt_id))  # type: ignore[no-any-return]
