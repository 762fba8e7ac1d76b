"""`sum` of a float column, and the fold that mean and rate share."""

from __future__ import annotations


def init(x: float, y: float) -> tuple[float]:
    """The state of one row: its value."""
    return (x,)


def merge(a: tuple[float], b: tuple[float]) -> tuple[float]:
    """The sum of two runs."""
    return (a[0] + b[0],)


def final(s: tuple[float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """The sum; null when empty."""
    return s[0], n > 0
