"""Instants and durations: whole microseconds, UTC. Never reads the clock.

An `Instant` is an `int` of microseconds since 1970-01-01 UTC; a duration is an `int` of microseconds in a
name that ends in `_us`. Plain integers because they are compared, packed and hashed in every hot path.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, TypeAlias

Instant: TypeAlias = int

SECOND_US: Final = 1_000_000
MINUTE_US: Final = 60 * SECOND_US
HOUR_US: Final = 60 * MINUTE_US
DAY_US: Final = 24 * HOUR_US

NEVER: Final[Instant] = 2**63 - 1
"""Later than every instant: the `superseded_at` of a row that still stands."""
BEGINNING: Final[Instant] = -(2**63) + 1
"""Earlier than every instant."""
YEAR_1: Final[Instant] = -62_135_596_800_000_000
"""What an author states lies from here on: the calendar of UTC has the years 1 to 9999."""
YEAR_10000: Final[Instant] = 253_402_300_800_000_000
"""And before this."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS_US: Final = {
    "us": 1, "ms": 1_000, "s": SECOND_US, "m": MINUTE_US, "h": HOUR_US, "d": DAY_US, "w": 7 * DAY_US,
}  # fmt: skip
_NAMED_US: Final = {"hourly": HOUR_US, "daily": DAY_US, "weekly": 7 * DAY_US}
_DURATION: Final = re.compile(r"(\d+)\s*(us|ms|s|m|h|d|w)")


def parse_duration(text: str | timedelta) -> int:
    """Turn `"36h"`, `"1d12h"`, `"weekly"` or a timedelta into microseconds.

    Args:
        text: one or more numbers, each with a unit of us, ms, s, m, h, d, w; or hourly, daily, weekly.

    Returns:
        The duration in microseconds, not negative.

    Raises:
        ValueError: the text is not a duration.

    >>> parse_duration("36h") == 36 * HOUR_US, parse_duration("1d12h") == 36 * HOUR_US
    (True, True)
    """
    if isinstance(text, timedelta):
        return text // timedelta(microseconds=1)
    if text in _NAMED_US:
        return _NAMED_US[text]
    compact = text.replace(" ", "")
    parts = _DURATION.findall(compact)
    if not parts or "".join(number + unit for number, unit in parts) != compact:
        raise ValueError(f"{text!r} is not a duration; write a number and a unit, such as '90s', '36h', '7d'")
    return sum(int(number) * _UNITS_US[unit] for number, unit in parts)


def format_duration(duration_us: int) -> str:
    """Write a duration with the largest unit that divides it.

    >>> format_duration(36 * HOUR_US), format_duration(0), format_duration(1_500)
    ('36h', '0s', '1500us')
    """
    if duration_us == 0:
        return "0s"
    for unit in ("w", "d", "h", "m", "s", "ms"):
        if duration_us % _UNITS_US[unit] == 0 and (unit != "w" or duration_us > _UNITS_US[unit]):
            return f"{duration_us // _UNITS_US[unit]}{unit}"
    return f"{duration_us}us"


def from_datetime(moment: datetime) -> Instant:
    """Turn an aware datetime into an instant.

    Raises:
        ValueError: the datetime has no time zone, so it names no instant.

    >>> from_datetime(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC))
    1000000
    """
    if moment.tzinfo is None:
        raise ValueError(f"{moment.isoformat()} has no time zone; add one, such as +00:00")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def to_datetime(instant: Instant) -> datetime:
    """Turn an instant into an aware UTC datetime.

    >>> to_datetime(1_000_000).isoformat()
    '1970-01-01T00:00:01+00:00'
    """
    return _EPOCH + timedelta(microseconds=instant)


def parse_instant(text: str) -> Instant:
    """Read an ISO 8601 instant with a zone; a bare date is its midnight, UTC.

    >>> parse_instant("1970-01-02") == DAY_US == parse_instant("1970-01-02T00:00:00Z")
    True
    """
    if len(text) == len("2013-01-01"):
        text += "T00:00:00+00:00"
    return from_datetime(datetime.fromisoformat(text))


def format_instant(instant: Instant) -> str:
    """Write an instant as ISO 8601 with a `Z`, to the microsecond only where needed.

    >>> format_instant(1_000_000), format_instant(NEVER)
    ('1970-01-01T00:00:01Z', 'never')
    """
    if instant >= NEVER:
        return "never"
    if instant <= BEGINNING:
        return "beginning"
    return to_datetime(instant).isoformat().replace("+00:00", "Z")


def floor_to(instant: Instant, step_us: int) -> Instant:
    """Floor an instant to the grid of `step_us` that starts at the epoch.

    >>> floor_to(-1, 10), floor_to(19, 10)
    (-10, 10)
    """
    return instant - instant % step_us
