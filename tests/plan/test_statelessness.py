"""A projection that looks at other rows is found by a sample, in every frame; one that does not never is."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from volano.errors import AuthorCodeError
from volano.plan.projection import from_frame, to_frame
from volano.plan.statelessness import find_difference, made_up_rows
from volano.values.schema import DType, Field

FIELDS = (
    Field("name", DType.STRING, nullable=True),
    Field("amount", DType.FLOAT64, nullable=True),
    Field("pieces", DType.INT64),
)
WANTED = {"y": pa.float64()}
SEEN: list[int] = []


def difference(function: Callable[[Any], Any], frame: str, rows: pa.Table | None = None) -> Any:
    rows = made_up_rows(FIELDS) if rows is None else rows

    def compute(some: pa.Table) -> pa.Table:
        try:
            return from_frame(function(to_frame(some, frame)), view="View")
        except (ZeroDivisionError, pa.ArrowInvalid) as error:
            raise AuthorCodeError(str(error)) from error

    return find_difference(rows, compute, WANTED, view="View")


def pandas_of(column: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda rows: rows.assign(y=column(rows).astype("double[pyarrow]"))


def counted(rows: pa.Table) -> pa.Table:
    SEEN.extend(range(rows.num_rows))
    return pa.table({"y": np.arange(len(SEEN), len(SEEN) + rows.num_rows, dtype=float)})


STATEFUL: dict[str, tuple[Callable[[Any], Any], str]] = {
    "a running sum": (pandas_of(lambda rows: rows["pieces"].cumsum()), "pandas"),
    "the row before": (pandas_of(lambda rows: rows["pieces"].shift(1)), "pandas"),
    "the mean of the batch": (pandas_of(lambda rows: rows["amount"] - rows["amount"].mean()), "pandas"),
    "a rank": (pandas_of(lambda rows: rows["pieces"].rank()), "pandas"),
    "a fill from above": (pandas_of(lambda rows: rows["amount"].ffill()), "pandas"),
    "a mean of a group": (
        pandas_of(lambda rows: rows.groupby("name", dropna=False)["pieces"].transform("mean")),
        "pandas",
    ),
    "another order": (lambda rows: pa.table({"y": rows["pieces"].cast(pa.float64())[::-1]}), "arrow"),
    "the number of rows": (lambda rows: pa.table({"y": [float(rows.num_rows)] * rows.num_rows}), "arrow"),
    "what came before": (counted, "arrow"),
    "chance": (lambda rows: pa.table({"y": np.random.default_rng().random(rows.num_rows)}), "arrow"),
    "a failure of one alone": (
        lambda rows: pa.table({"y": [1.0 / (rows.num_rows - 1)] * rows.num_rows}),
        "arrow",
    ),
}


@pytest.mark.parametrize("name", STATEFUL)
def test_what_looks_at_other_rows_is_found(name):
    function, frame = STATEFUL[name]
    found = difference(function, frame)
    assert found is not None
    assert found.column == "y"
    assert repr(found.beside) != repr(found.alone)


STATELESS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "arithmetic": (pandas_of(lambda rows: rows["amount"] / rows["pieces"]), "pandas"),
    "functions": (lambda rows: pa.table({"y": pc.exp(pc.sin(rows["amount"]))}), "arrow"),
    "floats of NumPy": (
        lambda rows: pa.table({"y": np.log1p(np.exp(rows["pieces"].to_numpy() * 0.37))}),
        "arrow",
    ),
    "NaN": (lambda rows: pa.table({"y": [float("nan")] * rows.num_rows}), "arrow"),
    "nulls": (lambda rows: pa.table({"y": pa.nulls(rows.num_rows)}), "arrow"),
    "rows that fail": (
        lambda rows: pa.table({"y": [1 / each for each in rows["pieces"].to_pylist()]}),
        "arrow",
    ),
}


@pytest.mark.parametrize("name", STATELESS)
@pytest.mark.parametrize("seed", range(3))
def test_what_looks_at_its_own_row_is_not(name, seed):
    function, frame = STATELESS[name]
    random = Random(seed)
    rows = pa.table(
        {
            "name": [random.choice(("a", None)) for _ in range(17)],
            "amount": [random.choice((random.gauss(0, 1e6), 0.1, None, float("inf"))) for _ in range(17)],
            "pieces": [random.randrange(5) for _ in range(17)],
        },
        schema=pa.schema([("name", pa.string()), ("amount", pa.float64()), ("pieces", pa.int64())]),
    )
    assert difference(function, frame, rows) is None
    assert difference(function, frame) is None
