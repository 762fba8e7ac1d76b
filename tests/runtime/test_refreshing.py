"""Sources that are tables only: refreshed while decisions go on, each of which stays what it was, to the bit."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from volano.decide.features import OnlineFeatures
from volano.organize.features import Mode, PointInTime
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.runtime.rebuilding import fill
from volano.values.instants import DAY_US, HOUR_US, Instant, from_datetime, parse_instant, to_datetime

START: Instant = parse_instant("2026-03-01")
DEFINITIONS = """
from datetime import datetime
from typing import Annotated

import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
shop = vo.Entity("shop", key=str, owner=ops)
region = vo.Entity("region", key=str, owner=ops)


class Sale(vo.Event, id="sale_id"):
    sale_id: str
    shop: Annotated[str | None, shop]
    amount: float
    sold_at: vo.EventTime


class ShopInfo(vo.Event, id=["shop", "since"]):
    shop: Annotated[str, shop]
    region: Annotated[str | None, region]
    closed_at: datetime | None
    since: vo.EventTime


class Rent(vo.Event, id="shop"):
    shop: Annotated[str, shop]
    rent: float | None
    dumped_at: vo.EventTime


class Visit(vo.Event, id="visit_id"):
    visit_id: int
    shop: Annotated[str | None, shop]
    minutes: float | None
    came_at: vo.EventTime


sales = vo.Source("sales", Sale, stream=True, accept_late="2h", owner=ops)
shops = vo.Source("shops", ShopInfo, table="shops.parquet", available_after="1h", change="slowly_changing",
                  valid_to="closed_at", owner=ops)
rents = vo.Source("rents", Rent, table="rents.parquet", available_after="0s", change="snapshots", owner=ops)
visits = vo.Source("visits", Visit, table="visits.parquet", available_after="10m", owner=ops)


class ByRegion(vo.FeatureView, entity=region, source=sales, join=[vo.join(shops, "region"), vo.join(rents, "rent")],
               staleness="12h"):
    n = vo.count(within="30d")
    spent = vo.sum("amount", within="30d")
    rent = vo.sum("rent", within="30d")


class Rents(vo.FeatureView, entity=shop, source=rents, staleness="2d"):
    rent = vo.last("rent")


class Visits(vo.FeatureView, entity=shop, source=visits, staleness="6h"):
    n = vo.count(within="3d")
    minutes = vo.mean("minutes", within="10d")


class Ask(vo.Request, id="sale_id"):
    sale_id: str
    shop: Annotated[str | None, shop]
    region: Annotated[str | None, region]


def train(features, label, params, seed):
    return b""


def predict(artifact, features):
    return [0.5] * features.num_rows


late = vo.Label("late", request=Ask, source=sales, on="sale_id", value=vo.sql("amount > 5"), horizon="1d", owner=ops)
risk = vo.Model("risk", features=[ByRegion, Rents, Visits], label=late, trainer=vo.PythonTrainer(train, predict), owner=ops)
get_risk = vo.Decision("get_risk", request=Ask, model=risk, actions=["yes", "no"], policy=vo.Threshold("yes", at=0.5),
                       deadline="20ms", fallback="no", owner=ops)
