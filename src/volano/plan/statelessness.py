"""Whether a projection maps each row by itself: a sample computed whole, row by row, and in another order. Pure.

Online a row comes alone or beside a few others, in a backfill beside half a million. A projection that looks at other
rows (a running sum, a count per key, the mean of the batch) would serve other values than it trains on. A sample can
show that, and cannot show that it never happens.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.plan.projection import project
from volano.values.arrow import ARROW_TYPES
from volano.values.schema import DType, Field

SAMPLE_ROWS: Final = 24
_ROWS_OF_A_KEY: Final = 4
_MADE_UP_KEYS: Final = 3
_FAILED: Final = "no value: it fails"
_BEGINNING: Final = datetime(2020, 1, 1, tzinfo=UTC)


class Difference(NamedTuple):
    """A value that depends on the rows beside it.

    Args:
        row: its place in the sample.
        beside, alone: the value among the other rows, or in their other order, and by itself.
    """

    column: str
    row: int
    beside: Any
    alone: Any


def find_difference(
    rows: pa.Table,
    compute: Callable[[pa.Table], pa.Table],
    columns: Mapping[str, pa.DataType],
    *,
    view: str,
    seed: int = 0,
) -> Difference | None:
    """The first value of a sample that is another one alone than beside other rows; None when there is none.

    Args:
        rows: a sample of the source's rows, some tens.
        compute, columns, view: as for `plan.projection.project`.
        seed: of the other order.

    >>> rows = pa.table({"x": [1.0, 2.0, 3.0]})
    >>> doubled = lambda rows: pa.table({"y": [2 * x for x in rows["x"].to_pylist()]})
    >>> find_difference(rows, doubled, {"y": pa.float64()}, view="Twice")
    >>> summed = lambda rows: pa.table({"y": [sum(rows["x"].to_pylist())] * rows.num_rows})
    >>> find_difference(rows, summed, {"y": pa.float64()}, view="Summed")
    Difference(column='y', row=0, beside=6.0, alone=1.0)
    """

    def values(some: pa.Table) -> dict[str, list[Any]]:
        computed, failed = project(some, compute, columns, view=view)
        found: dict[str, list[Any]] = {name: computed[name].to_pylist() for name in columns}
        for row, _ in failed:
            for each in found.values():
                each[row] = _FAILED
        return found

    n = rows.num_rows
    parts = [values(rows.slice(row, 1)) for row in range(n)]
    alone = {name: [part[name][0] for part in parts] for name in columns}
    order = list(range(n))
    for _ in range(2):
        found = values(rows.take(pa.array(order, pa.int64())))
        for name in columns:
            for value, row in zip(found[name], order, strict=True):
                if not _same(value, alone[name][row]):
                    return Difference(name, row, value, alone[name][row])
        Random(seed).shuffle(order)
    return None


def made_up_rows(
    fields: Sequence[Field], n_rows: int = SAMPLE_ROWS, *, keys: Collection[str] = ()
) -> pa.Table:
    """Rows of a schema for a source that has none yet: small values that differ, and nulls where they may be.

    Args:
        keys: the columns of a key; the second half of the rows has few of them.

    >>> made_up_rows([Field("x", DType.FLOAT64, nullable=True)], 6)["x"].to_pylist()
    [-3.0, -1.75, -0.5, 0.75, None, 3.25]
    """
    columns = {}
    for at, field in enumerate(fields):
        repeats = n_rows // 2 if field.name in keys else n_rows
        numbers = [row if row < repeats else row % _MADE_UP_KEYS for row in range(n_rows)]
        values = [
            None if field.nullable and (number + at) % 5 == 4 else _made_up(field.dtype, number)
            for number in numbers
        ]
        columns[field.name] = pa.array(values, ARROW_TYPES[field.dtype])
    return pa.table(columns)


def _made_up(dtype: DType, row: int) -> Any:
    match dtype:
        case DType.BOOL:
            return row % 3 == 0
        case DType.INT64:
            return (row * 7) % 23
        case DType.FLOAT64:
            return row * 1.25 - 3.0
        case DType.STRING:
            return f"a{row % 9}"
        case DType.TIMESTAMP:
            return _BEGINNING + timedelta(hours=5 * row)
        case DType.LIST_FLOAT64:
            return [row * 0.5, 1.0]
        case DType.LIST_INT64:
            return [row, 1]
        case _:
            return [f"a{row % 9}", "b"]


def sample_places(
    rows: pa.Table, groupings: Sequence[Sequence[str]], n_wanted: int = SAMPLE_ROWS
) -> list[int]:
    """Places of a sample, ascending: up to half are the first rows of a few keys that have several, the rest is spread.

    State per key shows only where rows share one, which rows spread over many keys hardly ever do.

    Args:
        rows: in the order in which they happened.
        groupings: each the columns of one key; so many as have two rows each in the half are used.

    >>> rows = pa.table({"card": [1, 2, 3, 4, 5, 6, 7, 8, 3, 9, 10, 3]})
    >>> sample_places(rows, [["card"]], 6)
    [0, 2, 4, 7, 8, 11]
    """
    groupings = groupings[: n_wanted // 4]
    chosen: set[int] = set()
    for columns in groupings:
        chosen.update(_of_few_keys(_codes(rows, columns), n_wanted // 2 // len(groupings)))
    rest = np.setdiff1d(np.arange(rows.num_rows), np.array(sorted(chosen), np.int64))
    chosen.update(int(rest[place]) for place in spread(len(rest), n_wanted - len(chosen)))
    return sorted(chosen)


def _of_few_keys(codes: NDArray[np.int64], n_wanted: int) -> Iterator[int]:
    """Places of the first rows of some keys: of the one with most rows, and of others down to those with two."""
    keys, n_rows = np.unique(codes[codes >= 0], return_counts=True)
    order = np.argsort(-n_rows, kind="stable")
    several = keys[order][n_rows[order] > 1]
    picked = [several[place] for place in spread(len(several), max(1, n_wanted // _ROWS_OF_A_KEY))]
    for key in picked:
        yield from np.flatnonzero(codes == key)[: n_wanted // len(picked)].tolist()


def _codes(rows: pa.Table, columns: Sequence[str]) -> NDArray[np.int64]:
    """A number for each key, the same for equal ones; -1 where a part of it is null."""
    codes = np.zeros(rows.num_rows, np.int64)
    lacking = np.zeros(rows.num_rows, bool)
    for name in columns:
        coded = rows[name].combine_chunks().dictionary_encode()
        part = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        lacking |= part < 0
        # Made dense after each part, so that no product overflows.
        codes = np.unique(codes * (len(coded.dictionary) + 1) + part, return_inverse=True)[1].reshape(-1)
    return np.where(lacking, -1, codes)


def spread(n_rows: int, n_wanted: int = SAMPLE_ROWS) -> Iterator[int]:
    """Places spread evenly over some rows.

    >>> list(spread(100, 4)), list(spread(2, 4))
    ([0, 25, 50, 75], [0, 1])
    """
    n = min(n_rows, n_wanted)
    return (place * n_rows // n for place in range(n))


def _same(one: Any, other: Any) -> bool:
    """Equal, or of equal form: NaN is the same as NaN, also inside a list."""
    return bool(one == other) or repr(one) == repr(other)
