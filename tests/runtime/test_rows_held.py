"""However large a table is, so many of its rows are held at a time: counted in rows, whatever the machine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.collect.world import SALE, START, World, project, sale
from tests.runtime.test_unfit_tables import Shops
from volano.errors import RequestError
from volano.organize import facts as facts_module
from volano.organize.facts import Facts
from volano.records.handover import HandOver
from volano.runtime import handing_over, refreshing
from volano.runtime.handing_over import take_over
from volano.values.arrow import ARROW_TYPES
from volano.values.instants import DAY_US, MINUTE_US, to_datetime

AT_ONCE = 50
N_ROWS = 1_000


class Held:
    """Wraps a store or an engine and notes the most rows of a table that passed in or out at once."""

    def __init__(self, wrapped: Any, seen: list[int]) -> None:
        self._wrapped, self._seen = wrapped, seen

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._wrapped, name)
        return self._noting(found) if callable(found) and name != "query" else found

    def _noting(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*arguments: Any, **named: Any) -> Any:
            return self._note(call(*[self._note(each) for each in arguments], **named))

        return noted

    def _note(self, value: Any) -> Any:
        if isinstance(value, pa.Table):
            # The time column alone, to find ranges of so many rows, is eight bytes a row.
            if value.num_columns > 2:
                self._seen.append(value.num_rows)
        elif isinstance(value, Iterator):
            return (self._note(each) for each in value)
        return value


def visits(n_rows: int, minutes: float = 1.0) -> pa.Table:
    return pa.table(
        {
            "visit_id": [f"v{n}" for n in range(n_rows)],
            "shop": ["abc"[n % 3] for n in range(n_rows)],
            "minutes": [minutes + n % 7 for n in range(n_rows)],
            "came_at": pa.array(
                [to_datetime(START - 9 * DAY_US + n * MINUTE_US) for n in range(n_rows)],
                pa.timestamp("us", "UTC"),
            ),
        }
    )


@pytest.fixture
def shops(tmp_path: Path) -> Shops:
    """A project whose visits are a table of some rows."""
    world = Shops(tmp_path)
    file = tmp_path / "shops.py"
    file.write_text(file.read_text().replace("visits.csv", "visits.parquet"))
    pq.write_table(visits(N_ROWS), tmp_path / "visits.parquet")
    return world


def hold(world: Shops, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """From now on what passes through the engine and the lake is counted."""
    seen: list[int] = []
    stores = world.project._work.stores
    monkeypatch.setattr(stores, "sql", Held(stores.sql, seen))
    monkeypatch.setattr(stores, "lake", Held(stores.lake, seen))
    return seen


def test_a_hand_over_holds_so_many_rows(shops, monkeypatch):
    monkeypatch.setattr(handing_over, "ROWS_AT_ONCE", AT_ONCE)
    seen: list[int] = []
    stores = shops.project._work.stores
    compiled = shops.project.plan().project
    pinned = HandOver("visits", START, stores.sql.snapshot("visits.parquet"), START, "visits.parquet", True)
    lake, sql = Held(stores.lake, seen), Held(stores.sql, seen)
    take_over(compiled, pinned, lake, sql, rows_at_once=AT_ONCE)
    assert sum(seen) >= N_ROWS
    assert max(seen) <= AT_ONCE
    assert stores.lake.read("fact_visits").num_rows == N_ROWS
    assert stores.lake.version("fact_visits") == 1, "one commit"


def test_an_id_that_repeats_far_apart_is_found_and_nothing_is_kept(shops):
    rows = visits(N_ROWS)
    pq.write_table(pa.concat_tables([rows, rows.slice(3, 1)]), shops.folder / "visits.parquet")
    stores, compiled = shops.project._work.stores, shops.project.plan().project
    pinned = HandOver("visits", START, "", START, "visits.parquet", True)
    with pytest.raises(RequestError, match="v3"):
        take_over(compiled, pinned, stores.lake, stores.sql, rows_at_once=AT_ONCE)
    assert stores.lake.read("fact_visits").num_rows == 0


@pytest.mark.parametrize("change", ["", "slowly_changing"])
def test_a_refresh_holds_so_many_rows_and_finds_what_differs(shops, monkeypatch, change):
    file = shops.folder / "shops.py"
    if change:
        file.write_text(
            file.read_text().replace('available_after="10m"', f'available_after="10m", change="{change}"')
        )
    shops.project.apply()
    rows = visits(N_ROWS + 100).to_pylist()
    for n in (7, 500, 999):
        rows[n]["minutes"] = 99.0
    del rows[600], rows[20]
    pq.write_table(pa.Table.from_pylist(rows, schema=visits(1).schema), shops.folder / "visits.parquet")
    shops.project._work.session  # noqa: B018 - opened with the stores as they are
    monkeypatch.setattr(refreshing, "ROWS_AT_ONCE", AT_ONCE)
    seen = hold(shops, monkeypatch)
    shops.project._work._forget_session()
    n_gone = 2 if change else 0
    assert shops.project.refresh("visits")["visits"] == f"{103 + n_gone} changes from visits.parquet"
    assert sum(seen) > N_ROWS
    # The corrections of a source are held together; they are few.
    assert max(seen) <= 103 + n_gone
    facts = shops.session.facts.rows("visits")
    stands = facts.filter(facts["superseded_at"].is_null())
    standing = {
        row["event_id"]: row["minutes"] for row in stands.to_pylist() if row["operation"] != "retract"
    }
    wanted = {row["visit_id"]: row["minutes"] for row in rows}
    if not change:
        wanted |= {f"v{n}": 1.0 + n % 7 for n in (20, 600)}
    assert standing == wanted
    (shops.folder / "visits.parquet").touch()
    assert shops.project.refresh("visits")["visits"] == "visits.parquet is unchanged"


def test_ranges_of_a_table_beside_a_long_stream_hold_so_many_rows(tmp_path, monkeypatch):
    """Of what was pushed only that is held which replaces rows of the range."""
    rows = [sale(f"t{n}", START - DAY_US + n, shop="a") for n in range(N_ROWS)]
    schema = pa.schema([(field.name, ARROW_TYPES[field.dtype]) for field in SALE.fields])
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), tmp_path / "sales.parquet")
    with World(tmp_path, project(table="sales.parquet")) as world:
        pushed = [sale(f"p{n}", START + n, shop="b") for n in range(N_ROWS)]
        again = [sale(f"t{n}", START - DAY_US + n, shop="c") for n in range(0, N_ROWS, 100)]
        world.clock.advance_to(START + MINUTE_US)
        world.door.accept("sales", [*pushed, *again])
        while world.applier.step():
            pass
        world.committer.step()
        seen: list[int] = []
        concat = pa.concat_tables

        def noting(tables: Any, **named: Any) -> pa.Table:
            whole = concat(tables, **named)
            seen.append(whole.num_rows)
            return whole

        pinned = HandOver("sales", START, world.sql.snapshot("sales.parquet"), START, "sales.parquet")
        facts = Facts(world.project, world.lake, Held(world.sql, seen), {"sales": pinned})
        whole = Facts(world.project, world.lake, world.sql, {"sales": pinned}).rows("sales")
        monkeypatch.setattr(facts_module, "_SCANNED_AT_ONCE", AT_ONCE)
        spans = facts.spans("sales", AT_ONCE)
        assert len(spans) >= 2 * N_ROWS // AT_ONCE - 1
        monkeypatch.setattr(facts_module.pa, "concat_tables", noting)
        found = [facts.rows("sales", since=span.since, until=span.until) for span in spans]
        monkeypatch.undo()
        assert max(seen) <= 2 * AT_ONCE
        key = [("event_id", "ascending"), ("revision", "ascending")]
        assert pa.concat_tables(found).sort_by(key) == whole.sort_by(key)
        replaced = whole.filter(whole["superseded_at"].is_valid())
        assert replaced.num_rows == len(again)
