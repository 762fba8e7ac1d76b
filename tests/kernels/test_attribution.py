"""Touches and weights: against the naive twin, and that nothing is given twice."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from volano.kernels import attribution
from volano.kernels.attribution import Credit, Decided, Happened, Keep, Rule, attribute, touched
from volano.kernels.attribution_oracle import attribute_naively
from volano.values.instants import NEVER

CREDITS = (
    Credit(),
    Credit(Rule.FIRST),
    Credit(Rule.LAST),
    Credit(Rule.POSITION, ends=0.4),
    Credit(Rule.POSITION, ends=0.5),
    Credit(Rule.DECAY, half_life_us=3),
)
keys = st.sampled_from([-1, 0, 1])
instants = st.integers(0, 30)


def column(rows: list[Any], place: int) -> Any:
    return np.array([row[place] for row in rows], dtype=np.int64)


@st.composite
def decided(draw: st.DrawFn, most: int = 8) -> Decided:
    rows = sorted(
        draw(st.lists(st.tuples(keys, instants, st.integers(0, 8), st.integers(0, 40)), max_size=most))
    )
    at = column(rows, 1)
    late = column(rows, 2)
    return Decided(column(rows, 0), at, np.where(late == 8, NEVER, at + late // 3), column(rows, 3))


@st.composite
def happened(draw: st.DrawFn, most: int = 8) -> Happened:
    waits = st.sampled_from([NEVER, 20, 35])
    rows = sorted(draw(st.lists(st.tuples(keys, instants, waits), max_size=most)))
    return Happened(column(rows, 0), column(rows, 1), column(rows, 2))


@given(
    decided(),
    happened(),
    st.sampled_from(CREDITS),
    st.sampled_from(list(Keep)),
    st.integers(1, 12),
    st.booleans(),
)
@settings(max_examples=300, deadline=None)
def test_touches_equal_those_of_the_naive_twin(made, seen, credit, keep, horizon, in_parts):
    with pytest.MonkeyPatch.context() as patch:
        if in_parts:
            patch.setattr(attribution, "_PAIRS_AT_ONCE", 2)
        found = attribute(made, seen, credit, horizon_us=horizon, keep=keep)
    expected = attribute_naively(made, seen, credit, horizon_us=horizon, keep=keep)
    assert list(zip(found.happened.tolist(), found.decided.tolist(), strict=True)) == [
        (outcome, place) for outcome, place, _ in expected
    ]
    assert found.weight.tolist() == pytest.approx([share for _, _, share in expected], rel=0, abs=2**-49)


@given(decided(), happened(), st.integers(1, 12))
@settings(max_examples=100, deadline=None)
def test_touched_decisions_are_those_with_an_outcome_inside_their_horizon(made, seen, horizon):
    every = Decided(made.key, made.at, made.at, np.full(len(made.key), -1))
    found = attribute(every, seen, Credit(), horizon_us=horizon, keep=Keep.ALL)
    assert (
        np.flatnonzero(touched(made, seen, horizon_us=horizon)).tolist() == np.unique(found.decided).tolist()
    )


@given(
    st.lists(st.integers(0, 10**13), min_size=1, max_size=60),
    st.sampled_from(CREDITS),
    st.integers(1, 10**13),
)
@settings(max_examples=200, deadline=None)
def test_the_weights_of_one_outcome_sum_to_at_most_one_exactly(instants, credit, half_life):
    if credit.rule is Rule.DECAY:
        credit = Credit(Rule.DECAY, half_life_us=half_life)
    at = np.sort(np.array(instants, dtype=np.int64))
    zeros = np.zeros(len(at), dtype=np.int64)
    seen = Happened(zeros[:1], np.array([10**13 + 1]), np.array([NEVER]))
    found = attribute(Decided(zeros, at, at, zeros), seen, credit, horizon_us=2 * 10**13, keep=Keep.ALL)
    exact = sum(Fraction(weight) for weight in found.weight.tolist())
    assert 1 - Fraction(len(at), 2**48) <= exact <= 1
    assert sum(found.weight.tolist()) <= 1.0
    assert sum(sorted(found.weight.tolist())) <= 1.0
    assert (found.weight > 0).all()
