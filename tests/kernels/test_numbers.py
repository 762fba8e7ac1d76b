"""Floating point where naive formulas fail."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from volano.kernels.features import WindowFeature
from volano.kernels.history import History
from volano.kernels.windows import Queries, compute


def over(xs: list[float] | list[int], aggregate: str, **more: object) -> object:
    """The aggregate over all of xs."""
    history = History.build(["k"] * len(xs), list(range(len(xs))), columns={"x": pa.array(xs)})
    feature = WindowFeature("f", aggregate, "x", **more)  # type: ignore[arg-type]
    return compute([feature], history, Queries(["k"], [len(xs)]))["f"].to_pylist()[0]


def exact_variance(xs: list[float]) -> float:
    values = [Fraction(x) for x in xs]
    mean = sum(values) / len(values)
    return float(sum((x - mean) ** 2 for x in values) / len(values))


@pytest.mark.parametrize("offset", [0.0, 1e9, -1e9, 1e12])
def test_the_deviation_of_values_far_from_zero_is_exact_to_their_precision(offset: float) -> None:
    rng = np.random.default_rng(1)
    xs = (offset + rng.normal(0, 1, 5000)).tolist()
    found = over(xs, "std_pop")
    step = abs(offset) * 2.0**-52  # how far apart neighbouring floats are there
    assert found == pytest.approx(math.sqrt(exact_variance(xs)), rel=max(1e-9, step))


def test_equal_values_have_no_deviation() -> None:
    assert over([0.1] * 1000, "var_pop") == 0.0
    assert over([1e9 + 0.1] * 777, "std") == 0.0


def test_a_sum_of_mixed_magnitudes_does_not_lose_the_window_behind_a_large_value() -> None:
    xs = [1e16, 1.0, -1e16, *[0.25] * 1000]
    history = History.build(["k"] * len(xs), list(range(len(xs))), columns={"x": pa.array(xs)})
    feature = WindowFeature("f", "sum", "x", window_us=1000)
    # The large values have left the window: subtracting running totals would leave their rounding behind.
    assert compute([feature], history, Queries(["k"], [len(xs)]))["f"].to_pylist() == [250.0]


def test_sums_err_like_pairwise_summation() -> None:
    xs = [0.1] * 100_000
    assert abs(float(over(xs, "sum")) - 10_000.0) < 1e-8  # type: ignore[arg-type]


def test_integer_sums_are_exact_and_null_outside_64_bits() -> None:
    assert over([2**62, 2**61, -1], "sum") == 2**62 + 2**61 - 1
    assert over([2**62, 2**62], "sum") is None
    assert over([2**62, 2**62, -(2**62)], "sum") == 2**62
    assert over([-(2**63), 2**63 - 1], "sum") == -1


def test_nan_propagates_and_is_one_nan() -> None:
    for aggregate in ("sum", "mean", "min", "max", "var", "std"):
        found = over([1.0, -math.nan, 2.0], aggregate)
        assert np.float64(found).tobytes() == np.float64(math.nan).tobytes()
    assert np.float64(over([math.inf, -math.inf], "sum")).tobytes() == np.float64(math.nan).tobytes()


def test_an_infinite_value_has_no_variance() -> None:
    assert math.isnan(float(over([1.0, math.inf], "var_pop")))  # type: ignore[arg-type]
    assert math.isnan(float(over([math.inf], "var_pop")))  # type: ignore[arg-type]
    assert over([1.0, math.inf], "mean") == math.inf


def test_negative_zero_is_zero() -> None:
    for aggregate in ("sum", "min", "max", "last", "first", "mean"):
        assert math.copysign(1.0, float(over([-0.0], aggregate))) == 1.0  # type: ignore[arg-type]
    assert over([0.0, -0.0, 1.0], "count_distinct") == 2


def test_windows_need_be_no_multiple_of_anything() -> None:
    rng = np.random.default_rng(3)
    t = np.sort(rng.integers(0, 10**9, 2000))
    x = rng.normal(size=2000)
    history = History.build(np.zeros(2000, np.int64), t, columns={"x": pa.array(x)})
    at = rng.integers(0, 10**9, 200)
    for width in (1, 999_983, 123_456_789, 2**29 - 1, 2**29 + 1):
        feature = WindowFeature("f", "sum", "x", window_us=width)
        found = compute([feature], history, Queries(np.zeros(200, np.int64), at))["f"].to_pylist()
        for q, ours in zip(at.tolist(), found, strict=True):
            inside = x[(t >= q - width) & (t < q)]
            assert ours == (pytest.approx(math.fsum(inside), abs=1e-9) if len(inside) else None)
