"""Shadow scores come from the features as served and never from anything else."""

from __future__ import annotations

import pyarrow as pa

from tests.decide.projects import DISTANCE, NOON, make_project, model
from volano.decide.shadow import score_shadow
from volano.records.journal import ShadowScored

PROJECT = make_project()
SERVICE = PROJECT.models["risk"].service


def rows(**changed: list[object]) -> pa.Table:
    columns = {
        "decision_id": ["d-1", "d-2"],
        "attempt": [0, 2],
        "service_version": [SERVICE.version] * 2,
        "fallback": ["", ""],
        "feature__distance": [2475, 500],
        "feature__long_haul": [True, False],
        "feature__hour": pa.array([None, 3], pa.int64()),
    }
    return pa.table(columns | changed)


def test_every_decision_gets_a_score() -> None:
    assert score_shadow(rows(), "get_risk", model(PROJECT), scored_at=NOON + 1) == [
        ShadowScored("d-1", "get_risk", "risk", "risk-0001", 2475 / 5_000, NOON + 1),
        ShadowScored("d-2", "get_risk", "risk", "risk-0001", 500 / 5_000, NOON + 1, attempt=2),
    ]


def test_features_of_another_service_are_not_scored() -> None:
    other = rows(service_version=["another", SERVICE.version])
    scored = score_shadow(other, "get_risk", model(PROJECT), scored_at=NOON)
    assert [row.decision_id for row in scored] == ["d-2"]
    narrow = model(make_project(inputs=(DISTANCE,)))
    assert score_shadow(rows(), "get_risk", narrow, scored_at=NOON) == []


def test_a_decision_that_fell_back_is_not_scored() -> None:
    scored = score_shadow(rows(fallback=["no_release", ""]), "get_risk", model(PROJECT), scored_at=NOON)
    assert [row.decision_id for row in scored] == ["d-2"]


def test_a_score_that_is_no_number_is_null() -> None:
    scored = score_shadow(rows(), "get_risk", model(PROJECT, lambda _: float("nan")), scored_at=NOON)
    assert [row.score for row in scored] == [None, None]


def test_no_rows_no_scores() -> None:
    assert score_shadow(rows().slice(0, 0), "get_risk", model(PROJECT), scored_at=NOON) == []
