"""Sealed state of a whole world: late, corrected and retracted below the seal, restarted, filled anew."""

from __future__ import annotations

from random import Random

import msgspec
import pytest

from tests.collect.world import ASK, CARD, DEAR_SQL, PRICES, START, World, feature, project, sale, view_input
from tests.organize import joined
from tests.organize.histories import draw_request, draw_values, live, online_features, point_in_time
from tests.organize.test_replay import table_of
from tests.organize.test_retention import answers
from volano.collect import sealing
from volano.collect.applier import Applier
from volano.errors import SealedStateError, StateMismatchError
from volano.kernels import sealed, tiles
from volano.kernels.sealed import is_sealed
from volano.organize.audit import audit
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.plan.definitions import (
    CompiledModel,
    CompiledProject,
    CompiledService,
    CompiledTrainer,
    Projection,
)
from volano.plan.impact import size_of
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US
from volano.values.schema import DType

ALWAYS = {"window_us": None}
BY_HOUR = {"window_us": 6 * HOUR_US, "every_us": HOUR_US}

WINDOWS = {
    "always": ALWAYS,
    "before": {**ALWAYS, "offset_us": HOUR_US},
    "hourly": BY_HOUR,
    "later": {**BY_HOUR, "offset_us": 2 * HOUR_US, "publish_delay_us": 7 * MINUTE_US},
    "ever_hourly": {**ALWAYS, "every_us": HOUR_US},
}
RICH = msgspec.structs.replace(
    CARD,
    name="Rich",
    features=tuple(
        feature(f"{name}_{window}", aggregate, column, dtype=dtype, **more, **given)
        for window, given in WINDOWS.items()
        for name, aggregate, column, dtype, more in (
            ("n", "count", None, DType.INT64, {}),
            ("total", "sum", "amount", DType.FLOAT64, {}),
            ("spread", "std", "amount", DType.FLOAT64, {}),
            ("pieces", "max", "pieces", DType.INT64, {}),
            ("each", "ratio", "amount", DType.FLOAT64, {"over": "pieces"}),
            ("first", "first", "kind", DType.STRING, {}),
            ("newest", "last", "amount", DType.FLOAT64, {}),
            ("known", "last_non_null", "amount", DType.FLOAT64, {}),
            ("kinds", "count_distinct", "kind", DType.INT64, {}),
            ("prices", "count_distinct", "amount", DType.INT64, {}),
            ("since", "time_since_last", None, DType.FLOAT64, {}),
        )
    ),
)
DEAREST = msgspec.structs.replace(
    CARD,
    name="Dearest",
    features=(
        feature("plain", "sum", "price", window_us=2 * HOUR_US),
        feature("n_dear", "count", where="dear", dtype=DType.INT64, **ALWAYS),
        feature("dear_price", "sum", "price", where="dear", **BY_HOUR),
        feature("dear_kinds", "count_distinct", "price", where="dear", dtype=DType.INT64, **ALWAYS),
        feature("rate", "rate", "dear", params=(0.25, 4.0), **ALWAYS),
    ),
    projection=Projection(PRICES, sql=DEAR_SQL),
)
SERVICE = CompiledService(
    "risk", "Ask", tuple(view_input(view, each.name) for view in (RICH, DEAREST) for each in view.features)
)


def rich() -> CompiledProject:
    model = CompiledModel("risk", SERVICE, "", CompiledTrainer("python"), "ops")
    definition = project(views=(RICH, DEAREST), accept_late_us=HOUR_US)
    return msgspec.structs.replace(definition, models={"risk": model})


@pytest.fixture(autouse=True)
def eager(monkeypatch):
    """Seal as early as may be, and also where it does not pay."""
    monkeypatch.setattr(sealed, "MARGIN_US", 0)
    monkeypatch.setattr(sealed, "FEWEST_ROWS", 1)
    monkeypatch.setattr(sealed, "_DAY_US", HOUR_US)
    monkeypatch.setattr(sealing, "WORTH", float("inf"))


def n_sealed(world: World) -> int:
    """How many chunks have a tail."""
    with world.online.snapshot() as snapshot:
        return sum(
            is_sealed(value)
            for group in world.groups
            for _, value in snapshot.scan(group.prefix, group.prefix + b"\xff" * 3)
        )


