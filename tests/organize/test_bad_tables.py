"""Authors' tables that do not fit: each is named with its source, its column and some of its values."""

from __future__ import annotations

import pytest

from tests.collect.world import START, World, project
from volano.collect.schemas import Misfit, SourceSchema
from volano.errors import RequestError, StoreError
from volano.organize.declared import Fitness, fitting_rows
from volano.organize.facts import Facts
from volano.records.handover import HandOver
from volano.records.journal import Operation

HEAD = "sale_id,shop,card,amount,pieces,kind,till,sold_at"
GOOD = "a,corner,1,2.5,1,food,0,2026-02-01T10:00:00Z"


def rows(folder, *lines, head=HEAD):
    (folder / "sales.csv").write_text("\n".join((head, *lines)) + "\n", encoding="utf-8")
    with World(folder, project(table="sales.csv")) as world:
        pinned = HandOver("sales", START, world.sql.snapshot("sales.csv"), START, "sales.csv")
        return Facts(world.project, world.lake, world.sql, {"sales": pinned}).rows("sales")


def test_a_table_that_fits_is_read(tmp_path):
    (row,) = rows(tmp_path, GOOD).to_pylist()
    assert (row["event_id"], row["amount"]) == ("a", 2.5)


@pytest.mark.parametrize(
    ("bad", "column", "shown"),
    [
        ("b,corner,1,2.5,1,food,0,yesterday", "sold_at", "yesterday"),
        ("b,corner,1,2.5,1,food,0,2026-02-31T10:00:00Z", "sold_at", "2026-02-31"),
        ("b,corner,1,much,1,food,0,2026-02-01T10:00:00Z", "amount", "much"),
        ("b,corner,1,2.5,1.5,food,0,2026-02-01T10:00:00Z", "pieces", "1.5"),
        ("b,corner,1,2.5,,food,0,2026-02-01T10:00:00Z", "pieces", "'b'"),
        (",corner,1,2.5,1,food,0,2026-02-01T10:00:00Z", "sale_id", "'corner'"),
        ("b,corner,1,2.5,1,food,0,", "sold_at", "'b'"),
        ("b,corner,1,2.5,1,food,0,10000-01-01T00:00:00Z", "sold_at", "'10000-01-01"),
    ],
)
def test_what_does_not_fit_is_named_with_a_sample(tmp_path, bad, column, shown):
    with pytest.raises(RequestError) as caught:
        rows(tmp_path, GOOD, bad)
    assert f"{column!r}" in str(caught.value)
    assert shown in str(caught.value)
    assert "source sales, table sales.csv" in str(caught.value.where)


def test_a_missing_column_is_named_with_those_that_are_there(tmp_path):
    with pytest.raises(RequestError, match="no column 'till'") as caught:
        rows(tmp_path, "a,corner,1,2.5,1,food,2026-02-01T10:00:00Z", head=HEAD.replace("till,", ""))
    assert "sale_id, shop" in str(caught.value.mend)


def test_a_row_without_a_key_is_a_fact_and_touches_no_entity(tmp_path):
    (row,) = rows(tmp_path, GOOD.replace("corner", "")).to_pylist()
    assert row["shop"] is None


def test_a_table_that_is_not_there_is_named(tmp_path):
    with World(tmp_path, project(table="sales.csv")) as world, pytest.raises(StoreError, match=r"sales\.csv"):
        world.sql.snapshot("sales.csv")


def test_a_row_whose_key_is_too_long_is_set_aside_as_the_door_does_and_shown_short(tmp_path):
    lines = (GOOD, GOOD.replace("corner", "ü" * 1_000), GOOD.replace("corner", "x" * 70_000))
    (tmp_path / "sales.csv").write_text("\n".join((HEAD, *lines)) + "\n", encoding="utf-8")
    with World(tmp_path, project(table="sales.csv")) as world:
        source = world.project.sources["sales"]
        fitting = fitting_rows(source, world.sql.read_table("sales.csv"), "sales.csv")
    assert (fitting.n_misfits, fitting.n_wrong) == (1, {"shop": 1})
    assert [len(shop) for shop in fitting.rows["shop"].to_pylist()] == [6, 1_000]
    (event,) = fitting.misfits()
    assert event["shop"] == "x" * 70_000
    with pytest.raises(Misfit) as caught:
        SourceSchema(source).fit(event, Operation.INSERT)
    assert caught.value.problem[:2] == ("too_long", "shop")
    seen = Fitness(source, "sales.csv")
    seen.see(fitting)
    assert len(seen.say()) < 1_000
