"""`var`: sample variance."""

from __future__ import annotations


def final(s: tuple[float, float, float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """Divided by n − 1; null below two values."""
    return s[2] / max(n - 1, 1), n > 1
