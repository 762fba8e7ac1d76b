"""DuckDB keeps the SQL engine's contract."""

from __future__ import annotations

import pyarrow as pa
from deltalake import write_deltalake

from volano.engines.duckdb_engine import DuckDbEngine
from volano.testing.conformance.sql_engine import SqlEngineConformance


class TestDuckDbEngine(SqlEngineConformance):
    engine = "volano.engines.duckdb_engine:DuckDbEngine"


def test_delta_tables_are_read_without_an_extension(tmp_path):
    """Rows, partition columns and the version of a Delta table."""
    rows = pa.table({"n": [1, 2, 3], "kind": ["a", "b", "a"]})
    write_deltalake(tmp_path / "t", rows, partition_by=["kind"])
    engine = DuckDbEngine(tmp_path)
    assert engine.read_table("delta:t").sort_by("n").to_pydict() == rows.to_pydict()
    before = engine.snapshot("delta:t")
    assert before.endswith(":0")
    write_deltalake(tmp_path / "t", rows, mode="append")
    assert engine.snapshot("delta:t") != before
    assert engine.read_table("delta:t").num_rows == 6


def test_a_variable_nearby_is_no_relation(tmp_path):
    """Only what was passed has a name in the SQL."""
    nearby = pa.table({"x": [1]})
    engine = DuckDbEngine(tmp_path)
    assert engine.query("SELECT count(*) AS n FROM t", {"t": nearby}).to_pydict() == {"n": [1]}
    try:
        engine.query("SELECT * FROM nearby", {})
    except Exception as error:  # noqa: BLE001 - its kind is the suite's affair
        assert "nearby" in str(error)
    else:
        raise AssertionError("a local variable was read")
