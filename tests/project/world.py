"""A small synthetic world: planes that are late for a reason, told in a fixed sequence of items.

Each item puts exactly one record into the journal, so the number of records says where a killed run has to go on.
Everything follows from the seed: the table before the hand-over, the requests, what is observed of them (also late,
twice, contradictory, corrected, taken back, malformed), and the random bytes of every id.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, Self

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from volano.learn.release import current, history
from volano.learn.train import KIND as VERSIONS
from volano.learn.training_set import KIND as SETS
from volano.project import Project
from volano.protocols.reporter import Reporter
from volano.records.journal import DecisionMade, EventReceived, Operation, decode_record
from volano.records.learning import ModelVersion, TrainingSetManifest
from volano.runtime.clock import ReplayClock
from volano.runtime.config import read_config
from volano.runtime.silence import Silence
from volano.runtime.stores import Stores
from volano.runtime.workplace import Workplace
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, Instant, parse_instant, to_datetime

HAND_OVER: Instant = parse_instant("2013-03-01")
SECOND_US = 1_000_000
DECISION, MODEL = "get_delay_risk", "delay"

CONFIG = """
namespace = "flights"
commit_every = "1d"
label_every = "2d"
online_map_gib = 1
"""

DEFINITIONS = """
from datetime import datetime
from typing import Annotated

import volano as vo

ops = vo.Owner("flight-ops", contact="flight-ops@example.org")
plane = vo.Entity("plane", key=str, owner=ops)


class Landing(vo.Event, id="flight_id"):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    arr_delay: float
    landed_at: vo.EventTime


class Cancellation(vo.Event, id="flight_id"):
    flight_id: str
    cancelled_at: vo.EventTime


landings = vo.Source(
    "landings", Landing, table="landings.parquet", stream=True, available_after="5m", accept_late="2h", owner=ops
)
cancellations = vo.Source("cancellations", Cancellation, stream=True, accept_late="2h", owner=ops)


class PlaneHistory(vo.FeatureView, entity=plane, source=landings):
    last_delay = vo.last("arr_delay", within="2d")
    mean_delay_7d = vo.mean("arr_delay", within="7d")
    late_7d = vo.rate(vo.sql("arr_delay > 15"), within="7d", prior=0.2, weight=5)
    legs_3d = vo.count(within="3d")
    legs_60d = vo.count(within="60d", every="1d")


class Departure(vo.Request):
    flight_id: str
    tailnum: Annotated[str | None, plane]
    sched_dep: datetime
    distance: int


@vo.on_demand
def tired_long_haul(distance: int = Departure.distance, d: float | None = PlaneHistory.last_delay) -> bool:
    return distance > 1500 and (d or 0) > 30


late = vo.Label(
    "late_30", request=Departure, source=landings, on="flight_id", value=vo.sql("arr_delay >= 30"),
    horizon="36h", censored_by=cancellations, owner=ops,
)

asked = vo.Requests(Departure, table="schedule.parquet", at=vo.sql("sched_dep - INTERVAL 2 HOURS"))

delay = vo.Model(
    "delay", features=[PlaneHistory, tired_long_haul, Departure.distance], label=late, history=asked,
    trainer=vo.LightGBM(objective="binary", num_iterations=20, min_data_in_leaf=10), retrain="weekly", owner=ops,
)

get_delay_risk = vo.Decision(
    "get_delay_risk", request=Departure, model=delay, actions=["warn", "ok"],
    policy=vo.Threshold("warn", at=0.5), deadline="1h", fallback="ok", owner=ops,
)

