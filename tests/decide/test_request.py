"""What a request may hold, and that each way of getting it wrong names the field and the mend."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.collect.world import project
from volano.decide.request import RequestReader
from volano.errors import RequestError
from volano.plan.definitions import CompiledRequest
from volano.values.instants import HOUR_US, parse_instant
from volano.values.schema import DType, Field, Schema

READER = RequestReader(
    CompiledRequest(
        "Departure",
        Schema(
            (
                Field("flight_id", DType.STRING),
                Field("tailnum", DType.STRING, nullable=True, entity="plane"),
                Field("sched_dep", DType.TIMESTAMP),
                Field("distance", DType.INT64),
                Field("load", DType.FLOAT64, nullable=True),
                Field("night", DType.BOOL, nullable=True),
            )
        ),
    ),
    decision="get_delay_risk",
)
NOON = datetime(2013, 3, 1, 12, tzinfo=UTC)
GOOD: dict[str, Any] = {"flight_id": "UA1", "tailnum": "N1", "sched_dep": NOON, "distance": 1400}


def test_every_field_comes_back_in_schema_order_with_instants() -> None:
    assert list(READER.read(GOOD).items()) == [
        ("flight_id", "UA1"),
        ("tailnum", "N1"),
        ("sched_dep", parse_instant("2013-03-01T12:00:00Z")),
        ("distance", 1400),
        ("load", None),
        ("night", None),
    ]


def test_json_and_mapping_read_alike() -> None:
    assert READER.read(msgspec.json.encode(GOOD)) == READER.read(GOOD)


def test_a_zone_names_the_same_instant() -> None:
    cet = NOON.astimezone(timezone(timedelta(hours=1)))
    assert READER.read({**GOOD, "sched_dep": cet}) == READER.read(GOOD)
    assert READER.read({**GOOD, "sched_dep": "2013-03-01T13:00:00+01:00"}) == READER.read(GOOD)


def test_a_field_that_a_feature_takes_its_key_from_is_bounded_and_no_other_text_is() -> None:
    long = {**GOOD, "tailnum": "ü" * 1_000, "flight_id": "x" * 70_000}
    assert READER.read(long)["flight_id"] == "x" * 70_000
    keyed = RequestReader(READER.request, decision="get_delay_risk", keys=("flight_id", "distance"))
    with pytest.raises(RequestError, match="Field 'flight_id' is longer than 1,000 characters"):
        keyed.read(msgspec.json.encode(long))


def test_the_keys_of_a_request_are_those_of_its_models_and_of_what_they_compute_on_demand() -> None:
    assert project().key_fields("Ask") == {"shop", "card"}
    assert project().key_columns("sales") == {"shop", "card"}


def test_a_whole_number_is_a_number() -> None:
    assert READER.read({**GOOD, "load": 3})["load"] == 3.0


@pytest.mark.parametrize(
    ("change", "what", "mend"),
    [
        ({"distanc": 3}, "Field 'distanc' is not in the schema.", "did you mean 'distance'?"),
        ({"zzz": 3}, "Field 'zzz' is not in the schema.", "leave it out; the fields are: flight_id, tailnum"),
        ({"distance": "3"}, "Field 'distance' is not valid: Expected int, got str.", "a whole number"),
        ({"distance": 3.5}, "Field 'distance' is not valid", "a whole number"),
        ({"distance": True}, "Field 'distance' is not valid", "a whole number"),
        ({"distance": 2**63}, "Field 'distance' is not valid", "64 bits"),
        ({"flight_id": None}, "Field 'flight_id' is not valid", "'flight_id' as text"),
        ({"tailnum": 7}, "Field 'tailnum' is not valid", "'tailnum' as text, or null"),
        ({"sched_dep": datetime(2013, 3, 1)}, "Field 'sched_dep' is not valid", "a time with a zone"),
        ({"sched_dep": "2013-03-01T12:00:00"}, "Field 'sched_dep' is not valid", "a time with a zone"),
        ({"sched_dep": 1362139200}, "Field 'sched_dep' is not valid", "a time with a zone"),
        (
            {"sched_dep": datetime.max.replace(tzinfo=timezone(-timedelta(hours=1)))},
            "Field 'sched_dep' lies",
            "a zone",
        ),
        ({"load": math.nan}, "Field 'load' is nan", "send null"),
        ({"night": 1}, "Field 'night' is not valid", "true or false, or null"),
        (
            {"tailnum": "x" * 1_001},
            "Field 'tailnum' is longer than 1,000 characters, and it holds an entity's key.",
            "by which events know the entity: 'tailnum' as text, or null",
        ),
    ],
)
def test_a_wrong_field_is_named_with_its_mend(change: dict[str, Any], what: str, mend: str) -> None:
    with pytest.raises(RequestError) as caught:
        READER.read({**GOOD, **change})
    assert caught.value.what.startswith(what)
    assert mend in caught.value.mend
    assert caught.value.where == "request Departure of decision get_delay_risk"
    assert caught.value.__cause__ is None


def test_a_missing_field_is_named() -> None:
    with pytest.raises(RequestError, match="Field 'distance' is missing") as caught:
        READER.read({name: value for name, value in GOOD.items() if name != "distance"})
    assert caught.value.mend == "send 'distance' as a whole number of 64 bits"


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[1]", b"null", b'{"flight_id": "\xff"}', b"\x00", b"[" * 100_000]
)
def test_bytes_that_are_no_object_are_refused(raw: bytes) -> None:
    with pytest.raises(RequestError, match="not an object"):
        READER.read(raw)


@given(st.binary())
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    with pytest.raises(RequestError):
        READER.read(raw)


@given(
    st.dictionaries(st.text(max_size=5) | st.sampled_from(list(GOOD)), st.none() | st.integers() | st.text())
)
def test_no_mapping_raises_anything_else(request_: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        READER.read(request_)


def test_instants_keep_microseconds() -> None:
    later = NOON + timedelta(hours=1, microseconds=1)
    assert (
        READER.read({**GOOD, "sched_dep": later})["sched_dep"]
        == parse_instant("2013-03-01T12:00:00Z") + HOUR_US + 1
    )
