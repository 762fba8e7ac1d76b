"""The built-in trainers keep the trainer's contract."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa

from volano.errors import UnsupportedError
from volano.protocols.trainer import Trainer
from volano.testing.conformance.trainer import TrainerConformance
from volano.trainers.python import PythonTrainer


class TestLightGbm(TrainerConformance):
    trainer = "volano.trainers.lightgbm:LightGbmTrainer"
    params: ClassVar = {"objective": "binary", "n_estimators": 8}


class TestSklearnLinear(TrainerConformance):
    trainer = "volano.trainers.sklearn:SklearnTrainer"
    params: ClassVar = {"estimator": "LogisticRegression"}


class TestSklearnTrees(TrainerConformance):
    trainer = "volano.trainers.sklearn:SklearnTrainer"
    params: ClassVar = {"estimator": "HistGradientBoostingClassifier", "max_iter": 5}


def train(features: pa.Table, label: pa.Array, params: Mapping[str, Any], seed: int) -> bytes:
    if label.null_count:
        raise UnsupportedError("A label is null.")
    return json.dumps(
        {"slope": float(np.nanmean(features["x"].to_numpy()[label.to_numpy(zero_copy_only=False)]))}
    ).encode()


def predict(artifact: bytes, features: pa.Table) -> Any:
    x = np.nan_to_num(features["x"].cast(pa.float64()).to_numpy())
    return np.clip(0.5 + 0.1 * json.loads(artifact)["slope"] * np.clip(x, -3, 3), 0, 1)


class TestPython(TrainerConformance):
    params: ClassVar = {}

    def open(self) -> Trainer:
        return PythonTrainer(train, predict)
