"""Projections: bad rows stand alone, shapes and types are checked, a batch's size changes nothing."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import AuthorCodeError
from volano.plan import projection
from volano.plan.projection import from_frame, project, to_frame

COLUMNS = {"y": pa.float64()}


def halves(rows: pa.Table) -> pa.Table:
    """An author's function that cannot take a zero."""
    values = rows["x"].to_pylist()
    if 0 in values:
        raise AuthorCodeError("division by zero")
    return pa.table({"y": [1 / value for value in values]})


@given(st.lists(st.integers(-2, 2), max_size=30))
def test_rows_that_fail_are_null_and_named_and_the_others_are_computed(values):
    found = project(pa.table({"x": pa.array(values, pa.int64())}), halves, COLUMNS, view="V")
    assert found.columns["y"].to_pylist() == [1 / value if value else None for value in values]
    assert [failed.row for failed in found.failed] == [n for n, value in enumerate(values) if value == 0]


def test_a_projection_that_fails_on_most_rows_is_at_fault_itself(monkeypatch):
    monkeypatch.setattr(projection, "MOST_FAILURES", 3)
    with pytest.raises(AuthorCodeError, match="fails on more than 3 of 10 rows") as raised:
        project(pa.table({"x": [0] * 10}), halves, COLUMNS, view="V")
    assert isinstance(raised.value.__cause__, AuthorCodeError)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (pa.table({"y": [1.0]}), "returned 1 rows for 2"),
        (pa.table({"z": [1.0, 2.0]}), "no column 'y'"),
        (pa.table({"y": ["a", "b"]}), "declared double and came back as string"),
        (pa.table({"y": [True, False]}), "declared double and came back as bool"),
    ],
)
def test_a_wrong_shape_names_view_and_column(result, message):
    with pytest.raises(AuthorCodeError, match=message):
        project(pa.table({"x": [1, 2]}), lambda rows: result, COLUMNS, view="V")


def test_a_column_that_is_not_returned_is_the_sources():
    found = project(
        pa.table({"x": [1, 2], "y": [3.0, 4.0]}), lambda rows: rows.select(["x"]), COLUMNS, view="V"
    )
    assert found.columns["y"].to_pylist() == [3.0, 4.0]


def test_whole_numbers_become_floats_and_floats_never_whole_numbers():
    rows = pa.table({"x": [1, 2]})
    assert project(rows, lambda r: pa.table({"y": [1, 2]}), COLUMNS, view="V").columns["y"].to_pylist() == [
        1.0,
        2.0,
    ]
    with pytest.raises(AuthorCodeError, match="came back as double"):
        project(rows, lambda r: pa.table({"y": [1.0, 2.0]}), {"y": pa.int64()}, view="V")


@pytest.mark.parametrize("frame", ["arrow", "pandas", "polars"])
def test_a_frame_comes_back_as_it_went(frame):
    if frame != "arrow":
        pytest.importorskip(frame)
    rows = pa.table(
        {
            "n": pa.array([1, None, 3], pa.int64()),
            "at": pa.array([1, 2, None], pa.timestamp("us", "UTC")),
            "text": pa.array(["a", None, "ünï"]),
        }
    )
    kinds = dict(zip(rows.column_names, rows.schema.types, strict=True))
    found = project(rows, lambda r: from_frame(to_frame(r, frame), view="V"), kinds, view="V")
    assert found.columns.to_pydict() == rows.to_pydict()


def test_what_is_no_frame_is_refused():
    with pytest.raises(AuthorCodeError, match="returned list"):
        from_frame([1], view="V")
