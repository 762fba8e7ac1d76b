"""Full dumps of a table as facts: what was inserted, what differs, what ended, from each dump to the next. Pure.

A row of the dump at t is a fact at t when its key was not in the dump before, or had other values there. A key that
is missing from the dump at t ends at t. A dump without rows cannot be seen: its instant stands in its rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import RequestError
from volano.kernels.columns import combined
from volano.records.journal import Operation

_SAMPLE = 3

Micros = NDArray[np.int64]


def changes_of(
    rows: pa.Table, *, key: Sequence[str], at: str, where: str, ignored: Sequence[str] = ()
) -> tuple[pa.Table, pa.Array]:
    """The facts that some dumps say, and their operations.

    Args:
        rows: of all dumps, in any order; the columns of the event.
        key: the columns that identify a row within a dump.
        at: the column that holds the instant of the dump.
        where: names the table in errors.
        ignored: columns in which rows may differ and are no other.

    Returns:
        Rows with the same columns, and one operation each: `insert`, or `end` with nulls but in `key` and `at`.

    Raises:
        RequestError: a key occurs twice in one dump.

    >>> day = lambda n: n * 86_400_000_000
    >>> rows = pa.table({"plane": ["a", "b", "a"], "seats": [1, 2, 1], "at": [day(1), day(1), day(2)]})
    >>> rows = rows.set_column(2, "at", rows["at"].cast(pa.timestamp("us", "UTC")))
    >>> facts, operations = changes_of(rows, key=["plane"], at="at", where="planes.csv")
    >>> facts["plane"].to_pylist(), operations.to_pylist()
    (['a', 'b', 'b'], ['insert', 'insert', 'end'])
    """
    n = rows.num_rows
    if not n:
        return rows, pa.array([], pa.string())
    instants = combined(rows[at]).cast(pa.int64()).to_numpy(zero_copy_only=False)
    dumps, dump = np.unique(instants, return_inverse=True)
    codes = row_codes(rows, key)
    order = np.lexsort((dump, codes))
    same_key = np.zeros(n, bool)
    same_key[1:] = codes[order][1:] == codes[order][:-1]
    step = np.zeros(n, np.int64)
    step[1:] = np.diff(dump[order])
    _refuse_repeated(rows, order[same_key & (step == 0)], key, where)
    values = [name for name in rows.column_names if name not in (at, *key, *ignored)]
    before = np.concatenate([order[:1], order[:-1]])
    unchanged = same_key & (step == 1)
    for name in values:
        column = row_codes(rows, [name])
        unchanged &= column[order] == column[before]
    goes_on = np.zeros(n, bool)
    goes_on[:-1] = same_key[1:] & (step[1:] == 1)
    ending = order[~goes_on & (dump[order] < len(dumps) - 1)]
    stated = np.sort(order[~unchanged])
    ends = _ends(rows, ending, key, at, dumps[dump[ending] + 1])
    operations = [Operation.INSERT.value] * len(stated) + [Operation.END.value] * len(ending)
    return pa.concat_tables([rows.take(pa.array(stated)), ends]), pa.array(operations, pa.string())


def _ends(rows: pa.Table, places: Micros, key: Sequence[str], at: str, instants: Micros) -> pa.Table:
    ended = rows.take(pa.array(places))
    columns = []
    for field in rows.schema:
        if field.name == at:
            columns.append(pa.array(instants, pa.int64()).cast(field.type))
        elif field.name in key:
            columns.append(ended[field.name])
        else:
            columns.append(pa.nulls(len(places), field.type))
    return pa.table(columns, schema=rows.schema)


def row_codes(rows: pa.Table, names: Sequence[str]) -> Micros:
    """Equal rows, equal numbers; a null equals a null."""
    mixed = np.zeros(rows.num_rows, np.int64)
    for name in names:
        encoded = pc.dictionary_encode(combined(rows[name]), null_encoding="encode")
        indices = encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        _, mixed = np.unique(mixed * (len(encoded.dictionary) + 1) + indices, return_inverse=True)
    return mixed


def _refuse_repeated(rows: pa.Table, places: Micros, key: Sequence[str], where: str) -> None:
    if len(places):
        sample = rows.select(list(key)).take(pa.array(places[:_SAMPLE])).to_pylist()
        raise RequestError(
            f"{len(places)} rows repeat the key of another row of the same snapshot, such as {sample}.",
            where=where,
            mend="make id= identify a row within a snapshot, or remove the copies",
        )
