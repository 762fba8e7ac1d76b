"""Uniform numbers and buckets from hashes: the only randomness of a decision. Never draws entropy.

A number is a pure function of names, so a retried request repeats its action and a unit keeps its arm, in
every process and every language. The recipe, version 1: write each part as its length in UTF-8 bytes (4
bytes, big endian) and those bytes; take SHA-256 of the whole; the first 8 bytes as a big-endian integer,
shifted right by 11, divided by 2^53. The test vectors in `tests/kernels/test_assignment.py` are published
and stand for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from itertools import pairwise
from typing import Final

N_BUCKETS: Final = 10_000
"""How finely traffic can be split: a bucket is a hundredth of a per cent."""

_TO_UNIT: Final = 2.0**-53


def uniform(*parts: str) -> float:
    """A number in [0, 1) that only the parts decide; ("ab", "c") and ("a", "bc") give different ones.

    Args:
        parts: the first names the purpose, so that two uses of the same ids are independent.

    >>> uniform("explore", "release-1", "decision-1")
    0.7750265111601651
    """
    written = bytearray()
    for part in parts:
        raw = part.encode()
        written += len(raw).to_bytes(4, "big")
        written += raw
    return (int.from_bytes(sha256(written).digest()[:8], "big") >> 11) * _TO_UNIT


def exploration_draw(decision_id: str, release_id: str) -> float:
    """The number that a policy explores with: the same for every attempt of a decision under one release."""
    return uniform("explore", release_id, decision_id)


def bucket(unit: str, salt: str) -> int:
    """The bucket of a unit, 0 to `N_BUCKETS` - 1. Another salt (an experiment, a release) shuffles anew.

    >>> bucket("user-1", "checkout") == bucket("user-1", "checkout")
    True
    """
    return int(uniform("assign", salt, unit) * N_BUCKETS)


def assign(unit: str, salt: str, shares: Sequence[tuple[str, float]]) -> str:
    """The arm of a unit: sticky, and stored nowhere.

    Arms fill the buckets in the order given. When the share of the last arm grows, units only move into it;
    so list the champion first and the canary last.

    Args:
        unit: who or what is assigned.
        salt: the experiment or release.
        shares: (arm, share of the traffic); the shares sum to 1.

    Raises:
        ValueError: no arm, a negative share, or shares that do not sum to 1.

    >>> assign("user-1", "checkout", [("champion", 1.0), ("canary", 0.0)])
    'champion'
    """
    bounds = _bounds(shares)
    number = bucket(unit, salt)
    for (arm, _), (low, high) in zip(shares, pairwise(bounds), strict=True):
        if low <= number < high:
            return arm
    raise AssertionError("the buckets of all arms cover every number")


def _bounds(shares: Sequence[tuple[str, float]]) -> list[int]:
    """Where each arm's buckets begin, and the end of the last."""
    total = sum(share for _, share in shares)
    if not shares or any(share < 0 for _, share in shares) or abs(total - 1.0) > 1e-9:
        raise ValueError(f"shares are not negative and sum to 1, not {total}: {list(shares)!r}")
    bounds, reached = [0], 0.0
    for _, share in shares[:-1]:
        reached += share
        bounds.append(round(reached * N_BUCKETS))
    return [*bounds, N_BUCKETS]
