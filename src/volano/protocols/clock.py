"""The clock. Stages never read the time; they are given one of these, or an instant."""

from __future__ import annotations

from typing import Protocol

from volano.values.instants import Instant


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> Instant:
        """The present instant. May step backwards; whoever needs order uses stamps."""
        ...

    def elapsed_ns(self) -> int:
        """Nanoseconds since some beginning; only goes forward. For deadlines and latencies."""
        ...