release = vo.Release(get_risk, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=10))
"""
INSTANT = pa.timestamp("us", "UTC")
SHOPS = pa.schema(
    [("shop", pa.string()), ("region", pa.string()), ("closed_at", INSTANT), ("since", INSTANT)]
)
RENTS = pa.schema([("shop", pa.string()), ("rent", pa.float64()), ("dumped_at", INSTANT)])
VISITS = pa.schema(
    [("visit_id", pa.int64()), ("shop", pa.string()), ("minutes", pa.float64()), ("came_at", INSTANT)]
)
NAMES = ("a", "b", "c")
REGIONS = ("north", "süd")


class Shop:
    """A project over tables that its world rewrites, and what was read online."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder = folder
        self.random = Random(seed)
        self.clock = ReplayClock(START)
        self.shops: list[dict[str, Any]] = []
        self.rents: list[dict[str, Any]] = []
        self.visits: list[dict[str, Any]] = []
        self.read: list[tuple[dict[str, Any], Instant, Instant, list[Any]]] = []
        self.n_sales = 0
        self.n_shops = 0
        (folder / "volano.toml").write_text('namespace = "shops"\nonline_map_gib = 1\n')
        (folder / "shops.py").write_text(DEFINITIONS, encoding="utf-8")
        for day in range(-20, 0, 4):
            self.change_tables(START + day * DAY_US)
        self.project = Project.open(folder, clock=self.clock, entropy=Random(seed).randbytes)
        self.project.apply()

    @property
    def session(self):
        return self.project._work.session

    def change_tables(self, at: Instant) -> None:
        """What happens outside: rows come, are closed, changed, removed; a dump is taken."""
        random = self.random
        for _ in range(random.randrange(3)):
            row = {"shop": random.choice(NAMES), "region": random.choice((*REGIONS, None)), "closed_at": None}
            self.n_shops += 1  # a microsecond each: two rows of a shop never share their id
            row["since"] = to_datetime(at - random.choice((0, 1000, HOUR_US, 30 * HOUR_US)) + self.n_shops)
            self.shops.append(row)
        if self.shops and random.random() < 0.4:
            random.choice(self.shops)["closed_at"] = to_datetime(at - random.choice((0, HOUR_US, -DAY_US)))
        if self.shops and random.random() < 0.2:
            random.choice(self.shops)["region"] = random.choice(REGIONS)
        if self.shops and random.random() < 0.2:
            self.shops.remove(random.choice(self.shops))
        dump = [
            {"shop": name, "rent": random.choice((None, 1.5, 0.1)), "dumped_at": to_datetime(at - HOUR_US)}
            for name in NAMES
            if random.random() < 0.8
        ]
        # Some tables hold every dump, some only the newest.
        self.rents = [*(self.rents if random.random() < 0.5 else []), *dump] or self.rents
        for _ in range(random.randrange(4)):
            came = to_datetime(at - random.randrange(2 * DAY_US))
            shop = random.choice((*NAMES, None))
            row = {
                "visit_id": len(self.visits),
                "shop": shop,
                "minutes": random.choice((None, 0.1, 7.0)),
                "came_at": came,
            }
            self.visits.append(row)
        for name, rows, schema in (
            ("shops", self.shops, SHOPS),
            ("rents", self.rents, RENTS),
            ("visits", self.visits, VISITS),
        ):
            pq.write_table(pa.Table.from_pylist(rows, schema=schema), self.folder / f"{name}.parquet")

    def sell(self) -> None:
        self.n_sales += 1
        sold = self.clock.now() - self.random.choice((0, 1, HOUR_US, 3 * HOUR_US))
        shop = self.random.choice((*NAMES, None))
        sale = {
            "sale_id": f"s{self.n_sales}",
            "shop": shop,
            "amount": self.random.random(),
            "sold_at": to_datetime(sold),
        }
        self.project.observe("sales", sale, sync=False)

    def online(self) -> OnlineFeatures:
        applied = self.session.applied
        return OnlineFeatures(
            applied.project,
            applied.project.models["risk"].service,
            request=applied.project.requests["Ask"],
            groups=applied.groups,
            online=self.session.stores.online(applied.state),
            functions=self.session.functions,
        )

    def ask(self, online: OnlineFeatures) -> None:
        asked = {"sale_id": "x", "shop": self.random.choice(NAMES), "region": self.random.choice(REGIONS)}
        slots, stamp = online.read(asked, self.clock.now())
        self.read.append((asked, self.clock.now(), stamp, online.served(slots)))

    def live(self, n: int) -> list[str]:
        """Sell, ask and let the tables change for n steps of some hours; refreshes run as they are due."""
        notes = []
        self.session.applier  # noqa: B018
        online = self.online()
        for _ in range(n):
            self.clock.advance_to(self.clock.now() + self.random.choice((1, HOUR_US, 5 * HOUR_US)))
            for _ in range(self.random.randrange(3)):
                self.sell()
            self.project.drain(commit=self.random.random() < 0.2)
            self.ask(online)
            if self.random.random() < 0.3:
                self.change_tables(self.clock.now())
            if self.random.random() < 0.5:
                notes += [f"{run.job}: {run.note}" for run in self.project.run_due()]
            self.ask(online)
        self.project.drain(commit=True)
        return notes

    def recomputed(self) -> pa.Table:
        """What was read, from the lake alone."""
        applied = self.session.applied
        spine = pa.table(
            {
                "decided_at": pa.array([at for _, at, _, _ in self.read], pa.int64()).cast(INSTANT),
                "as_of": pa.array([max(stamp, 0) for _, _, stamp, _ in self.read], pa.int64()).cast(INSTANT),
                **{
                    name: [asked[name] for asked, _, _, _ in self.read]
                    for name in ("sale_id", "shop", "region")
                },
            }
        )
        work = PointInTime(
            applied.project,
            applied.groups,
            self.session.facts,
            self.session.stores.sql,
            self.session.functions,
        )
        return work.features(applied.project.models["risk"].service.inputs, spine, mode=Mode.REPLAY)


