"""A model version: what it was trained from, and the proof that it still scores as it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.learn.world import HORIZON, LABEL, MODEL, Stores, World, build_arguments
from volano.errors import CorruptionError, InvariantError, NotReadyError, UnknownNameError
from volano.learn.train import get_version, load_version, train
from volano.learn.training_set import TrainingSet, build
from volano.protocols.trainer import Predictor, Trained
from volano.records.learning import ModelVersion
from volano.trainers.lightgbm import LightGbmTrainer
from volano.values.instants import DAY_US
from volano.values.schema import Scalar


@pytest.fixture
def built(world: World, stores: Stores) -> TrainingSet:
    arguments = build_arguments(artifacts=stores.artifacts, decided_until=20 * DAY_US)
    return build(MODEL, LABEL, world.decisions, world.labels, **arguments)


def trained(built: TrainingSet, stores: Stores, **changes: Any) -> ModelVersion:
    arguments: dict[str, Any] = {"bundle": "b1", "trained_at": 7, **stores._asdict(), **changes}
    return train(
        arguments.pop("model", MODEL), built, arguments.pop("trainer", LightGbmTrainer()), **arguments
    )


def test_a_version_names_all_that_it_came_from(world: World, built: TrainingSet, stores: Stores) -> None:
    evaluation = build(
        MODEL,
        LABEL,
        world.decisions,
        world.labels,
        **build_arguments(
            artifacts=stores.artifacts, decided_from=20 * DAY_US + HORIZON, kind="evaluation", name="e"
        ),
    )
    version = trained(built, stores, evaluation_set=evaluation)
    assert version.version == "delay-0001"
    assert version.training_set_hash == built.manifest.root_hash
    assert version.trained_until == 20 * DAY_US
    assert version.features == ("x", "z", "carrier", "n")
    assert version.params == MODEL.trainer.params
    assert set(version.environment) == {"lightgbm", "python"}
    assert 0.7 < version.metrics["roc_auc"] < 1
    assert get_version(stores.catalog, "delay-0001") == version


def test_training_again_from_the_same_lineage_is_the_same_version(built: TrainingSet, stores: Stores) -> None:
    first = trained(built, stores)
    assert trained(built, stores, trained_at=99) == first
    assert trained(built, stores, bundle="b2").version == "delay-0002"
    other_seed = msgspec.structs.replace(MODEL, seed=6)
    assert trained(built, stores, model=other_seed).version == "delay-0003"


def test_versions_of_models_with_similar_names_are_numbered_apart(built: TrainingSet, stores: Stores) -> None:
    trained(built, stores)
    other = msgspec.structs.replace(MODEL, name="delay-eu")
    assert trained(built, stores, model=other).version == "delay-eu-0001"
    assert trained(built, stores, bundle="b2").version == "delay-0002"


def test_the_loaded_version_scores_as_the_trained_one(built: TrainingSet, stores: Stores) -> None:
    version = trained(built, stores)
    predictor = load_version(version, LightGbmTrainer(), stores.artifacts)
    assert 0 < predictor.predict_one((0.1, 0.2, "AA", 3)) < 1


class Shifted:
    """A predictor that drifted: another library version, a wrong category map."""

    def __init__(self, inner: Predictor, by: float) -> None:
        self._inner, self._by = inner, by

    def predict(self, features: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
        return self._inner.predict(features) + self._by

    def predict_one(self, features: Sequence[Scalar]) -> float:
        return self._inner.predict_one(features)


class ShiftedTrainer(LightGbmTrainer):
    def load(self, artifact: bytes, path: str) -> Any:
        return Shifted(super().load(artifact, path), 1e-6)


def test_a_version_that_scores_otherwise_than_when_trained_does_not_load(
    built: TrainingSet, stores: Stores
) -> None:
    version = trained(built, stores)
    with pytest.raises(CorruptionError, match="'delay-0001' fails its parity test"):
        load_version(version, ShiftedTrainer(), stores.artifacts)


def test_a_trainer_that_serves_otherwise_than_it_evaluates_is_refused(
    built: TrainingSet, stores: Stores
) -> None:
    with pytest.raises(InvariantError, match="by itself otherwise than among others"):
        trained(built, stores, trainer=ShiftedTrainer())


def test_an_artifact_that_is_gone_is_named(built: TrainingSet, stores: Stores) -> None:
    version = msgspec.structs.replace(trained(built, stores), artifact="0" * 64)
    with pytest.raises(UnknownNameError):
        load_version(version, LightGbmTrainer(), stores.artifacts)


def test_nothing_to_learn_from_is_said(built: TrainingSet, stores: Stores) -> None:
    with pytest.raises(NotReadyError, match="no rows"):
        trained(TrainingSet(built.manifest, built.table.slice(0, 0)), stores)
    only_one = built.table.filter(built.table["label"])
    with pytest.raises(NotReadyError, match="are the same"):
        trained(TrainingSet(built.manifest, only_one), stores)


def test_an_unknown_version_lists_those_that_exist(built: TrainingSet, stores: Stores) -> None:
    trained(built, stores)
    with pytest.raises(UnknownNameError, match="delay-0001"):
        get_version(stores.catalog, "delay-0009")


class Recorder:
    """A trainer that only remembers what it was given."""

    def __init__(self) -> None:
        self.given: tuple[pa.Table, pa.Array, Mapping[str, Any], int] | None = None

    def fit(
        self,
        features: pa.Table,
        label: pa.Array,
        *,
        params: Mapping[str, Any],
        seed: int,
        weight: pa.Array | None = None,
    ) -> Trained:
        self.given = (features, label, params, seed)
        return Trained(b"x", {})

    def load(self, artifact: bytes, path: str) -> Any:
        return Constant()

    def environment(self) -> Mapping[str, str]:
        return {}


class Constant:
    def predict(self, features: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.full(features.num_rows, 0.5)

    def predict_one(self, features: Sequence[Scalar]) -> float:
        return 0.5


def test_the_trainer_sees_features_and_labels_and_nothing_else(built: TrainingSet, stores: Stores) -> None:
    recorder = Recorder()
    trained(built, stores, trainer=recorder)
    assert recorder.given is not None
    features, label, params, seed = recorder.given
    assert features.column_names == ["x", "z", "carrier", "n"]
    assert label.null_count == 0
    assert (params, seed) == (MODEL.trainer.params, 5)
