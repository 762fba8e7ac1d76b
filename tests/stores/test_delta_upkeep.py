"""Merging and vacuuming: beside writers and readers, killed or without power, no row is lost, none comes twice."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable
from tests.stores.lossy_folder import LossyFolder

from volano.errors import UnknownNameError
from volano.stores import delta_lake
from volano.stores.delta_lake import DeltaLake
from volano.testing.conformance.lake import SCHEMA, facts
from volano.testing.conformance.processes import start
from volano.testing.disk import PowerLoss
from volano.values.instants import DAY_US

HOUR_US = 3_600_000_000


def filled(folder: Path, n: int, rows: int = 1) -> DeltaLake:
    lake = DeltaLake(folder)
    lake.create("fact", SCHEMA)
    for number in range(n):
        lake.append("fact", facts(number * rows, rows), writer="committer", sequence=number + 1)
    return lake


def ids(lake: DeltaLake, version: int | None = None) -> list[int]:
    return sorted(map(int, lake.read("fact", columns=["id"], version=version)["id"].to_pylist()))


def on_disk(folder: Path) -> set[str]:
    return {path.name for path in (folder / "fact").glob("*.parquet")}


def age(folder: Path, seconds: float) -> None:
    """Everything in a table was written so long ago."""
    for path in [*(folder / "fact").rglob("*")]:
        os.utime(path, (time.time() - seconds,) * 2)


def test_merged_rows_lie_in_the_order_of_the_column_that_ranges_ask_for(tmp_path):
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    order = list(range(20))
    Random(1).shuffle(order)
    for sequence, day in enumerate(order):
        lake.append("fact", facts(day * 20_000, 20_000), writer="committer", sequence=sequence + 1)
    assert lake.compact("fact", cluster_by="event_time")[:2] == (20, 1)
    (path,) = lake.files("fact")
    file = pq.ParquetFile(path)
    assert file.num_row_groups > 2
    times = file.read(["event_time"])["event_time"].cast(pa.int64()).to_numpy()
    assert (times[1:] >= times[:-1]).all()
    found = lake.read("fact", where={"event_time": (5 * DAY_US - 5, 7 * DAY_US - 5)})["id"].to_pylist()
    assert sorted(found) == ["5", "6"]


def test_a_row_is_written_again_few_times_however_many_commits_there_are(tmp_path):
    """Merging after every commit leaves few files, and writes each row once a size class, not once a commit."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", SCHEMA)
    rewritten, sizes = 0, []
    for number in range(100):
        lake.append("fact", facts(number * 10, 10), writer="committer", sequence=number + 1)
        done = lake.compact("fact", cluster_by="event_time", eager=False)
        rewritten += done.n_bytes
        sizes.append(len(lake.files("fact")))
    total = sum(Path(path).stat().st_size for path in lake.files("fact"))
    assert max(sizes) <= 24
    # All of these files are of the smallest class, where eight become one that is still in it.
    assert rewritten < 30 * total
    assert ids(lake) == list(range(1_000))


def test_what_a_version_that_counts_needs_stays_and_the_rest_goes(tmp_path):
    lake = filled(tmp_path, 30)
    lake.compact("fact")
    lake.append("fact", facts(30, 1), writer="committer", sequence=31)
    orphan = tmp_path / "fact" / "part-half-written.parquet"
    orphan.write_bytes(b"half")
    assert lake.vacuum("fact", retain_us=HOUR_US).n_files == 0, "somebody may be at them"
    age(tmp_path, 7_200)
    assert lake.vacuum("fact", pinned=[7], retain_us=HOUR_US, dry_run=True).n_files == 23
    assert orphan.exists()
    age(tmp_path, 100_000)
    assert lake.vacuum("fact", pinned=[7], retain_us=HOUR_US).n_files == 24
    assert not orphan.exists()
    for each in (lake, DeltaLake(tmp_path)):
        assert ids(each) == list(range(31))
        assert ids(each, version=7) == list(range(7))
        assert each.committed("fact", "committer") == 31
    assert DeltaTable(tmp_path / "fact").to_pyarrow_table().num_rows == 31
    assert DeltaTable(tmp_path / "fact", version=7).to_pyarrow_table().num_rows == 7
    assert lake.vacuum("fact", pinned=[7], retain_us=HOUR_US).n_files == 0
    assert lake.vacuum("fact", retain_us=HOUR_US).n_files == 7
    assert ids(DeltaLake(tmp_path)) == list(range(31))