class Sealing:
    """The applier of a world, that seals before every few batches and counts how often the lake was asked."""

    def __init__(self, world: World, random: Random) -> None:
        self.n_asked = 0
        self._history = world.applier._history
        self._applier = world.applier
        self._world = world
        self._random = random
        world.applier._history = self
        world.applier = self  # type: ignore[assignment]

    def __getattr__(self, name):
        return getattr(self._applier, name)

    def step(self, limit=10_000):
        if self._random.random() < 0.25:
            self._applier.prune(self._world.clock.now())
        return self._applier.step(limit)

    def rows(self, *arguments, **named):
        self.n_asked += 1
        return self._history.rows(*arguments, **named)


def live_and_correct(world: World, random: Random, rounds: int) -> None:
    """Live; then old events are stated anew or taken back, most of them sealed by now; and so on."""
    for n in range(rounds):
        prefix = f"r{n}-"
        live(world, random, 40, service=SERVICE, prefix=prefix)
        world.clock.advance_to(world.clock.now() + 4 * HOUR_US)
        world.applier.prune(world.clock.now())
        for _ in range(6):
            old = f"r{random.randrange(n + 1)}-{random.randrange(40)}"
            event = sale(old, world.clock.now() - random.choice((0, MINUTE_US)), **draw_values(random))
            what = random.choice((Operation.CORRECT, Operation.CORRECT, Operation.RETRACT))
            revision = random.randrange(5, 50)
            given = {"sale_id": old} if what is Operation.RETRACT else event
            world.door.accept("sales", [given], operation=what, revision=revision, sync=False)
            if random.random() < 0.5:
                world.applier.step()
    while world.applier.step():
        pass
    live(world, random, 10, service=SERVICE, prefix="end-")


@pytest.mark.parametrize(("seed", "hot_rows"), [(0, None), (1, None), (2, 3), (3, 2)])
def test_what_was_served_from_sealed_state_is_recomputed_to_the_bit(tmp_path, monkeypatch, seed, hot_rows):
    if hot_rows is not None:
        monkeypatch.setattr(tiles, "HOT_ROWS", hot_rows)
        monkeypatch.setattr(tiles, "BLOCK_ROWS", 2)
    with World(tmp_path, rich()) as world:
        spy = Sealing(world, Random(seed))
        live_and_correct(world, Random(seed), 5)
        assert n_sealed(world) > 0
        assert spy.n_asked > 0, "corrections below the seal are what this test is about"
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, point_in_time(world))
        assert report.checked > 30
        assert report.differences == ()


@pytest.mark.parametrize("seed", range(2))
def test_sealing_restarting_and_filling_anew_change_no_answer(tmp_path, monkeypatch, seed):
    found = []
    for seals in (False, True):
        folder = tmp_path / str(seals)
        with World(folder, rich()) as world:
            if not seals:
                monkeypatch.setattr(world.applier, "_history", None)
            live_and_correct(world, Random(seed), 3)
            clock, now = world.clock, world.clock.now()
        with World(folder, rich(), clock=clock) as world:
            if not seals:
                monkeypatch.setattr(world.applier, "_history", None)
            world.applier.recover()
            live_and_correct(world, Random(seed + 99), 2)
            now = world.clock.now()
            asked = [draw_request(Random(n), f"s{n}") for n in range(30)]
            for later in (now, now + 3 * HOUR_US, now + 30 * HOUR_US):
                world.applier.prune(later)
                found.append(answers(world, asked, later, SERVICE))
            assert (n_sealed(world) > 0) == seals
    assert found[:3] == found[3:]


def deep_correction(world: World) -> None:
    """Two old rows of a card, one of which is corrected, after they were sealed."""
    world.door.accept("sales", [sale("a", START), sale("b", START + 1, amount=5.0)])
    world.applier.step()
    world.committer.step()
    world.clock.advance_to(START + 2 * DAY_US)
    assert world.applier.prune(world.clock.now()) > 0
    corrected = sale("a", START + 2 * DAY_US - MINUTE_US, amount=2.0)
    world.door.accept("sales", [corrected], operation=Operation.CORRECT, revision=1)


