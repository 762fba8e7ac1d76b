"""Metrics against scikit-learn and hand-made cases; the bootstrap against DeLong's variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics as oracle

from volano.kernels.metrics import METRICS, Floats, calibration_band, measure
from volano.kernels.resampling import bootstrap, one_sided_bounds, unit_codes

SKLEARN = {
    "roc_auc": oracle.roc_auc_score,
    "average_precision": oracle.average_precision_score,
    "log_loss": oracle.log_loss,
    "brier": oracle.brier_score_loss,
    "accuracy": lambda y, p, sample_weight: oracle.accuracy_score(y, p >= 0.5, sample_weight=sample_weight),
    "rmse": oracle.root_mean_squared_error,
    "mae": oracle.mean_absolute_error,
}


@pytest.mark.parametrize("name", sorted(SKLEARN))
@given(seed=st.integers(0, 10_000), ties=st.booleans())
@settings(max_examples=25, deadline=None)
def test_a_metric_equals_scikit_learn_under_weights(name: str, seed: int, ties: bool) -> None:
    random = np.random.default_rng(seed)
    n = int(random.integers(5, 200))
    labels = np.concatenate([[0.0, 1.0], (random.random(n) < 0.3).astype(float)])
    scores = random.integers(0, 6, n + 2) / 5 if ties else random.random(n + 2)
    weights = random.integers(1, 4, n + 2).astype(float)
    expected = SKLEARN[name](labels, scores, sample_weight=weights)
    assert measure(name, scores, labels, weights=weights) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_average_precision_with_hits_at_1_3_5_is_0_7556() -> None:
    assert measure("average_precision", [5, 4, 3, 2, 1], [1, 0, 1, 0, 1]) == pytest.approx(0.7556, abs=5e-5)


def test_ties_between_a_positive_and_a_negative_count_one_half() -> None:
    assert measure("roc_auc", [0.5, 0.5, 0.5], [0, 1, 1]) == 0.5


def test_one_class_or_no_rows_is_undefined() -> None:
    assert np.isnan(measure("roc_auc", [0.1, 0.2], [0, 0]))
    assert np.isnan(measure("average_precision", [0.1], [0]))
    assert all(np.isnan(measure(name, [], [])) for name in METRICS)


def test_a_missing_label_is_refused_and_never_counted_as_a_negative() -> None:
    with pytest.raises(ValueError, match="missing"):
        measure("roc_auc", [0.1, 0.9, 0.5], [0, 1, np.nan])


@pytest.mark.parametrize(("n", "expected"), [(200, 0.069), (1_000, 0.032), (10_000, 0.0098)])
def test_calibration_error_of_calibrated_scores_is_what_simulation_says(n: int, expected: float) -> None:
    scores = np.random.default_rng(3).random(n)
    mean, upper = calibration_band(scores, seed=1)
    assert mean == pytest.approx(expected, rel=0.15)
    assert upper > mean


def test_calibration_error_by_hand() -> None:
    # Bin [0, .1): gap .05 over two rows; bin [.9, 1]: |.95 − .5| over two rows.
    assert measure("calibration_error", [0.05, 0.05, 0.95, 0.95], [0, 0, 1, 0]) == pytest.approx(
        0.5 * 0.05 + 0.5 * 0.45
    )


def delong_variance(scores_a: Floats, scores_b: Floats, labels: Floats) -> float:
    """Variance of the difference of two paired areas (DeLong, DeLong and Clarke-Pearson 1988)."""

    def placements(scores: Floats) -> tuple[Floats, Floats]:
        positive, negative = scores[labels > 0.5], scores[labels < 0.5]
        wins = (positive[:, None] > negative).astype(float) + 0.5 * (positive[:, None] == negative)
        return wins.mean(axis=1), wins.mean(axis=0)

    (pos_a, neg_a), (pos_b, neg_b) = placements(scores_a), placements(scores_b)
    return float(np.var(pos_a - pos_b, ddof=1) / len(pos_a) + np.var(neg_a - neg_b, ddof=1) / len(neg_a))


def test_the_paired_bootstrap_agrees_with_delong() -> None:
    random = np.random.default_rng(5)
    labels = (random.random(2_000) < 0.3).astype(float)
    signal = labels + random.normal(size=2_000)
    better, worse = signal + 0.3 * random.normal(size=2_000), signal + 0.8 * random.normal(size=2_000)
    prepare = METRICS["roc_auc"].prepare
    values = bootstrap(
        [prepare(better, labels), prepare(worse, labels)], np.arange(2_000), 2_000, n_resamples=2_000, seed=1
    )
    difference = values[:, 0] - values[:, 1]
    sd = np.sqrt(delong_variance(better, worse, labels))
    assert difference.std() == pytest.approx(sd, rel=0.08)
    low, high = one_sided_bounds(difference, 0.95)
    centre = measure("roc_auc", better, labels) - measure("roc_auc", worse, labels)
    assert low == pytest.approx(centre + stats.norm.ppf(0.05) * sd, abs=0.25 * sd)
    assert high == pytest.approx(centre + stats.norm.ppf(0.95) * sd, abs=0.25 * sd)


def test_accuracy_of_0_9_at_2000_rows_is_known_to_1_3_points() -> None:
    labels = np.ones(2_000)
    scores = np.where(np.arange(2_000) % 10, 0.9, 0.1)
    values = bootstrap(
        [METRICS["accuracy"].prepare(scores, labels)], np.arange(2_000), 2_000, n_resamples=2_000, seed=1
    )
    low, high = one_sided_bounds(values[:, 0], 0.975)  # two bounds of 97.5 % make one interval of 95 %
    assert (low, high) == (pytest.approx(0.9 - 0.013, abs=0.001), pytest.approx(0.9 + 0.013, abs=0.001))


def test_resampling_units_is_wider_than_resampling_rows_when_rows_of_a_unit_agree() -> None:
    random = np.random.default_rng(0)
    labels = np.repeat((random.random(200) < 0.5).astype(float), 20)
    scores = np.repeat(random.random(200), 20)
    brier = [METRICS["brier"].prepare(scores, labels)]
    rows = bootstrap(brier, np.arange(4_000), 4_000, n_resamples=300, seed=1).std()
    codes, n_units = unit_codes(np.repeat(np.arange(200), 20))
    units = bootstrap(brier, codes, n_units, n_resamples=300, seed=1).std()
    assert units == pytest.approx(rows * np.sqrt(20), rel=0.2)


def test_the_same_seed_gives_the_same_interval() -> None:
    metric = [METRICS["mae"].prepare(np.arange(50.0), np.zeros(50))]
    first, second = (bootstrap(metric, np.arange(50), 50, n_resamples=20, seed=4) for _ in range(2))
    assert (first == second).all()


def test_bounds_refuse_when_resamples_are_undefined() -> None:
    with pytest.raises(ValueError, match="undefined in 2 of 10"):
        one_sided_bounds(np.array([np.nan, np.nan, *range(8)]), 0.95)