def test_what_a_reader_may_be_at_stays_for_the_retention_after_it_was_replaced(tmp_path):
    """The files are old; that they were merged is not."""
    lake = filled(tmp_path, 10)
    age(tmp_path, 7_200)
    reader = lake.dataset("fact")
    lake.compact("fact")
    assert lake.vacuum("fact", retain_us=HOUR_US).n_files == 0
    assert reader.to_table().num_rows == 10


def test_the_log_of_old_versions_goes_and_that_of_pinned_ones_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(delta_lake, "_CHECKPOINT_EVERY", 20)
    lake = filled(tmp_path, 50)
    age(tmp_path, 7_200)
    gone = lake.vacuum("fact", pinned=[10, 27, 999], retain_us=HOUR_US)
    assert gone.n_log_files > 20
    log = {path.name for path in (tmp_path / "fact" / "_delta_log").iterdir()}
    assert f"{15:020d}.json" not in log and f"{25:020d}.json" in log and f"{35:020d}.json" not in log
    for each in (lake, DeltaLake(tmp_path)):
        assert ids(each) == list(range(50))
        assert ids(each, version=10) == list(range(10))
        assert ids(each, version=27) == list(range(27))
        assert each.committed("fact", "committer") == 50
        with pytest.raises(UnknownNameError):
            each.read("fact", version=35)
    assert DeltaTable(tmp_path / "fact", version=27).to_pyarrow_table().num_rows == 27
    assert lake.append("fact", facts(0, 1), writer="committer", sequence=50) == 50  # a repeated one is known
    assert lake.append("fact", facts(50, 1), writer="committer", sequence=51) == 51


def test_whoever_slept_through_a_vacuum_of_the_log_goes_on_at_its_end(tmp_path, monkeypatch):
    """A reader and a writer whose newest version was vacuumed neither stay in the past nor write into the hole."""
    monkeypatch.setattr(delta_lake, "_CHECKPOINT_EVERY", 20)
    lake = filled(tmp_path, 22)
    sleeper = DeltaLake(tmp_path)
    assert len(ids(sleeper)) == 22
    assert sleeper.append("fact", facts(22, 1), writer="committer", sequence=23) == 23
    for number in range(23, 50):
        lake.append("fact", facts(number, 1), writer="committer", sequence=number + 1)
    age(tmp_path, 7_200)
    lake.vacuum("fact", retain_us=HOUR_US)
    assert not (tmp_path / "fact" / "_delta_log" / f"{24:020d}.json").exists()
    head = sleeper._heads["fact"]
    assert not sleeper._commit("fact", head, "WRITE", "Append", []), "a commit into the hole"
    assert not (tmp_path / "fact" / "_delta_log" / f"{24:020d}.json").exists()
    assert sleeper.append("fact", facts(0, 1), writer="committer", sequence=50) == 50
    assert sleeper.append("fact", facts(50, 1), writer="committer", sequence=51) == 51
    assert ids(sleeper) == ids(DeltaLake(tmp_path)) == list(range(51))


UPKEEP = """
    lake = resolve("volano.stores.delta_lake:DeltaLake")(folder)
    print("ready", flush=True)
    while True:
        lake.compact("fact", cluster_by="event_time", eager=True)
        lake.vacuum("fact", pinned=[3], retain_us=2_000_000)
        print(lake.version("fact"), flush=True)
"""


def test_appends_beside_merging_and_vacuuming_that_is_killed_at_any_instant(tmp_path):
    """Two processes commit to one table; the second is killed again and again. Every row is there once, all the time."""
    lake = filled(tmp_path, 5)
    random, n = Random(3), 5
    for _ in range(2):
        child = start(UPKEEP, tmp_path)
        assert child.stdout is not None
        for _ in range(2):
            child.stdout.readline()
        deadline = time.monotonic() + 0.6 + random.random() * 0.4
        while time.monotonic() < deadline:
            n += 1
            lake.append("fact", facts(n - 1, 1), writer="committer", sequence=n)
            if n % 10 == 0:
                assert ids(lake) == list(range(n))
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for each in (lake, DeltaLake(tmp_path)):
            assert ids(each) == list(range(n))
            assert each.committed("fact", "committer") == n
    assert ids(lake, version=3) == [0, 1, 2]
    assert len(lake.files("fact")) < n / 2


