"""How good scores are: ranking, classification, calibration and regression metrics under row weights.

Each metric is prepared once for its rows (sorted, binned) and then valued under any row weights, so that a
bootstrap pays for the sorting once. Holds no resampling (`kernels.resampling`) and no verdict (`learn.gate`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Weighted: TypeAlias = Callable[[Floats], float]
"""The value of a metric under row weights, shape (n_rows,); NaN where it is not defined."""

CALIBRATION_BINS: Final = 10
_EPSILON: Final = float(np.finfo(np.float64).eps)


class Metric(NamedTuple):
    """One metric.

    Args:
        binary: labels are 0 and 1 and scores probabilities; otherwise both are any numbers.
        more_is_better: whether a higher value is the better one.
        prepare: takes scores and labels, gives the weighted value.
    """

    name: str
    binary: bool
    more_is_better: bool
    prepare: Callable[[Floats, Floats], Weighted]


def _roc_auc(scores: Floats, labels: Floats) -> Weighted:
    # Rows of one score share a group: a pair of a positive and a negative in it counts one half.
    distinct, group = np.unique(scores, return_inverse=True)
    n_groups = len(distinct)

    def value(weights: Floats) -> float:
        positive = np.bincount(group, weights=weights * labels, minlength=n_groups)
        every = np.bincount(group, weights=weights, minlength=n_groups)
        negative = every - positive
        pairs = positive.sum() * negative.sum()
        if not pairs > 0:
            return float("nan")
        below = np.cumsum(negative) - 0.5 * negative
        return float(positive @ below / pairs)

    return value


def _average_precision(scores: Floats, labels: Floats) -> Weighted:
    distinct, group = np.unique(-scores, return_inverse=True)
    n_groups = len(distinct)

    def value(weights: Floats) -> float:
        positive = np.bincount(group, weights=weights * labels, minlength=n_groups)
        taken = np.cumsum(np.bincount(group, weights=weights, minlength=n_groups))
        total = positive.sum()
        if not total > 0:
            return float("nan")
        precision = np.divide(np.cumsum(positive), taken, out=np.zeros(n_groups), where=taken > 0)
        return float(positive @ precision / total)

    return value


def _mean_of(loss: Floats) -> Weighted:
    def value(weights: Floats) -> float:
        total = weights.sum()
        return float(loss @ weights / total) if total > 0 else float("nan")

    return value


def _log_loss(scores: Floats, labels: Floats) -> Weighted:
    p = np.clip(scores, _EPSILON, 1.0 - _EPSILON)
    return _mean_of(-np.where(labels > 0.5, np.log(p), np.log1p(-p)))


def _brier(scores: Floats, labels: Floats) -> Weighted:
    return _mean_of((scores - labels) ** 2)


def _accuracy(scores: Floats, labels: Floats) -> Weighted:
    return _mean_of(((scores >= 0.5) == (labels > 0.5)).astype(np.float64))


def _mae(scores: Floats, labels: Floats) -> Weighted:
    return _mean_of(np.abs(scores - labels))


def _rmse(scores: Floats, labels: Floats) -> Weighted:
    mean_square = _mean_of((scores - labels) ** 2)
    return lambda weights: float(np.sqrt(mean_square(weights)))


def _calibration_error(scores: Floats, labels: Floats) -> Weighted:
    bins = np.clip((scores * CALIBRATION_BINS).astype(np.int64), 0, CALIBRATION_BINS - 1)
    gap = scores - labels

    def value(weights: Floats) -> float:
        total = weights.sum()
        by_bin = np.bincount(bins, weights=weights * gap, minlength=CALIBRATION_BINS)
        return float(np.abs(by_bin).sum() / total) if total > 0 else float("nan")

    return value


METRICS: Final[Mapping[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric("roc_auc", True, True, _roc_auc),
        Metric("average_precision", True, True, _average_precision),
        Metric("log_loss", True, False, _log_loss),
        Metric("brier", True, False, _brier),
        Metric("accuracy", True, True, _accuracy),
        Metric("calibration_error", True, False, _calibration_error),
        Metric("rmse", False, False, _rmse),
        Metric("mae", False, False, _mae),
    )
}
"""Every metric by name.

- `roc_auc`: probability that a positive scores above a negative, ties one half (Mann and Whitney 1947).
- `average_precision`: Σ (Rₖ − Rₖ₋₁) Pₖ over the distinct scores, without interpolation.
- `log_loss`: mean negative log-likelihood; scores are kept one machine epsilon away from 0 and 1.
- `brier`: mean squared error of the probability (Brier 1950).
- `accuracy`: share of rows on the right side of 0.5; a score of 0.5 says yes.
- `calibration_error`: expected calibration error over ten bins of equal width, [0, .1) to [.9, 1] (Naeini et
  al. 2015). It is above 0 even for a calibrated model: read it beside `calibration_band`.
- `rmse`, `mae`: root mean squared and mean absolute error.
"""


def as_rows(scores: Any, labels: Any) -> tuple[Floats, Floats]:
    """Scores and labels as float64 arrays of one length, without NaN.

    Raises:
        ValueError: lengths differ, or a score or a label is missing.
    """
    score_rows = np.ascontiguousarray(scores, dtype=np.float64)
    label_rows = np.ascontiguousarray(labels, dtype=np.float64)
    if score_rows.shape != label_rows.shape or score_rows.ndim != 1:
        raise ValueError(
            f"scores have shape {score_rows.shape}, labels {label_rows.shape}; both must be (n_rows,)"
        )
    if np.isnan(score_rows).any() or np.isnan(label_rows).any():
        raise ValueError("a score or a label is missing; a row without a mature label cannot be measured")
    return score_rows, label_rows


def measure(metric: str, scores: Any, labels: Any, *, weights: Any = None) -> float:
    """The value of a metric.

    Args:
        metric: a name in `METRICS`.
        scores: shape (n_rows,); probabilities for a binary metric.
        labels: shape (n_rows,); 0 and 1 (or bools) for a binary metric.
        weights: shape (n_rows,), not negative; 1 each when None.

    Returns:
        The value; NaN where it is not defined (`roc_auc` of one class, anything of no rows).

    >>> measure("roc_auc", [0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1])
    0.75
    >>> round(measure("average_precision", [5, 4, 3, 2, 1], [1, 0, 1, 0, 1]), 4)
    0.7556
    """
    score_rows, label_rows = as_rows(scores, labels)
    weight_rows = np.ones_like(score_rows) if weights is None else np.asarray(weights, dtype=np.float64)
    return METRICS[metric].prepare(score_rows, label_rows)(weight_rows)


def calibration_band(
    scores: Any, *, seed: int, confidence: float = 0.95, draws: int = 200
) -> tuple[float, float]:
    """The expected calibration error that *calibrated* scores would show on this many rows: (mean, upper
    bound).

    Labels are drawn from the scores themselves. With 200 rows the mean is about 0.07: a small slice always
    looks uncalibrated without this band (Kumar, Liang and Ma 2019).

    Args:
        scores: probabilities, shape (n_rows,).
        seed: of the draws.
        confidence: of the upper, one-sided bound.
        draws: how many label vectors are drawn.
    """
    rows = np.asarray(scores, dtype=np.float64)
    if not len(rows):
        return float("nan"), float("nan")
    random = np.random.default_rng(seed)
    ones = np.ones_like(rows)
    errors = [
        _calibration_error(rows, (random.random(len(rows)) < rows).astype(np.float64))(ones)
        for _ in range(draws)
    ]
    return float(np.mean(errors)), float(np.quantile(errors, confidence))
