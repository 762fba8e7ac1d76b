"""The scikit-learn trainer: its scores are scikit-learn's, without a pickle and without importing it to serve."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tests.trainers.test_lightgbm import python_rows, rows
from volano.errors import CorruptionError, DefinitionError, StateMismatchError, UnsupportedError
from volano.trainers.sklearn import SklearnTrainer

TRAINER = SklearnTrainer()
TABLE, LABEL = rows()
NUMBER = pa.array(np.nan_to_num(TABLE["x"].to_numpy()) * 10 + 3)
ESTIMATORS = {
    "LogisticRegression": ({"C": 0.5}, LABEL),
    "LinearRegression": ({}, NUMBER),
    "Ridge": ({"alpha": 2.0}, NUMBER),
    "Lasso": ({"alpha": 0.01}, NUMBER),
    "ElasticNet": ({"alpha": 0.01}, NUMBER),
    "HistGradientBoostingClassifier": ({"max_iter": 20}, LABEL),
    "HistGradientBoostingRegressor": ({"max_iter": 20}, NUMBER),
}


def fit(name: str, seed: int = 3, **changes: Any) -> bytes:
    params, label = ESTIMATORS[name]
    return TRAINER.fit(TABLE, label, params={"estimator": name, **params, **changes}, seed=seed).artifact


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_training_proves_parity_and_repeats_to_the_byte(name: str) -> None:
    assert fit(name) == fit(name)  # `fit` compares every training row's score with scikit-learn's own


@pytest.mark.parametrize("name", sorted(ESTIMATORS))
def test_one_row_gives_the_same_bits_as_many(name: str) -> None:
    predictor = TRAINER.load(fit(name), "")
    fresh, _ = rows(300, seed=11)
    assert predictor.predict(fresh).tolist() == [predictor.predict_one(row) for row in python_rows(fresh)]


@pytest.mark.parametrize("name", ["LogisticRegression", "HistGradientBoostingClassifier"])
def test_a_classifier_ranks_well(name: str) -> None:
    from sklearn.metrics import roc_auc_score

    fresh, label = rows(2_000, seed=12)
    assert roc_auc_score(label.to_pylist(), TRAINER.load(fit(name), "").predict(fresh)) > 0.72


def test_categories_beyond_the_limit_are_missing() -> None:
    random = np.random.default_rng(0)
    words = np.array([f"w{int(n)}" for n in random.zipf(1.3, 4_000) % 900])
    table = pa.table({"word": pa.array(words), "x": pa.array(random.normal(size=4_000))})
    label = pa.array(np.char.str_len(words) > 2)
    params = {"estimator": "HistGradientBoostingClassifier", "max_iter": 5}
    predictor = TRAINER.load(TRAINER.fit(table, label, params=params, seed=0).artifact, "")
    assert predictor.predict_one(("never", 0.0)) == predictor.predict_one((None, 0.0))


def test_a_constant_or_empty_column_does_no_harm() -> None:
    table = pa.table({"x": TABLE["x"], "one": pa.repeat(1.0, 3_000), "none": pa.nulls(3_000, pa.float64())})
    for name in ("LogisticRegression", "HistGradientBoostingClassifier"):
        artifact = TRAINER.fit(table, LABEL, params={"estimator": name}, seed=0).artifact
        predictor = TRAINER.load(artifact, "")
        assert 0 < predictor.predict_one((None, None, 5.0)) < 1


def test_an_extreme_row_does_not_overflow() -> None:
    predictor = TRAINER.load(fit("LogisticRegression"), "")
    assert predictor.predict_one((1e9, 0, "ORD", True, 0)) == 1.0
    assert predictor.predict_one((-1e9, 0, "ORD", True, 0)) == 0.0


def test_weights_count() -> None:
    params = {"estimator": "LogisticRegression"}
    weight = pa.array(np.where(LABEL.to_numpy(zero_copy_only=False), 5.0, 1.0))
    heavy = TRAINER.load(TRAINER.fit(TABLE, LABEL, params=params, seed=0, weight=weight).artifact, "")
    plain = TRAINER.load(TRAINER.fit(TABLE, LABEL, params=params, seed=0).artifact, "")
    assert heavy.predict(TABLE).mean() > plain.predict(TABLE).mean() + 0.1


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "'estimator' is missing"),
        ({"estimator": "SVC"}, "'SVC' is no estimator of this trainer"),
        ({"estimator": "Ridge", "alfa": 1.0}, "did you mean 'alpha'"),
        ({"estimator": "Ridge", "random_state": 1}, "set by the platform"),
        ({"estimator": "LogisticRegression", "C": -1.0}, "'C' parameter"),
        ({"estimator": "LogisticRegression", "C": "big"}, "'C' parameter"),
    ],
)
def test_a_wrong_parameter_is_the_author_s_mistake(params: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError, match=message):
        TRAINER.fit(TABLE, LABEL, params=params, seed=0)


def test_a_classifier_needs_two_classes() -> None:
    with pytest.raises(DefinitionError, match="needs a bool label"):
        TRAINER.fit(TABLE, NUMBER, params={"estimator": "LogisticRegression"}, seed=0)
    with pytest.raises(UnsupportedError, match="null"):
        TRAINER.fit(
            TABLE.slice(0, 2), pa.array([True, None]), params={"estimator": "LogisticRegression"}, seed=0
        )


def test_damaged_bytes_and_wrong_widths_are_refused() -> None:
    artifact = fit("HistGradientBoostingClassifier")
    for damaged in (b"", b"pickle", artifact[:30], artifact[:-900]):
        with pytest.raises(CorruptionError):
            TRAINER.load(damaged, "model")
    with pytest.raises(StateMismatchError, match="reads 5 inputs"):
        TRAINER.load(artifact, "").predict_one((1.0,))


def test_serving_never_imports_the_package(tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(fit("HistGradientBoostingClassifier"))
    script = (
        "import sys; from volano.trainers.sklearn import SklearnTrainer\n"
        "predictor = SklearnTrainer().load(open(sys.argv[1], 'rb').read(), '')\n"
        "print(predictor.predict_one((0.0, 1, 'ORD', True, 0)))\n"
        "assert not {'sklearn', 'scipy', 'joblib'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "model")], check=True, capture_output=True)
