"""What every lake must do."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pytest

from volano.errors import RequestError, StateMismatchError, UnknownNameError
from volano.protocols.lake import LakeWriter
from volano.testing.conformance.processes import resolve, run, start
from volano.values.instants import DAY_US, NEVER

INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema([("id", pa.string()), ("event_time", INSTANT), ("value", pa.float64())])


def facts(start: int, n_rows: int) -> pa.Table:
    """Rows whose id is their number and whose event_time is that many days, less 5 µs."""
    numbers = range(start, start + n_rows)
    return pa.table(
        {
            "id": [str(n) for n in numbers],
            "event_time": pa.array([n * DAY_US - 5 for n in numbers], pa.int64()).cast(INSTANT),
            "value": [n / 2 if n % 3 else None for n in numbers],
        },
        schema=SCHEMA,
    )


class LakeConformance:
    """Subclass it and name `lake`, called with a folder."""

    lake: ClassVar[str]

    def open(self, folder: Path) -> LakeWriter:
        opened: LakeWriter = resolve(self.lake)(folder)
        return opened

    def test_an_empty_lake_has_no_tables(self, tmp_path: Path) -> None:
        """Without a table: no name, no version, no file, nothing committed; reading is an error."""
        lake = self.open(tmp_path / "none")
        assert lake.tables() == []
        assert lake.version("fact") is None
        assert lake.files("fact") == []
        assert lake.committed("fact", "committer") == 0
        with pytest.raises(UnknownNameError):
            lake.read("fact")
        with pytest.raises(UnknownNameError):
            lake.append("fact", facts(0, 1), writer="committer", sequence=1)

    def test_a_table_is_created_once(self, tmp_path: Path) -> None:
        """The same schema again does nothing; an empty table reads as its schema."""
        lake = self.open(tmp_path)
        for _ in range(2):
            lake.create("fact", SCHEMA)
        assert lake.tables() == ["fact"]
        assert lake.version("fact") == 0
        assert lake.read("fact").schema == SCHEMA
        assert lake.read("fact", where={"event_time": (0, 5)}).num_rows == 0

    def test_rows_come_back(self, tmp_path: Path) -> None:
        """Values, nulls and types survive, also extreme instants, lists and any text."""
        schema = pa.schema(
            [
                ("i", pa.int64()),
                ("f", pa.float64()),
                ("b", pa.bool_()),
                ("s", pa.string()),
                ("t", INSTANT),
                ("y", pa.binary()),
                ("l", pa.list_(pa.float64())),
                ("n", pa.list_(pa.string())),
            ]
        )
        rows = pa.table(
            {
                "i": [-(2**63), 2**63 - 1, None],
                "f": [float("inf"), -0.0, None],
                "b": [True, False, None],
                "s": ["", "ü☂\n\x00", None],
                "t": pa.array([NEVER, -1, None], pa.int64()).cast(INSTANT),
                "y": [b"", b"\x00\xff", None],
                "l": [[1.5, None], [], None],
                "n": [["a"], [], None],
            },
            schema=schema,
        )
        lake = self.open(tmp_path)
        lake.create("fact", schema)
        lake.append("fact", rows, writer="committer", sequence=1)
        found = self.open(tmp_path).read("fact")
        assert found.schema == schema
        assert found.equals(rows)

    def test_an_append_is_exactly_once(self, tmp_path: Path) -> None:
        """A sequence that is not above the writer's last one is skipped, also after reopening; writers are apart."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        assert lake.append("fact", facts(0, 2), writer="committer", sequence=3) == 1
        for again in (lake, self.open(tmp_path)):
            for sequence in (1, 3):
                assert again.append("fact", facts(9, 9), writer="committer", sequence=sequence) == 1
            assert again.committed("fact", "committer") == 3
            assert again.committed("fact", "backfill") == 0
        lake.append("fact", facts(2, 1), writer="backfill", sequence=1)
        assert self.open(tmp_path).committed("fact", "backfill") == 1
        assert _ids(lake) == ["0", "1", "2"]

    def test_several_tables_are_one_append(self, tmp_path: Path) -> None:
        """They appear together, once; when their iterator raises, nothing was appended and it may be tried again."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)

        def broken() -> Iterator[pa.Table]:
            yield facts(0, 2)
            raise RequestError("The third row does not fit.")

        with pytest.raises(RequestError):
            lake.append("fact", broken(), writer="handover", sequence=1)
        assert (lake.read("fact").num_rows, lake.committed("fact", "handover")) == (0, 0)
        for _ in range(2):
            assert lake.append("fact", iter([facts(0, 2), facts(2, 1)]), writer="handover", sequence=1) == 1
        assert _ids(lake) == ["0", "1", "2"]

    def test_an_empty_append_is_remembered(self, tmp_path: Path) -> None:
        """No rows still move the writer's sequence."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        lake.append("fact", facts(0, 0), writer="committer", sequence=7)
        assert self.open(tmp_path).committed("fact", "committer") == 7
        assert lake.read("fact").num_rows == 0

    def test_two_writers_see_each_other(self, tmp_path: Path) -> None:
        """A lake opened before another one committed neither repeats nor loses a commit."""
        first, second = self.open(tmp_path), self.open(tmp_path)
        first.create("fact", SCHEMA)
        for n in range(1, 13):
            for lake in (first, second) if n % 2 else (second, first):
                lake.append("fact", facts(n, 1), writer="committer", sequence=n)
        assert _ids(first) == _ids(second) == sorted(str(n) for n in range(1, 13))

    def test_a_version_stays_as_it_was(self, tmp_path: Path) -> None:
        """Reading a version gives the same rows for ever, also after later appends and compaction."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        versions = [lake.append("fact", facts(n, 1), writer="committer", sequence=n + 1) for n in range(5)]
        lake.compact("fact")
        for each in (lake, self.open(tmp_path)):
            for n, version in enumerate(versions):
                assert _ids(each, version=version) == [str(m) for m in range(n + 1)]
            with pytest.raises(UnknownNameError):
                each.read("fact", version=999)

    def test_ranges_are_half_open_and_exact(self, tmp_path: Path) -> None:
        """`where` keeps low <= value < high to the microsecond, nulls never; several ranges are all required."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        for n in range(4):
            lake.append("fact", facts(n * 5, 5), writer="committer", sequence=n + 1)

        def ids(**where: tuple[object | None, object | None]) -> list[int]:
            return sorted(int(text) for text in _ids(lake, where=where))

        instant = 7 * DAY_US - 5
        assert ids(event_time=(instant, instant + 1)) == [7]
        assert ids(event_time=(instant + 1, 9 * DAY_US - 5)) == [8]
        assert ids(event_time=(instant, None)) == list(range(7, 20))
        assert ids(event_time=(None, instant)) == list(range(7))
        assert ids(event_time=(None, None)) == list(range(20))
        assert ids(event_time=(5, 5)) == []
        assert ids(value=(2.0, 4.0)) == [4, 5, 7]
        assert ids(value=(None, 4.0), event_time=(2 * DAY_US, None)) == [4, 5, 7]
        assert ids(absent=(0, 1)) == []

    def test_columns_are_projected(self, tmp_path: Path) -> None:
        """The columns asked for, in that order; one that the table lacks is null throughout."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        lake.append("fact", facts(1, 2), writer="committer", sequence=1)
        found = lake.read("fact", columns=["value", "absent", "id"], where={"event_time": (0, NEVER)})
        assert found.column_names == ["value", "absent", "id"]
        assert found.to_pylist()[1] == {"value": 1.0, "absent": None, "id": "2"}
        assert lake.read("fact", columns=[]).num_rows == 2

    def test_a_table_widens(self, tmp_path: Path) -> None:
        """New columns are null in old rows; rows may leave columns out; a changed type is refused."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        lake.append("fact", facts(0, 1), writer="committer", sequence=1)
        wide = pa.schema([("id", pa.string()), ("note", pa.string())])
        lake.create("fact", wide)
        lake.append("fact", pa.table({"note": ["n"], "id": ["1"]}), writer="committer", sequence=2)
        lake.append("fact", facts(2, 1), writer="committer", sequence=3)
        for each in (lake, self.open(tmp_path)):
            rows = sorted(each.read("fact", columns=["id", "note", "value"]).to_pylist(), key=str)
            assert [(row["id"], row["note"], row["value"]) for row in rows] == [
                ("0", None, None),
                ("1", "n", None),
                ("2", None, 1.0),
            ]
        with pytest.raises(StateMismatchError) as refused:
            lake.create("fact", pa.schema([("value", pa.string())]))
        assert refused.value.mend
        with pytest.raises(StateMismatchError):
            lake.append("fact", pa.table({"other": [1]}), writer="committer", sequence=4)

    def test_whole_numbers_widen_into_floats(self, tmp_path: Path) -> None:
        """Old rows are read as floats, old versions as they were; a number that is no float64 refuses the whole."""
        lake = self.open(tmp_path)
        narrow = pa.schema([("id", pa.string()), ("n", pa.int64()), ("big", pa.int64())])
        wide = pa.schema([("id", pa.string()), ("n", pa.float64()), ("big", pa.int64())])
        lake.create("fact", narrow)
        rows = pa.table({"id": ["a", "b"], "n": [1, None], "big": [2**60 + 1, 0]}, schema=narrow)
        lake.append("fact", rows, writer="committer", sequence=1)
        before = lake.version("fact")
        lake.create("fact", wide)
        lake.append("fact", pa.table({"id": ["c"], "n": [1.5], "big": [3]}), writer="committer", sequence=2)
        lake.create("fact", narrow)  # who knows the old types only finds what it needs, and may append
        lake.append("fact", rows.slice(0, 1), writer="committer", sequence=3)
        lake.append("fact", rows.slice(0, 1), writer="committer", sequence=3)
        for each in (lake, self.open(tmp_path)):
            found = each.read("fact").sort_by("id")
            assert found["n"].to_pylist() == [1.0, 1.0, None, 1.5]
            assert found["n"].type == pa.float64()
            assert found["big"].to_pylist()[0] == 2**60 + 1
            assert each.read("fact", where={"n": (1.0, 1.6)}).num_rows == 3
            assert each.read("fact", version=before).sort_by("id").equals(rows)
            assert each.committed("fact", "committer") == 3
        with pytest.raises(StateMismatchError):
            lake.create("fact", pa.schema([("big", pa.float64())]))
        assert self.open(tmp_path).read("fact").schema.field("big").type == pa.int64()

    def test_partitions_change_nothing_but_speed(self, tmp_path: Path) -> None:
        """A partitioned table reads as an unpartitioned one does, with its columns in order."""
        lake = self.open(tmp_path)
        schema = pa.schema([("day", pa.date32()), ("kind", pa.string()), ("n", pa.int64())])
        lake.create("fact", schema, partition_by=["kind", "day"])
        days = pa.array([n % 2 for n in range(12)], pa.int32()).cast(pa.date32())
        rows = pa.table({"day": days, "kind": ["a/b", "ü =", None] * 4, "n": list(range(12))}, schema=schema)
        lake.append("fact", rows, writer="committer", sequence=1)
        lake.append("fact", rows.slice(3, 2), writer="committer", sequence=2)
        lake.create("fact", schema, partition_by=["kind", "day"])
        expected = pa.concat_tables([rows, rows.slice(3, 2)]).sort_by("n")
        for _ in range(2):
            assert lake.read("fact").sort_by("n").equals(expected)
            assert sorted(lake.read("fact", columns=["n"], where={"n": (3, 5)})["n"].to_pylist()) == [
                3,
                3,
                4,
                4,
            ]
            lake.compact("fact")

    def test_compaction_keeps_rows_and_sequences(self, tmp_path: Path) -> None:
        """After `compact` fewer files hold the same rows, and every writer is where it was."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        for n in range(20):
            lake.append("fact", facts(n, 1), writer="committer", sequence=n + 1)
        assert len(lake.files("fact")) == 20
        lake.compact("fact")
        lake.append("fact", facts(0, 9), writer="committer", sequence=20)
        for each in (lake, self.open(tmp_path)):
            assert len(each.files("fact")) == 1
            assert _ids(each) == sorted(str(n) for n in range(20))
            assert each.committed("fact", "committer") == 20
        lake.append("fact", facts(20, 1), writer="committer", sequence=21)
        assert len(_ids(self.open(tmp_path))) == 21

    def test_a_kill_at_any_instant_keeps_exactly_once(self, tmp_path: Path) -> None:
        """After kill -9 the rows are those of the committed sequences, and the next writer goes on from there."""
        self.open(tmp_path).create("fact", SCHEMA)
        code = f"""
            from volano.testing.conformance.lake import facts
            lake = resolve({self.lake!r})(folder)
            first = lake.committed("fact", "committer") + 1
            for n in range(first, first + 10**6):
                lake.append("fact", facts(n, 1), writer="committer", sequence=n)
                print(n, flush=True)
            """
        seen = 0
        for _ in range(2):
            child = start(code, tmp_path)
            assert child.stdout is not None
            lines = [child.stdout.readline() for _ in range(6)]
            child.kill()
            lines += child.communicate()[0].splitlines()
            assert int(lines[0]) > seen
            seen = int(lines[-1])
            lake = self.open(tmp_path)
            last = lake.committed("fact", "committer")
            assert last >= seen
            assert sorted(map(int, _ids(lake))) == list(range(1, last + 1))

    def test_another_process_reads_what_was_appended(self, tmp_path: Path) -> None:
        """A commit is visible to every process when `append` returns."""
        lake = self.open(tmp_path)
        lake.create("fact", SCHEMA)
        lake.append("fact", facts(0, 3), writer="committer", sequence=1)
        _, said = run(f'print(resolve({self.lake!r})(folder).read("fact").num_rows)', tmp_path)
        assert said.strip() == "3"


def _ids(
    lake: LakeWriter,
    *,
    where: dict[str, tuple[object | None, object | None]] | None = None,
    version: int | None = None,
) -> list[str]:
    found: list[str] = lake.read("fact", columns=["id"], where=where, version=version)["id"].to_pylist()
    return sorted(found)