release = vo.Release(
    get_delay_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=40), keep_first=True
)
"""

_INSTANT = pa.timestamp("us", "UTC")
LANDING_TABLE = pa.schema(
    [
        ("flight_id", pa.string()),
        ("tailnum", pa.string()),
        ("arr_delay", pa.float64()),
        ("landed_at", _INSTANT),
    ]
)
SCHEDULE_TABLE = pa.schema(
    [("flight_id", pa.string()), ("tailnum", pa.string()), ("sched_dep", _INSTANT), ("distance", pa.int64())]
)


class Flight(NamedTuple):
    """One flight, as it will have been."""

    flight_id: str
    tailnum: str | None
    sched_dep: Instant
    distance: int
    arr_delay: float

    @property
    def asked_at(self) -> Instant:
        return self.sched_dep - 2 * HOUR_US

    @property
    def landed_at(self) -> Instant:
        return self.sched_dep + 3 * HOUR_US + int(self.arr_delay * MINUTE_US)

    def request(self) -> dict[str, Any]:
        return {
            "flight_id": self.flight_id,
            "tailnum": self.tailnum,
            "sched_dep": to_datetime(self.sched_dep),
            "distance": self.distance,
        }

    def landing(self, arr_delay: float | None = None) -> dict[str, Any]:
        return {
            "flight_id": self.flight_id,
            "tailnum": self.tailnum,
            "arr_delay": self.arr_delay if arr_delay is None else arr_delay,
            "landed_at": to_datetime(self.landed_at),
        }


class Item(NamedTuple):
    """One thing that happens: a request, or an event pushed to a source."""

    at: Instant
    target: str
    body: dict[str, Any] | bytes
    operation: Operation = Operation.INSERT
    revision: int = 0


def past_flights(seed: int = 1, n_flights: int = 480, days: int = 30) -> list[Flight]:
    """Flights before the hand-over: late because of the plane."""
    random = Random(f"past {seed}")
    start = HAND_OVER - days * DAY_US
    return _flights(random, "p", n_flights, start, HAND_OVER - 5 * HOUR_US, lambda at: 0.0)


def coming_flights(seed: int = 1, n_flights: int = 500, days: int = 28) -> list[Flight]:
    """Flights after it: from the third day on, the long ones are late, which the first model cannot know."""
    random = Random(f"coming {seed}")
    changed = HAND_OVER + 2 * DAY_US
    start, end = HAND_OVER + 3 * HOUR_US, HAND_OVER + days * DAY_US
    return _flights(random, "c", n_flights, start, end, lambda at: 1.0 if at >= changed else 0.0)


def items(seed: int = 1, n_flights: int = 500, days: int = 28) -> list[Item]:
    """What happens after the hand-over, in order; no two items at one instant."""
    random = Random(f"items {seed}")
    found = [item for flight in coming_flights(seed, n_flights, days) for item in _items_of(flight, random)]
    found.sort(key=lambda item: item.at)
    placed: list[Item] = []
    at = HAND_OVER
    for item in found:
        at = max(at + SECOND_US, item.at - item.at % SECOND_US)
        placed.append(item._replace(at=at))
    return placed


def _flights(
    random: Random, prefix: str, n: int, start: Instant, end: Instant, of_distance: Callable[[Instant], float]
) -> list[Flight]:
    found = []
    for number in range(n):
        at = random.randrange(start, end) // SECOND_US * SECOND_US
        plane = random.randrange(24)
        tail = f"N{plane:02}" if random.random() > 0.03 else None
        distance = random.randrange(100, 3000)
        mean = (plane % 6) * 9 - 5 + of_distance(at) * (distance - 1500) / 25
        found.append(Flight(f"{prefix}{number:04}", tail, at, distance, round(random.gauss(mean, 18), 3)))
    return sorted(found, key=lambda flight: (flight.sched_dep, flight.flight_id))


def _items_of(flight: Flight, random: Random) -> Iterator[Item]:
    """The request, then what is told of it."""
    yield Item(flight.asked_at, DECISION, flight.request())
    landed, landing = flight.landed_at, flight.landing()
    fate = random.random()
    if fate < 0.05:
        cancelled = {"flight_id": flight.flight_id, "cancelled_at": to_datetime(flight.sched_dep - HOUR_US)}
        yield Item(flight.sched_dep - HOUR_US, "cancellations", cancelled)
        return
    if fate < 0.07:  # nothing is ever heard of it
        return
    if fate < 0.12:  # too late for features, in time for labels
        yield Item(landed + 5 * HOUR_US, "landings", landing)
        return
    if fate < 0.14:
        yield Item(landed, "landings", {"flight_id": flight.flight_id, "arr_delay": "late"})
        yield Item(landed + MINUTE_US, "landings", b"no json")
    if fate < 0.16:  # its own time lies in the future
        early = {**landing, "landed_at": to_datetime(landed + 2 * HOUR_US)}
        yield Item(landed - HOUR_US, "landings", {**early, "flight_id": f"early-{flight.flight_id}"})
    yield Item(landed + random.randrange(20) * MINUTE_US, "landings", landing)
    if fate < 0.20:
        yield Item(landed + HOUR_US, "landings", landing)
    elif fate < 0.23:
        yield Item(landed + 2 * HOUR_US, "landings", flight.landing(flight.arr_delay + 40))
    elif fate < 0.28:  # corrected soon, or long after its label was mature
        after = random.choice([30 * MINUTE_US, 4 * DAY_US])
        yield Item(landed + after, "landings", flight.landing(-flight.arr_delay), Operation.CORRECT, 1)
    elif fate < 0.31:
        yield Item(landed + HOUR_US, "landings", landing, Operation.RETRACT, 1)


class SeededEntropy:
    """Random bytes that follow from the item under way: a run that goes on gives the ids of one that never stopped."""

    def __init__(self) -> None:
        self.of_item(-1)

    def of_item(self, number: int) -> None:
        self._random = Random(f"entropy {number}")

    def __call__(self, n_bytes: int) -> bytes:
        return self._random.randbytes(n_bytes)


class World:
    """A project in a folder, with its clock. A context manager; leaving it closes the project.

    Args:
        folder: holds the project; `write_project` made it.
        script: what happens.
        stores: in place of the project's own, for tests that watch or break them.
    """

    def __init__(
        self,
        folder: Path,
        script: Sequence[Item],
        *,
        stores: Callable[[Path], Stores] = lambda folder: Stores(folder, read_config(folder)),
        reporter: Reporter | None = None,
    ) -> None:
        self.folder = folder
        self.script = script
        self.clock = ReplayClock(HAND_OVER)
        self.entropy = SeededEntropy()
        self.work = Workplace(folder, self.clock, self.entropy, reporter or Silence())
        self.work.stores = stores(folder)
        self.project = Project(self.work)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.project.close()

    def n_done(self) -> int:
        """How many items are in the journal."""
        entries = self.work.stores.journal_reader.read({}, limit=1_000_000)
        records = (decode_record(entry.record) for entry in entries)
        return sum(isinstance(record, EventReceived | DecisionMade) for record in records)

    def begin(self) -> None:
        """Apply, train the first version and release it; what is done already changes nothing."""
        self.project.apply()
        self.project.train(MODEL)
        self.project.release(DECISION)

    def resume(self) -> int:
        """Finish what the last process may have left undone; returns the number of the next item."""
        n_done = self.n_done()
        if n_done == 0:
            self.begin()
        else:
            self.clock.advance_to(self.script[n_done - 1].at)
            self.settle(n_done - 1)
        return n_done

    def run(self, until: int | None = None, *, start: int | None = None) -> None:
        """Let items happen, from where the journal ends up to a number."""
        first = self.resume() if start is None else start
        for number in range(first, len(self.script) if until is None else until):
            self.push(number)
            self.settle(number)

    def push(self, number: int) -> None:
        """Let one item happen."""
        at, target, body, operation, revision = self.script[number]
        self.clock.advance_to(at)
        self.entropy.of_item(number)
        if target == DECISION:
            self.project.decide(target, body)
        else:
            self.project.observe(target, body, operation=operation, revision=revision, sync=False)

    def settle(self, number: int) -> None:
        """What follows an item: it is applied, sometimes committed, and the jobs that are due run."""
        self.project.drain(commit=number % 50 == 49)
        self.project.run_due()


def write_project(
    folder: Path, *, definitions: str = DEFINITIONS, flights: Sequence[Flight] | None = None
) -> Path:
    """Write a project's files; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "volano.toml").write_text(CONFIG)
    (folder / "flights.py").write_text(definitions)
    past = past_flights() if flights is None else flights
    landings = [flight.landing() for flight in past]
    schedule = [flight.request() for flight in past]
    pq.write_table(pa.Table.from_pylist(landings, schema=LANDING_TABLE), folder / "landings.parquet")
    pq.write_table(pa.Table.from_pylist(schedule, schema=SCHEDULE_TABLE), folder / "schedule.parquet")
    return folder


