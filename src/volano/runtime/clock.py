"""Clocks. The only modules that read the system's time are here and in the ways in."""

from __future__ import annotations

import time

from volano.values.instants import Instant, format_instant


class SystemClock:
    """The machine's clock, in microseconds."""

    def now(self) -> Instant:
        """The present instant; may step backwards."""
        return time.time_ns() // 1_000

    def elapsed_ns(self) -> int:
        """The machine's monotonic counter."""
        return time.perf_counter_ns()


class ReplayClock:
    """A clock that stands still until it is moved: it turns years into minutes through the same code.

    >>> clock = ReplayClock(10)
    >>> clock.advance_to(25); clock.now()
    25
    """

    def __init__(self, start: Instant) -> None:
        self._now = start

    def now(self) -> Instant:
        """The instant it was last moved to."""
        return self._now

    def elapsed_ns(self) -> int:
        """Stands still with the clock: in a replay a pause of the machine passes no deadline."""
        return self._now * 1_000

    def advance_to(self, instant: Instant) -> None:
        """Move forward.

        Raises:
            ValueError: the instant lies in the past; a replay goes one way.
        """
        if instant < self._now:
            raise ValueError(
                f"the replay clock stands at {format_instant(self._now)} and cannot go back to "
                f"{format_instant(instant)}"
            )
        self._now = instant
