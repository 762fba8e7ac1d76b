"""Evaluation: metrics with intervals, paired against the champion on the same rows. Scores in, records out."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np

from volano.errors import DefinitionError
from volano.kernels.metrics import METRICS, Floats, Metric, as_rows
from volano.kernels.resampling import bootstrap, one_sided_bounds, unit_codes
from volano.records.learning import Evaluation, TrainingSetManifest

N_RESAMPLES = 1_000


def get_metric(name: str) -> Metric:
    """A metric by its name.

    Raises:
        DefinitionError: there is none; the mend lists them.
    """
    metric = METRICS.get(name)
    if metric is None:
        near = difflib.get_close_matches(name, METRICS, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise DefinitionError(
            f"There is no metric {name!r}.", mend=f"{hint}known: {', '.join(sorted(METRICS))}"
        )
    return metric


def measure_all(scores: Any, labels: Any, *, binary: bool) -> dict[str, float]:
    """Every metric that fits the kind of label and is defined on these rows.

    Args:
        scores: shape (n_rows,).
        labels: shape (n_rows,); 0 and 1 when `binary`.
        binary: whether the label is a bool.
    """
    score_rows, label_rows = as_rows(scores, labels)
    weights = np.ones_like(score_rows)
    values = {
        name: metric.prepare(score_rows, label_rows)(weights)
        for name, metric in METRICS.items()
        if metric.binary == binary
    }
    return {name: value for name, value in values.items() if not np.isnan(value)}


def evaluate(
    metric: str,
    challenger: Any,
    labels: Any,
    *,
    evaluation_set: TrainingSetManifest,
    confidence: float,
    seed: int,
    champion: Any = None,
    units: Any = None,
    n_resamples: int = N_RESAMPLES,
) -> Evaluation:
    """A metric of a challenger, beside the champion's on the same rows when there is one.

    Args:
        metric: a name in `kernels.metrics.METRICS`.
        challenger: its scores, shape (n_rows,); `champion` the champion's, of the same rows in the same order.
        labels: mature ones, shape (n_rows,).
        evaluation_set: the set whose rows these are.
        confidence: of each bound alone: `low` and `high` are one-sided.
        seed: of the resampling.
        units: what is resampled together, one a row; each row by itself when None.

    Returns:
        With a champion, `difference` is signed so that more is better, and `low` and `high` bound it. Without one they
        bound the challenger's metric.

    Raises:
        ValueError: no rows, a score or label is missing, or the metric is undefined on too many resamples.
    """
    kind = get_metric(metric)
    score_rows, label_rows = as_rows(challenger, labels)
    if not len(score_rows):
        raise ValueError("there are no rows to evaluate on")
    prepared = [kind.prepare(score_rows, label_rows)]
    if champion is not None:
        prepared.append(kind.prepare(as_rows(champion, labels)[0], label_rows))
    codes, n_units = (np.arange(len(score_rows)), len(score_rows)) if units is None else unit_codes(units)
    values = bootstrap(prepared, codes, n_units, n_resamples=n_resamples, seed=seed)
    weights = np.ones_like(score_rows)
    here = [value(weights) for value in prepared]
    sign = 1.0 if kind.more_is_better else -1.0
    drawn: Floats = values[:, 0] if champion is None else sign * (values[:, 0] - values[:, 1])
    low, high = one_sided_bounds(drawn, confidence)
    return Evaluation(
        metric=metric,
        n=len(score_rows),
        challenger=here[0],
        champion=None if champion is None else here[1],
        difference=None if champion is None else sign * (here[0] - here[1]),
        low=low,
        high=high,
        confidence=confidence,
        evaluation_set_hash=evaluation_set.root_hash,
        decided_from=evaluation_set.decided_from,
        decided_until=evaluation_set.decided_until,
    )
