"""What a distributed engine does with the kernel: shuffle by key, hand Arrow partitions over, collect. Run as a module.

A spike, not the engine: `python -m tests.engines.spark_windows FOLDER` reads events.parquet and spine.parquet, and writes
found.parquet. Spark decides where a key is computed, how rows are cut and in what order they come.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from volano.kernels.features import WindowFeature
from volano.kernels.windows import compute_tables

HOUR = 3_600_000_000
FEATURES = [
    WindowFeature(f"{aggregate}_{hours}h", aggregate, column, window_us=hours * HOUR)
    for hours in (1, 37, 24 * 7)
    for aggregate, column in (
        ("sum", "x"),
        ("mean", "x"),
        ("std", "x"),
        ("max", "n"),
        ("count", None),
        ("count_distinct", "word"),
        ("last", "word"),
        ("first", "x"),
    )
] + [
    WindowFeature("sum_always", "sum", "x"),
    WindowFeature("flagged_1d_ago", "sum", "x", window_us=24 * HOUR, offset_us=24 * HOUR, where="flag"),
]


def windows(events: pa.Table, spine: pa.Table) -> pa.Table:
    """The features of every row of the spine; the same call here and there."""
    return compute_tables(
        FEATURES,
        events,
        spine,
        key=("shop", "till"),
        event_time="at",
        order=("seq",),
        row_id="id",
        visible_from="seen",
        visible_until="gone",
        at="q",
        as_of="as_of",
        threads=1,
    )


def main(folder: Path) -> None:
    """Cogroup both sides by key in Spark, local mode."""
    from pyspark.sql import SparkSession
    from pyspark.sql.pandas.types import from_arrow_schema

    spark = (
        SparkSession.builder.master("local[2]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.memory", "512m")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "3")
        .config("spark.sql.session.timeZone", "UTC")
        .getOrCreate()
    )
    schema = windows(
        pq.read_table(folder / "events.parquet").slice(0, 1),
        pq.read_table(folder / "spine.parquet").slice(0, 1),
    ).schema
    events, spine = (
        spark.read.parquet(str(folder / f"{name}.parquet")).repartition(3) for name in ("events", "spine")
    )
    found = (
        events.groupBy("shop").cogroup(spine.groupBy("shop")).applyInArrow(windows, from_arrow_schema(schema))
    )
    found.write.parquet(str(folder / "found.parquet"))
    spark.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
