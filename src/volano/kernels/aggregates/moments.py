"""The fold behind variance and deviation: count, mean and sum of squared deviations, merged pairwise.

Source: Chan, Golub and LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances"
(1979). Never the sum of
squares: for values near 1e9 it loses every digit. An infinite value makes the result NaN, as the definition does.
"""

from __future__ import annotations


def init(x: float, y: float) -> tuple[float, float, float]:
    """One row: its own mean, no deviation. `x - x` is 0 for a finite value and NaN otherwise."""
    return 1.0, x, x - x


def merge(a: tuple[float, float, float], b: tuple[float, float, float]) -> tuple[float, float, float]:
    """Mean and deviation of two runs."""
    n = a[0] + b[0]
    delta = b[1] - a[1]
    return n, a[1] + delta * (b[0] / n), a[2] + b[2] + delta * delta * (a[0] * (b[0] / n))


def final(s: tuple[float, float, float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """The sum of squared deviations (no author-facing aggregate)."""
    return s[2], n > 0
