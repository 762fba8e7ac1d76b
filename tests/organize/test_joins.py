"""Joins of events with dimensions as of their time: offline = online to the bit, and both are the naive join."""

from __future__ import annotations

from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.collect.world import START, World
from tests.organize.histories import point_in_time
from tests.organize.joined import compiled, draw_sale, draw_shop, live, push
from volano.collect import schemas
from volano.errors import RequestError, StateMismatchError, StoreError
from volano.kernels import oracle
from volano.organize.audit import audit
from volano.organize.backfill import Backfill
from volano.organize.enrichment import GroupRows
from volano.organize.facts import Facts
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.arrow import ARROW_TYPES
from volano.values.event_ids import row_id
from volano.values.instants import HOUR_US, MINUTE_US, NEVER, from_datetime, to_datetime
from volano.values.schema import DType


def audited(world: World, handovers: Any = None) -> Any:
    service = world.project.models["risk"].service
    rows = world.lake.read("decision_get_risk")
    return audit(rows, service, world.project.requests["Ask"], point_in_time(world, handovers))


@pytest.mark.parametrize("seed", range(8))
def test_what_was_served_from_joined_rows_is_recomputed_to_the_bit(tmp_path, seed):
    with World(tmp_path, compiled(tmp_path)) as world:
        live(world, Random(seed), 200)
        report = audited(world)
        assert report.checked > 50
        assert report.differences == ()


def instant(value: Any) -> Any:
    return from_datetime(value) if hasattr(value, "tzinfo") else value


def naive_rows(world: World, source: str) -> list[dict[str, Any]]:
    """Committed rows with their visibility, by the book: late rows do not count, higher revisions supersede."""
    late_us = world.project.sources[source].accept_late_us
    rows = [
        {name: instant(value) for name, value in row.items()}
        for row in world.lake.read(f"fact_{source}").to_pylist()
    ]
    rows = [
        row for row in rows if row["event_time"] is None or row["applied_at"] - row["event_time"] <= late_us
    ]
    for row in rows:
        higher = [
            other["applied_at"]
            for other in rows
            if other["event_id"] == row["event_id"] and other["revision"] > row["revision"]
        ]
        row["until"] = min(higher, default=NEVER)
    return [row for row in rows if row["operation"] != "retract" and row["event_time"] is not None]


