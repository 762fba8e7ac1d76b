"""Bit tricks. `bit_length` is replaced by one machine instruction in the compiled module."""

from __future__ import annotations

ENTRY: tuple[str, ...] = ()


def bit_length(x: int) -> int:
    """Number of bits of a 64-bit word up to its highest set bit; 64 for negative words, 0 for zero."""
    return 64 if x < 0 else int(x).bit_length()


def spread(t: int, grid: int, shift: int) -> int:
    """Map an instant so that every grid cell fills one aligned block of 2**shift; the order stays.

    `grid` 1 keeps the instant. See docs/decisions/0010-canonical-association.md.
    """
    if grid == 1:
        return t
    cell = t // grid
    return (cell << shift) + (t - cell * grid)
