"""The Delta lake keeps the lake's contract."""

from __future__ import annotations

import os
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from volano.errors import StateMismatchError, StoreError
from volano.stores import delta_lake
from volano.stores.delta_lake import DeltaLake
from volano.testing.conformance.lake import SCHEMA, LakeConformance, facts
from volano.testing.conformance.processes import run


class TestDeltaLake(LakeConformance):
    lake = "volano.stores.delta_lake:DeltaLake"


def test_other_clients_read_what_is_written(tmp_path):
    """delta-rs sees rows, statistics and transactions as if it had written them itself, also after a checkpoint."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    for n in range(1, 103):
        lake.append("fact", facts(n, 1), writer="committer", sequence=n)
    lake.compact("fact")
    table = DeltaTable(tmp_path / "fact")
    assert table.version() == lake.version("fact")
    assert table.transaction_version("committer") == 102
    assert pa.table(table.to_pyarrow_table()).num_rows == 102
    assert pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist() == [102]
    assert [entry["operation"] for entry in table.history(2)] == ["OPTIMIZE", "WRITE"]
    assert (tmp_path / "fact" / "_delta_log" / f"{100:020d}.checkpoint.parquet").exists()
    found = duckdb.execute("SELECT count(*) FROM read_parquet($files)", {"files": lake.files("fact")})
    assert found.fetchone() == (102,)


def test_what_other_clients_write_is_read(tmp_path):
    """Rows that delta-rs appends are seen, and its coarse statistics prune no row away."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    lake.append("fact", facts(0, 2), writer="committer", sequence=1)
    write_deltalake(tmp_path / "fact", facts(2, 1), mode="append")
    instant = facts(2, 1)["event_time"].cast(pa.int64())[0].as_py()
    for each in (lake, DeltaLake(tmp_path)):
        assert each.read("fact", where={"event_time": (instant, instant + 1)})["id"].to_pylist() == ["2"]
    assert lake.append("fact", facts(3, 1), writer="committer", sequence=2) == 3
    assert lake.read("fact").num_rows == 4


def test_an_append_costs_no_more_in_a_long_log(tmp_path, monkeypatch):
    """Our own commits are not read back: the log is loaded once for any number of appends."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    loaded = []
    view_of = delta_lake.view_of
    monkeypatch.setattr(delta_lake, "view_of", lambda handle: loaded.append(1) or view_of(handle))
    for n in range(1, 60):
        lake.append("fact", facts(n, 1), writer="committer", sequence=n)
    assert len(loaded) == 1


def test_an_empty_log_entry_of_a_power_loss_is_mended(tmp_path):
    """An entry without contents was never acknowledged: readers pass over it, the next writer removes it."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    lake.append("fact", facts(0, 1), writer="committer", sequence=1)
    torn = tmp_path / "fact" / "_delta_log" / f"{2:020d}.json"
    torn.touch()
    assert DeltaLake(tmp_path).version("fact") == 1
    again = DeltaLake(tmp_path)
    assert again.append("fact", facts(1, 1), writer="committer", sequence=2) == 2
    assert torn.stat().st_size > 0
    assert DeltaLake(tmp_path).read("fact").num_rows == 2


def test_a_full_disk_appends_nothing(tmp_path):
    """Without space StoreFullError; no row is seen, no half file is left, and the same sequence may try again."""
    code = """
        import resource
        from volano.errors import StoreFullError
        from volano.testing.conformance.lake import SCHEMA, facts
        lake = resolve("volano.stores.delta_lake:DeltaLake")(folder)
        lake.create("fact", SCHEMA)
        lake.append("fact", facts(0, 3), writer="committer", sequence=1)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
        try:
            lake.append("fact", facts(0, 10_000), writer="committer", sequence=2)
        except StoreFullError as error:
            print(bool(error.mend), lake.read("fact").num_rows, lake.committed("fact", "committer"))
        lake.append("fact", facts(3, 1), writer="committer", sequence=2)
        print(lake.read("fact").num_rows)
        """
    _, said = run(code, tmp_path)
    assert said.split() == ["True", "3", "1", "4"]
    assert len([name for name in os.listdir(tmp_path / "fact") if name.endswith(".parquet")]) == 2


def test_instants_need_a_zone(tmp_path):
    """A local time is refused when the table is created."""
    with pytest.raises(StoreError.__base__, match="instants"):
        DeltaLake(tmp_path).create("fact", pa.schema([("at", pa.timestamp("us"))]))


def test_partitions_cannot_change(tmp_path):
    """Another partitioning of an existing table is refused."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    with pytest.raises(StateMismatchError, match="partitions"):
        lake.create("fact", SCHEMA, partition_by=["id"])


def test_a_missing_file_is_told(tmp_path):
    """A data file that is gone is an error with its mend, never fewer rows."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    lake.append("fact", facts(0, 1), writer="committer", sequence=1)
    Path(lake.files("fact")[0]).unlink()
    with pytest.raises(StoreError) as found:
        lake.read("fact")
    assert found.value.mend


def test_a_range_opens_no_file_that_the_log_says_is_outside_of_it(tmp_path):
    """A lazy reader is spared the others' footers; rows without an instant are in no range, and are never lost."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    for n in range(6):
        lake.append("fact", facts(n * 10, 10), writer="committer", sequence=n + 1)
    timeless = facts(60, 1).set_column(1, SCHEMA.field(1), pa.nulls(1, SCHEMA.field(1).type))
    lake.append("fact", timeless, writer="committer", sequence=7)
    dataset = lake.dataset("fact")
    at = ds.field("event_time")
    for name, found in (("null", at.is_null()), ("all", at.is_null() | at.is_valid())):
        assert dataset.to_table(filter=found).num_rows == {"null": 1, "all": 61}[name]
    first = facts(25, 1)["event_time"][0]
    for file in lake.files("fact"):
        ids = pq.read_table(file)["id"].to_pylist()
        if "25" not in ids and "60" not in ids:
            Path(file).unlink()
    assert dataset.to_table(filter=at == first)["id"].to_pylist() == ["25"]
