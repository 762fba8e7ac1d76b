"""Promise 3: features recomputed from the lake are the bits that were served; and an audit that can fail."""

from __future__ import annotations

from random import Random

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.collect.world import (
    ASK,
    CARD,
    DEAR,
    SERVICE,
    SHOP,
    START,
    World,
    feature,
    project,
    sale,
    view_input,
)
from tests.organize.histories import (
    decide_once,
    draw_request,
    draw_values,
    live,
    online_features,
    point_in_time,
)
from volano.organize.audit import audit
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.organize.features import PointInTime
from volano.plan.definitions import CompiledService
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.runtime.scratch import FileScratch
from volano.values.event_ids import row_id
from volano.values.instants import DAY_US, HOUR_US, MINUTE_US, to_datetime
from volano.values.schema import DType, Field, Schema


@pytest.mark.parametrize("seed", range(6))
def test_what_was_served_is_recomputed_to_the_bit(tmp_path, seed):
    with World(tmp_path) as world:
        live(world, Random(seed), 250)
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, point_in_time(world))
        assert report.checked > 60
        assert report.differences == ()
        assert report.mismatched == 0


@pytest.mark.parametrize("seed", range(3))
def test_key_partitions_change_no_bit(tmp_path, seed):
    with World(tmp_path) as world:
        live(world, Random(seed), 150)
        parts = point_in_time(world, rows_at_once=40)
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, parts)
        assert report.checked > 30
        assert report.differences == ()


OWN = msgspec.structs.replace(
    SHOP,
    name="Own",
    features=tuple(
        feature(name, aggregate, column, include_request=True, dtype=dtype)
        for name, aggregate, column, dtype in (
            ("n", "count", None, DType.INT64),
            ("total", "sum", "amount", DType.FLOAT64),
            ("newest", "last", "amount", DType.FLOAT64),
            ("kinds", "last", "kind", DType.STRING),
        )
    ),
)
OWN_ASK = msgspec.structs.replace(
    ASK, schema=Schema((*ASK.schema.fields, Field("amount", DType.FLOAT64, nullable=True)))
)
OWN_SERVICE = CompiledService("risk", "Ask", tuple(view_input(OWN, each.name) for each in OWN.features))


def own_project():
    definition = project(views=(SHOP, DEAR, CARD, OWN))
    model = msgspec.structs.replace(definition.models["risk"], service=OWN_SERVICE)
    return msgspec.structs.replace(definition, models={"risk": model}, requests={"Ask": OWN_ASK})


def with_amount(random, sale_id):
    return {**draw_request(random, sale_id), "amount": random.choice((None, 3.5, 1e9))}