@pytest.mark.parametrize("seed", range(5))
def test_what_was_read_before_and_after_refreshes_is_recomputed_from_the_lake_alone(tmp_path, seed):
    world = Shop(tmp_path, seed)
    notes = world.live(60)
    assert sum("changes from" in note for note in notes) > 3, notes
    assert not [note for note in notes if "failed" in note]
    for name in ("shops", "rents", "visits"):
        (tmp_path / f"{name}.parquet").unlink()
    rows = [tuple(row.values()) for row in world.recomputed().to_pylist()]
    assert [tuple(served) for _, _, _, served in world.read] == rows
    assert any(value for row in rows for value in row)
    world.project.close()


@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_is_rebuilt_from_the_lake_gives_the_same_answers(tmp_path, seed):
    world = Shop(tmp_path, 50 + seed)
    world.live(40)
    session = world.session
    rebuilt = session.stores.online("rebuilt")
    applied = session.applied
    fill(rebuilt, session.stores, applied.project, applied.groups, session.functions, applied.handovers)
    online = world.online()
    again = OnlineFeatures(
        applied.project,
        applied.project.models["risk"].service,
        request=applied.project.requests["Ask"],
        groups=applied.groups,
        online=rebuilt,
        functions=session.functions,
    )
    for shop in NAMES:
        for region in REGIONS:
            asked = {"sale_id": "x", "shop": shop, "region": region}
            assert online.read(asked, world.clock.now())[0] == again.read(asked, world.clock.now())[0]
    world.project.close()


def standing(world: Shop, source: str) -> list[dict[str, Any]]:
    rows = world.session.facts.rows(source)
    rows = rows.filter(pc.and_(rows["superseded_at"].is_null(), pc.not_equal(rows["operation"], "retract")))
    return rows.to_pylist()


def refresh(world: Shop, *sources: str) -> dict[str, str]:
    world.clock.advance_to(world.clock.now() + DAY_US)
    runs = {run.job.removeprefix("refresh/"): run.note for run in world.project.run_due()}
    return {source: runs[source] for source in sources or ("shops", "rents", "visits")}


def test_a_refresh_brings_the_facts_up_to_the_table_and_a_second_one_nothing(tmp_path):
    world = Shop(tmp_path, 1)
    for day in range(1, 6):
        world.change_tables(START + day * DAY_US)
        refresh(world)
        found = [{name: row[name] for name in SHOPS.names} for row in standing(world, "shops")]
        assert sorted(found, key=repr) == sorted(
            pa.Table.from_pylist(world.shops, SHOPS).to_pylist(), key=repr
        )
        assert {row["visit_id"] for row in standing(world, "visits")} == {
            row["visit_id"] for row in world.visits
        }
        newest = max(row["dumped_at"] for row in world.rents)
        dump = {row["shop"]: row["rent"] for row in world.rents if row["dumped_at"] == newest}
        last = {
            row["shop"]: row for row in sorted(standing(world, "rents"), key=lambda row: row["dumped_at"])
        }
        assert {shop: row["rent"] for shop, row in last.items() if row["operation"] != "end"} == dump
        assert all("unchanged" in note for note in refresh(world).values())
    # The same content in other bytes: read again, and nothing to do.
    pq.write_table(
        pa.Table.from_pylist(world.visits, schema=VISITS), tmp_path / "visits.parquet", compression="gzip"
    )
    assert refresh(world, "visits") == {"visits": "0 changes from visits.parquet"}
    world.project.close()


