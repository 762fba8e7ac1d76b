"""Decisions made elsewhere: checked as ours are, logged beside ours, with what whoever made them knows of chance.

Nothing is computed for them here: no feature was served. Training computes their features from history, as of
`decided_at`. Never reads the clock.
"""

from __future__ import annotations

from math import isfinite
from typing import Any, Final

import msgspec

from volano.decide.request import RequestReader
from volano.errors import RequestError
from volano.plan.definitions import CompiledProject
from volano.records.elsewhere import DecisionElsewhere
from volano.records.journal import DecisionMade
from volano.values.event_ids import event_id
from volano.values.instants import BEGINNING, Instant, format_instant, from_datetime
from volano.values.schema import Scalar

MOST_DECISION_ID: Final = 200
"""How many characters a caller's decision id may have."""
UNKNOWN: Final = "unknown"
"""The propensity method of who does not know the probability of what they chose."""
_ROLE: Final = "elsewhere"
_DECODER: Final = msgspec.json.Decoder(DecisionElsewhere)


class ElsewhereReader:
    """Reads decisions of one name that were made elsewhere.

    Args:
        bundle: digest of the bundle of `project`.
        future_tolerance_us: how far a sender's clock may run ahead of ours.

    Raises:
        UnknownNameError: the project has no such decision.
    """

    def __init__(
        self, project: CompiledProject, decision: str, *, bundle: str, future_tolerance_us: int
    ) -> None:
        self._namespace = project.namespace
        self._definition = project.decision(decision)
        self._bundle = bundle
        self._tolerance_us = future_tolerance_us
        request = project.requests[self._definition.request]
        self._reader = RequestReader(request, decision=decision, keys=project.key_fields(request.name))
        self._where = f"decision {decision}"

    def read(self, logged: DecisionElsewhere | bytes, *, now: Instant) -> DecisionMade:
        """The record of one decision.

        Args:
            logged: as a client sends it, or JSON.
            now: what was decided later than this, and the tolerance, is refused.

        Raises:
            RequestError: it is no such object, its request does not fit, its action is none of the decision's, or its
                propensity is no probability.
        """
        if isinstance(logged, bytes):
            try:
                logged = _DECODER.decode(logged)
            except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
                mend = "send decision_id, request, action, decided_at, propensity and propensity_method"
                raise self._error(f"It is no logged decision: {error}.".replace("`", ""), mend) from None
        if not 0 < len(logged.decision_id) <= MOST_DECISION_ID:
            raise self._error("Its id does not fit.", f"give it 1 to {MOST_DECISION_ID} characters")
        decided_at = from_datetime(logged.decided_at)
        if decided_at > now + self._tolerance_us:
            raise self._error(
                f"{format_instant(decided_at)} lies in the future.", "see to the sender's clock"
            )
        if logged.action not in self._definition.actions:
            actions = ", ".join(self._definition.actions)
            raise self._error(f"{logged.action!r} is none of its actions.", f"the actions are: {actions}")
        self._check_propensity(logged.propensity, logged.propensity_method)
        if logged.score is not None and not isfinite(logged.score):
            raise self._error(f"Its score is {logged.score}.", "send a number, or null")
        values = self._reader.read(bytes(logged.request))
        return DecisionMade(
            decision_id=logged.decision_id,
            namespace=self._namespace,
            decision=self._definition.name,
            bundle=self._bundle,
            release_id="",
            model=self._definition.model,
            model_version="",
            service_version="",
            request=values,
            features=[],
            decided_at=decided_at,
            features_as_of=BEGINNING,
            score=logged.score,
            action=logged.action,
            propensity=logged.propensity,
            propensity_method=logged.propensity_method,
            unit=_joined(values, self._definition.unit) or "",
            role=_ROLE,
            cost=logged.cost,
            subject=logged.subject,
            purpose=logged.purpose,
            source_event_id=_joined(values, self._reader.request.id_columns),
            origin=logged.origin,
        )

    def _check_propensity(self, propensity: float | None, method: str) -> None:
        if (propensity is None) != (method == UNKNOWN):
            mend = 'send the probability and how it was got; or null and propensity_method "unknown"'
            raise self._error("Its propensity and the method do not fit together.", mend)
        if propensity is not None and not 0.0 < propensity <= 1.0:
            raise self._error(
                f"Its propensity is {propensity}.", "a probability of what was done is above 0, at most 1"
            )
        if not method:
            raise self._error("It does not say how its propensity was got.", 'such as "deterministic"')

    def _error(self, what: str, mend: str) -> RequestError:
        return RequestError(what, where=self._where, mend=mend)


def _joined(values: dict[str, Scalar], names: tuple[str, ...]) -> str | None:
    parts: list[Any] = [values[name] for name in names]
    return event_id(parts) if parts else None
