"""One version of a table as its log tells it: schema, files, and what is known of their rows without opening them.

Bounds spare readers files: of ranges that are asked here, and of other readers' filters over a dataset.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, Final, NamedTuple

import deltalake
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from volano.errors import UnsupportedError
from volano.stores import delta_log

Range = tuple[object | None, object | None]

_BLUR_US: Final = 999
"""Other writers cut the bounds in the log to milliseconds, downwards."""


class View(NamedTuple):
    """What the log says about one version."""

    version: int
    schema: pa.Schema
    partition_by: tuple[str, ...]
    files: pa.Table


def view_of(handle: deltalake.DeltaTable) -> View:
    """The version that a handle is at.

    Raises:
        UnsupportedError: the table uses what Parquet files alone do not tell.
    """
    features = set(handle.protocol().reader_features or ())
    if features & {"deletionVectors", "columnMapping"}:
        raise UnsupportedError(
            f"The table {handle.table_uri} uses {', '.join(sorted(features))}.",
            mend="rewrite it without deletion vectors and column mapping",
        )
    return View(
        handle.version(),
        normal_schema(pa.schema(handle.schema().to_arrow())),
        tuple(handle.metadata().partition_columns),
        pa.table(handle.get_add_actions(flatten=True)),
    )


def _normal_type(dtype: pa.DataType) -> pa.DataType:
    """The one Arrow type a lake column has among those that mean the same."""
    if pa.types.is_timestamp(dtype):
        if dtype.tz is None:
            raise UnsupportedError(
                "A lake keeps instants, not local times.", mend="cast the column to timestamp[us, UTC]"
            )
        return delta_log.INSTANT
    if pa.types.is_dictionary(dtype):
        return _normal_type(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype):
        return pa.binary()
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        return pa.list_(_normal_type(dtype.value_type))
    return dtype


def normal_schema(schema: pa.Schema) -> pa.Schema:
    """A schema in the types that lake columns have."""
    return pa.schema([pa.field(field.name, _normal_type(field.type)) for field in schema])


def in_schema(where: Mapping[str, Range], schema: pa.Schema) -> dict[str, Range | None]:
    """The ranges that restrict something; None for one that nothing can satisfy (a column that is null throughout)."""
    return {
        name: bounds if name in schema.names else None
        for name, bounds in where.items()
        if bounds != (None, None)
    }


def condition_of(schema: pa.Schema, where: Mapping[str, Range | None]) -> ds.Expression | None:
    """The rows in the ranges; None for all."""
    condition: ds.Expression | None = None
    for name, bounds in where.items():
        low, high = bounds or (None, None)
        dtype = schema.field(name).type
        for expression in (
            ds.field(name) >= pa.scalar(low, dtype) if low is not None else None,
            ds.field(name) < pa.scalar(high, dtype) if high is not None else None,
        ):
            if expression is not None:
                condition = expression if condition is None else condition & expression
    return condition


def prune(view: View, where: Mapping[str, Range | None]) -> pa.Table:
    """The files that may hold rows in the ranges, by the bounds in the log."""
    files = view.files
    keep = None
    for name, bounds in where.items():
        low, high = bounds or (None, None)
        for bound, column, test in ((high, f"min.{name}", pc.less), (low, f"max.{name}", pc.greater_equal)):
            if bound is None or column not in files.column_names:
                continue
            limit, value = files.column(column), bound
            if pa.types.is_timestamp(limit.type):
                limit = limit.cast(delta_log.INSTANT).cast(pa.int64())
                if test is pc.greater_equal:
                    limit = pc.add(limit, _BLUR_US)
            elif not pa.types.is_integer(limit.type):
                continue  # bounds of text are cut short by other writers
            passes = pc.fill_null(test(limit, value), True)
            keep = passes if keep is None else pc.and_(keep, passes)
    return files if keep is None else files.filter(keep)


def bound_of(files: pa.Table, column: str) -> pa.ChunkedArray | None:
    """What files say of a column's bound, as whole numbers; None where one of them does not."""
    if column not in files.column_names or not files.num_rows or files[column].null_count:
        return None
    bound = files[column]
    if pa.types.is_timestamp(bound.type):
        return bound.cast(delta_log.INSTANT).cast(pa.int64())
    return bound.cast(pa.int64()) if pa.types.is_integer(bound.type) else None


def known_of(file: Mapping[str, Any], view: View, bounded: Collection[str]) -> ds.Expression | None:
    """What is known of all rows of a file: values of its partition, and bounds of columns of instants without nulls."""
    known = _values_of(file, view)
    for name in bounded:
        low, high = file.get(f"min.{name}"), file.get(f"max.{name}")
        if low is None or high is None or file.get(f"null_count.{name}") != 0:
            continue
        late = high + timedelta(microseconds=_BLUR_US)
        zone = pa.scalar(low, delta_log.INSTANT), pa.scalar(late, delta_log.INSTANT)
        bounds = (ds.field(name) >= zone[0]) & (ds.field(name) <= zone[1])
        known = bounds if known is None else known & bounds
    return known


def _values_of(file: Mapping[str, Any], view: View) -> ds.Expression | None:
    """What a file's partition says about all of its rows."""
    expression: ds.Expression | None = None
    for name in view.partition_by:
        value = file[f"partition.{name}"]
        one = (
            ds.field(name).is_null()
            if value is None
            else ds.field(name) == pa.scalar(value, view.schema.field(name).type)
        )
        expression = one if expression is None else expression & one
    return expression
