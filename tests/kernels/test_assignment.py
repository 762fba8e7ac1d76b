"""The published vectors of hashed randomness, and what makes assignment sticky."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from volano.kernels.assignment import N_BUCKETS, assign, bucket, exploration_draw, uniform

# Published in the documentation. A change would move every unit of every running experiment: never change
# one.
VECTORS = [
    (("",), 0.8720608707559775),
    (("a", "bc"), 0.7078369908673371),
    (("ab", "c"), 0.9475650527020565),
    (("explore", "release-1", "decision-1"), 0.7750265111601651),
    (("é", "r", "d0"), 0.35238509692717557),
]


@pytest.mark.parametrize(("parts", "expected"), VECTORS)
def test_the_published_vectors_stand(parts: tuple[str, ...], expected: float) -> None:
    assert uniform(*parts) == expected


def test_the_published_buckets_stand() -> None:
    assert [bucket(f"user-{i}", "checkout") for i in range(5)] == [7078, 3338, 3659, 5605, 1785]


def test_the_draw_is_a_function_of_decision_and_release_alone() -> None:
    assert exploration_draw("d", "r") == exploration_draw("d", "r") == uniform("explore", "r", "d")
    assert exploration_draw("d", "r") != exploration_draw("r", "d")


def test_draws_are_uniform() -> None:
    counts = Counter(int(uniform("explore", "r", str(i)) * 20) for i in range(20_000))
    assert stats.chisquare([counts[i] for i in range(20)]).pvalue > 1e-3


def test_two_salts_assign_independently() -> None:
    table = [[0, 0], [0, 0]]
    for i in range(10_000):
        table[bucket(str(i), "a") % 2][bucket(str(i), "b") % 2] += 1
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_shares_are_met() -> None:
    counts = Counter(assign(str(i), "s", [("champion", 0.9), ("canary", 0.1)]) for i in range(20_000))
    assert stats.chisquare([counts["champion"], counts["canary"]], [18_000, 2_000]).pvalue > 1e-3


@given(unit=st.text(), small=st.floats(0, 1), large=st.floats(0, 1))
def test_a_growing_canary_keeps_the_units_it_has(unit: str, small: float, large: float) -> None:
    small, large = sorted((small, large))
    before = assign(unit, "s", [("champion", 1 - small), ("canary", small)])
    after = assign(unit, "s", [("champion", 1 - large), ("canary", large)])
    assert not (before == "canary" and after == "champion")


@given(unit=st.text(), salt=st.text())
def test_every_unit_has_a_bucket(unit: str, salt: str) -> None:
    assert 0 <= bucket(unit, salt) < N_BUCKETS


@pytest.mark.parametrize("shares", [[], [("a", 0.5)], [("a", 1.5), ("b", -0.5)]])
def test_shares_that_are_no_split_are_refused(shares: list[tuple[str, float]]) -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        assign("u", "s", shares)
