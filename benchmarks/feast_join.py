"""Feast's point-in-time join over the same tables, with its DuckDB offline store, where Feast is installed.

Feast reads its views from Parquet files, and takes a row of the very instant of a query, which ours does not: random
microseconds meet so seldom that the sides are compared all the same. Writing the files is not counted.
"""

from __future__ import annotations

import importlib.util
import tempfile
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def feast_join(views: list[pa.Table], spine: pa.Table) -> tuple[float, pa.Table] | None:
    """Seconds of one join, and its rows sorted by `row`; None where Feast is not installed.

    Args:
        views: each with a key `k`, an instant `t` in µs and float columns.
        spine: with `k`, an instant `q` in µs, and `row`.
    """
    if importlib.util.find_spec("feast") is None:
        return None
    import feast
    from feast.types import Float64

    with tempfile.TemporaryDirectory() as folder:
        config = feast.RepoConfig(
            project="bench",
            provider="local",
            registry=f"{folder}/registry.db",
            offline_store={"type": "duckdb"},
            online_store={"type": "sqlite", "path": f"{folder}/online.db"},
            entity_key_serialization_version=3,
        )
        store = feast.FeatureStore(config=config)
        key = feast.Entity(name="k", join_keys=["k"], value_type=feast.ValueType.INT64)
        definitions: list[Any] = [key]
        wanted = []
        for n, view in enumerate(views):
            path = Path(folder) / f"view{n}.parquet"
            pq.write_table(_timed(view, "t", "event_timestamp"), path)
            names = [name for name in view.column_names if name not in ("k", "t")]
            definitions.append(
                feast.FeatureView(
                    name=f"view{n}",
                    entities=[key],
                    ttl=timedelta(0),
                    schema=[feast.Field(name=name, dtype=Float64) for name in names],
                    source=feast.FileSource(path=str(path), timestamp_field="event_timestamp"),
                )
            )
            wanted += [f"view{n}:{name}" for name in names]
        store.apply(definitions)
        asked = _timed(spine, "q", "event_timestamp").to_pandas()
        begin = time.perf_counter()
        found = store.get_historical_features(entity_df=asked, features=wanted).to_arrow()
        return time.perf_counter() - begin, found.sort_by("row")


def _timed(table: pa.Table, column: str, name: str) -> pa.Table:
    """The table with its instants as timestamps under another name."""
    at = table[column].cast(pa.timestamp("us", tz="UTC"))
    return table.drop_columns([column]).append_column(name, at)
