"""The gate lets better models through, says why, and holds its error rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from volano.errors import DefinitionError
from volano.learn.evaluate import evaluate, measure_all
from volano.learn.gate import Verdict, judge
from volano.plan.definitions import CompiledGate
from volano.records.learning import TrainingSetManifest

SET = TrainingSetManifest("e", "m", "b", "q", "s", 3, 9, 9, 9, 1, 1, "hash", "a", 9, ("x",))
GATE = CompiledGate("roc_auc", margin=0.0, confidence=0.95, min_labels=100)


def scores(n: int, *, noise: float, seed: int) -> tuple[Any, Any, Any]:
    """labels, a noisier model, a better model"""
    random = np.random.default_rng(seed)
    labels = (random.random(n) < 0.3).astype(float)
    signal = labels + random.normal(size=n)
    return labels, 1 / (1 + np.exp(-(signal + noise * random.normal(size=n)))), 1 / (1 + np.exp(-signal))


def verdict(champion: Any, challenger: Any, labels: Any, **changes: Any) -> Verdict:
    gate = CompiledGate(
        **{"metric": "roc_auc", "margin": 0.0, "confidence": 0.95, "min_labels": 100, **changes}
    )
    return judge(gate, champion, challenger, labels, evaluation_set=SET, seed=1)


def test_a_better_challenger_passes_with_its_evidence() -> None:
    labels, worse, better = scores(4_000, noise=1.0, seed=0)
    passed, reason, evaluation = verdict(worse, better, labels)
    assert passed
    assert evaluation is not None
    assert evaluation.difference is not None
    assert evaluation.low is not None
    assert evaluation.high is not None
    assert 0 < evaluation.low < evaluation.difference < evaluation.high
    assert evaluation.evaluation_set_hash == "hash"
    assert (evaluation.decided_from, evaluation.decided_until, evaluation.n) == (3, 9, 4_000)
    assert "against the champion's" in reason
    assert "4,000 labels: better by" in reason


def test_a_worse_challenger_is_refused() -> None:
    labels, worse, better = scores(4_000, noise=1.0, seed=0)
    passed, reason, _ = verdict(better, worse, labels)
    assert not passed
    assert "worse by" in reason


def test_the_same_model_again_is_refused() -> None:
    labels, _, better = scores(4_000, noise=1.0, seed=0)
    passed, reason, evaluation = verdict(better, better, labels)
    assert not passed
    assert evaluation is not None
    assert evaluation.low == evaluation.high == 0.0
    assert "not more than the margin 0" in reason


def test_a_gain_within_the_margin_is_refused() -> None:
    labels, worse, better = scores(4_000, noise=0.5, seed=0)
    assert verdict(worse, better, labels).passed
    assert not verdict(worse, better, labels, margin=0.2).passed


def test_a_loss_is_signed_so_that_more_is_better() -> None:
    labels, worse, better = scores(4_000, noise=1.0, seed=0)
    _, _, evaluation = verdict(worse, better, labels, metric="brier")
    assert evaluation is not None
    assert evaluation.champion is not None
    assert evaluation.difference == pytest.approx(evaluation.champion - evaluation.challenger)


def test_too_few_labels_are_refused_with_both_numbers() -> None:
    labels, worse, better = scores(99, noise=1.0, seed=0)
    passed, reason, evaluation = verdict(worse, better, labels)
    assert (passed, evaluation) == (False, None)
    assert reason == "Only 99 mature labels; the gate asks for 100."


def test_labels_of_one_class_are_refused() -> None:
    passed, reason, _ = verdict(np.full(200, 0.5), np.full(200, 0.6), np.zeros(200))
    assert not passed
    assert "both classes are needed" in reason


def test_a_challenger_without_a_score_is_refused() -> None:
    labels, worse, better = scores(200, noise=1.0, seed=0)
    better[:3] = np.nan
    assert "no score for 3 of 200 rows" in verdict(worse, better, labels).reason


def test_a_champion_without_a_score_is_our_mistake_and_raises() -> None:
    labels, worse, better = scores(200, noise=1.0, seed=0)
    worse[0] = np.nan
    with pytest.raises(ValueError, match="missing"):
        verdict(worse, better, labels)


def test_a_missing_label_raises_and_is_never_a_negative() -> None:
    labels, worse, better = scores(200, noise=1.0, seed=0)
    labels[0] = np.nan
    assert not verdict(worse, better, labels).passed
    with pytest.raises(ValueError, match="missing"):
        measure_all(better, labels, binary=True)


def test_the_first_model_is_measured_and_passes() -> None:
    labels, _, better = scores(500, noise=1.0, seed=0)
    passed, reason, evaluation = verdict(None, better, labels)
    assert passed
    assert evaluation is not None
    assert evaluation.champion is None
    assert evaluation.low is not None
    assert evaluation.low < evaluation.challenger
    assert reason.startswith("The first model: roc_auc")


def test_an_unknown_metric_names_the_nearest() -> None:
    labels, worse, better = scores(200, noise=1.0, seed=0)
    with pytest.raises(DefinitionError, match="did you mean 'roc_auc'"):
        verdict(worse, better, labels, metric="rocauc")


def test_the_gate_passes_equal_models_about_once_in_twenty() -> None:
    passed = 0
    for seed in range(300):
        random = np.random.default_rng(seed)
        labels = (random.random(400) < 0.4).astype(float)
        signal = labels + random.normal(size=400)
        left, right = signal + 0.5 * random.normal(size=400), signal + 0.5 * random.normal(size=400)
        passed += judge(GATE, left, right, labels, evaluation_set=SET, seed=seed, n_resamples=200).passed
    assert 4 <= passed <= 28  # 15 expected, standard deviation 3.8


def test_resampling_by_unit_is_more_careful_than_by_row() -> None:
    labels, worse, better = scores(200, noise=1.0, seed=3)
    copies = [np.repeat(values, 10) for values in (labels, worse, better)]
    units = np.repeat(np.arange(200), 10)

    def low(units: Any) -> float:
        found = evaluate(
            "roc_auc",
            copies[2],
            copies[0],
            champion=copies[1],
            units=units,
            evaluation_set=SET,
            confidence=0.95,
            seed=1,
        )
        assert found.low is not None
        return found.low

    assert low(units) < low(None)


def test_every_metric_that_fits_is_measured() -> None:
    assert set(measure_all([0.2, 0.8], [0, 1], binary=True)) == {
        "roc_auc", "average_precision", "log_loss", "brier", "accuracy", "calibration_error",
    }  # fmt: skip
    assert measure_all([1.0, 3.0], [1.0, 1.0], binary=False) == {"rmse": pytest.approx(2**0.5), "mae": 1.0}
