"""What each policy chooses, that propensities are exact, and that realised frequencies match them."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from volano.errors import DefinitionError
from volano.kernels.assignment import exploration_draw
from volano.kernels.policies import DETERMINISTIC, EXACT, Choice, Policy, draw, make_policy

ABC = ("a", "b", "c")
SCORES = st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3)
U = st.floats(0, 1, exclude_max=True)


def every_policy() -> list[Policy]:
    return [
        make_policy("greedy", {}, ABC),
        make_policy("epsilon_greedy", {"epsilon": 0.0}, ABC),
        make_policy("epsilon_greedy", {"epsilon": 0.3}, ABC),
        make_policy("epsilon_greedy", {"epsilon": 1.0}, ABC),
        make_policy("softmax", {"temperature": 0.01}, ABC),
        make_policy("softmax", {"temperature": 5.0}, ABC),
    ]


def test_a_threshold_is_met_at_its_value() -> None:
    policy = make_policy("threshold", {"action": "warn", "at": 0.5}, ["ok", "warn", "call"])
    assert policy.choose([0.5], 0.9) == Choice("warn", 1.0, DETERMINISTIC)
    assert policy.choose([math.nextafter(0.5, 0)], 0.9) == Choice("ok", 1.0, DETERMINISTIC)
    assert policy.distribution([0.7]) == [0.0, 1.0, 0.0]


def test_a_threshold_may_name_the_other_action() -> None:
    policy = make_policy("threshold", {"action": "a", "at": 0.5, "otherwise": "c"}, ABC)
    assert policy.choose([0.1], 0.0).action == "c"


def test_of_equal_scores_the_first_declared_wins() -> None:
    assert make_policy("greedy", {}, ABC).choose([1.0, 2.0, 2.0], 0.0).action == "b"


def test_a_single_score_of_two_actions_is_the_first_ones() -> None:
    policy = make_policy("greedy", {}, ["warn", "ok"])
    assert [policy.choose([p], 0.0).action for p in (0.6, 0.5, 0.4)] == ["warn", "warn", "ok"]


def test_epsilon_greedy_known_case() -> None:
    assert make_policy("epsilon_greedy", {"epsilon": 0.3}, ABC).distribution([1, 3, 2]) == pytest.approx(
        [0.1, 0.8, 0.1]
    )


def test_softmax_known_case() -> None:
    policy = make_policy("softmax", {"temperature": 2.0}, ABC)
    assert policy.distribution([0.0, 2 * math.log(2), 2 * math.log(5)]) == pytest.approx([0.125, 0.25, 0.625])


def test_softmax_of_large_scores_does_not_overflow() -> None:
    assert make_policy("softmax", {"temperature": 1.0}, ABC).distribution([1e308, 0, -1e308]) == [
        1.0,
        0.0,
        0.0,
    ]


def test_drawing_follows_the_cumulated_distribution() -> None:
    shares = [0.25, 0.25, 0.5]
    assert [draw(ABC, shares, u).action for u in (0.0, 0.2499, 0.25, 0.5, 0.999)] == ["a", "a", "b", "c", "c"]


def test_rounding_never_draws_an_action_of_probability_zero() -> None:
    assert draw(ABC, [0.1, 0.9 - 1e-12, 0.0], 1 - 1e-13) == Choice("b", 0.9 - 1e-12, EXACT)


@given(scores=SCORES)
def test_propensities_sum_to_one(scores: list[float]) -> None:
    for policy in every_policy():
        shares = policy.distribution(scores)
        assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
        assert all(0.0 <= share <= 1.0 for share in shares)


@given(scores=SCORES, u=U)
def test_the_logged_propensity_is_the_distributions(scores: list[float], u: float) -> None:
    for policy in every_policy():
        choice = policy.choose(scores, u)
        assert choice.propensity == policy.distribution(scores)[ABC.index(choice.action)] > 0.0
        assert choice.method == (EXACT if policy.explores else DETERMINISTIC)


@pytest.mark.parametrize(
    "kind, params", [("epsilon_greedy", {"epsilon": 0.4}), ("softmax", {"temperature": 0.7})]
)
def test_realised_frequencies_match_logged_propensities(kind: str, params: dict[str, Any]) -> None:
    policy, scores, n = make_policy(kind, params, ABC), [0.3, 0.9, 0.1], 20_000
    counts = Counter(policy.choose(scores, exploration_draw(f"d{i}", "r")).action for i in range(n))
    expected = [n * share for share in policy.distribution(scores)]
    assert stats.chisquare([counts[action] for action in ABC], expected).pvalue > 1e-3


@pytest.mark.parametrize(
    "kind, params, message",
    [
        ("thresold", {}, "no policy"),
        ("threshold", {"action": "x", "at": 0.5}, "no action"),
        ("threshold", {"action": "a"}, "cannot take"),
        ("threshold", {"action": "a", "at": math.nan}, "never decides"),
        ("epsilon_greedy", {"epsilon": 1.5}, "no probability"),
        ("softmax", {"temperature": 0}, "no distribution"),
        ("greedy", {"epsilon": 0.1}, "cannot take"),
    ],
)
def test_a_wrong_declaration_is_refused(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        make_policy(kind, params, ABC)


def test_scores_that_fit_no_action_are_refused() -> None:
    with pytest.raises(ValueError, match="3 actions"):
        make_policy("greedy", {}, ABC).choose([0.5], 0.0)
