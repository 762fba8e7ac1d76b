"""Scratch space: what is put aside comes back in order; a dead process's leavings go, a living one's stay."""

from __future__ import annotations

import pyarrow as pa

from volano.runtime.scratch import FileScratch


def rows(*values: int) -> pa.Table:
    return pa.table({"n": pa.array(values, pa.int64())})


def test_rows_come_back_in_order_and_once(tmp_path):
    with FileScratch(tmp_path / "scratch") as scratch:
        scratch.put("a", rows(1, 2))
        scratch.put("b", rows(9))
        scratch.put("a", rows(3))
        found = scratch.take("a")
        assert found is not None
        assert found["n"].to_pylist() == [1, 2, 3]
        assert scratch.take("a") is None
    assert [path.name for path in (tmp_path / "scratch").iterdir()] == ["lock"]


def test_nothing_is_made_before_something_is_put_aside(tmp_path):
    with FileScratch(tmp_path / "scratch") as scratch:
        assert scratch.take("a") is None
    assert not (tmp_path / "scratch").exists()


def test_what_a_dead_process_left_is_removed_and_what_a_living_one_holds_stays(tmp_path):
    left = tmp_path / "scratch" / "dead"
    left.mkdir(parents=True)
    (left / "lock").touch()
    (left / "a-000000.arrow").write_bytes(b"rows")
    with FileScratch(tmp_path / "scratch") as one, FileScratch(tmp_path / "scratch") as other:
        one.put("a", rows(1))
        other.put("a", rows(2))
        assert not left.exists()
        found, others = one.take("a"), other.take("a")
        assert found is not None
        assert others is not None
        assert (found["n"].to_pylist(), others["n"].to_pylist()) == ([1], [2])
