"""`ratio`: the sum of one column over the sum of another, over rows where both are non-null."""

from __future__ import annotations


def init(x: float, y: float) -> tuple[float, float]:
    """Both values."""
    return x, y


def merge(a: tuple[float, float], b: tuple[float, float]) -> tuple[float, float]:
    """Both sums."""
    return a[0] + b[0], a[1] + b[1]


def final(s: tuple[float, float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """Null when empty or when the denominator is zero."""
    if n == 0 or s[1] == 0.0:
        return 0.0, False
    return s[0] / s[1], True
