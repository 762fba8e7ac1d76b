"""Features of a request from online state: right by the naive oracle, whatever is missing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from tests.decide.projects import CODE, DISTANCE, NOON, make_project
from volano.decide.features import OnlineFeatures, chunk_layout, window_feature
from volano.errors import StateMismatchError
from volano.kernels import oracle
from volano.kernels.columns import ARROW_TYPES
from volano.plan.definitions import (
    CompiledFeature,
    CompiledProject,
    CompiledSource,
    CompiledView,
    FeatureInput,
)
from volano.plan.state import StateGroup, chunk_key
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.event_ids import row_id
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, SECOND_US
from volano.values.keys import encode_key
from volano.values.schema import DType, Field, Schema

LANDINGS = CompiledSource(
    name="landings",
    event="Landing",
    schema=Schema(
        (
            Field("flight_id", DType.STRING),
            Field("tailnum", DType.STRING, nullable=True),
            Field("dest", DType.STRING),
            Field("arr_delay", DType.FLOAT64, nullable=True),
            Field("distance", DType.INT64, nullable=True),
            Field("carrier", DType.STRING, nullable=True),
            Field("landed_at", DType.TIMESTAMP),
        )
    ),
    id_columns=("flight_id",),
    event_time="landed_at",
    owner="ops",
    stream=True,
    accept_late_us=2 * HOUR_US,
)


def feature(
    name: str, aggregate: str, dtype: DType, column: str | None = None, **rest: Any
) -> CompiledFeature:
    return CompiledFeature(name, aggregate, dtype, column, **rest)


PLANE = CompiledView(
    name="PlaneHistory",
    entity="plane",
    source="landings",
    key_columns=("tailnum",),
    owner="ops",
    features=(
        feature("last_delay", "last", DType.FLOAT64, "arr_delay", window_us=12 * HOUR_US),
        feature("mean_delay", "mean", DType.FLOAT64, "arr_delay", window_us=7 * DAY_US),
        feature("legs", "count", DType.INT64, window_us=DAY_US),
        feature("last_carrier", "last", DType.STRING, "carrier", window_us=7 * DAY_US),
        feature("miles", "sum", DType.INT64, "distance", window_us=2 * DAY_US, offset_us=6 * HOUR_US),
        feature("legs_month", "count", DType.INT64, window_us=28 * DAY_US, every_us=DAY_US),
        feature("rate", "rate", DType.FLOAT64, "arr_delay", window_us=DAY_US, params=(0.25, 2.0)),
    ),
)
AIRPORT = CompiledView(
    name="Airport",
    entity="airport",
    source="landings",
    key_columns=("dest",),
    owner="ops",
    features=(
        feature("landings", "count", DType.INT64, window_us=HOUR_US),
        feature("delay", "mean", DType.FLOAT64, "arr_delay"),
        feature("miles_now", "sum", DType.INT64, "distance", window_us=DAY_US, include_request=True),
    ),
)
COLUMNS = Schema(
    (
        Field("arr_delay", DType.FLOAT64, nullable=True),
        Field("carrier", DType.STRING, nullable=True),
        Field("distance", DType.INT64, nullable=True),
    )
)


def group(view: CompiledView, n: int, span_us: int) -> StateGroup:
    return StateGroup(
        f"{n:016x}", view.entity, "landings", view.key_columns, (view,), COLUMNS, span_us, None, None
    )


GROUPS = (group(PLANE, 1, 2 * DAY_US), group(AIRPORT, 2, 36_400 * DAY_US))


def inputs_of(view: CompiledView, *keys: str) -> list[FeatureInput]:
    return [
        FeatureInput(f"{view.name}__{each.name}", each.dtype, view=view.name, feature=each.name, keys=keys)
        for each in view.features
    ]


INPUTS = [DISTANCE, *inputs_of(PLANE, "tailnum"), *inputs_of(AIRPORT, "dest")]
PROJECT = make_project(
    inputs=INPUTS, views={"PlaneHistory": PLANE, "Airport": AIRPORT}, sources={"landings": LANDINGS}
)


def rows(seed: int, n: int = 400) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    times = NOON - random.integers(0, 40 * DAY_US, n)
    times[:3] = NOON, NOON - 1, NOON - 7 * DAY_US
    return [
        {
            "flight_id": f"F{i}",
            "tailnum": f"N{random.integers(4)}",
            "dest": ("LAX", "SFO")[random.integers(2)],
            "arr_delay": None if random.random() < 0.1 else float(random.normal(0, 30)),
            "distance": None if random.random() < 0.1 else int(random.integers(100, 3_000)),
            "carrier": None if random.random() < 0.1 else ("AA", "UA", "B6")[random.integers(3)],
            "landed_at": int(times[i]),
        }
        for i in range(n)
    ]


def store_rows(online: LmdbOnlineStore, found: Sequence[Mapping[str, Any]]) -> None:
    puts: dict[bytes, bytes] = {}
    for each in GROUPS:
        layout = chunk_layout(each, LANDINGS)
        keys = [
            chunk_key(each, encode_key(tuple(row[column] for column in each.key_columns)), row["landed_at"])
            for row in found
        ]
        place = {key: n for n, key in enumerate(dict.fromkeys(keys))}
        packed = layout.encode(
            [row["landed_at"] for row in found],
            [row_id(row["flight_id"]) for row in found],
            [row["landed_at"] + MINUTE_US for row in found],
            {
                name: pa.array([row[name] for row in found], ARROW_TYPES[kind])
                for name, kind in layout.columns
            },
        )
        puts.update(
            zip(place, layout.merge([b""] * len(place), packed, [place[key] for key in keys]), strict=True)
        )
    online.write(puts, (), stamp=NOON - SECOND_US, sequence=1)


@pytest.fixture
def online(tmp_path: Path) -> Iterator[LmdbOnlineStore]:
    store = LmdbOnlineStore(tmp_path / "online", map_size=1 << 26)
    yield store
    store.close()


def online_features(
    online: LmdbOnlineStore, project: CompiledProject = PROJECT, groups: Sequence[StateGroup] = GROUPS
) -> OnlineFeatures:
    return OnlineFeatures(
        project,
        project.models["risk"].service,
        request=project.requests["Departure"],
        groups=groups,
        online=online,
        functions=CODE,
    )


def request(**changes: Any) -> dict[str, Any]:
    return {"flight_id": "F7", "tailnum": "N1", "dest": "LAX", "sched_dep": NOON, "distance": 2475, **changes}


def expected(found: Sequence[Mapping[str, Any]], asked: Mapping[str, Any], q: int) -> list[Any]:
    values: list[Any] = [asked["distance"]]
    for view, field in ((PLANE, "tailnum"), (AIRPORT, "dest")):
        history = [
            oracle.Row(
                row[field], row["landed_at"], row, row_id=int.from_bytes(row_id(row["flight_id"]), "big")
            )
            for row in found
        ]
        for each in view.features:
            own = {**asked, "carrier": None, "arr_delay": None} if each.include_request else {}
            exclude = int.from_bytes(row_id(asked["flight_id"]), "big") if each.include_request else None
            query = oracle.Query(asked[field], q, exclude_id=exclude, request=own)
            values.append(oracle.compute(window_feature(view, each), history, query))
    return values


def same(value: Any, wanted: Any) -> bool:
    if isinstance(value, float) and isinstance(wanted, float):
        return math.isclose(value, wanted, rel_tol=1e-9, abs_tol=1e-9)
    return type(value) is type(wanted) and bool(value == wanted)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("behind_us", [0, 1, 3 * HOUR_US, 15 * DAY_US, 60 * DAY_US])
def test_features_are_what_the_oracle_says(online: LmdbOnlineStore, seed: int, behind_us: int) -> None:
    found = rows(seed)
    store_rows(online, found)
    features = online_features(online)
    for asked in (
        request(),
        request(tailnum="N0", dest="SFO"),
        request(flight_id="new"),
        request(tailnum=None),
    ):
        slots, stamp = features.read(asked, NOON - behind_us)
        wanted = expected(found, asked, NOON - behind_us)
        assert [same(*pair) for pair in zip(features.served(slots), wanted, strict=True)] == [True] * len(
            wanted
        )
        assert stamp == NOON - SECOND_US


def test_an_unknown_entity_reads_as_one_without_rows(online: LmdbOnlineStore) -> None:
    store_rows(online, rows(0))
    slots, _ = online_features(online).read(request(tailnum="N999", dest="XXX"), NOON)
    assert slots == [2475, None, None, 0, None, None, 0, 0.25, 0, None, 2475]


def test_a_missing_key_reads_as_an_entity_without_rows(online: LmdbOnlineStore) -> None:
    store_rows(online, rows(0))
    features = online_features(online)
    unknown, _ = features.read(request(tailnum="N999"), NOON)
    missing, _ = features.read(request(tailnum=None), NOON)
    assert missing == unknown


def test_an_empty_store_answers(online: LmdbOnlineStore) -> None:
    slots, _ = online_features(online).read(request(), NOON)
    assert slots[3] == 0


def test_one_view_may_be_read_for_two_keys(online: LmdbOnlineStore) -> None:
    """The same features of another plane: an input of its own."""
    inputs = [*inputs_of(PLANE, "tailnum"), *inputs_of(PLANE, "flight_id")]
    project = make_project(inputs=inputs, views={"PlaneHistory": PLANE}, sources={"landings": LANDINGS})
    store_rows(online, rows(0))
    features = online_features(online, project)
    slots, _ = features.read(request(flight_id="N2"), NOON)
    other, _ = features.read(request(tailnum="N2", flight_id="N1"), NOON)
    n = len(PLANE.features)
    assert slots[:n] == other[n:]
    assert slots[n:] == other[:n]


def test_a_view_without_state_is_refused(online: LmdbOnlineStore) -> None:
    changed = msgspec.structs.replace(PLANE, definition_hash="another")
    with pytest.raises(StateMismatchError, match="no online state for view 'PlaneHistory'"):
        online_features(online, groups=[group(changed, 1, DAY_US), GROUPS[1]])


def test_state_of_another_definition_is_refused(online: LmdbOnlineStore) -> None:
    store_rows(online, rows(0))
    odd = msgspec.structs.replace(GROUPS[0], columns=Schema(COLUMNS.fields[:1]))
    plain = msgspec.structs.replace(PLANE, features=PLANE.features[:2])
    odd = msgspec.structs.replace(odd, views=(plain,))
    project = make_project(
        inputs=inputs_of(plain, "tailnum"), views={"PlaneHistory": plain}, sources={"landings": LANDINGS}
    )
    with pytest.raises(StateMismatchError, match="another definition"):
        online_features(online, project, [odd]).read(request(), NOON)