def dimension_rows(
    world: World, source: str, keys: tuple[str, ...], columns: tuple[str, ...]
) -> list[oracle.Row]:
    return [
        oracle.Row(
            tuple(row[name] for name in keys),
            row["event_time"],
            {name: row[name] for name in columns},
            (),
            int.from_bytes(row_id(row["event_id"]), "big"),
            row["applied_at"],
            row["until"],
        )
        for row in naive_rows(world, source)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_every_row_gets_the_columns_of_the_naive_join(tmp_path, seed):
    with World(tmp_path, compiled(tmp_path)) as world:
        live(world, Random(100 + seed), 150)
        facts = Facts(world.project, world.lake, world.sql, {})
        work = GroupRows(world.project, world.groups, facts, world.sql, world.functions)
        group = next(each for each in world.groups if any(view.name == "Rented" for view in each.views))
        rows = facts.rows("sales", for_features=True)
        rows = rows.filter(pc.and_(pc.not_equal(rows["operation"], "retract"), rows["event_time"].is_valid()))
        mapped = work.map(work.map_of(group), rows, stamp=None)
        shops = dimension_rows(world, "shops", ("shop",), ("rent", "region", "closed_at"))
        limits = dimension_rows(world, "limits", ("bank", "number"), ("cap",))
        n_found = 0
        for n, row in enumerate(rows.to_pylist()):
            q, as_of = from_datetime(row["event_time"]), from_datetime(row["applied_at"])
            shop = oracle.Query((row["shop"],) if row["shop"] is not None else None, q, as_of)
            card = (row["bank"], row["number"])
            wanted = oracle.joined(shops, shop, ("rent", "region"), "closed_at")
            capped = oracle.joined(limits, oracle.Query(None if None in card else card, q, as_of), ("cap",))
            assert mapped.columns["Rented.rent"][n].as_py() == wanted["rent"]
            assert mapped.columns["Rented.in_region"][n].as_py() == wanted["region"]
            if row["amount"] is not None and capped["cap"] is not None:
                over = next(name for name in mapped.columns if name.startswith("Rented._where"))
                assert mapped.columns[over][n].as_py() == (row["amount"] > capped["cap"])
            n_found += wanted["rent"] is not None
        assert n_found > 10


def chunks_of(world: World) -> dict[bytes, bytes]:
    """All of online state but where the journal was read to."""
    with world.online.snapshot() as snapshot:
        return {bytes(k): bytes(v) for k, v in snapshot.scan(b"\x01", b"\xff" * 9)}


@pytest.mark.parametrize("seed", range(4))
def test_how_arrivals_are_cut_into_batches_changes_no_byte_of_state(tmp_path, seed):
    """In stamp order: rows of a dimension earlier in a batch count, later ones do not."""
    found = []
    for name, step in (("one", 1), ("many", 10_000)):
        folder = tmp_path / name
        folder.mkdir()
        with World(folder, compiled(tmp_path)) as world:
            random = Random(seed)
            sent: dict[str, list[dict[str, Any]]] = {"sales": [], "shops": [], "limits": []}
            for i in range(200):
                world.clock.advance_to(world.clock.now() + random.choice((0, 1, MINUTE_US)))
                push(world, random, sent, i * 10)
            while world.applier.step(step):
                pass
            found.append(chunks_of(world))
    assert len(found[0]) > 10
    assert found[0] == found[1]


def test_a_batch_that_is_applied_again_after_a_crash_gives_the_same_state(tmp_path, monkeypatch):
    with World(tmp_path, compiled(tmp_path)) as world:
        random = Random(7)
        sent: dict[str, list[dict[str, Any]]] = {"sales": [], "shops": [], "limits": []}
        for i in range(150):
            world.clock.advance_to(world.clock.now() + MINUTE_US)
            push(world, random, sent, i * 10)
            if i == 70:
                world.applier.step()
        monkeypatch.setattr(
            world.online, "write", lambda *_, **__: (_ for _ in ()).throw(StoreError("lost power"))
        )
        with pytest.raises(StoreError):
            world.applier.step()
        monkeypatch.undo()
        world.clock.advance_to(world.clock.now() + HOUR_US)
        world.applier.step()
        crashed = chunks_of(world)
        world.committer.step()
        facts = Facts(world.project, world.lake, world.sql, {})
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        built: dict[bytes, bytes] = {}
        for group in world.groups:
            for part in backfill.chunks(group):
                built |= part.puts
        assert built == {key: chunk for key, chunk in crashed.items() if key in built}
        prefixes = {group.prefix for group in world.groups}
        assert {key for key in crashed if key[:8] in prefixes} == set(built)


@pytest.mark.parametrize("seed", range(4))
def test_tables_of_events_and_of_dimensions_are_joined_by_when_they_became_known(tmp_path, seed):
    random = Random(seed)
    handover_at = START + HOUR_US
    with World(tmp_path, compiled(tmp_path, sales="5m", shops="3h")) as world:
        write_tables(tmp_path, world, random, handover_at)
        world.clock.advance_to(handover_at)
        world.applier.recover()
        handovers = {}
        for source in ("sales", "shops"):
            token = world.sql.snapshot(f"{source}.parquet")
            stamp = world.applier.take_stamp()
            handovers[source] = HandOver(source, handover_at, token, stamp, f"{source}.parquet")
        facts = Facts(world.project, world.lake, world.sql, handovers)
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        for group in world.groups:
            for part in backfill.chunks(group, n_parts=3):
                world.online.write(part.puts, (), stamp=stamp, sequence=0)
        for source in world.project.sources:
            for part in backfill.index(source, n_parts=3):
                world.online.write(part.puts, (), stamp=stamp, sequence=0)
        live(world, random, 150)
        report = audited(world, handovers)
        assert report.checked > 30
        assert report.differences == ()
        rows = facts.rows("sales", for_features=True)
        rows = rows.filter(pc.equal(rows["revision"], -1))
        work = GroupRows(world.project, world.groups, facts, world.sql, world.functions)
        group = next(each for each in world.groups if any(view.name == "Rented" for view in each.views))
        mapped = work.map(work.map_of(group), rows, stamp=None)
        shops = [
            oracle.Row(
                row["shop"],
                instant(row["since"]),
                {name: instant(row[name]) for name in ("rent", "region", "closed_at")},
                (),
                int.from_bytes(row_id(f"{row['shop']}|{instant(row['since'])}"), "big"),
                instant(row["since"]) + 3 * HOUR_US,
            )
            for row in pq.read_table(tmp_path / "shops.parquet").to_pylist()
        ]
        n_found = 0
        for n, row in enumerate(rows.to_pylist()):
            q = instant(row["event_time"])
            as_of = min(q + 5 * MINUTE_US, handovers["sales"].stamp)
            wanted = oracle.joined(
                shops, oracle.Query(row["shop"], q, as_of), ("rent", "region"), "closed_at"
            )
            assert mapped.columns["Rented.rent"][n].as_py() == wanted["rent"]
            assert mapped.columns["Rented.in_region"][n].as_py() == wanted["region"]
            n_found += wanted["region"] is not None
        assert n_found > 5


def write_tables(folder: Any, world: World, random: Random, until: int) -> None:
    for source, draw, n in (("sales", draw_sale, 120), ("shops", draw_shop, 40)):
        rows: dict[Any, dict[str, Any]] = {}
        for i in range(n):
            at = until - random.randrange(60) * HOUR_US - random.randrange(3)
            row = draw(random, f"t{i}", at) if source == "sales" else draw(random, at)
            rows[tuple(row[name] for name in world.project.sources[source].id_columns)] = row
        schema = [
            (field.name, ARROW_TYPES[field.dtype]) for field in world.project.sources[source].schema.fields
        ]
        table = pa.Table.from_pylist(list(rows.values()), schema=pa.schema(schema))
        pq.write_table(table, folder / f"{source}.parquet")


def shop_row(at: int, **values: Any) -> dict[str, Any]:
    row = {"shop": "a", "region": "north", "rent": 1.0, "tills": 1, "open": True, "closed_at": None}
    return row | {"since": to_datetime(at)} | values


def sale_row(sale_id: str, at: int, **values: Any) -> dict[str, Any]:
    row = {"sale_id": sale_id, "shop": "a", "bank": None, "number": None, "amount": 1.0, "till": 0}
    return row | {"sold_at": to_datetime(at)} | values


def rents(world: World) -> dict[str, float | None]:
    """What the events that stand online carry, by id."""
    group = next(each for each in world.groups if any(view.name == "Rented" for view in each.views))
    state = next(each for each in world.applier._groups if each.group == group)
    found = {}
    with world.online.snapshot() as snapshot:
        for _, chunk in snapshot.scan(group.prefix, group.prefix + b"\xff" * 3):
            for row in state.layout.decode(chunk).to_pylist():
                found[row["row_id"]] = row["Rented.rent"]
    return {name: found[row_id(name)] for name in ("e1", "e2", "e3") if row_id(name) in found}


def test_a_row_holds_from_just_after_it_came_until_its_end_inclusive(tmp_path):
    with World(tmp_path, compiled(tmp_path)) as world:
        world.clock.advance_to(START + HOUR_US)
        world.door.accept("shops", [shop_row(START, closed_at=to_datetime(START + 10))])
        sales = [sale_row(name, START + after) for name, after in (("e1", 0), ("e2", 10), ("e3", 11))]
        world.door.accept("sales", sales)
        world.applier.step()
        assert rents(world) == {"e1": None, "e2": 1.0, "e3": None}


def test_what_the_dimension_says_later_changes_no_event_until_it_is_corrected(tmp_path):
    with World(tmp_path, compiled(tmp_path)) as world:
        world.clock.advance_to(START + HOUR_US)
        world.door.accept("sales", [sale_row("e1", START + 10)])
        world.door.accept("shops", [shop_row(START)])
        world.door.accept("sales", [sale_row("e2", START + 10)])
        world.applier.step()
        assert rents(world) == {"e1": None, "e2": 1.0}
        world.door.accept("shops", [shop_row(START, rent=2.0)], operation=Operation.CORRECT, revision=1)
        world.applier.step()
        assert rents(world) == {"e1": None, "e2": 1.0}
        world.door.accept("sales", [sale_row("e1", START + 20)], operation=Operation.CORRECT, revision=1)
        world.door.accept("sales", [sale_row("e3", START + 5)])
        world.applier.step()
        assert rents(world) == {"e1": 2.0, "e2": 1.0, "e3": 2.0}
        world.door.accept(
            "shops", [{"shop": "a", "since": to_datetime(START)}], operation=Operation.RETRACT, revision=2
        )
        world.door.accept("sales", [sale_row("e2", START + 20)], operation=Operation.CORRECT, revision=1)
        world.applier.step()
        assert rents(world) == {"e1": 2.0, "e2": None, "e3": 2.0}


def test_a_joined_key_that_is_too_long_is_none_online_and_offline(tmp_path, monkeypatch):
    monkeypatch.setitem(schemas._KEYS, DType.STRING, str)
    with World(tmp_path, compiled(tmp_path)) as world:
        world.clock.advance_to(START + HOUR_US)
        long = "x" * 70_000
        world.door.accept("shops", [shop_row(START, region=long), shop_row(START, shop="b")])
        world.door.accept(
            "limits", [{"limit_id": 1, "bank": long, "number": 1, "cap": 0.5, "set_at": to_datetime(START)}]
        )
        sales = [
            sale_row(name, START + 10, shop=shop) for name, shop in (("e1", "a"), ("e2", "b"), ("e3", long))
        ]
        world.door.accept("sales", [*sales, sale_row("e4", START + 10, bank=long, number=1)])
        world.applier.step()
        assert rents(world) == {"e1": 1.0, "e2": 1.0}
        world.committer.step()
        facts = Facts(world.project, world.lake, world.sql, {})
        backfill = Backfill(world.project, world.groups, facts, world.sql, world.functions)
        built: dict[bytes, bytes] = {}
        for group in world.groups:
            for part in backfill.chunks(group):
                built |= part.puts
        prefixes = tuple(group.prefix for group in world.groups)
        assert built == {key: value for key, value in chunks_of(world).items() if key.startswith(prefixes)}


def test_an_end_cannot_be_pushed(tmp_path):
    with (
        World(tmp_path, compiled(tmp_path)) as world,
        pytest.raises(RequestError, match="comes from the snapshots"),
    ):
        world.door.accept("shops", [shop_row(START)], operation=Operation.END)


def test_a_join_whose_dimension_has_no_state_is_refused(tmp_path):
    with World(tmp_path, compiled(tmp_path)) as world:
        live(world, Random(1), 20)
        facts = Facts(world.project, world.lake, world.sql, {})
        alone = [group for group in world.groups if group.joins]
        work = Backfill(world.project, alone, facts, world.sql, world.functions)
        with pytest.raises(StateMismatchError, match="dimension group"):
            list(work.chunks(alone[0]))
