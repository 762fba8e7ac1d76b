"""From rows of a source to rows of its state groups: key, order and columns. The same rule online and offline.

Runs projections through what it is given; reads and writes nothing itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import AuthorCodeError, UnsupportedError
from volano.plan.definitions import CodeRef, CompiledProject, CompiledSource, CompiledView, Projection
from volano.plan.projection import from_frame, project, to_frame
from volano.plan.state import StateGroup, stored_column
from volano.values.arrow import ARROW_TYPES
from volano.values.schema import DType, Field

_FIRST: Final = -(2**63)
"""Where a null sorts among the values of an `order_by` column."""


class RowFailure(NamedTuple):
    """A row that the projection of a view could not take: its place among the rows, and why."""

    view: str
    row: int
    error: AuthorCodeError


class StateRows(NamedTuple):
    """Rows as a state group keeps them; every array has one entry a source row.

    Args:
        keys: one array a key part; a row with a null part touches no state.
        order: one int64 array an `order_by` column, ordering rows of one instant.
        columns: by stored name; null where a view's projection failed.
    """

    keys: tuple[pa.Array, ...]
    order: tuple[pa.Array, ...]
    columns: dict[str, pa.Array]
    failures: list[RowFailure]


class StateRowMap:
    """Maps rows of a group's source to the group's rows.

    Args:
        run_sql: a SELECT over named relations.
        find_function: an author's function, wrapped so that what it raises is AuthorCodeError.

    Raises:
        UnsupportedError: a column of `order_by` has a type without a cheap order.
    """

    def __init__(
        self,
        project: CompiledProject,
        group: StateGroup,
        run_sql: Callable[[str, Mapping[str, pa.Table]], pa.Table],
        find_function: Callable[[CodeRef], Callable[..., Any]],
    ) -> None:
        self.group = group
        self.source: CompiledSource = project.sources[group.source]
        self.fields = (*self.source.schema.fields, *(field for join in group.joins for field in join.fields))
        """The columns of the source, and those that its joins add."""
        self._names = frozenset(field.name for field in self.fields)
        self.order_by = tuple(_ordering_field(self.source, name) for name in self.source.order_by)
        entity = project.entities[group.entity]
        self._key_types = tuple(ARROW_TYPES[part.dtype] for part in entity.keys)
        self._run_sql = run_sql
        self._find_function = find_function
        self._projected = tuple(view for view in group.views if view.projection is not None)

    @property
    def is_projected(self) -> bool:
        """Whether author code runs at all."""
        return bool(self._projected)

    @property
    def needed(self) -> tuple[str, ...]:
        """The columns of the source that it reads, in schema order: all of them when a projection may read any."""
        if self._projected:
            return self.source.schema.names
        joined_on = (name for join in self.group.joins for name in join.on)
        used = {*self.group.key_columns, *self.source.order_by, *self.group.columns.names, *joined_on}
        return tuple(name for name in self.source.schema.names if name in used)

    def map(self, rows: pa.Table) -> StateRows:
        """Rows of the source, its columns and those of its joins under their own names, as rows of the group.

        Raises:
            AuthorCodeError: a projection returned the wrong shape, fails on too many rows, or two views of the group
                compute different keys under one name.
        """
        columns = {
            name: rows[name].combine_chunks() for name in self.group.columns.names if name in self._names
        }
        keys: tuple[pa.Array, ...] | None = None
        keyed_by = ""
        failures: list[RowFailure] = []
        for view in self.group.views:
            found = self._of_view(view, rows, columns, failures)
            if keys is not None and keys != found:
                raise AuthorCodeError(
                    f"Views {keyed_by!r} and {view.name!r} compute different keys in {', '.join(view.key_columns)}.",
                    where=f"view {view.name}",
                    mend="give the computed key column of one of them another name",
                )
            keys, keyed_by = found, view.name
        assert keys is not None
        order = tuple(_order_values(rows[field.name].combine_chunks(), field) for field in self.order_by)
        return StateRows(keys, order, columns, failures)

    def _of_view(
        self, view: CompiledView, rows: pa.Table, columns: dict[str, pa.Array], failures: list[RowFailure]
    ) -> tuple[pa.Array, ...]:
        """Add the view's projected columns; return the keys as the view sees them."""
        projection = view.projection
        if projection is None:
            return tuple(rows[name].combine_chunks() for name in view.key_columns)
        wanted = {field.name: ARROW_TYPES[field.dtype] for field in projection.columns.fields}
        wanted |= dict(zip(view.key_columns, self._key_types, strict=True))
        computed, failed = project(rows, self._computation(projection, view.name), wanted, view=view.name)
        failures.extend(RowFailure(view.name, row, error) for row, error in failed)
        for field in projection.columns.fields:
            columns[stored_column(view, field.name)] = computed[field.name].combine_chunks()
        keys = tuple(computed[name].combine_chunks() for name in view.key_columns)
        if not failed:
            return keys
        # A row that failed keeps the key that its source gives, so that the other views of the group see it.
        is_failed = np.zeros(rows.num_rows, bool)
        is_failed[[row for row, _ in failed]] = True
        return tuple(
            pc.if_else(pa.array(is_failed), rows[name].combine_chunks(), key)
            if name in rows.column_names
            else key
            for name, key in zip(view.key_columns, keys, strict=True)
        )

    def _computation(self, projection: Projection, view: str) -> Callable[[pa.Table], pa.Table]:
        if projection.sql is not None:
            sql = projection.sql
            return lambda rows: self._run_sql(sql, {"source": rows})
        assert projection.code is not None
        function = self._find_function(projection.code)
        return lambda rows: from_frame(function(to_frame(rows, projection.frame)), view=view)


def _ordering_field(source: CompiledSource, name: str) -> Field:
    field = source.schema.find(name)
    assert field is not None
    if field.dtype not in (DType.INT64, DType.TIMESTAMP, DType.BOOL, DType.FLOAT64):
        raise UnsupportedError(
            f"Source {source.name!r} is ordered by {name!r}, which is {field.dtype}.",
            where=f"source {source.name}",
            mend="order by a number, a bool or a timestamp; equal ones are ordered by id",
        )
    return field


def _order_values(column: pa.Array, field: Field) -> pa.Array:
    """Values as integers of the same order; null first."""
    if field.dtype is DType.FLOAT64:
        bits: NDArray[np.int64] = column.fill_null(0.0).to_numpy(zero_copy_only=False).view(np.int64)
        ordered = bits ^ ((bits >> 63) & np.int64(2**63 - 1))
        missing = column.is_null().to_numpy(zero_copy_only=False)
        return pa.array(np.where(missing, _FIRST, ordered), pa.int64())
    if field.dtype is DType.BOOL:
        column = column.cast(pa.int8())
    return column.cast(pa.int64()).fill_null(_FIRST)


def order_value(value: Any, dtype: DType) -> int:
    """One value as an integer of the same order; the same as `StateRows.order` holds.

    >>> order_value(None, DType.INT64) < order_value(-1.5, DType.FLOAT64) < order_value(2.0, DType.FLOAT64)
    True
    """
    if value is None:
        return _FIRST
    if dtype is DType.FLOAT64:
        bits = int(np.float64(value).view(np.int64))
        return bits ^ (2**63 - 1) if bits < 0 else bits
    return int(value)
