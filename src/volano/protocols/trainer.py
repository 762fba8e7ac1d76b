"""Trainers make artifacts; predictors score with them. Arrays in, bytes and arrays out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from volano.values.schema import Scalar


class Trained(NamedTuple):
    """What a trainer made: the artifact's bytes and facts worth keeping (rounds, training metrics)."""

    artifact: bytes
    facts: Mapping[str, float]


class Predictor(Protocol):
    """A loaded artifact. Scores in [0, 1] for a binary label, any number otherwise. Thread-safe after loading."""

    def predict(self, features: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Scores of many rows; columns are the model's inputs, in order. shape (n_rows,)."""
        ...

    def predict_one(self, features: Sequence[Scalar]) -> float:
        """The score of one row, the same bits as `predict` gives for it."""
        ...


class Trainer(Protocol):
    """Trains deterministically: same rows, parameters and seed, same artifact bytes on one machine."""

    def fit(
        self,
        features: pa.Table,
        label: pa.Array,
        *,
        params: Mapping[str, Any],
        seed: int,
        weight: pa.Array | None = None,
    ) -> Trained:
        """Train on rows in the order given. String columns are categories; nulls stay missing."""
        ...

    def load(self, artifact: bytes, path: str) -> Predictor:
        """A predictor of an artifact that `fit` wrote. Never unpickles."""
        ...

    def environment(self) -> Mapping[str, str]:
        """Versions of the libraries that matter, by name."""
        ...
