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
from volano.plan.statelessness import find_difference
from volano.values.arrow import ARROW_TYPES
from volano.values.keys import MOST_KEY_BYTES
from volano.values.schema import DType, Field

_TO_COMPARE: Final = 2
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
        keys: one array a key part; a row with a null part touches no state. One that is too long is null.
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

        A view loses the rows that its projection cannot take, and those for which it computes another key than the
        views before it, plain ones first: they are null in its own columns. No other view notices, whatever rows come
        beside them.
        """
        columns = {
            name: rows[name].combine_chunks() for name in self.group.columns.names if name in self._names
        }
        failures: list[RowFailure] = []
        keys: tuple[pa.Array, ...] = ()
        keyed = np.zeros(rows.num_rows, bool)
        views = sorted(self.group.views, key=lambda view: view.projection is not None)
        for view in views:
            found, computed, takes = self._of_view(view, rows, failures)
            if not keys:
                keys, keyed = found, takes
            elif keys != found or not takes.all() or not keyed.all():
                differs = keyed & takes & ~_same(keys, found)
                failures.extend(
                    _other_key(view, views[0].name, row) for row in np.flatnonzero(differs).tolist()
                )
                computed = {name: _null_where(differs, column) for name, column in computed.items()}
                new = pa.array(takes & ~keyed)
                keys = tuple(pc.if_else(new, theirs, ours) for theirs, ours in zip(found, keys, strict=True))
                keyed = keyed | takes
            columns |= computed
        if not keyed.all():
            # A row that no view takes keeps the key that its source gives.
            keys = tuple(
                pc.if_else(pa.array(keyed), key, rows[name].combine_chunks())
                if name in rows.column_names
                else key
                for name, key in zip(self.group.key_columns, keys, strict=True)
            )
        order = tuple(_order_values(rows[field.name].combine_chunks(), field) for field in self.order_by)
        return StateRows(_without_long(keys), order, columns, failures)

    def _of_view(
        self, view: CompiledView, rows: pa.Table, failures: list[RowFailure]
    ) -> tuple[tuple[pa.Array, ...], dict[str, pa.Array], NDArray[np.bool_]]:
        """The keys as the view sees them, its projected columns by stored name, and the rows that it takes."""
        projection = view.projection
        takes = np.ones(rows.num_rows, bool)
        if projection is None:
            return tuple(rows[name].combine_chunks() for name in view.key_columns), {}, takes
        wanted = self._wanted(view, projection)
        computed, failed = project(rows, self._computation(projection, view.name), wanted, view=view.name)
        failures.extend(RowFailure(view.name, row, error) for row, error in failed)
        takes[[row for row, _ in failed]] = False
        columns = {
            stored_column(view, field.name): computed[field.name].combine_chunks()
            for field in projection.columns.fields
        }
        return tuple(computed[name].combine_chunks() for name in view.key_columns), columns, takes

    def _wanted(self, view: CompiledView, projection: Projection) -> dict[str, pa.DataType]:
        """What a projection gives: its columns, and those of the key."""
        wanted = {field.name: ARROW_TYPES[field.dtype] for field in projection.columns.fields}
        return wanted | dict(zip(view.key_columns, self._key_types, strict=True))

    def refuse_stateful(self, rows: pa.Table) -> frozenset[str]:
        """Refuse a projection that computes a row from the rows beside it, as far as a sample shows.

        Args:
            rows: a sample, with the columns that `map` takes.

        Returns:
            The views of which nothing is shown: their projections fail on every row of the sample, or on all but one.

        Raises:
            AuthorCodeError: names function, view, column and the row.
        """
        unchecked: set[str] = set()
        for view in self._projected:
            projection = view.projection
            assert projection is not None
            compute, wanted = self._computation(projection, view.name), self._wanted(view, projection)
            found = find_difference(rows, compute, wanted, view=view.name)
            if found is not None:
                code = projection.code
                named = "The SQL" if code is None else f"Function {code.module}.{code.qualname}"
                sample = rows.slice(max(found.row - 1, 0), 2).to_pylist()
                raise AuthorCodeError(
                    f"{named} computes column {found.column!r} of view {view.name!r} from more than the row itself: "
                    f"{found.beside!r} among {rows.num_rows} rows, {found.alone!r} for the row alone.",
                    where=f"view {view.name}, column {found.column}",
                    mend="compute every row by itself; sums, means and earlier rows are features over a window; "
                    f"rows that show it: {sample}",
                )
            if rows.num_rows - len(project(rows, compute, wanted, view=view.name).failed) < _TO_COMPARE:
                unchecked.add(view.name)
        return frozenset(unchecked)

    def _computation(self, projection: Projection, view: str) -> Callable[[pa.Table], pa.Table]:
        if projection.sql is not None:
            sql = projection.sql
            return lambda rows: self._run_sql(sql, {"source": rows})
        assert projection.code is not None
        try:
            function = self._find_function(projection.code)
        except AuthorCodeError as error:
            return _raising(error)
        return lambda rows: from_frame(function(to_frame(rows, projection.frame)), view=view)


def _without_long(keys: tuple[pa.Array, ...]) -> tuple[pa.Array, ...]:
    """Keys, null where online state holds none: their canonical bytes (`values.keys`) are too many."""
    n_bytes = np.zeros(len(keys[0]), np.int64)
    for key in keys:
        kind = key.type.value_type if pa.types.is_dictionary(key.type) else key.type
        if pa.types.is_string(kind) or pa.types.is_large_string(kind):
            lengths = pc.binary_length(key.cast(kind)).cast(pa.int64()).fill_null(0)
            n_bytes += 5 + lengths.to_numpy(zero_copy_only=False)
        else:
            n_bytes += 9
    long = n_bytes > MOST_KEY_BYTES
    if not long.any():
        return keys
    return tuple(pc.if_else(pa.array(~long), key, pa.scalar(None, key.type)) for key in keys)


def _raising(error: AuthorCodeError) -> Callable[[pa.Table], pa.Table]:
    """A projection whose module cannot be imported fails on every row."""

    def compute(rows: pa.Table) -> pa.Table:
        raise error.with_traceback(None)

    return compute


def _same(left: tuple[pa.Array, ...], right: tuple[pa.Array, ...]) -> NDArray[np.bool_]:
    """Where two keys are the same; null is the same as null."""
    same = np.ones(len(left[0]), bool)
    for mine, theirs in zip(left, right, strict=True):
        equal = pc.fill_null(pc.equal(mine, theirs), False)
        both_null = pc.and_(mine.is_null(), theirs.is_null())
        same &= pc.or_(equal, both_null).to_numpy(zero_copy_only=False)
    return same


def _null_where(lost: NDArray[np.bool_], column: pa.Array) -> pa.Array:
    return pc.if_else(pa.array(lost), pa.scalar(None, column.type), column)


def _other_key(view: CompiledView, first: str, row: int) -> RowFailure:
    error = AuthorCodeError(
        f"View {view.name!r} computes another key in {', '.join(view.key_columns)} than the views before it, "
        f"from {first!r} on.",
        where=f"view {view.name}",
        mend="give the computed key column of one of them another name",
    )
    return RowFailure(view.name, row, error)


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