def test_a_kill_between_the_log_and_the_store_of_a_deep_correction_is_mended(tmp_path, monkeypatch):
    with World(tmp_path, rich()) as world:
        deep_correction(world)
        monkeypatch.setattr(world.applier._online, "write", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.applier.step()
        clock = world.clock
    with World(tmp_path, rich(), clock=clock) as world:
        # The committer may be ahead of online state by the very batch that is applied again.
        world.committer.step()
        assert world.applier.recover() == 1
        request = draw_request(Random(0), "x") | {"card": 1}
        slots, _ = online_features(world, SERVICE).read(request, world.clock.now())
        assert slots[:2] == [2, 7.0]


def test_without_the_lake_nothing_is_sealed_and_a_deep_correction_says_so(tmp_path):
    with World(tmp_path, rich()) as world:
        deep_correction(world)
        world.applier._history = None
        with pytest.raises(StateMismatchError, match="sealed"):
            world.applier.step()
        bare = Applier(
            world.project, world.groups, world.reader, world.apply_log, world.online, world.functions,
            world.sql, world.clock,
        )  # fmt: skip
        assert bare.prune(world.clock.now() + 900 * DAY_US) == 0


def test_a_decision_in_the_past_of_the_seal_is_refused(tmp_path):
    with World(tmp_path, rich()) as world:
        deep_correction(world)
        request = draw_request(Random(0), "x") | {"card": 1}
        with pytest.raises(SealedStateError):
            online_features(world, SERVICE).read(request, START + HOUR_US)


def test_sealed_state_stays_small(tmp_path, monkeypatch):
    """A key with many rows: what it keeps is the raw horizon, some nodes, and six hours of cells."""
    monkeypatch.setattr(sealing, "WORTH", 1.0)
    sizes = []
    with World(tmp_path, rich()) as world:
        for day in range(6):
            at = START + day * DAY_US
            sales = [
                sale(f"d{day}-{n}", at + n * DAY_US // 500, shop=None, amount=float(n % 7), pieces=n % 3)
                for n in range(500)
            ]
            world.clock.advance_to(at + DAY_US)
            # They come when they happen: the past is not late here.
            monkeypatch.setattr("volano.collect.applier._Source.is_late", lambda *_: False)
            world.door.accept("sales", sales, sync=False)
            world.applier.step()
            world.applier.prune(world.clock.now())
            with world.online.snapshot() as snapshot:
                values = [
                    len(value)
                    for group in world.groups
                    for _, value in snapshot.scan(group.prefix, group.prefix + b"\xff" * 3)
                ]
            sizes.append(sum(values))
    assert max(sizes[2:]) < 1.3 * min(sizes[2:]), sizes
    (group,) = world.groups
    size = size_of(group, 500.0)
    assert size.bytes_per_key is not None
    assert 0.5 < sizes[-1] / size.bytes_per_key < 1.5, "`plan` says what a key takes"
    assert sizes[-1] < 500 * size.bytes_per_event, "of six days, less than the rows of one"


def test_sealed_rows_with_columns_of_dimensions_are_recomputed_to_the_bit(tmp_path):
    with World(tmp_path, joined.compiled(tmp_path)) as world:
        spy = Sealing(world, Random(0))
        joined.live(world, Random(0), 300)
        assert spy.n_asked > 0 and n_sealed(world) > 0
        service, request = world.project.models["risk"].service, world.project.requests["Ask"]
        report = audit(world.lake.read("decision_get_risk"), service, request, point_in_time(world))
        assert report.checked > 50
        assert report.differences == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_a_table_are_sealed_and_corrected_as_those_of_a_stream(tmp_path, seed):
    random, handover_at = Random(seed), START + HOUR_US
    definition = rich()
    source = msgspec.structs.replace(definition.sources["sales"], table="sales.parquet")
    definition = msgspec.structs.replace(definition, sources={"sales": source})
    with World(tmp_path, definition) as world:
        table_of(tmp_path / "sales.parquet", random, 60, handover_at + 3 * HOUR_US)
        world.clock.advance_to(handover_at)
        world.applier.recover()
        stamp, snapshot = world.applier.take_stamp(), world.sql.snapshot("sales.parquet")
        handovers = {"sales": HandOver("sales", handover_at, snapshot, stamp, "sales.parquet")}
        world.handovers.update(handovers)
        facts = Facts(world.project, world.lake, world.sql, handovers)
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        for parts in (*(backfill.chunks(group) for group in world.groups), backfill.index("sales")):
            for part in parts:
                world.online.write(part.puts, (), stamp=stamp, sequence=0)
        spy = Sealing(world, random)
        for n in range(3):
            live(world, random, 25, service=SERVICE, prefix=f"r{n}-")
            world.clock.advance_to(world.clock.now() + 4 * HOUR_US)
            world.applier.prune(world.clock.now())
            for old in random.sample(range(60), 5):
                event = sale(f"t{old}", world.clock.now(), **draw_values(random))
                revision = random.randrange(1, 50)
                world.door.accept(
                    "sales", [event], operation=Operation.CORRECT, revision=revision, sync=False
                )
        live(world, random, 10, service=SERVICE, prefix="end-")
        assert spy.n_asked > 0
        features = point_in_time(world, handovers)
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, features)
        assert report.checked > 20
        assert report.differences == ()
