"""What every SQL engine must do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from volano.errors import AuthorCodeError, StoreError, TableUnreadableError, UnknownNameError
from volano.protocols.sql_engine import SqlEngine
from volano.testing.conformance.processes import resolve

INSTANT = pa.timestamp("us", "UTC")


class SqlEngineConformance:
    """Subclass it and name `engine`, called with the project's folder."""

    engine: ClassVar[str]

    def open(self, folder: Path) -> SqlEngine:
        opened: SqlEngine = resolve(self.engine)(folder)
        return opened

    def test_a_query_reads_the_relations_that_it_is_given(self, tmp_path: Path) -> None:
        """Rows, nulls and column order come back; a relation is gone after the call."""
        engine = self.open(tmp_path)
        table = pa.table({"x": [1, None, 3], "s": ["a", "b", None]})
        found = engine.query("SELECT s, x + 1 AS y FROM t ORDER BY x NULLS LAST", {"t": table})
        assert found.to_pydict() == {"s": ["a", None, "b"], "y": [2, 4, None]}
        with pytest.raises(AuthorCodeError):
            engine.query("SELECT * FROM t", {})

    def test_results_have_the_logical_types(self, tmp_path: Path) -> None:
        """Integers are int64 (sums too), other numbers float64, timestamps µs in UTC, naive ones taken as UTC."""
        table = pa.table(
            {
                "i": pa.array([1, 2], pa.int32()),
                "f": pa.array([1, 2], pa.float32()),
                "t": pa.array([-1, 1_500], pa.timestamp("ns")),
                "z": pa.array([0, 1], pa.timestamp("ms", "Europe/Rome")),
                "c": pa.array(["a", "b"]).dictionary_encode(),
            }
        )
        found = self.open(tmp_path).query(
            "SELECT *, sum(i) OVER () AS total, 1.5 AS d, i > 1 AS b FROM t ORDER BY i", {"t": table}
        )
        assert found.schema == pa.schema(
            [
                ("i", pa.int64()),
                ("f", pa.float64()),
                ("t", INSTANT),
                ("z", INSTANT),
                ("c", pa.string()),
                ("total", pa.int64()),
                ("d", pa.float64()),
                ("b", pa.bool_()),
            ]
        )
        assert found["t"].cast(pa.int64()).to_pylist() == [-1, 1]
        assert found["z"].cast(pa.int64()).to_pylist() == [0, 1000]

    def test_an_empty_relation_gives_an_empty_result(self, tmp_path: Path) -> None:
        """No rows in, no rows out, with the columns."""
        table = pa.table({"x": pa.array([], pa.int64())})
        found = self.open(tmp_path).query("SELECT x * 2 AS y FROM t", {"t": table})
        assert (found.num_rows, found.column_names) == (0, ["y"])

    @pytest.mark.parametrize(
        "sql",
        [
            "SELEC 1",
            "SELECT nothing FROM t",
            "",
            "SELECT 1; SELECT 2",
            "DROP TABLE t",
            "CREATE TABLE u (x INT)",
        ],
    )
    def test_wrong_sql_is_the_authors_error(self, tmp_path: Path, sql: str) -> None:
        """Anything but one valid SELECT is an AuthorCodeError that names the SQL and its mend."""
        with pytest.raises(AuthorCodeError) as found:
            self.open(tmp_path).query(sql, {"t": pa.table({"x": [1]})})
        assert found.value.mend
        assert found.value.where == sql

    def test_a_query_reads_no_files(self, tmp_path: Path) -> None:
        """Only the relations are visible, not the disk."""
        (tmp_path / "secret.csv").write_text("a\n1\n")
        with pytest.raises(AuthorCodeError):
            self.open(tmp_path).query(f"SELECT * FROM '{tmp_path}/secret.csv'", {})

    def test_tables_are_read_from_the_projects_folder(self, tmp_path: Path) -> None:
        """Parquet, CSV and a query over files give the same rows; naive timestamps are UTC."""
        text = "id,at,v\na,2013-01-01 05:00:00,1.5\nb,2013-01-01 06:00:00,\n"
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "t.csv").write_text(text)
        table = pa.csv.read_csv(tmp_path / "data" / "t.csv")
        pq.write_table(table, tmp_path / "data" / "t.parquet")
        engine = self.open(tmp_path)
        for address in (
            "data/t.parquet",
            "data/t.csv",
            "duckdb:SELECT * FROM 'data/t.parquet'",
            "data/t*.csv",
        ):
            found = engine.read_table(address)
            assert found.schema == pa.schema([("id", pa.string()), ("at", INSTANT), ("v", pa.float64())])
            assert found["at"].cast(pa.int64()).to_pylist() == [1357016400000000, 1357020000000000]
            assert found["v"].to_pylist() == [1.5, None]

    def test_a_scan_gives_the_rows_of_the_table_some_at_a_time(self, tmp_path: Path) -> None:
        """A scan gives what reading gives, at most so many rows at once, in one order; of no rows one empty table."""
        rows = pa.table(
            {"n": range(50), "at": pa.array(range(50), INSTANT), "s": [str(n % 7) for n in range(50)]}
        )
        pq.write_table(rows, tmp_path / "t.parquet", row_group_size=20)
        pa.csv.write_csv(rows, tmp_path / "t.csv")
        pq.write_table(rows.slice(0, 0), tmp_path / "none.parquet")
        engine = self.open(tmp_path)
        for address in ("t.parquet", "t.csv", "duckdb:SELECT * FROM 't.parquet'"):
            parts = list(engine.scan_table(address, rows_at_once=8))
            assert max(part.num_rows for part in parts) <= 8
            whole = engine.read_table(address)
            assert pa.concat_tables(parts).sort_by("n").equals(whole.sort_by("n"))
            assert list(engine.scan_table(address, rows_at_once=8)) == parts
            some = pa.concat_tables(
                engine.scan_table(address, columns=["s", "x", "n"], between=("at", 10, 30))
            )
            assert some.column_names == ["s", "n"]
            assert set(range(10, 30)) <= set(some["n"].to_pylist())
        (empty,) = engine.scan_table("none.parquet")
        assert (empty.num_rows, empty.column_names) == (0, ["n", "at", "s"])

    def test_snapshots_follow_the_content(self, tmp_path: Path) -> None:
        """The same content gives the same token, other content another, also when size and time are the same."""
        path = tmp_path / "t.csv"
        engine = self.open(tmp_path)
        for address in ("t.csv", "duckdb:SELECT * FROM 't.csv'"):
            tokens = []
            for text in ("a\n1\n", "a\n2\n", "a\n1\n", "b\n1\n", "a\n1\n1\n"):
                path.write_text(text)
                tokens.append(engine.snapshot(address))
                assert engine.snapshot(address) == self.open(tmp_path).snapshot(address) == tokens[-1]
            assert tokens[0] == tokens[2]
            assert len({*tokens}) == 4

    def test_what_cannot_be_read_names_the_address(self, tmp_path: Path) -> None:
        """A missing or damaged file and a wrong query are StoreErrors whose mend names the address."""
        (tmp_path / "bad.parquet").write_bytes(b"not parquet")
        engine = self.open(tmp_path)
        for address in ("none.parquet", "none.csv", "bad.parquet", "delta:none", "duckdb:SELECT * FROM none"):
            with pytest.raises(TableUnreadableError) as found:
                engine.read_table(address)
            assert address in found.value.mend
            with pytest.raises(TableUnreadableError):
                list(engine.scan_table(address))
        for address in ("none.parquet", "delta:none", "duckdb:SELECT * FROM none", "duckdb:DROP TABLE x"):
            with pytest.raises(StoreError):
                engine.snapshot(address)
        with pytest.raises(UnknownNameError):
            engine.read_table("kafka:topic")
