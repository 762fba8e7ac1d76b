"""Stamps increase strictly, whatever the clock does."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from volano.collect.stamps import Stamps


class Clock:
    def __init__(self, readings):
        self._readings = iter(readings)

    def now(self):
        return next(self._readings)


@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 5))), st.integers(0, 50))
def test_stamps_increase_strictly_and_never_fall_behind_the_clock(asked, last):
    stamps = Stamps(Clock([now for now, _ in asked]), last)
    given_out = [last]
    for now, n in asked:
        taken = stamps.take(n)
        assert len(taken) == n
        assert not n or taken[0] >= now
        given_out += taken
    assert all(a < b for a, b in itertools.pairwise(given_out))
    assert stamps.last == given_out[-1]
