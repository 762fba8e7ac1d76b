"""Bit tricks, and what the compiled module writes by hand: `bit_length` is one machine instruction there."""

from __future__ import annotations

from volano.kernels.arrays import Array

ENTRY: tuple[str, ...] = ()


def bit_length(x: int) -> int:
    """Number of bits of a 64-bit word up to its highest set bit; 64 for negative words, 0 for zero."""
    return 64 if x < 0 else int(x).bit_length()


def borrowed(array: Array) -> Array:
    """The same array. In the compiled module its views count no references, which costs more than a small window does;
    whoever borrows holds the array until all its views are gone."""
    return array


def spread(t: int, grid: int, shift: int) -> int:
    """Map an instant so that every grid cell fills one aligned block of 2**shift; the order stays.

    `grid` 1 keeps the instant. See docs/decisions/0010-canonical-association.md.
    """
    if grid == 1:
        return t
    cell = t // grid
    return (cell << shift) + (t - cell * grid)
