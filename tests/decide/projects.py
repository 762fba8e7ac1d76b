"""A small compiled project for the tests of deciding: a departure, a plane, an airport, a model of three inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from volano.decide.serving import LoadedModel
from volano.plan.definitions import (
    CodeRef,
    CompiledDecision,
    CompiledModel,
    CompiledOnDemand,
    CompiledPolicy,
    CompiledProject,
    CompiledRequest,
    CompiledService,
    CompiledTrainer,
    FeatureInput,
)
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.values.instants import parse_instant
from volano.values.schema import DType, Field, Scalar, Schema

NOON = parse_instant("2013-03-01T12:00:00Z")
REQUEST: dict[str, Any] = {
    "flight_id": "UA1",
    "tailnum": "N1",
    "dest": "LAX",
    "sched_dep": datetime(2013, 3, 1, 14, tzinfo=UTC),
    "distance": 2475,
}
DISTANCE = FeatureInput("distance", DType.INT64, request_field="distance")
LONG = FeatureInput("long_haul", DType.BOOL, on_demand="long_haul")
HOUR = FeatureInput("hour", DType.INT64, on_demand="hour")


def long_haul(distance: int) -> bool:
    return distance > 1500


def hour_of(moment: datetime) -> int:
    return moment.hour


class Code:
    """Author functions by name."""

    def __init__(self, **functions: Callable[..., Any]) -> None:
        self.functions = functions

    def get(self, code: CodeRef) -> Callable[..., Any]:
        return self.functions[code.qualname]


CODE = Code(long_haul=long_haul, hour=hour_of)


def make_project(
    *,
    inputs: Sequence[FeatureInput] = (DISTANCE, LONG, HOUR),
    policy: CompiledPolicy | None = None,
    deadline_us: int = 20_000,
    max_staleness_us: int | None = None,
    unit: tuple[str, ...] = (),
    views: Mapping[str, Any] | None = None,
    sources: Mapping[str, Any] | None = None,
    entities: Mapping[str, Any] | None = None,
) -> CompiledProject:
    service = CompiledService("risk", "Departure", tuple(inputs))
    moment = FeatureInput("sched_dep", DType.TIMESTAMP, request_field="sched_dep")
    return CompiledProject(
        namespace="flights",
        requests={
            "Departure": CompiledRequest(
                "Departure",
                Schema(
                    (
                        Field("flight_id", DType.STRING),
                        Field("tailnum", DType.STRING, nullable=True),
                        Field("dest", DType.STRING),
                        Field("sched_dep", DType.TIMESTAMP),
                        Field("distance", DType.INT64),
                    )
                ),
                id_columns=("flight_id",),
            )
        },
        on_demand={
            "long_haul": CompiledOnDemand(
                "long_haul", CodeRef("p", "long_haul", ""), (("distance", DISTANCE),), DType.BOOL
            ),
            "hour": CompiledOnDemand("hour", CodeRef("p", "hour", ""), (("moment", moment),), DType.INT64),
        },
        models={"risk": CompiledModel("risk", service, "late", CompiledTrainer("python"), "ops")},
        decisions={
            "get_risk": CompiledDecision(
                "get_risk",
                "Departure",
                "risk",
                ("warn", "ok"),
                policy or CompiledPolicy("threshold", {"action": "warn", "at": 0.5}),
                deadline_us,
                "ok",
                "ops",
                unit=unit,
                max_staleness_us=max_staleness_us,
            )
        },
        views=dict(views or {}),
        sources=dict(sources or {}),
        entities=dict(entities or {}),
    )


class Formula:
    """A predictor that is a formula over the first input; the same for one row and for many."""

    def __init__(self, score: Callable[[Scalar], float]) -> None:
        self.score = score

    def predict_one(self, features: Sequence[Scalar]) -> float:
        return self.score(features[0])

    def predict(self, features: pa.Table) -> np.ndarray[Any, np.dtype[np.float64]]:
        return np.array([self.score(value) for value in features.column(0).to_pylist()], float)


def by_distance(distance: Scalar) -> float:
    assert isinstance(distance, int | float)
    return distance / 5_000


def model(
    project: CompiledProject, score: Callable[[Scalar], float] = by_distance, version: str = "risk-0001"
) -> LoadedModel:
    service = project.models["risk"].service
    return LoadedModel(
        ModelVersion(
            version=version,
            model="risk",
            bundle="b" * 64,
            service_version=service.version,
            trainer="python",
            artifact="a" * 64,
            training_set="risk-set-0001",
            training_set_hash="c" * 64,
            trained_at=NOON,
            trained_until=NOON,
            seed=0,
            features=tuple(given.name for given in service.inputs),
        ),
        Formula(score),
    )


def release(version: str = "risk-0001", release_id: str = "release-1") -> ReleaseEvent:
    return ReleaseEvent(
        release_id=release_id,
        decision="get_risk",
        outcome="released",
        challenger=version,
        champion=version,
        previous=None,
        first=version,
        bundle="b" * 64,
        at=NOON,
        actor="test",
        reason="first",
    )
