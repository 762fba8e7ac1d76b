"""Trainers: which library learns a model, and with what parameters. Names only; no library is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Trainer:
    """A trainer by its entry-point name.

    Args:
        kind: name in the entry-point group `volano.trainers`.
        params: handed to the trainer as they are.

    >>> Trainer("lightgbm", num_leaves=31).params
    {'num_leaves': 31}
    """

    __slots__ = ("kind", "params")

    def __init__(self, kind: str, **params: Any) -> None:
        self.kind = kind
        self.params = params

    def __repr__(self) -> str:
        return f"Trainer({self.kind!r}, {self.params!r})"


class PythonTrainer(Trainer):
    """Two functions of the project: one learns and writes bytes, one reads them and scores.

    The bytes are in a format of the author's choice, such as JSON or ONNX; never a pickle.

    Args:
        train: `train(features, label, params, seed) -> bytes`; `features` is an Arrow table of the model's inputs.
        predict: `predict(artifact, features) -> scores`, one number a row.
        params: handed to `train`.

    >>> PythonTrainer(lambda *_: b"", lambda *_: [], depth=3).params
    {'depth': 3}
    """

    __slots__ = ("predict", "train")

    def __init__(self, train: Callable[..., bytes], predict: Callable[..., Any], **params: Any) -> None:
        super().__init__("python", **params)
        self.train = train
        self.predict = predict


class LightGBM(Trainer):
    """Gradient-boosted trees by LightGBM; the parameters are the library's own.

    >>> LightGBM(objective="binary", num_leaves=31).kind
    'lightgbm'
    """

    def __init__(self, **params: Any) -> None:
        super().__init__("lightgbm", **params)


class Sklearn(Trainer):
    """A scikit-learn estimator by its class name.

    Args:
        estimator: such as `LogisticRegression`.
        params: the estimator's own parameters.

    >>> Sklearn("LogisticRegression", C=1.0).params
    {'estimator': 'LogisticRegression', 'C': 1.0}
    """

    def __init__(self, estimator: str, **params: Any) -> None:
        super().__init__("sklearn", estimator=estimator, **params)
