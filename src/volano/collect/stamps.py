"""Stamps: the strictly increasing instants at which facts become visible. A hybrid of the clock and a counter."""

from __future__ import annotations

from volano.protocols.clock import Clock
from volano.values.instants import Instant


class Stamps:
    """Gives stamps: `max(last + 1, now)`. Increases also while the clock stands still or steps back.

    Args:
        last: the newest stamp ever given, from the apply log and the online store; none below it is given again.
    """

    def __init__(self, clock: Clock, last: Instant) -> None:
        self._clock = clock
        self.last = last

    def take(self, n: int) -> range:
        """The next `n` stamps, in order; the clock is read once."""
        first = max(self.last + 1, self._clock.now())
        stamps = range(first, first + n)
        if n:
            self.last = stamps[-1]
        return stamps
