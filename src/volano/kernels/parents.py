"""Whether what names a decision has found it: attached, still waiting, or expired. A rule without a memory.

The state is a function of two stamps and the instant it is asked for, so whoever comes first, whatever order things
are read in, it comes out the same.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from volano.values.instants import NEVER, Instant


class ParentState(StrEnum):
    """Of an exposure, an action taken, or any observation that names a decision."""

    ATTACHED = "attached"
    PENDING = "pending_parent"
    EXPIRED = "expired"


STATES: Final = tuple(ParentState)


def parent_states(
    applied_at: NDArray[np.int64], parent_at: NDArray[np.int64], *, as_of: Instant, within_us: int
) -> NDArray[np.int8]:
    """Where each child stands at an instant, as a place in `STATES`.

    A decision that came before its child, or less than `within_us` after it, has it attached from then on. A child
    whose decision has not come by then is expired for ever, also when the decision comes later.

    Args:
        applied_at: of the children, µs.
        parent_at: `applied_at` of the first answer to the decision each names; `NEVER` where none came.
        as_of: what was applied later does not count, µs.
        within_us: how long a child waits.

    >>> at, came = np.array([10, 10, 10, 10]), np.array([3, 14, 15, NEVER])
    >>> [STATES[code].value for code in parent_states(at, came, as_of=20, within_us=5)]
    ['attached', 'attached', 'expired', 'expired']
    >>> [STATES[code].value for code in parent_states(at, came, as_of=12, within_us=5)]
    ['attached', 'pending_parent', 'pending_parent', 'pending_parent']
    """
    waits_until = applied_at + within_us
    attached = (parent_at < waits_until) & (parent_at <= as_of) & (parent_at != NEVER)
    states = np.where(attached, 0, np.where(as_of < waits_until, 1, 2))
    return states.astype(np.int8)
