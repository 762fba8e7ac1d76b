"""The gate: may a challenger replace the champion? A verdict with its reason and its evidence; changes nothing.

The question has one side: is the challenger better by more than the margin? So the bound has one side too: the
challenger passes when the lower bound of (challenger − champion), at the gate's confidence, lies above the margin. With
margin 0 and confidence 0.95 a challenger that is no better passes in one trial of twenty. The difference is paired on
the same rows and resampled by unit (decision record 0021).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from volano.learn.evaluate import N_RESAMPLES, evaluate, get_metric
from volano.plan.definitions import CompiledGate
from volano.records.learning import Evaluation, TrainingSetManifest


class Verdict(NamedTuple):
    """Whether it passed, why in one sentence, and the numbers; `evaluation` is None when nothing could be measured."""

    passed: bool
    reason: str
    evaluation: Evaluation | None


def judge(
    gate: CompiledGate,
    champion_scores: Any,
    challenger_scores: Any,
    labels: Any,
    units: Any = None,
    *,
    evaluation_set: TrainingSetManifest,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Verdict:
    """Judge a challenger against the champion on rows that neither has seen.

    Args:
        gate: metric, margin, confidence, least number of labels.
        champion_scores: None for the first model: then it is only measured, and passes with enough labels.
        challenger_scores: of the same rows in the same order, shape (n_rows,).
        labels: mature ones, shape (n_rows,).
        units: what is resampled together; each row by itself when None.
        evaluation_set: the manifest of these rows.
        seed: of the resampling: the same rows and seed, the same verdict.

    Raises:
        DefinitionError: the gate names an unknown metric.
        ValueError: the champion has no score for a row, or a label is missing.
    """
    metric = get_metric(gate.metric)
    label_rows = np.asarray(labels, dtype=np.float64)
    scores = np.asarray(challenger_scores, dtype=np.float64)
    problem = _too_little(gate, label_rows, scores, binary=metric.binary)
    if problem:
        return Verdict(False, problem, None)
    try:
        evaluation = evaluate(
            gate.metric,
            scores,
            label_rows,
            champion=champion_scores,
            units=units,
            evaluation_set=evaluation_set,
            confidence=gate.confidence,
            seed=seed,
            n_resamples=n_resamples,
        )
    except ValueError as error:
        if champion_scores is not None and np.isnan(np.asarray(champion_scores, dtype=np.float64)).any():
            raise
        return Verdict(False, f"Not judged: {error}.", None)
    if evaluation.champion is None or evaluation.difference is None or evaluation.low is None:
        reason = f"The first model: {gate.metric} {evaluation.challenger:.4f} on {evaluation.n:,} labels."
        return Verdict(True, reason, evaluation)
    passed = evaluation.low > gate.margin
    return Verdict(passed, _sentence(gate, evaluation, passed=passed), evaluation)


def _too_little(gate: CompiledGate, labels: Any, scores: Any, *, binary: bool) -> str:
    """Why nothing can be said; empty when something can."""
    if len(labels) < gate.min_labels:
        return f"Only {len(labels):,} mature labels; the gate asks for {gate.min_labels:,}."
    if binary and len(np.unique(labels)) < 2:
        return f"All {len(labels):,} mature labels are the same; both classes are needed."
    missing = int((~np.isfinite(scores)).sum())
    if missing:
        return f"The challenger gives no score for {missing:,} of {len(scores):,} rows."
    return ""


def _sentence(gate: CompiledGate, evaluation: Evaluation, *, passed: bool) -> str:
    assert evaluation.champion is not None
    assert evaluation.difference is not None
    assert evaluation.low is not None
    side = "better" if evaluation.difference >= 0 else "worse"
    at_least = f"at least {evaluation.low:+.4f} with {gate.confidence:.0%} confidence"
    asked = f"{'more' if passed else 'not more'} than the margin {gate.margin:g}"
    return (
        f"{gate.metric} {evaluation.challenger:.4f} against the champion's {evaluation.champion:.4f} on "
        f"{evaluation.n:,} labels: {side} by {abs(evaluation.difference):.4f}, {at_least}: {asked}."
    )
