"""`var_pop`: population variance."""

from __future__ import annotations


def final(s: tuple[float, float, float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """Divided by n; null when empty."""
    return s[2] / max(n, 1), n > 0
