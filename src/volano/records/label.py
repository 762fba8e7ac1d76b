"""Labels and their states. A pending label is never a negative."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from volano.values.instants import Instant
from volano.values.schema import Scalar


class LabelState(StrEnum):
    """How sure a label is.

    `PENDING`: inside the horizon, no evidence. `PROVISIONAL`: evidence, and the horizon still open. `MATURE`: the
    horizon is over and the value stands. `CENSORED`: it will never be known. `RETRACTED`: its evidence was taken back.
    """

    PENDING = "pending"
    PROVISIONAL = "provisional"
    MATURE = "mature"
    CENSORED = "censored"
    RETRACTED = "retracted"


class Label(msgspec.Struct, frozen=True):
    """A state of one decision's label; rows are appended, the newest `computed_at` stands.

    Args:
        decided_at: of the decision; `matures_at` is that plus the horizon.
        computed_at: instant as of which it was derived: only evidence known by then counts.
        evidence: event id of the observation that decided it; `evidence_stamp` its applied_at.
        reason: why it is censored or retracted.
    """

    decision_id: str
    label: str
    state: LabelState
    value: Scalar
    decided_at: Instant
    matures_at: Instant
    computed_at: Instant
    evidence: str | None = None
    evidence_source: str | None = None
    evidence_stamp: Instant | None = None
    reason: str = ""