def test_a_widening_beside_merging_is_done(tmp_path):
    """Whoever widens a table goes on from what another process has committed meanwhile."""
    lake, other = filled(tmp_path, 12), DeltaLake(tmp_path)
    assert len(ids(other)) == 12
    lake.compact("fact")
    other.create("fact", pa.schema([("note", pa.string())]))
    other.append("fact", pa.table({"note": ["n"], "id": ["12"]}), writer="committer", sequence=13)
    lake.compact("fact")
    assert ids(lake) == list(range(13))
    assert lake.read("fact", columns=["note"])["note"].to_pylist().count("n") == 1


@pytest.mark.parametrize(
    ("first", "step"),
    [(1, 11), (7, 11), pytest.param(1, 1, marks=pytest.mark.slow)],
    ids=["some", "others", "all"],
)
def test_a_loss_of_power_at_any_instant_keeps_every_row_and_every_pinned_version(
    tmp_path, monkeypatch, first, step
):
    """Merging, appending, merging and vacuuming; the disk forgets what was not synced."""
    ground = tmp_path / "ground"
    filled(ground, 6)
    age(ground, 7_200)
    said: dict[str, int] = {}

    def work(lake: DeltaLake) -> None:
        said.update(tried=6, done=6)
        for number in (7, 8):
            lake.compact("fact", cluster_by="event_time")
            said["tried"] = number
            lake.append("fact", facts(number - 1, 1), writer="committer", sequence=number)
            said["done"] = number
        lake.compact("fact", cluster_by="event_time")
        lake.vacuum("fact", pinned=[2], retain_us=0)

    for crash_at in range(first, 1_000, step):
        folder = tmp_path / f"work-{crash_at}"
        os.system(f"cp -a {ground} {folder}")
        lossy = LossyFolder(folder, crash_at, Random(crash_at))
        with lossy.at_work(monkeypatch), contextlib.suppress(PowerLoss):
            work(DeltaLake(folder))
        found = DeltaLake(lossy.restore(tmp_path / f"found-{crash_at}"))
        n = found.committed("fact", "committer")
        assert said["done"] <= n <= said["tried"]
        assert ids(found) == list(range(n))
        assert ids(found, version=2) == [0, 1]
        for number in range(n, 9):
            found.append("fact", facts(number, 1), writer="committer", sequence=number + 1)
        found.compact("fact")
        found.vacuum("fact", pinned=[2], retain_us=0)
        assert ids(found) == list(range(9))
        if lossy.found is None:
            break
    assert crash_at > 30


def test_merging_gives_files_of_before_a_widening_the_wider_type(tmp_path):
    """Whoever reads the list of files sees one type again; the log's bounds prune no row away."""
    lake = DeltaLake(tmp_path)
    lake.create("fact", pa.schema([("n", pa.int64()), ("at", pa.timestamp("us", "UTC"))]))
    at = pa.array([1, 2], pa.int64()).cast(pa.timestamp("us", "UTC"))
    lake.append("fact", pa.table({"n": [1, 2**53], "at": at}), writer="committer", sequence=1)
    lake.create("fact", pa.schema([("n", pa.float64())]))
    lake.append("fact", pa.table({"n": [0.5, None], "at": at}), writer="committer", sequence=2)
    before = sorted(map(str, lake.read("fact")["n"].to_pylist()))
    lake.compact("fact", cluster_by="at")
    (path,) = lake.files("fact")
    assert pq.read_schema(path).field("n").type == pa.float64()
    assert sorted(map(str, lake.read("fact")["n"].to_pylist())) == before
    assert lake.read("fact", where={"n": (0.1, 0.9)})["n"].to_pylist() == [0.5]
    assert sorted(map(str, DeltaTable(tmp_path / "fact").to_pyarrow_table()["n"].to_pylist())) == before
