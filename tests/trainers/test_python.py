"""An author's own trainer: bytes in between, and a contract that is checked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from volano.errors import AuthorCodeError, CorruptionError, UnsupportedError
from volano.trainers.python import PythonTrainer

TABLE = pa.table({"x": pa.array([1.0, None, 3.0]), "word": pa.array(["a", "b", None])})
LABEL = pa.array([True, False, True])


def train(features: pa.Table, label: pa.Array, params: Mapping[str, Any], seed: int) -> bytes:
    mean = pc.mean(label.cast(pa.int8())).as_py()
    return json.dumps({"base": mean, "by": params["by"], "seed": seed}).encode()


def predict(artifact: bytes, features: pa.Table) -> Any:
    model = json.loads(artifact)
    return np.nan_to_num(features["x"].to_numpy()) * model["by"] + model["base"]


TRAINER = PythonTrainer(train, predict)


def test_the_author_s_functions_train_and_score() -> None:
    trained = TRAINER.fit(TABLE, LABEL, params={"by": 2.0}, seed=4)
    predictor = TRAINER.load(trained.artifact, "")
    scores = predictor.predict(TABLE).tolist()
    assert scores == pytest.approx([2 + 2 / 3, 2 / 3, 6 + 2 / 3])
    assert [predictor.predict_one(row) for row in ((1.0, "a"), (None, "b"), (3.0, None))] == scores
    assert TRAINER.fit(TABLE, LABEL, params={"by": 2.0}, seed=4).artifact == trained.artifact


def test_a_trainer_that_returns_no_bytes_is_named() -> None:
    with pytest.raises(AuthorCodeError, match="returned dict; it must return bytes"):
        PythonTrainer(lambda *_: {}, predict).fit(TABLE, LABEL, params={}, seed=0)  # type: ignore[arg-type, return-value]


@pytest.mark.parametrize("answer", [[0.5], [[0.5, 0.5, 0.5]], "no", None])
def test_a_predictor_that_returns_something_else_than_a_number_a_row_is_named(answer: Any) -> None:
    broken = PythonTrainer(train, lambda *_: answer)
    predictor = broken.load(TRAINER.fit(TABLE, LABEL, params={"by": 1.0}, seed=0).artifact, "")
    with pytest.raises(AuthorCodeError, match="for 3 rows"):
        predictor.predict(TABLE)


def test_weights_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="no weights"):
        TRAINER.fit(TABLE, LABEL, params={"by": 1.0}, seed=0, weight=pa.array([1.0, 1.0, 1.0]))


@pytest.mark.parametrize(
    "artifact", [b"", b"volano-python-1\n", b"volano-python-1\n" + bytes(7) + b"\x09junk"]
)
def test_damaged_bytes_are_corrupt(artifact: bytes) -> None:
    with pytest.raises(CorruptionError):
        TRAINER.load(artifact, "model")
