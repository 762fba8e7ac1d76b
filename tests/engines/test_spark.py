"""Inside Spark the kernel gives the bits that it gives here: `applyInArrow` over cogrouped Arrow partitions, local mode."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from tests.engines.spark_windows import FEATURES, HOUR, windows

from volano.kernels.arrays import NEVER
from volano.stores.delta_lake import DeltaLake
from volano.testing.conformance.lake import SCHEMA, facts

ORIGIN = 1_700_000_000_000_000
ROOT = Path(__file__).parents[2]

NO_JAVA = shutil.which("java") is None and "JAVA_HOME" not in os.environ


def events(random: np.random.Generator, n: int) -> pa.Table:
    """Late, tied, superseded and hot; nulls, NaN and values of mixed magnitude."""
    at = ORIGIN + random.integers(0, 14 * 24, n) * HOUR // 2
    seen = at + np.where(random.random(n) < 0.2, random.integers(0, 50 * HOUR, n), 0)
    x = random.choice([1e9, 1.0, 1e-7, -3.5, 0.1], n) * random.normal(1, 0.3, n)
    x[random.random(n) < 0.001] = np.nan
    return pa.table(
        {
            "shop": pa.array([f"shop {s}" for s in (random.zipf(1.5, n) % 40).tolist()]),
            "till": random.integers(0, 2, n),
            "at": pa.array(at, pa.timestamp("us", "UTC")),
            "seq": random.integers(0, 3, n),
            "id": pa.array([random.bytes(16) for _ in range(n)], pa.binary()),
            "seen": seen,
            "gone": np.where(random.random(n) < 0.05, seen + random.integers(1, 90 * HOUR, n), NEVER),
            "x": pa.array(x, mask=random.random(n) < 0.05),
            "n": random.integers(-(2**40), 2**40, n),
            "word": pa.array(random.choice(["", "a", "b", "ünï", None], n).tolist(), pa.string()),
            "flag": random.random(n) < 0.5,
        }
    )


def spine(random: np.random.Generator, n: int) -> pa.Table:
    """Known and unknown shops; what was visible is not always what is asked at."""
    q = ORIGIN + random.integers(0, 15 * 24 * HOUR, n)
    return pa.table(
        {
            "row": np.arange(n),
            "shop": pa.array([f"shop {s}" for s in random.integers(0, 45, n).tolist()]),
            "till": random.integers(0, 2, n),
            "q": pa.array(q, pa.timestamp("us", "UTC")),
            "as_of": q + random.choice([0, HOUR, 30 * HOUR], n),
        }
    )


def bits(table: pa.Table, name: str) -> list[object]:
    """A column as values whose equality is that of bits; of NaN there is one."""
    column = table[name].combine_chunks()
    if not pa.types.is_floating(column.type):
        values: list[object] = column.to_pylist()
        return values
    words = column.fill_null(0.0).to_numpy().view(np.int64).tolist()
    return [word if valid else None for word, valid in zip(words, column.is_valid().to_pylist(), strict=True)]


def run_module(*call: str) -> None:
    """Run a module of ours, which starts Spark, in a process of its own."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-m", *call],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": path,
            "PYSPARK_PYTHON": sys.executable,
            "PYSPARK_DRIVER_PYTHON": sys.executable,
            "SPARK_LOCAL_IP": "127.0.0.1",
        },
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4_000:]


@pytest.mark.slow
@pytest.mark.skipif(NO_JAVA, reason="Spark needs Java 17 or 21, and there is no `java` and no JAVA_HOME")
def test_partitions_of_an_engine_give_the_bits_of_a_local_run(tmp_path):
    random = np.random.default_rng(8)
    pq.write_table(events(random, 6_000), tmp_path / "events.parquet")
    pq.write_table(spine(random, 3_000), tmp_path / "spine.parquet")
    run_module("tests.engines.spark_windows", str(tmp_path))
    files = sorted((tmp_path / "found.parquet").glob("*.parquet"))
    found = pa.concat_tables([pq.read_table(file) for file in files]).sort_by("row")
    here = windows(pq.read_table(tmp_path / "events.parquet"), pq.read_table(tmp_path / "spine.parquet"))
    assert found["row"].to_pylist() == list(range(3_000))
    for feature in FEATURES:
        assert bits(found, feature.name) == bits(here, feature.name), feature.name
        assert here[feature.name].null_count < 2_980, feature.name


@pytest.mark.slow
@pytest.mark.skipif(NO_JAVA, reason="Spark needs Java 17 or 21, and there is no `java` and no JAVA_HOME")
def test_an_engine_reads_the_lake_by_its_list_of_files(tmp_path):
    """Appended, widened, merged and appended again: Spark sees the rows that the lake has."""
    lake = DeltaLake(tmp_path / "lake")
    lake.create("fact", SCHEMA)
    for n in range(9):
        lake.append("fact", facts(n * 100, 100), writer="committer", sequence=n + 1)
    lake.create("fact", pa.schema([("note", pa.string())]))
    lake.compact("fact", cluster_by="event_time")
    lake.append("fact", facts(900, 50), writer="committer", sequence=10)
    run_module("tests.engines.spark_lake", str(tmp_path / "lake" / "fact"), str(tmp_path / "found.json"))
    found = json.loads((tmp_path / "found.json").read_text())
    rows = lake.read("fact")
    times = rows["event_time"].cast(pa.int64())
    assert (found["n"], found["ids"], found["notes"]) == (950, 950, 0)
    assert (found["first"], found["last"]) == (pc.min(times).as_py(), pc.max(times).as_py())
    assert found["total"] == pytest.approx(pc.sum(rows["value"]).as_py())
