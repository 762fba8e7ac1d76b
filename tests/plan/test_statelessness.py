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
from volano.plan.statelessness import find_difference, made_up_rows, sample_places
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


def counted_by(*keys: str) -> Callable[[pa.Table], pa.Table]:
    """How many rows of its key came so far in the batch."""

    def compute(rows: pa.Table) -> pa.Table:
        seen: dict[tuple[Any, ...], int] = {}
        found = []
        for key in zip(*(rows[name].to_pylist() for name in keys), strict=True):
            seen[key] = seen.get(key, 0) + 1
            found.append(float(seen[key]))
        return pa.table({"y": found})

    return compute


def payments(seed: int, n_rows: int = 20_000, n_cards: int = 2_000) -> pa.Table:
    random = np.random.default_rng(seed)
    cards = random.integers(0, n_cards, n_rows)
    return pa.table(
        {
            "card": pa.array(cards, mask=random.random(n_rows) < 0.1),
            "shop": [f"shop {each}" for each in random.integers(0, 900, n_rows)],
            "amount": random.normal(0, 100, n_rows),
        }
    )


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("keys", [("card",), ("shop",), ("card", "shop")], ids=" and ".join)
def test_state_per_key_is_found_among_many_keys(seed, keys):
    rows = payments(seed) if len(keys) == 1 else payments(seed, n_cards=40)
    sample = rows.take(pa.array(sample_places(rows, [keys])))
    assert sample.num_rows == 24
    assert find_difference(sample, counted_by(*keys), WANTED, view="View") is not None


@pytest.mark.parametrize("seed", range(10))
def test_state_per_column_is_found_where_the_key_is_computed(seed):
    rows = payments(seed)
    sample = rows.take(pa.array(sample_places(rows, [["card"], ["shop"]])))
    for column in ("card", "shop"):
        assert find_difference(sample, counted_by(column), WANTED, view="View") is not None


def test_what_maps_each_row_by_itself_passes_beside_rows_of_its_key():
    for seed in range(5):
        rows = payments(seed)
        sample = rows.take(pa.array(sample_places(rows, [["card"]])))
        assert difference(pandas_of(lambda rows: rows["amount"] * 2 + rows["card"]), "pandas", sample) is None


def test_half_of_a_sample_are_rows_of_few_keys_and_the_same_every_time():
    rows = payments(1)
    places = sample_places(rows, [["card"]])
    assert places == sample_places(rows, [["card"]])
    assert places == sorted(set(places))
    n_rows = rows.take(pa.array(places)).group_by("card").aggregate([([], "count_all")])
    several = n_rows.filter(pc.and_(pc.greater(n_rows["count_all"], 3), n_rows["card"].is_valid()))
    assert several.num_rows == 3


def test_a_sample_without_a_key_that_comes_twice_is_spread():
    rows = pa.table({"card": pa.array([*range(100), *[None] * 20])})
    assert sample_places(rows, [["card"]]) == [place * 5 for place in range(24)]
    assert sample_places(rows, []) == [place * 5 for place in range(24)]
    assert sample_places(rows.slice(0, 3), [["card"]]) == [0, 1, 2]
    assert sample_places(rows.slice(0, 0), [["card"]]) == []


@pytest.mark.parametrize("keys", [("name",), ("pieces",), ("name", "pieces")], ids=" and ".join)
def test_state_per_key_is_found_in_made_up_rows(keys):
    rows = made_up_rows(FIELDS, keys=keys)
    assert find_difference(rows, counted_by(*keys), WANTED, view="View") is not None