def test_a_refresh_that_was_cut_short_goes_on_and_repeats_nothing(tmp_path, monkeypatch):
    world = Shop(tmp_path, 2)
    world.change_tables(START + DAY_US)
    world.visits += [
        {"visit_id": 1000 + n, "shop": "a", "minutes": 1.0, "came_at": to_datetime(START)} for n in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(world.visits, schema=VISITS), tmp_path / "visits.parquet")
    door = world.session.door
    whole = door.bring

    def half(source: str, changes: Any) -> int:
        whole(source, changes[: len(changes) // 2])
        raise KeyboardInterrupt

    monkeypatch.setattr(door, "bring", half)
    with pytest.raises(KeyboardInterrupt):
        refresh(world)
    monkeypatch.undo()
    for _ in range(2):
        refresh(world)
    assert sorted(row["visit_id"] for row in standing(world, "visits")) == sorted(
        row["visit_id"] for row in world.visits
    )
    account = world.session.reconcile().events
    assert account.duplicate == account.conflict == account.quarantined == 0
    world.project.close()


def test_a_table_that_is_wrong_is_named_with_its_rows_and_the_other_jobs_go_on(tmp_path):
    world = Shop(tmp_path, 3)
    world.visits.append({"visit_id": 5000, "shop": "a", "minutes": 1.0, "came_at": to_datetime(START)})
    visits = pa.Table.from_pylist(world.visits, schema=VISITS)
    wrong = visits.set_column(2, "minutes", pa.array(["many"] * visits.num_rows))
    pq.write_table(wrong, tmp_path / "visits.parquet")
    old = [dict(row, dumped_at=to_datetime(START - 300 * DAY_US)) for row in world.rents[:1]]
    pq.write_table(pa.Table.from_pylist(old, schema=RENTS), tmp_path / "rents.parquet")
    missing = pa.Table.from_pylist(world.shops, schema=SHOPS).drop_columns(["closed_at"])
    pq.write_table(missing, tmp_path / "shops.parquet")
    notes = refresh(world)
    assert "'minutes' is declared double and holds string" in notes["visits"] and "many" in notes["visits"]
    assert "source visits, table visits.parquet" in notes["visits"]
    assert "does not go back in time" in notes["rents"] and "column dumped_at" in notes["rents"]
    assert "no column 'closed_at'" in notes["shops"]
    pq.write_table(visits, tmp_path / "visits.parquet")
    assert refresh(world, "visits") == {"visits": "1 changes from visits.parquet"}
    world.project.close()


def test_a_refreshed_row_is_known_from_its_refresh_on(tmp_path):
    world = Shop(tmp_path, 4)
    came = START - 3 * HOUR_US
    world.visits.append({"visit_id": 7000, "shop": "b", "minutes": 2.0, "came_at": to_datetime(came)})
    pq.write_table(pa.Table.from_pylist(world.visits, schema=VISITS), tmp_path / "visits.parquet")
    refresh(world)
    rows = {row["visit_id"]: row for row in standing(world, "visits")}
    assert rows[7000]["known_at"] == rows[7000]["applied_at"] >= to_datetime(START + DAY_US)
    old = next(row for visit, row in rows.items() if visit != 7000)
    assert old["revision"] == -1
    assert from_datetime(old["known_at"]) == from_datetime(old["came_at"]) + 10 * 60_000_000
    entry = world.session.stores.catalog.last_entry("refresh/visits")
    assert msgspec.json.decode(entry.body)["n_changes"] == 1
    world.project.close()
