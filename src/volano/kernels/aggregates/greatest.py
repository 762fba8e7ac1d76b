"""`max` of a float column. NaN propagates."""

from __future__ import annotations


def init(x: float, y: float) -> tuple[float]:
    """The value."""
    return (x,)


def merge(a: tuple[float], b: tuple[float]) -> tuple[float]:
    """NaN wins, then the greatest value."""
    return (a[0] if (a[0] != a[0] or a[0] > b[0]) else b[0],)


def final(s: tuple[float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """The greatest value; null when empty."""
    return s[0], n > 0
