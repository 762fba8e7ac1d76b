"""Intervals by resampling: the paired bootstrap by unit. Draws only from the seed it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from volano.kernels.metrics import Floats, Weighted


def unit_codes(units: Any) -> tuple[NDArray[np.int64], int]:
    """Number units 0, 1, 2, ... and count them.

    Args:
        units: what is resampled together, one value a row: a person, a plane, or the row's own id.

    >>> codes, n_units = unit_codes(["a", "b", "a"])
    >>> codes.tolist(), n_units
    ([0, 1, 0], 2)
    """
    distinct, codes = np.unique(np.asarray(units), return_inverse=True)
    return codes.astype(np.int64, copy=False), len(distinct)


def bootstrap(
    metrics: Sequence[Weighted], codes: NDArray[np.int64], n_units: int, *, n_resamples: int, seed: int
) -> Floats:
    """Values of prepared metrics under resamples of whole units, the same resample for every metric (paired).

    Args:
        metrics: from `Metric.prepare`, all over the same rows.
        codes: the unit of each row, 0 to n_units − 1, shape (n_rows,).
        n_units: how many units; this many are drawn with replacement each time.
        n_resamples: how often.
        seed: the same seed gives the same draws.

    Returns:
        Shape (n_resamples, n_metrics); NaN where a resample leaves a metric undefined.
    """
    random = np.random.default_rng(seed)
    values = np.empty((n_resamples, len(metrics)))
    each_row_is_a_unit = n_units == len(codes) and bool((codes == np.arange(n_units)).all())
    for at in range(n_resamples):
        drawn = np.bincount(random.integers(0, n_units, n_units), minlength=n_units).astype(np.float64)
        weights = drawn if each_row_is_a_unit else drawn[codes]
        values[at] = [metric(weights) for metric in metrics]
    return values


def one_sided_bounds(values: Floats, confidence: float) -> tuple[float, float]:
    """The percentile bounds of a bootstrap: each alone holds at `confidence`.

    At 0.95 the truth lies below `low` in 5 % of repetitions and above `high` in another 5 %.

    Args:
        values: one a resample; NaN are left out.
        confidence: of each bound, between 0.5 and 1.

    Raises:
        ValueError: more than one resample in a hundred is undefined: too few rows of a class to say anything.
    """
    defined = values[~np.isnan(values)]
    if len(defined) < 0.99 * len(values) or not len(defined):
        raise ValueError(
            f"the metric is undefined in {len(values) - len(defined)} of {len(values)} resamples; "
            "more labels are needed"
        )
    low, high = np.quantile(defined, [1.0 - confidence, confidence])
    return float(low), float(high)
