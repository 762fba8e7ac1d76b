"""The step from a model's input columns to numbers, the same in training, batch scoring and serving.

Numbers and bools are themselves, instants their µs, a null is NaN. Text is a category: its place in an explicit, sorted
list that is stored in the artifact; a value that training never saw is missing, as a null is. A float64 holds integers
exactly up to 2**53. Holds no model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import StateMismatchError, UnsupportedError
from volano.values.schema import Scalar

NAN: Final = float("nan")


class Column(msgspec.Struct, frozen=True):
    """One input: its name, and the categories of a text column in the order of their codes; None for a number."""

    name: str
    categories: tuple[str, ...] | None = None


def learn_columns(features: pa.Table) -> tuple[Column, ...]:
    """The columns of a training table, with the categories that occur in it.

    Raises:
        UnsupportedError: a column is neither number, bool, instant nor text.
    """
    return tuple(
        Column(name, _distinct(column) if _is_text(name, column.type) else None)
        for name, column in zip(features.column_names, features.columns, strict=True)
    )


def to_matrix(columns: Sequence[Column], features: pa.Table) -> NDArray[np.float64]:
    """The numbers of many rows, shape (n_columns, n_rows): each column contiguous, as Arrow holds it.

    Raises:
        StateMismatchError: the table has another number of columns than the model was trained on.
    """
    _same_width(columns, features.num_columns)
    matrix = np.empty((len(columns), features.num_rows))
    for at, column in enumerate(columns):
        matrix[at] = _numbers(column, features.column(at))
    return matrix


class RowCodec:
    """Turns one row into numbers, for serving.

    >>> RowCodec([Column("x"), Column("c", ("a", "b"))]).numbers([None, "b"])
    [nan, 1]
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self._n_columns = len(columns)
        self._columns = tuple(columns)
        self._codes = [
            (at, {word: code for code, word in enumerate(column.categories)})
            for at, column in enumerate(columns)
            if column.categories is not None
        ]

    def numbers(self, features: Sequence[Scalar]) -> list[Any]:
        """The numbers of a row, in the order of the columns: int, bool or float.

        Raises:
            StateMismatchError: the row has another number of values than the model was trained on.
        """
        if len(features) != self._n_columns:
            _same_width(self._columns, len(features))
        row: list[Any] = [NAN if value is None else value for value in features]
        for at, codes in self._codes:
            row[at] = codes.get(row[at], NAN)
        return row


def _same_width(columns: Sequence[Column], width: int) -> None:
    if width != len(columns):
        raise StateMismatchError(
            f"The model reads {len(columns)} inputs and was given {width}.",
            mend=f"its inputs are: {', '.join(column.name for column in columns)}",
        )


def _is_text(name: str, dtype: pa.DataType) -> bool:
    if pa.types.is_dictionary(dtype):
        return _is_text(name, dtype.value_type)
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return True
    if (
        pa.types.is_floating(dtype)
        or pa.types.is_integer(dtype)
        or pa.types.is_boolean(dtype)
        or pa.types.is_timestamp(dtype)
        or pa.types.is_null(dtype)
    ):
        return False
    raise UnsupportedError(
        f"Input {name!r} is of type {dtype}, which this trainer cannot learn from.",
        mend="turn it into numbers, bools or text with an on-demand feature",
    )


def _distinct(column: pa.ChunkedArray) -> tuple[str, ...]:
    words = pc.unique(column.cast(pa.string())).drop_null()
    return tuple(sorted(words.to_pylist()))


def _numbers(column: Column, values: pa.ChunkedArray) -> NDArray[np.float64]:
    if column.categories is not None:
        known = pa.array(column.categories, pa.string())
        values = pc.index_in(values.cast(pa.string()), value_set=known, skip_nulls=True)
    elif pa.types.is_timestamp(values.type):
        values = values.cast(pa.timestamp("us", values.type.tz)).cast(pa.int64())
    elif pa.types.is_boolean(values.type):
        values = values.cast(pa.int8())
    numbers: NDArray[np.float64] = (
        values.cast(pa.float64(), safe=False).fill_null(NAN).to_numpy(zero_copy_only=False)
    )
    return numbers
