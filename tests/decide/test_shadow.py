"""Shadow scores come from the features as served and never from anything else."""

from __future__ import annotations

import msgspec
import pytest

from tests.decide.projects import DISTANCE, NOON, make_project, model
from volano.decide.shadow import feature_table, score_shadows
from volano.records.journal import DecisionMade, ShadowScored

PROJECT = make_project()
SERVICE = PROJECT.models["risk"].service
MADE = DecisionMade(
    decision_id="d-1",
    namespace="flights",
    decision="get_risk",
    bundle="b",
    release_id="r",
    model="risk",
    model_version="risk-0002",
    service_version=SERVICE.version,
    request={},
    features=[2475, True, None],
    decided_at=NOON,
    features_as_of=NOON,
    score=0.1,
    action="ok",
    propensity=1.0,
    propensity_method="deterministic",
)
FRESH = msgspec.structs.replace(MADE, decision_id="d-2", features=[500, False, 3], attempt=2)
UNREAD = msgspec.structs.replace(MADE, decision_id="d-3", features=[])


def test_every_decision_gets_a_row_of_every_version() -> None:
    frozen, other = model(PROJECT), model(PROJECT, lambda _: 0.25, "risk-0009")
    rows = score_shadows([MADE, FRESH, UNREAD], SERVICE, [frozen, other], scored_at=NOON + 1)
    assert rows == [
        ShadowScored("d-1", "get_risk", "risk", "risk-0001", 2475 / 5_000, NOON + 1),
        ShadowScored("d-2", "get_risk", "risk", "risk-0001", 500 / 5_000, NOON + 1, attempt=2),
        ShadowScored("d-3", "get_risk", "risk", "risk-0001", None, NOON + 1),
        ShadowScored("d-1", "get_risk", "risk", "risk-0009", 0.25, NOON + 1),
        ShadowScored("d-2", "get_risk", "risk", "risk-0009", 0.25, NOON + 1, attempt=2),
        ShadowScored("d-3", "get_risk", "risk", "risk-0009", None, NOON + 1),
    ]


def test_features_of_another_service_are_not_scored() -> None:
    other = msgspec.structs.replace(MADE, service_version="another")
    assert [row.score for row in score_shadows([other], SERVICE, [model(PROJECT)], scored_at=NOON)] == [None]
    narrow = model(make_project(inputs=(DISTANCE,)))
    assert [row.score for row in score_shadows([MADE], SERVICE, [narrow], scored_at=NOON)] == [None]


def test_a_score_that_is_no_number_is_null() -> None:
    assert (
        score_shadows([MADE], SERVICE, [model(PROJECT, lambda _: float("nan"))], scored_at=NOON)[0].score
        is None
    )


def test_the_table_has_the_services_columns_and_types() -> None:
    table = feature_table(SERVICE, [MADE, FRESH])
    assert table.column_names == ["distance", "long_haul", "hour"]
    assert table.to_pylist()[0] == {"distance": 2475, "long_haul": True, "hour": None}
    assert feature_table(SERVICE, []).schema == table.schema


@pytest.mark.parametrize("decisions", [[], [UNREAD]])
def test_nothing_to_score_asks_no_model(decisions: list[DecisionMade]) -> None:
    def refuse(_: object) -> float:
        raise AssertionError("asked")

    assert len(score_shadows(decisions, SERVICE, [model(PROJECT, refuse)], scored_at=NOON)) == len(decisions)
