"""Facts: table before the hand-over, stream after it, one history of each id."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.collect.world import SALE, START, World, project, sale
from volano.errors import NotReadyError, RequestError, StateMismatchError, UnknownNameError
from volano.organize.facts import Facts, standing
from volano.plan.state_rows import ARROW_TYPES
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.instants import HOUR_US, MINUTE_US, Instant, from_datetime
from volano.values.schema import DType, Field, Schema

STAMP = START + 7


@pytest.fixture
def world(tmp_path) -> Iterator[World]:
    with World(tmp_path, project(table="sales.parquet")) as opened:
        opened.clock.advance_to(START)
        yield opened


def write(world: World, events: list[dict[str, Any]], **changes: pa.Array) -> None:
    schema = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in SALE.fields])
    table = pa.Table.from_pylist(events, schema=schema)
    for name, column in changes.items():
        table = table.set_column(table.column_names.index(name), name, column)
    pq.write_table(table, world.folder / "sales.parquet")


def handover(world: World, *, at: Instant = START) -> HandOver:
    return HandOver("sales", at, world.sql.snapshot("sales.parquet"), STAMP, "sales.parquet")


def facts_of(world: World, pinned: HandOver | None) -> Facts:
    return Facts(world.project, world.lake, world.sql, {} if pinned is None else {"sales": pinned})


def history(rows: pa.Table) -> dict[tuple[str, int], tuple[int, int | None]]:
    """(applied_at, superseded_at) by id and revision."""

    def instant(moment: datetime | None) -> int | None:
        return None if moment is None else from_datetime(moment)

    return {
        (row["event_id"], row["revision"]): (from_datetime(row["applied_at"]), instant(row["superseded_at"]))
        for row in rows.to_pylist()
    }


def commit(world: World) -> None:
    world.applier.recover()
    while world.applier.step():
        pass
    world.committer.step()


def test_rows_of_the_table_before_the_hand_over_carry_its_stamp_and_their_own_known_at(world):
    write(world, [sale("a", START - HOUR_US), sale("b", START)])
    rows = facts_of(world, handover(world)).rows("sales")
    (row,) = rows.to_pylist()
    assert (row["event_id"], row["revision"], row["operation"]) == ("a", -1, "insert")
    assert from_datetime(row["applied_at"]) == from_datetime(row["received_at"]) == STAMP
    assert from_datetime(row["known_at"]) == START - HOUR_US + 5 * MINUTE_US
    assert row["amount"] == 10.0


def test_the_stream_row_replaces_the_row_of_the_table_at_the_instant_it_was_applied(world):
    write(world, [sale("a", START - HOUR_US), sale("b", START - 2 * HOUR_US)])
    world.clock.advance_to(START + 10)
    world.door.accept("sales", [sale("a", START - HOUR_US, amount=11.0), sale("c", START)])
    commit(world)
    rows = facts_of(world, handover(world)).rows("sales")
    assert history(rows) == {
        ("a", -1): (STAMP, START + 10),
        ("b", -1): (STAMP, None),
        ("a", 0): (START + 10, None),
        ("c", 0): (START + 11, None),
    }
    assert sorted(standing(rows)["event_id"].to_pylist()) == ["a", "b", "c"]


def test_a_row_is_superseded_when_the_first_higher_revision_is_applied(world):
    write(world, [])
    for revision in (0, 3, 1, 2):
        world.clock.advance_to(START + 10 * (revision + 1) if revision < 3 else START + 15)
        operation = Operation.CORRECT if revision else Operation.INSERT
        world.door.accept(
            "sales", [sale("a", START, amount=revision)], operation=operation, revision=revision
        )
        world.applier.step()
        if revision == 3:
            world.clock.advance_to(START + 20)
    commit(world)
    rows = facts_of(world, handover(world)).rows("sales")
    assert history(rows) == {
        ("a", 0): (START + 10, START + 15),
        ("a", 3): (START + 15, None),
        ("a", 1): (START + 20, START + 15),
        ("a", 2): (START + 30, START + 15),
    }


def test_a_stamp_shows_what_stood_then(world):
    write(world, [sale("a", START - HOUR_US)])
    world.clock.advance_to(START + 10)
    world.door.accept("sales", [sale("a", START - HOUR_US)])
    world.door.accept("sales", [{"sale_id": "a"}], operation=Operation.RETRACT, revision=1)
    commit(world)
    facts = facts_of(world, handover(world))
    assert history(facts.rows("sales", stamp=STAMP - 1)) == {}
    assert history(facts.rows("sales", stamp=STAMP)) == {("a", -1): (STAMP, None)}
    assert history(facts.rows("sales", stamp=START + 10)) == {
        ("a", -1): (STAMP, START + 10),
        ("a", 0): (START + 10, None),
    }
    assert len(standing(facts.rows("sales"))) == 0


def test_a_range_is_half_open_and_rows_outside_it_supersede_all_the_same(world):
    write(world, [])
    world.clock.advance_to(START + HOUR_US)
    world.door.accept("sales", [sale("a", START), sale("b", START + 5), sale("c", START + 10)])
    moved = sale("b", START + 50)
    world.door.accept("sales", [moved], operation=Operation.CORRECT, revision=1)
    world.door.accept("sales", [{"sale_id": "a"}], operation=Operation.RETRACT, revision=1)
    commit(world)
    rows = facts_of(world, handover(world)).rows("sales", since=START, until=START + 10)
    at = START + HOUR_US
    assert history(rows) == {("a", 0): (at, at + 4), ("b", 0): (at + 1, at + 3)}


def test_for_features_a_late_correction_supersedes_nothing(world):
    write(world, [])
    world.door.accept("sales", [sale("a", START)])
    world.applier.step()
    world.clock.advance_to(START + 3 * HOUR_US)
    world.door.accept("sales", [sale("a", START, amount=1.0)], operation=Operation.CORRECT, revision=1)
    commit(world)
    facts = facts_of(world, handover(world))
    assert history(facts.rows("sales", for_features=True)) == {("a", 0): (START, None)}
    assert history(facts.rows("sales"))[("a", 0)] == (START, START + 3 * HOUR_US)


def test_a_table_that_changed_since_it_was_pinned_is_refused(world):
    write(world, [sale("a", START - HOUR_US)])
    pinned = handover(world)
    write(world, [sale("a", START - HOUR_US, amount=11.0)])
    with pytest.raises(StateMismatchError, match="has changed since its hand-over"):
        facts_of(world, pinned).rows("sales")


def test_a_source_whose_hand_over_is_not_pinned_is_not_ready(world):
    write(world, [])
    with pytest.raises(NotReadyError, match="not handed over"):
        facts_of(world, None).rows("sales")


def test_an_unknown_source_is_an_error(world):
    with pytest.raises(UnknownNameError):
        facts_of(world, None).rows("nothing")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"amount": pa.array(["ten", "x"])}, "'amount' is declared double and holds string"),
        ({"pieces": pa.array([1.5, 2.0])}, "'pieces' is declared int64 and holds double"),
        ({"pieces": pa.array([1, None])}, "'pieces' is null in 1 rows"),
        ({"sale_id": pa.array(["a", None])}, "'sale_id' is null in 1 rows"),
        ({"sale_id": pa.array(["a", "a"])}, "1 event ids occur in more than one row, such as \\['a'\\]"),
    ],
)
def test_a_table_that_does_not_fit_names_the_column(world, changes, message):
    write(world, [sale("a", START - 2), sale("b", START - 1)], **changes)
    with pytest.raises(RequestError, match=message):
        facts_of(world, handover(world)).rows("sales")


def test_a_missing_column_is_named(world):
    pq.write_table(pa.table({"sale_id": ["a"]}), world.folder / "sales.parquet")
    with pytest.raises(RequestError, match="no column 'shop'"):
        facts_of(world, handover(world)).rows("sales")


def test_a_declared_known_at_column_is_used(tmp_path):
    definition = project(table="sales.parquet")
    schema = Schema((*SALE.fields, Field("seen_at", DType.TIMESTAMP)))
    sales = msgspec.structs.replace(
        definition.sources["sales"], schema=schema, known_at="seen_at", available_after_us=None
    )
    definition = msgspec.structs.replace(definition, sources={"sales": sales})
    with World(tmp_path, definition) as world:
        write(world, [sale("a", START - HOUR_US)])
        table = pq.read_table(tmp_path / "sales.parquet")
        seen = pa.array([START - 3], pa.timestamp("us", "UTC"))
        pq.write_table(table.append_column("seen_at", seen), tmp_path / "sales.parquet")
        (row,) = facts_of(world, handover(world)).rows("sales").to_pylist()
        assert from_datetime(row["known_at"]) == START - 3


def test_ids_of_several_columns_are_those_of_the_door(tmp_path):
    definition = project(table="sales.parquet")
    sales = msgspec.structs.replace(definition.sources["sales"], id_columns=("sale_id", "till", "sold_at"))
    definition = msgspec.structs.replace(definition, sources={"sales": sales})
    with World(tmp_path, definition) as world:
        write(world, [sale("a|b", START - HOUR_US)])
        pinned = handover(world)
        world.door.accept("sales", [sale("a|b", START - HOUR_US)])
        commit(world)
        rows = facts_of(world, pinned).rows("sales")
        assert len(set(rows["event_id"].to_pylist())) == 1
        assert sorted(rows["revision"].to_pylist()) == [-1, 0]
