"""Models: which features predict which label, and how they learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Any

from volano.spec.label import Label
from volano.spec.owner import Owner
from volano.spec.request import Requests
from volano.spec.trainer import Trainer


@dataclass(frozen=True, eq=False)
class Model:
    """A model: an ordered list of features, a label, a trainer.

    Args:
        name: unique among the project's models; names its versions.
        features: views (all their features, in order), single features, on-demand features and request
            fields. A view or feature of an entity that a request names twice says which:
            `AirportDelays.on(Departure.dest)`.
        label: what it learns to predict.
        trainer: how it learns.
        history: requests of the past, that train it before the first decision.
        retrain: how often a challenger is trained: "weekly", "1d".
        seed: of everything random in training.
        owner: who answers for it.
    """

    name: str
    _: KW_ONLY
    features: Sequence[Any] = ()
    label: Label | None = None
    trainer: Trainer | None = None
    history: Requests | None = None
    retrain: str | timedelta | None = None
    seed: int = 0
    owner: Owner | None = None
