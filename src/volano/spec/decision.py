"""Decisions: a decision API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

from volano.spec.fields import FieldRef, SchemaType
from volano.spec.model import Model
from volano.spec.owner import Owner
from volano.spec.policy import Policy


@dataclass(frozen=True, eq=False)
class Decision:
    """A decision API: what it is asked, what it may answer, and how it chooses.

    Args:
        name: unique among the project's decisions; names the log table. Lower case, digits and underscores.
        request: what it is asked with.
        model: what scores the request.
        actions: what it may answer.
        policy: how scores become an action.
        deadline: how long an answer may take, such as "20ms"; past it the fallback answers.
        fallback: the action when the model cannot answer in time.
        unit: request fields that identify who is randomised together; without them each decision is its own
            unit.
        max_staleness: features older than this are not served; the fallback answers.
        owner: who answers for it.
    """

    name: str
    _: KW_ONLY
    request: SchemaType | None = None
    model: Model | None = None
    actions: Sequence[str] = ()
    policy: Policy | None = None
    deadline: str | timedelta | None = None
    fallback: str | None = None
    unit: str | FieldRef | Sequence[str | FieldRef] = ()
    max_staleness: str | timedelta | None = None
    owner: Owner | None = None
