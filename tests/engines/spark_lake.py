"""What Spark sees in a lake's table: reads its list of files, counts and adds. Run as a module.

`python -m tests.engines.spark_lake TABLE FOUND.json`: TABLE is the folder of a Delta table. No Delta jar is needed: the
list comes from delta-rs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from deltalake import DeltaTable


def main(table: str, found: Path) -> None:
    """Count, add and compare instants in local mode."""
    from pyspark.sql import SparkSession

    spark = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.session.timeZone", "UTC")
        .config("spark.driver.host", "127.0.0.1")
        .getOrCreate()
    )
    try:
        files = DeltaTable(table).file_uris()
        spark.read.option("mergeSchema", "true").parquet(*files).createOrReplaceTempView("facts")
        row = spark.sql(
            "SELECT count(*) AS n, count(DISTINCT id) AS ids, sum(value) AS total, "
            "unix_micros(min(event_time)) AS first, unix_micros(max(event_time)) AS last, count(note) AS notes FROM facts"
        ).first()
        found.write_text(json.dumps(row.asDict() if row is not None else None))
    finally:
        spark.stop()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
