"""A logged decision explained: from the record, from its row in the lake, and with what came after."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from tests.decide.projects import NOON, make_project
from tests.decide.test_features import PROJECT as WITH_VIEWS
from volano.decide.explain import decision_of_row, explain_decision
from volano.errors import StateMismatchError
from volano.records.journal import DecisionMade, ShadowScored
from volano.records.label import Label, LabelState
from volano.values.instants import BEGINNING, HOUR_US, SECOND_US

PROJECT = make_project()
MADE = DecisionMade(
    decision_id="d-1",
    namespace="flights",
    decision="get_risk",
    bundle="b" * 64,
    release_id="release-1",
    model="risk",
    model_version="risk-0001",
    service_version=PROJECT.models["risk"].service.version,
    request={"flight_id": "UA1", "tailnum": None, "dest": "LAX", "sched_dep": NOON, "distance": 2475},
    features=[2475, True, 14],
    decided_at=NOON,
    features_as_of=NOON - SECOND_US,
    score=0.495,
    action="ok",
    propensity=1.0,
    propensity_method="deterministic",
    deadline_us=20_000,
    latency_us={"features": 12, "total": 20},
    source_event_id="UA1",
)


def label(state: LabelState, computed_at: int, value: bool | None = None) -> Label:
    return Label("d-1", "late", state, value, NOON, NOON + 36 * HOUR_US, computed_at)


def test_every_input_says_where_it_was_read() -> None:
    explained = explain_decision(MADE, PROJECT)
    assert [(each.name, each.value, each.origin, each.read) for each in explained.features] == [
        ("distance", 2475, "request", "distance"),
        ("long_haul", True, "on_demand", "long_haul(distance)"),
        ("hour", 14, "on_demand", "hour(sched_dep)"),
    ]
    assert explained.age_us == SECOND_US
    assert explained.policy.params == {"action": "warn", "at": 0.5}


def test_a_view_feature_names_its_entity_and_owner() -> None:
    service = WITH_VIEWS.models["risk"].service
    made = msgspec.structs.replace(MADE, service_version=service.version, features=[1] * len(service.inputs))
    explained = explain_decision(made, WITH_VIEWS)
    assert explained.features[1].read == "PlaneHistory.last_delay of tailnum=None"
    assert explained.features[1].owner == "ops"
    assert explained.features[-1].read == "Airport.miles_now of dest='LAX'"


def test_labels_come_in_the_order_in_which_they_were_derived() -> None:
    later, first = label(LabelState.MATURE, NOON + 9, True), label(LabelState.PENDING, NOON + 1)
    assert explain_decision(MADE, PROJECT, labels=[later, first]).labels == (first, later)


def test_shadows_stand_beside_it() -> None:
    shadow = ShadowScored("d-1", "get_risk", "risk", "risk-0000", 0.3, NOON)
    assert explain_decision(MADE, PROJECT, shadows=[shadow]).shadows == (shadow,)


def test_a_fallback_without_features_is_explained() -> None:
    made = msgspec.structs.replace(MADE, features=[], fallback="features: gone", features_as_of=BEGINNING)
    explained = explain_decision(made, PROJECT)
    assert (explained.features, explained.age_us, explained.fallback) == ((), None, "features: gone")


def test_definitions_of_another_bundle_explain_nothing() -> None:
    with pytest.raises(StateMismatchError, match="read the features of service"):
        explain_decision(msgspec.structs.replace(MADE, service_version="old"), PROJECT)


def test_the_explanation_travels_as_json() -> None:
    explained = explain_decision(MADE, PROJECT, labels=[label(LabelState.PENDING, NOON + 1)])
    assert msgspec.json.decode(msgspec.json.encode(explained))["labels"][0]["state"] == "pending"


def lake_row(made: DecisionMade) -> dict[str, Any]:
    """What the committer writes, as `to_pylist` gives it back."""

    def moment(instant: int) -> datetime:
        return datetime.fromtimestamp(instant // SECOND_US, UTC)

    row: dict[str, Any] = msgspec.to_builtins(made) | {
        "latency_us": list(made.latency_us.items()),
        "applied_at": moment(NOON),
    }
    row |= {"decided_at": moment(made.decided_at), "features_as_of": moment(made.features_as_of)}
    row |= {field: None for field in ("cost", "subject") if field not in row}
    request = dict(row.pop("request"))
    request["sched_dep"] = moment(request["sched_dep"])
    names = [given.name for given in PROJECT.models["risk"].service.inputs]
    row |= {f"request__{name}": value for name, value in request.items()}
    row |= {f"feature__{name}": value for name, value in zip(names, row.pop("features"), strict=True)}
    row.pop("type")
    return row


def test_a_row_of_the_lake_is_the_record_again() -> None:
    assert decision_of_row(lake_row(MADE), namespace="flights", decision="get_risk") == MADE


def test_features_that_were_never_read_stay_unread_through_the_lake() -> None:
    unread = msgspec.structs.replace(MADE, features=[], fallback="features: gone")
    row = lake_row(msgspec.structs.replace(unread, features=[None] * 3))
    assert decision_of_row(row, namespace="flights", decision="get_risk") == unread
