"""People's SQL over the lake says what the project's own reading of facts, dimensions and labels says."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake
from typer.testing import CliRunner

from tests.project.world import DECISION, World, items
from tests.runtime.test_beside import AT_WORK
from tests.runtime.test_refreshing import NAMES, Shop
from volano.cli.init import write_template
from volano.cli.main import app
from volano.errors import AuthorCodeError, StoreError, UnknownNameError
from volano.organize.facts import standing
from volano.project import Project
from volano.runtime.clock import ReplayClock
from volano.runtime.labelling import read_labels
from volano.values.instants import DAY_US, HOUR_US, parse_instant, to_datetime


@pytest.fixture(scope="module")
def flights(finished: Path) -> Iterator[World]:
    with World(finished, items()) as world:
        world.resume()
        yield world


@pytest.fixture(scope="module")
def shops(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    shop = Shop(tmp_path_factory.mktemp("shops"), 3)
    shop.live(40)
    yield shop
    shop.project.close()


def rows(table: pa.Table, *columns: str) -> list[tuple[Any, ...]]:
    """Rows in a fixed order."""
    names = columns or tuple(table.column_names)
    return sorted(zip(*(table[name].to_pylist() for name in names), strict=True), key=repr)


def test_facts_stand_as_the_project_reads_them_across_a_hand_over(flights: World) -> None:
    facts = flights.work.session.facts
    for source, own in (
        ("landings", ["flight_id", "tailnum", "arr_delay", "landed_at"]),
        ("cancellations", ["flight_id"]),
    ):
        expected = facts.rows(source)
        columns = ["event_id", "revision", "operation", "event_time", "received_at", "applied_at", "known_at"]
        columns += ["too_late", *own]
        assert rows(flights.project.sql(f"FROM fact_{source}"), *columns) == rows(
            standing(expected), *columns
        )
        columns += ["superseded_at"]
        history = flights.project.sql(f"FROM fact_{source}_history")
        assert rows(history, *columns) == rows(expected, *columns)
    replaced = flights.project.sql(
        "SELECT count(*) AS n FROM fact_landings_history WHERE superseded_at IS NOT NULL"
    )
    assert replaced["n"][0].as_py() > 10


@pytest.mark.parametrize("source", ["sales", "shops", "rents", "visits"])
def test_facts_of_tables_that_change_stand_as_the_project_reads_them(shops: Shop, source: str) -> None:
    expected = shops.session.facts.rows(source)
    columns = [name for name in expected.column_names if name != "superseded_known_at"]
    assert rows(shops.project.sql(f"FROM history.fact_{source}"), *columns) == rows(expected, *columns)
    columns.remove("superseded_at")
    assert rows(shops.project.sql(f"FROM fact_{source}"), *columns) == rows(standing(expected), *columns)


def dimension(shops: Shop, source: str, value: str, until: str | None, at: int) -> dict[str, Any]:
    """What a dimension says of each shop at an instant, by the rule of joins: the newest row before it decides."""
    found: dict[str, Any] = {}
    known = standing(shops.session.facts.rows(source)).to_pylist()
    for row in sorted(known, key=lambda row: (row["event_time"], row["event_id"])):
        if row["event_time"] < to_datetime(at):
            ended = until is not None and row[until] is not None and row[until] < to_datetime(at)
            found[row["shop"]] = None if ended or row["operation"] == "end" else (row[value],)
    return {shop: each for shop, each in found.items() if each is not None}


def test_a_dimension_holds_what_joins_would_take_now_and_at_any_instant(shops: Shop) -> None:
    now = shops.clock.now()
    by_source = {"shops": ("region", "closed_at"), "rents": ("rent", None)}
    for source, (value, until) in by_source.items():
        current = shops.project.sql(f"SELECT shop, {value} AS value FROM dim_shop__{source}")
        assert {row["shop"]: (row["value"],) for row in current.to_pylist()} == dimension(
            shops, source, value, until, now
        )
        for at in range(now - 25 * DAY_US, now, 5 * DAY_US + HOUR_US):
            instant = f"make_timestamptz({at})"
            then = shops.project.sql(
                f"SELECT shop, {value} AS value FROM dim_shop__{source}_history "
                f"WHERE valid_from < {instant} AND (valid_to IS NULL OR valid_to >= {instant})"
            )
            found = {row["shop"]: (row["value"],) for row in then.to_pylist()}
            assert len(found) == then.num_rows
            assert found == dimension(shops, source, value, until, at)


def test_a_dimension_of_several_sources_has_the_columns_of_all(shops: Shop) -> None:
    now = shops.clock.now()
    regions = dimension(shops, "shops", "region", "closed_at", now)
    rents = dimension(shops, "rents", "rent", None, now)
    found = shops.project.sql("SELECT shop, shops__region, rents__rent FROM dim_shop").to_pylist()
    assert {row["shop"] for row in found} == {*regions, *rents} <= {*NAMES}
    for row in found:
        assert row["shops__region"] == regions.get(row["shop"], (None,))[0]
        assert row["rents__rent"] == rents.get(row["shop"], (None,))[0]
    spans = shops.project.sql("FROM dim_shop_history ORDER BY shop, valid_from").to_pylist()
    for one, other in pairwise(spans):
        if one["shop"] == other["shop"]:
            assert one["valid_from"] < one["valid_to"] <= other["valid_from"]


def test_an_entity_that_no_source_describes_has_the_keys_that_facts_name(flights: World) -> None:
    found = flights.project.sql("FROM dim_plane")
    facts = standing(flights.work.session.facts.rows("landings")).to_pylist()
    seen: dict[str, list[Any]] = {}
    for row in facts:
        if row["tailnum"] is not None:
            seen.setdefault(row["tailnum"], []).append(row["event_time"])
    assert {
        row["plane"]: (row["first_seen_at"], row["last_seen_at"], row["n_facts"]) for row in found.to_pylist()
    } == {plane: (min(times), max(times), len(times)) for plane, times in seen.items()}


def test_an_outcome_is_a_decision_with_its_label_that_stands_and_the_event_behind_it(flights: World) -> None:
    labels = read_labels(flights.work.session, "late_30")
    expected = {row["decision_id"]: row for row in labels.sort_by("computed_at").to_pylist()}
    decisions = flights.project.decisions(DECISION, limit=10**6)
    assert rows(flights.project.sql("SELECT decision_id, state, value FROM label_late_30")) == sorted(
        (
            (each["decision_id"], each["state"], None if each["value"] is None else each["value"] > 0)
            for each in expected.values()
        ),
        key=repr,
    )
    found = flights.project.sql(f"FROM outcome_{DECISION}").to_pylist()
    assert len(found) == decisions.num_rows == len({row["decision_id"] for row in found})
    facts = standing(flights.work.session.facts.rows("landings")).to_pylist()
    delays = {row["event_id"]: row["arr_delay"] for row in facts}
    corrected = {
        row["event_id"] for row in facts if row["revision"] > 0
    }  # perhaps since the label was computed
    for row in found:
        label = expected.get(row["decision_id"])
        assert row["label_state"] == ("pending" if label is None else label["state"])
        assert row["label_matures_at"] > row["decided_at"]
        assert row["event__arr_delay"] == (delays.get(row["label_evidence"]) if label else None)
        if row["label_state"] == "mature" and row["label_evidence"] not in corrected:
            assert row["label_value"] == (row["event__arr_delay"] >= 30)
    assert {row["label_state"] for row in found} >= {"mature", "censored"}


def test_authors_tables_are_asked_in_place(tmp_path: Path) -> None:
    at = pa.array([1, 2], pa.timestamp("us", "UTC"))
    table = pa.table({"sku": ["a", "b"], "price": [1.0, 2.5], "at": at})
    pq.write_table(table, tmp_path / "prices.parquet")
    write_deltalake(tmp_path / "stock", table)
    (tmp_path / "notes.csv").write_text("sku,price,at\na,3,2026-01-01T00:00:00Z\n")
    definitions = "import volano as vo\nops = vo.Owner('ops', contact='o@example.org')\n"
    definitions += "class Price(vo.Event, id=['sku', 'at']):\n    sku: str\n    price: float | None\n    at: vo.EventTime\n"
    for name, address in (
        ("prices", "prices.parquet"),
        ("stock", "delta:stock"),
        ("notes", "notes.csv"),
        ("label", "prices.parquet"),
    ):
        definitions += (
            f"{name} = vo.Source('{name}', Price, table='{address}', available_after='1h', owner=ops)\n"
        )
    (tmp_path / "shop.py").write_text(definitions)
    (tmp_path / "volano.toml").write_text('namespace = "shop"\nonline_map_gib = 1\n')
    with Project.open(tmp_path) as project:
        project.apply()
        for name in ("prices", "stock"):
            assert rows(project.sql(f"SELECT sku, price FROM {name}")) == [("a", 1.0), ("b", 2.5)]
        assert project.sql("FROM source.notes")["price"].to_pylist() == [3]
        assert project.sql("SELECT count(*) AS n FROM source.label")["n"].to_pylist() == [2]
        pq.write_table(table.slice(0, 1), tmp_path / "prices.parquet")
        assert project.sql("FROM prices").num_rows == 1
        # What is gone is told to whoever asks for it, and to nobody else.
        (tmp_path / "prices.parquet").unlink()
        assert project.sql("SELECT 'prices' AS prices, count(*) AS n FROM fact_prices")["n"].to_pylist() == [
            2
        ]
        assert "prices" not in project.sql("SHOW TABLES")["name"].to_pylist()
        assert next(each for each in project.describe_lake() if each.name == "prices").columns == ()
        for name in ("prices", "source.prices"):
            with pytest.raises(StoreError, match="does not exist"):
                project.sql(f"FROM {name}")


def test_tables_are_listed_as_they_are_named_and_nothing_else(flights: World) -> None:
    listed = flights.project.sql("show tables;")["name"].to_pylist()
    assert "fact_landings" in listed
    assert not [name for name in listed if name.startswith("volano_")]
    for name in listed:
        flights.project.sql(f"SELECT count(*) FROM {name}")


def test_a_table_that_does_not_exist_is_told_with_those_that_do(flights: World) -> None:
    with pytest.raises(UnknownNameError) as told:
        flights.project.sql("SELECT * FROM fact_landing")
    assert "did you mean fact_landings" in told.value.mend and f"outcome_{DECISION}" in told.value.mend


def test_a_mistake_in_the_sql_is_told_with_its_place(flights: World) -> None:
    with pytest.raises(AuthorCodeError) as told:
        flights.project.sql("SELECT *\nFROM fact_landings\nWHERE WHERE")
    assert told.value.where == "line 3, column 7: WHERE WHERE"
    with pytest.raises(AuthorCodeError, match="arr_dela"):
        flights.project.sql("SELECT arr_dela FROM fact_landings")


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x AS SELECT 1",
        "DROP VIEW fact_landings",
        "INSERT INTO lake.fact_landings SELECT * FROM lake.fact_landings",
        "COPY (SELECT 1) TO 'stolen.csv'",
        "SELECT 1; DELETE FROM lake.receipt",
        "ATTACH 'x.db'",
        "INSTALL httpfs",
        "SET enable_external_access = true",
        "SELECT * FROM read_parquet('landings.parquet')",
        "SELECT * FROM 'landings.parquet'",
        "SELECT * FROM read_text('/etc/hostname')",
    ],
)
def test_nothing_is_written_and_nothing_else_is_read(flights: World, sql: str) -> None:
    before = sorted(path.name for path in flights.folder.iterdir())
    with pytest.raises(AuthorCodeError):
        flights.project.sql(sql)
    assert sorted(path.name for path in flights.folder.iterdir()) == before


def test_the_verb_shows_a_table_and_writes_json_csv_and_parquet(tmp_path: Path) -> None:
    write_template("blank", tmp_path / "shop")
    folder = tmp_path / "shop"
    with Project.open(folder) as project:
        project.apply()
        for n in range(60):
            asked = {"order_id": f"q{n}", "customer_id": "c1", "amount": 20.0}
            project.decide("get_return_risk", asked, decision_id=f"d-{n:02}")

    def run(*call: str, **options: Any) -> Any:
        return CliRunner().invoke(app, ["sql", *call, "-C", str(folder)], **options)

    query = "SELECT decision_id, latency_us, decided_at FROM decision_get_return_risk ORDER BY decision_id"
    shown = run(query)
    assert shown.exit_code == 0 and "d-49" in shown.stdout and "d-50" not in shown.stdout
    assert "first 50 rows" in shown.stderr
    assert "d-59" in run(query, "--limit", "60").stdout
    printed = json.loads(run(query, "--json").stdout)
    assert (
        len(printed) == 60 and printed[3]["decision_id"] == "d-03" and printed[3]["latency_us"]["total"] >= 0
    )
    assert len(json.loads(run(query, "--json", "--limit", "2").stdout)) == 2
    csv = run("-", "--csv", input=query).stdout.splitlines()
    assert len(csv) == 61 and csv[0] == '"decision_id","latency_us","decided_at"'
    (tmp_path / "query.sql").write_text(query)
    done = run("--file", str(tmp_path / "query.sql"), "--parquet", str(tmp_path / "found.parquet"))
    assert done.exit_code == 0 and done.stdout == ""
    assert pq.read_table(tmp_path / "found.parquet")["decision_id"].to_pylist()[-1] == "d-59"
    odd = "SELECT 1 AS n, 2 AS n, 1::HUGEINT h, DATE '2026-01-01' d, INTERVAL 1 DAY i, uuid() u, 1.50::DECIMAL(9,2) x, "
    odd += "[1, 2] l, {'a': 1} s, MAP {'k': 1} m, 'b'::BLOB b, TIME '10:00' t, 1e308 * 10 AS inf, NULL AS nothing"
    for form in ([], ["--json"], ["--csv"], ["--parquet", str(tmp_path / "odd.parquet")]):
        done = run(odd, *form)
        assert done.exit_code == 0, done.output
    assert json.loads(run(odd, "--json").stdout)[0]["n_1"] == 2
    for call in ([], [query, "--json", "--csv"], ["SELECT * FROM nowhere"], ["SELEC 1"]):
        assert run(*call).exit_code == 2


def test_beside_a_process_that_commits_whatever_a_row_speaks_of_is_there(tmp_path: Path) -> None:
    """Facts, decisions and receipts of one query belong to one instant, though they are written one after another."""
    folder = tmp_path / "shop"
    write_template("blank", folder)
    with Project.open(folder) as project:
        project.apply()
    command = [sys.executable, "-c", AT_WORK.replace(', "asked_at": datetime.now(UTC)', ""), str(folder)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    query = """
        SELECT (SELECT count(*) FROM lake.fact_orders) AS facts,
               (SELECT count(*) FROM receipt WHERE status = 'stored') AS receipts,
               (SELECT count(*) FROM lake.decision_get_return_risk) AS decisions
    """
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "at work\n"
        seen = []
        for _ in range(12):
            with Project.open(folder) as project:
                counts = project.sql(query).to_pylist()[0]
            assert counts["facts"] == counts["receipts"]
            assert 0 <= counts["decisions"] - counts["facts"] <= 1  # a decision is made just before its event
            seen.append(counts["facts"])
        assert seen == sorted(seen) and 0 < seen[0] < seen[-1]
        worker.communicate("stop", timeout=60)
    finally:
        worker.kill()
        with worker:
            worker.wait()


def test_an_outcome_holds_what_was_shown_and_done_last(tmp_path: Path) -> None:
    write_template("blank", tmp_path / "shop")
    clock = ReplayClock(parse_instant("2026-01-01"))
    with Project.open(tmp_path / "shop", clock=clock) as project:
        project.apply()
        for n in range(2):
            asked = {"order_id": f"q{n}", "customer_id": "c1", "amount": 20.0}
            project.decide("get_return_risk", asked, decision_id=f"d-{n}")
        before = project.sql("FROM outcome_get_return_risk")
        assert (
            before["label_state"].to_pylist() == ["pending"] * 2
            and "exposure__shown" not in before.column_names
        )
        for minute, action in enumerate(("ask", "accept")):
            clock.advance_to(clock.now() + (minute + 1) * HOUR_US)
            done = {
                "action_id": f"a-{minute}",
                "decision": "get_return_risk",
                "decision_id": "d-1",
                "action": action,
            }
            project.observe("action_taken", {**done, "taken_at": to_datetime(clock.now())})
        shown = {"exposure_id": "e", "decision": "get_return_risk", "decision_id": "d-0", "surface": "mail"}
        project.observe("exposure", {**shown, "exposed_at": to_datetime(clock.now())})
        columns = "decision_id, action, action_taken__action, exposure__surface"
        found = project.sql(f"SELECT {columns} FROM outcome_get_return_risk ORDER BY decision_id")
        assert rows(found) == [("d-0", "accept", None, "mail"), ("d-1", "accept", "accept", None)]
        assert project.sql("SELECT count(*) AS n FROM action_taken_history")["n"].to_pylist() == [2]