def copy_project(source: Path, target: Path) -> Path:
    """A copy of a project that nobody has open, with its data."""
    shutil.copytree(source, target)
    return target


# --- what may be compared ------------------------------------------------------------------------------------------

_MEASURED = ("latency_us",)


def tables(world: World) -> dict[str, list[dict[str, Any]]]:
    """Every lake table as rows in a fixed order, without what a stopwatch measured."""
    lake = world.work.stores.lake
    found = {}
    for name in lake.tables():
        rows = lake.read(name)
        rows = rows.select(sorted(set(rows.column_names) - {*_MEASURED}))
        found[name] = sorted(rows.to_pylist(), key=repr)
    return found


def learnt(world: World) -> dict[str, Any]:
    """What learning left behind: hashes of sets, artifacts of versions, the ledger of releases."""
    catalog = world.work.stores.catalog
    sets = [msgspec.json.decode(doc.body, type=TrainingSetManifest) for doc in catalog.documents(SETS)]
    versions = [msgspec.json.decode(doc.body, type=ModelVersion) for doc in catalog.documents(VERSIONS)]
    return {
        # The versions of lake tables count commits, and a run that was killed commits more often.
        "sets": {made.name: msgspec.structs.replace(made, tables={}) for made in sets},
        "versions": {made.version: made for made in versions},
        "releases": history(catalog, DECISION),
    }


def differences(one: World, other: World) -> list[str]:
    """Where two worlds differ in their tables or in what they learnt, in words; empty when they do not."""
    return [*_differ("tables", tables(one), tables(other)), *_differ("learnt", learnt(one), learnt(other))]


def _differ(where: str, one: Any, other: Any) -> Iterator[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted({*one, *other}):
            yield from _differ(f"{where}.{key}", one.get(key), other.get(key))
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            yield from _differ(f"{where}[{number}]", a, b)
    elif one != other:
        shown = [f"{len(each)} rows" if isinstance(each, list) else repr(each) for each in (one, other)]
        yield f"{where}: {shown[0]} and {shown[1]}"


def champion(world: World) -> str:
    """The version that serves."""
    event = current(world.work.stores.catalog, DECISION)
    assert event is not None
    return event.champion


def assert_sound(world: World) -> None:
    """Every invariant of the project holds."""
    broken = [finding for finding in world.project.check() if not finding.sound]
    assert not broken, broken


if __name__ == "__main__":
    with World(Path(sys.argv[1]), items()) as opened:
        opened.run()
        opened.project.drain(commit=True)
