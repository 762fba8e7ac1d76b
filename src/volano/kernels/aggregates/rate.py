"""`rate`: the mean of a bool (or numeric) column, optionally drawn towards a prior.

With `params=(prior, weight)` it is (sum + prior · weight) / (n + weight): the posterior mean of a Beta(prior
· weight, (1 − prior) · weight) belief. Empty it is the prior itself.
"""

from __future__ import annotations


def final(s: tuple[float], n: int, p0: float, p1: float) -> tuple[float, bool]:
    """The smoothed rate; without a prior null when empty."""
    if n == 0:
        return p0, p1 > 0.0
    return (s[0] + p0 * p1) / (n + p1), True
