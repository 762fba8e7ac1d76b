"""Columns in the few types that kernels know, from Arrow and back. Holds no order and no time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.errors import DefinitionError
from volano.kernels.arrays import F64, I64, Bools

ARROW_TYPES: dict[str, pa.DataType] = {
    "float64": pa.float64(),
    "int64": pa.int64(),
    "bool": pa.bool_(),
    "timestamp": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
}


def arrow_type(kind: str) -> pa.DataType:
    """The Arrow type of an output, `list<...>` included.

    >>> arrow_type("list<int64>")
    ListType(list<item: int64>)
    """
    return pa.list_(ARROW_TYPES[kind[5:-1]]) if kind.startswith("list<") else ARROW_TYPES[kind]


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Args:
        type: "float64", "int64", "bool", "timestamp" or "string".
        values: float64 values, or int64 ones (bools as 0 and 1, µs, dictionary codes); 0 where null.
        valid: which are not null; None when all are.
        words: the dictionary of a string column.
    """

    type: str
    values: F64 | I64
    valid: Bools | None
    words: pa.Array | None = None

    def as_float(self) -> F64:
        """The values as float64."""
        return np.asarray(self.values, dtype=np.float64)


def combined(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    """One contiguous array."""
    if isinstance(array, pa.ChunkedArray):
        return (
            array.chunk(0)
            if array.num_chunks == 1
            else pa.concat_arrays([c for c in array.chunks] or [pa.array([], array.type)])
        )
    return array


def _numbers(array: pa.Array) -> I64 | F64:
    filled = array.fill_null(0) if array.null_count else array
    return np.ascontiguousarray(filled.to_numpy(zero_copy_only=False))


def read_column(name: str, array: pa.Array | pa.ChunkedArray) -> Column:
    """Take an Arrow column in.

    Args:
        name: for the error.
        array: floats, integers, bools, timestamps of any unit, strings or dictionaries of them.

    Raises:
        DefinitionError: another type.
    """
    array = combined(array)
    t = array.type
    valid = array.is_valid().to_numpy(zero_copy_only=False) if array.null_count else None
    if pa.types.is_null(t):
        return Column("float64", np.zeros(len(array)), np.zeros(len(array), bool))
    if pa.types.is_floating(t):
        return Column("float64", _numbers(array.cast(pa.float64())), valid)
    if pa.types.is_integer(t):
        return Column("int64", _numbers(array.cast(pa.int64())), valid)
    if pa.types.is_boolean(t):
        return Column("bool", _numbers(array.cast(pa.int8())).astype(np.int64), valid)
    if pa.types.is_timestamp(t):
        return Column("timestamp", _numbers(array.cast(pa.timestamp("us", tz=t.tz)).cast(pa.int64())), valid)
    if pa.types.is_dictionary(t) and pa.types.is_string(t.value_type):
        array = array.cast(pa.string())
        t = array.type
    if pa.types.is_string(t) or pa.types.is_large_string(t):
        coded = array.cast(pa.string()).dictionary_encode()
        return Column("string", _numbers(coded.indices).astype(np.int64), valid, coded.dictionary)
    raise DefinitionError(
        f"Column {name!r} has the Arrow type {t}, which features cannot read.",
        mend="cast it to a float, an integer, a bool, a timestamp or a string in the projection",
    )


def write_column(
    kind: str, values: I64 | F64, valid: Bools | None, words: pa.Array | None = None
) -> pa.Array:
    """Give an Arrow array out; `valid` None means that nothing is null."""
    n = len(values)
    if kind == "string":
        codes = pa.array(values, pa.int64(), mask=None if valid is None else ~valid)
        return pc.take(words, codes)
    if kind == "bool":
        return pa.array(values.astype(bool), pa.bool_(), mask=None if valid is None else ~valid)
    bitmap = None
    n_null = 0
    if valid is not None:
        n_null = n - int(np.count_nonzero(valid))
        if n_null:
            bitmap = pa.py_buffer(np.packbits(valid, bitorder="little"))
    return pa.Array.from_buffers(
        ARROW_TYPES[kind], n, [bitmap, pa.py_buffer(np.ascontiguousarray(values))], null_count=n_null
    )
