"""What the lake holds is described in its authors' words; its files are kept in order beside everything else."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from typer.testing import CliRunner

from tests.project.world import DECISION, World, items, tables
from volano.cli.main import app
from volano.errors import RequestError, UnknownNameError
from volano.project import Project
from volano.runtime.freezing import manifests
from volano.runtime.recurring import COMPACT, VACUUM
from volano.values.instants import DAY_US, HOUR_US

WORDS = '''
from typing import Annotated
import volano as vo

ops = vo.Owner("ops", contact="ops@example.org")
# A shop of the chain.
shop = vo.Entity("shop", key=str, owner=ops)

class Sale(vo.Event, id="sale_id"):
    """One sale at the till."""
    sale_id: str
    shop: Annotated[str, shop]
    amount: float  # euros, with tax
    sold_at: vo.EventTime

sales = vo.Source("sales", Sale, stream=True, accept_late="1h", owner=ops)
"""Pushed by the tills, within seconds."""
'''


def test_the_words_of_authors_describe_facts_columns_and_entities(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WORDS)
    (tmp_path / "volano.toml").write_text('namespace = "shop"\nonline_map_gib = 1\n')
    with Project.open(tmp_path) as project:
        project.apply()
        project.observe(
            "sales", {"sale_id": "s", "shop": "a", "amount": 2.0, "sold_at": "2026-01-01T00:00:00Z"}
        )
        (facts,) = project.describe_lake("fact_sales")
        assert facts.comment == "Pushed by the tills, within seconds. One sale at the till."
        assert facts.owner == "ops" and facts.key == ("event_id",)
        columns = {column.name: column for column in facts.columns}
        assert columns["amount"].comment == "euros, with tax" and columns["amount"].type == "DOUBLE"
        assert columns["shop"].entity == "shop"
        assert [(each.columns, each.to, each.to_columns) for each in facts.relations] == [
            (("shop",), "dim_shop", ("shop",))
        ]
        (entity,) = project.describe_lake("dim_shop")
        assert entity.comment == "A shop of the chain." and entity.derived_from == ("fact_sales",)
        (stored,) = project.describe_lake("lake.fact_sales")
        assert (stored.n_rows, stored.n_files, stored.ordered_by, stored.owner) == (1, 1, "event_time", "ops")
        assert stored.from_at == stored.until_at == 1_767_225_600_000_000
        assert DeltaTable(stored.folder).to_pyarrow_table().num_rows == 1
        assert {each.name for each in project.describe_lake()} >= {
            "fact_sales",
            "dim_shop",
            "receipt",
            "fact_sales_history",
        }
        with pytest.raises(UnknownNameError, match="fact_sale'"):
            project.describe_lake("fact_sale")


def test_every_view_that_is_described_can_be_asked_and_has_the_columns_it_says(
    finished: Path, copy: Callable[[Path], Path]
) -> None:
    with World(copy(finished), items()) as world:
        world.resume()
        described = world.project.describe_lake()
        assert {each.kind for each in described} >= {
            "fact",
            "dimension",
            "decision",
            "label",
            "outcome",
            "table",
            "source",
        }
        for each in described:
            found = world.project.sql(f"FROM {each.name} LIMIT 3")
            assert found.column_names == [column.name for column in each.columns], each.name
            assert {*each.key} <= {*found.column_names}
            if each.n_rows is not None:
                assert (
                    world.project.sql(f"SELECT count(*) AS n FROM {each.name}")["n"][0].as_py() == each.n_rows
                )
            if each.key:
                keys = ", ".join(f'"{key}"' for key in each.key)
                twice = world.project.sql(f"SELECT {keys} FROM {each.name} GROUP BY ALL HAVING count(*) > 1")
                assert twice.num_rows == 0, each.name
        outcome = next(each for each in described if each.name == f"outcome_{DECISION}")
        assert {each.to for each in outcome.relations} == {"dim_plane", "label_late_30", "fact_landings"}


def test_upkeep_changes_no_row_and_no_training_set_and_removes_nothing_that_is_pinned(
    finished: Path, copy: Callable[[Path], Path]
) -> None:
    folder = copy(finished)
    with World(folder, items()) as world:
        world.resume()
        before = tables(world)
        lake = world.work.stores.lake
        pinned = {
            (table, version)
            for made in manifests(world.work.stores.catalog)
            for table, version in made.tables.items()
        }
        rows = {each: lake.read(each[0], version=each[1]).num_rows for each in pinned}
        assert len(pinned) > 8
        merged = {each.table: each for each in world.project.compact()}
        assert merged["fact_landings"].n_merged > 1 and merged["fact_landings"].n_made == 1
        assert len(lake.files("fact_landings")) == 1
        for path in (folder / ".volano" / "lake").rglob("*"):
            os.utime(path, (time.time() - 3 * 86_400,) * 2)
        assert sum(each.n_removed for each in world.project.vacuum(retain_us=DAY_US, dry_run=True)) > 0
        assert sum(each.n_removed for each in world.project.vacuum(retain_us=DAY_US)) > 0
        assert tables(world) == before
        assert {each: lake.read(each[0], version=each[1]).num_rows for each in pinned} == rows
        newest = max(manifests(world.work.stores.catalog), key=lambda made: made.built_at)
        assert world.project.verify(newest.name).is_sound
        with pytest.raises(RequestError, match="less than 1h"):
            world.project.vacuum(retain_us=HOUR_US - 1)
        with pytest.raises(UnknownNameError, match="nowhere"):
            world.project.compact("nowhere")


def test_the_jobs_of_upkeep_run_with_the_others(finished: Path, copy: Callable[[Path], Path]) -> None:
    with World(copy(finished), items()) as world:
        world.resume()
        ran = {each.job: each for each in world.project.jobs()}
        assert ran[COMPACT].outcome == ran[VACUUM].outcome == "done"
        assert "merged" in ran[COMPACT].detail


def test_other_tools_read_the_tables_after_upkeep_as_the_project_does(
    finished: Path, copy: Callable[[Path], Path]
) -> None:
    """delta-rs, pandas through it, and DuckDB over the list of files: independent of our code but for that list."""
    folder = copy(finished)
    with World(folder, items()) as world:
        world.resume()
        world.project.compact("fact_landings")
        world.project.observe(
            "landings",
            {"flight_id": "x", "tailnum": None, "arr_delay": 1.5, "landed_at": "2013-04-01T00:00:00Z"},
        )
        world.project.drain(commit=True)
        columns = ["event_id", "revision", "event_time", "arr_delay"]
        ours = sorted(
            world.project.sql(f"SELECT {', '.join(columns)} FROM lake.fact_landings").to_pylist(), key=repr
        )
    table = DeltaTable(folder / ".volano" / "lake" / "fact_landings")
    theirs = table.to_pyarrow_table(columns=columns)
    assert sorted(pa.table(theirs).to_pylist(), key=repr) == ours
    frame = table.to_pandas(columns=columns)
    assert (len(frame), frame["arr_delay"].sum()) == (
        len(ours),
        pytest.approx(sum(row["arr_delay"] for row in ours)),
    )
    query = "SELECT count(*), max(epoch_us(event_time)) FROM read_parquet($files)"
    (found,) = duckdb.execute(query, {"files": table.file_uris()}).fetchall()
    assert found[0] == len(ours) and found[1] == max(int(row["event_time"].timestamp() * 1e6) for row in ours)


def test_the_verbs_describe_compact_and_vacuum(finished: Path, copy: Callable[[Path], Path]) -> None:
    folder = copy(finished)

    def run(*call: str) -> Any:
        return CliRunner().invoke(app, ["lake", *call, "-C", str(folder)])

    listed = run("describe")
    assert listed.exit_code == 0 and f"outcome_{DECISION}" in listed.stdout
    shown = run("describe", "fact_landings").stdout
    assert "arr_delay" in shown and "joins" in shown and "SELECT" in shown
    told = json.loads(run("describe", "lake.label", "--json").stdout)[0]
    assert told["n_rows"] > 0 and told["ordered_by"] == "decided_at"
    assert "fact_landings" in run("compact", "fact_landings").stdout
    assert json.loads(run("compact", "--json").stdout)
    assert run("vacuum", "--retain", "2d", "--dry-run").exit_code == 0
    assert run("vacuum", "--json").exit_code == 0
    for call in (["vacuum", "--retain", "1m"], ["compact", "nowhere"], ["describe", "nowhere"]):
        assert run(*call).exit_code == 2