@pytest.mark.parametrize("seed", range(4))
def test_the_requests_own_event_counts_once_whether_it_arrived_or_not(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("tests.organize.histories.draw_request", with_amount)
    with World(tmp_path, own_project()) as world:
        live(world, Random(seed), 200, service=OWN_SERVICE, request=OWN_ASK)
        rows = world.lake.read("decision_get_risk")
        report = audit(rows, OWN_SERVICE, OWN_ASK, point_in_time(world))
        assert report.checked > 40
        assert report.differences == ()


def table_of(path, random, n, until):
    events = [
        sale(f"t{i}", until - random.randrange(1, 5 * DAY_US // MINUTE_US) * MINUTE_US, **draw_values(random))
        for i in range(n)
    ]
    columns = {name: [event[name] for event in events] for name in events[0]}
    types = {
        "card": pa.int64(),
        "amount": pa.float64(),
        "pieces": pa.int64(),
        "till": pa.int64(),
        "sold_at": pa.timestamp("us", "UTC"),
    }
    table = pa.table(
        {name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()}
    )
    pq.write_table(table, path)
    return events


@pytest.mark.parametrize("seed", range(4))
def test_table_and_stream_of_a_source_are_one_history(tmp_path, seed):
    """Backfill from the table, then live operation in which some rows of the table are pushed again, or corrected."""
    random = Random(seed)
    handover_at = START + HOUR_US
    with World(tmp_path, project(table="sales.parquet")) as world:
        events = table_of(tmp_path / "sales.parquet", random, 60, handover_at + 3 * HOUR_US)
        world.clock.advance_to(handover_at)
        world.applier.recover()
        stamp = world.applier.take_stamp()
        handovers = {
            "sales": HandOver(
                "sales", handover_at, world.sql.snapshot("sales.parquet"), stamp, "sales.parquet"
            )
        }
        world.handovers.update(handovers)
        facts = Facts(world.project, world.lake, world.sql, handovers)
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        for group in world.groups:
            for part in backfill.chunks(group, n_parts=3):
                world.online.write(part.puts, (), stamp=stamp, sequence=0)
        for part in backfill.index("sales", n_parts=3):
            world.online.write(part.puts, (), stamp=stamp, sequence=0)
        again = [event for event in events if event["sold_at"] > to_datetime(handover_at - HOUR_US)]
        world.door.accept("sales", [event for event in again if event["sold_at"] < to_datetime(handover_at)])
        live(world, random, 150, prefix=random.choice("st"))
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, point_in_time(world, handovers))
        assert report.checked > 30
        assert report.differences == ()


def with_lateness(definition, accept_late_us):
    (source,) = definition.sources.values()
    changed = msgspec.structs.replace(source, accept_late_us=accept_late_us)
    return msgspec.structs.replace(definition, sources={"sales": changed})


@pytest.mark.parametrize("later", [HOUR_US, 10 * DAY_US, None])
@pytest.mark.parametrize("seed", range(2))
def test_what_online_never_took_stays_unseen_whatever_the_source_accepts_later(tmp_path, seed, later):
    """Late first statements, corrections and retractions; then the author changes his mind about lateness."""
    with World(tmp_path) as world:
        live(world, Random(seed), 250)
        facts = world.lake.read("fact_sales")
        late = facts.filter(facts["too_late"])
        assert {"insert", "correct", "retract"} <= set(late["operation"].to_pylist())
        assert pc.all(pc.invert(facts["too_late"].is_null())).as_py()
        rows = world.lake.read("decision_get_risk")
        changed = with_lateness(world.project, later)
        features = PointInTime(
            changed, world.groups, Facts(changed, world.lake, world.sql, {}), world.sql, world.functions
        )
        report = audit(rows, SERVICE, ASK, features)
        assert report.checked > 60
        assert report.differences == ()


def test_a_log_from_before_lateness_was_written_down_is_read_by_the_rule(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(1), 150)
        report = audit(world.lake.read("decision_get_risk"), SERVICE, ASK, point_in_time(Unmarked(world)))  # type: ignore[arg-type]
        assert report.checked > 30
        assert report.differences == ()


def test_the_lake_is_believed_about_lateness(tmp_path):
    """The proof above can fail: where the mark is turned round, decisions differ."""
    with World(tmp_path) as world:
        live(world, Random(1), 150)
        rows = world.lake.read("decision_get_risk")
        report = audit(rows, SERVICE, ASK, point_in_time(Unmarked(world, says=False)))  # type: ignore[arg-type]
        assert report.mismatched > 0


class Unmarked:
    """A world whose lake says nothing, or something wrong, of lateness."""

    def __init__(self, world, says=None):
        self._world = world
        self._says = says
        self.lake = self

    def __getattr__(self, name):
        return getattr(self._world, name)

    def version(self, table):
        return self._world.lake.version(table)

    def read(self, table, **options):
        rows = self._world.lake.read(table, **options)
        if "too_late" not in rows.column_names:
            return rows
        marks = pa.array([self._says] * rows.num_rows, pa.bool_())
        return rows.set_column(rows.column_names.index("too_late"), "too_late", marks)


def test_a_correction_in_time_replaces_a_row_that_no_window_reaches_any_more(tmp_path):
    """The old row's chunk was pruned; the correction moves the row to a moment that windows reach."""
    service = CompiledService(
        "risk",
        "Ask",
        tuple(view_input(view, each.name) for view in (SHOP, DEAR) for each in view.features),
    )
    definition = project(views=(SHOP, DEAR))
    model = msgspec.structs.replace(definition.models["risk"], service=service)
    with World(tmp_path, msgspec.structs.replace(definition, models={"risk": model})) as world:
        world.door.accept("sales", [sale("a", START), sale("b", START)])
        world.applier.step()
        later = START + 4 * DAY_US
        world.clock.advance_to(later)
        assert world.applier.prune(later) > 0
        world.door.accept(
            "sales", [sale("a", later - HOUR_US, amount=7.0)], operation=Operation.CORRECT, revision=1
        )
        world.door.accept("sales", [{"sale_id": "b"}], operation=Operation.RETRACT, revision=1)
        world.applier.step()
        world.clock.advance_to(later + MINUTE_US)
        live(world, Random(0), 30, service=service)
        online = online_features(world, service)
        slots, _ = online.read(
            {"sale_id": "x", "shop": "corner", "card": 1, "asked_for": 1.0}, later + MINUTE_US
        )
        assert online.served(slots)[0] == 1
        report = audit(world.lake.read("decision_get_risk"), service, ASK, point_in_time(world))
        assert report.checked > 5
        assert report.differences == ()


def test_a_corrupted_row_of_the_lake_is_reported(tmp_path):
    with World(tmp_path) as world:
        world.door.accept("sales", [sale(f"s{n}", START, amount=0.1) for n in range(3)])
        world.applier.step()
        world.clock.advance_to(START + MINUTE_US)
        for n in range(5):
            decide_once(world, {"sale_id": "x", "shop": "corner", "card": 1, "asked_for": 1.0}, f"d{n}")
        decide_once(world, {"sale_id": "x", "shop": "nobody", "card": None, "asked_for": 1.0}, "other")
        world.applier.step()
        world.committer.step()
        rows = world.lake.read("decision_get_risk")
        assert audit(rows, SERVICE, ASK, point_in_time(world)).mismatched == 0
        wrong = point_in_time(Corrupted(world))  # type: ignore[arg-type]
        report = audit(rows, SERVICE, ASK, wrong)
        assert (report.checked, report.mismatched) == (6, 5)
        found = {difference.feature for difference in report.differences}
        assert found == {
            "Shop__total",
            "Shop__spread",
            "Shop__newest",
            "Dear__mean_price",
            "Card__amount_always",
            "ratio",
        }
        difference = next(each for each in report.differences if each.feature == "Shop__total")
        assert (difference.decision_id, difference.cause) == ("d0", "rounding")
        assert difference.served != difference.recomputed


@pytest.mark.parametrize("seed", range(2))
def test_rows_put_aside_by_key_change_no_bit(tmp_path, monkeypatch, seed):
    """Facts in ranges of ten rows, features in parts of their keys, the requests' own events included."""
    used = []
    put = FileScratch.put
    monkeypatch.setattr(
        FileScratch, "put", lambda self, name, rows: (used.append(name), put(self, name, rows))
    )
    with World(tmp_path, own_project()) as world, FileScratch(tmp_path / "scratch") as scratch:
        monkeypatch.setattr("tests.organize.histories.draw_request", with_amount)
        live(world, Random(seed), 150, service=OWN_SERVICE, request=OWN_ASK)
        rows = world.lake.read("decision_get_risk")
        parts = point_in_time(world, scratch=scratch, rows_at_once=40)
        report = audit(rows, OWN_SERVICE, OWN_ASK, parts)
        assert report.checked > 30
        assert report.differences == ()
        assert len(set(used)) >= 3, "little was put aside"


class Corrupted:
    """A world in whose lake one bit of one amount has flipped."""

    def __init__(self, world):
        self._world = world
        self.lake = self
        self._lake = world.lake

    def __getattr__(self, name):
        return getattr(self._world, name)

    def version(self, table):
        return self._lake.version(table)

    def read(self, table, **options):
        rows = self._lake.read(table, **options)
        if table != "fact_sales" or "amount" not in rows.column_names:
            return rows
        amounts = rows["amount"].to_pylist()
        newest = max(range(len(amounts)), key=lambda n: row_id(rows["event_id"][n].as_py()))
        amounts[newest] = 0.1 + 2**-50
        return rows.set_column(rows.column_names.index("amount"), "amount", pa.array(amounts))


def test_a_null_that_was_served_as_a_value_is_told_apart_from_nan(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(3), 60)
        rows = world.lake.read("decision_get_risk")
        name = "feature__Shop__newest"
        nulls = rows[name].is_null()
        assert pc.any(nulls).as_py()
        served = pc.if_else(nulls, float("nan"), rows[name])
        changed = rows.set_column(rows.column_names.index(name), name, served)
        report = audit(changed, SERVICE, ASK, point_in_time(world))
        assert report.mismatched == pc.sum(nulls).as_py()
        assert {difference.cause for difference in report.differences} == {"null"}


def test_decisions_that_fell_back_before_their_features_are_skipped(tmp_path):
    with World(tmp_path) as world:
        live(world, Random(5), 60)
        rows = world.lake.read("decision_get_risk")
        for given in SERVICE.inputs:
            name = f"feature__{given.name}"
            rows = rows.set_column(rows.column_names.index(name), name, pa.nulls(len(rows), rows[name].type))
        fell_back = pa.array(["deadline: over"] * len(rows))
        rows = rows.set_column(rows.column_names.index("fallback"), "fallback", fell_back)
        report = audit(rows, SERVICE, ASK, point_in_time(world))
        assert (report.checked, report.skipped, report.mismatched) == (0, len(rows), 0)
