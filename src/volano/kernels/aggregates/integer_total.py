"""`sum` of an integer or bool column: exact, in two halves of 32 bits; null when it does not fit 64 bits."""

from __future__ import annotations


def init(x: int, y: int) -> tuple[int, int]:
    """The signed high half and the unsigned low half."""
    return x >> 32, x & 0xFFFFFFFF


def merge(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """Halves add up without overflow for fewer than 2**31 rows."""
    return a[0] + b[0], a[1] + b[1]


def final(s: tuple[int, int], n: int, p0: float, p1: float) -> tuple[int, bool]:
    """The sum; null when empty or outside 64 bits."""
    high = s[0] + (s[1] >> 32)
    return (high << 32) | (s[1] & 0xFFFFFFFF), n > 0 and -2147483648 <= high <= 2147483647
