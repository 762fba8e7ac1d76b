"""Public help for tests and rehearsals. Nothing in Volano imports it at run time.

`volano.testing.conformance` holds a suite for every store protocol, `volano.testing.disk` a simulated disk. Here stand
the clock of a replay and the helpers for instants that a script under it needs.

>>> clock = ReplayClock(parse_instant("2026-01-01"))
>>> clock.advance_to(clock.now() + HOUR_US)
>>> format_instant(clock.now()), to_datetime(clock.now()).hour
('2026-01-01T01:00:00Z', 1)
"""

from __future__ import annotations

from volano.runtime.clock import ReplayClock
from volano.values.instants import (
    DAY_US,
    HOUR_US,
    MINUTE_US,
    SECOND_US,
    Instant,
    format_duration,
    format_instant,
    from_datetime,
    parse_duration,
    parse_instant,
    to_datetime,
)

__all__ = [
    "DAY_US",
    "HOUR_US",
    "MINUTE_US",
    "SECOND_US",
    "Instant",
    "ReplayClock",
    "format_duration",
    "format_instant",
    "from_datetime",
    "parse_duration",
    "parse_instant",
    "to_datetime",
]
