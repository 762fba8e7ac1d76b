"""Attribution: how one outcome is divided among the decisions that came before it."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from datetime import timedelta


@dataclass(frozen=True, eq=False)
class Attribution:
    """Which open decisions of one key an outcome counts for, and how much.

    The shares of one outcome sum to at most one. A decision is open from `decided_at` until its label's horizon ends.

    Args:
        credit: `linear` (all open decisions, equally), `first`, `last` (one of them), `position` (`ends` to the first
            and the last each, the rest to those between) or `decay` (halved for every `half_life` before the newest).
        ends: of `position`; more than 0, at most 0.5.
        half_life: of `decay`; a duration.
        exposed: only decisions that were shown count, for outcomes from then on. One that never was has no label.
    """

    credit: str = "linear"
    _: KW_ONLY
    ends: float | None = None
    half_life: str | timedelta | None = None
    exposed: bool = False
