"""`max` of an integer, bool or timestamp column."""

from __future__ import annotations


def init(x: int, y: int) -> tuple[int]:
    """The value."""
    return (x,)


def merge(a: tuple[int], b: tuple[int]) -> tuple[int]:
    """The greatest value."""
    return (a[0] if a[0] > b[0] else b[0],)


def final(s: tuple[int], n: int, p0: float, p1: float) -> tuple[int, bool]:
    """The greatest value; null when empty."""
    return s[0], n > 0
