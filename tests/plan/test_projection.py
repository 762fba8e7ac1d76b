"""Projections: bad rows stand alone, shapes and types are checked, a batch's size changes nothing."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from volano.errors import AuthorCodeError
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


def test_any_number_of_rows_may_fail():
    found = project(pa.table({"x": [0] * 1_500 + [2]}), halves, COLUMNS, view="V")
    assert len(found.failed) == 1_500
    assert found.columns["y"].to_pylist() == [None] * 1_500 + [0.5]


@given(st.lists(st.integers(0, 3), max_size=20), st.integers(1, 20))
def test_a_row_fails_or_not_whatever_stands_beside_it(values, size):
    """Rows left out, a column left out and a column of another type, each by its value, in batches of any size."""

    def strange(rows: pa.Table) -> pa.Table:
        if 3 in rows["x"].to_pylist():
            return rows
        rows = rows.filter(pc.not_equal(rows["x"], 0))
        each = rows["x"].to_pylist()
        return pa.table({"y": ["text"] * len(each) if 2 in each else [float(value) for value in each]})

    rows = pa.table({"x": pa.array(values, pa.int64())})
    found = [project(rows.slice(at, size), strange, COLUMNS, view="V") for at in range(0, len(values), size)]
    computed = [value for part in found for value in part.columns["y"].to_pylist()]
    assert computed == [1.0 if value == 1 else None for value in values]
    failed = [n * size + row for n, part in enumerate(found) for row, _ in part.failed]
    assert failed == [n for n, value in enumerate(values) if value != 1]


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (pa.table({"y": [1.0, 2.0]}), "returned 2 rows for 1"),
        (pa.table({"z": [1.0]}), "no column 'y'"),
        (pa.table([[1.0], [1.0]], names=["y", "y"]), "returned 2 columns 'y'"),
        (pa.table({"y": ["a"]}), "declared double and came back as string"),
        (pa.table({"y": [True]}), "declared double and came back as bool"),
    ],
)
def test_a_wrong_shape_names_view_and_column(result, message):
    found = project(pa.table({"x": [1]}), lambda rows: result, COLUMNS, view="V")
    assert found.columns["y"].to_pylist() == [None]
    with pytest.raises(AuthorCodeError, match=message):
        raise found.failed[0].error


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
    found = project(rows, lambda r: pa.table({"y": [1.0] * r.num_rows}), {"y": pa.int64()}, view="V")
    assert all("came back as double" in error.what for _, error in found.failed)
    assert found.columns["y"].to_pylist() == [None, None]


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
