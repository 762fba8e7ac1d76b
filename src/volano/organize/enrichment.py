"""Rows of a group with the columns of its dimensions, as of each row's event: the same values that were served.

For the row of an event the dimension is seen at `min(known_at, applied_at)` of that row, whatever is asked later:
so one rule serves replay, training on history and backfill. Never reads the clock.
See docs/decisions/0030-dimensions-and-joins.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.errors import StateMismatchError
from volano.kernels.columns import combined
from volano.kernels.features import WindowFeature
from volano.kernels.history import History
from volano.kernels.windows import Queries, compute
from volano.organize.facts import Facts
from volano.plan.definitions import CompiledProject
from volano.plan.state import GroupJoin, StateGroup
from volano.plan.state_rows import StateRowMap, StateRows
from volano.protocols.functions import Functions
from volano.protocols.sql_engine import SqlEngine
from volano.records.journal import Operation
from volano.values.arrow import ARROW_TYPES
from volano.values.event_ids import row_id
from volano.values.instants import NEVER, Instant

SYSTEM: Final = ("event_time", "known_at", "applied_at")
"""The system's columns that enrichment reads of a row."""

Micros = NDArray[np.int64]


class GroupRows:
    """Maps facts of a source to rows of its groups: joins first, then projections.

    Args:
        groups: all that exist; those of dimensions are picked out.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Iterable[StateGroup],
        facts: Facts,
        sql: SqlEngine,
        functions: Functions,
    ) -> None:
        self._project = project
        self._facts = facts
        self._sql = sql
        self._functions = functions
        self._dimensions = {group.hash: group for group in groups if group.is_dimension}

    def map_of(self, group: StateGroup) -> StateRowMap:
        """The map of one group; it says which columns of the facts are needed."""

        return StateRowMap(self._project, group, self._sql.query, self._functions.get)

    def map(self, rows_of: StateRowMap, facts: pa.Table, *, stamp: Instant | None) -> StateRows:
        """Facts as rows of a group.

        Args:
            rows_of: from `map_of`.
            facts: with the needed columns, event_time, known_at and applied_at; no retractions.
            stamp: only what was applied by then exists.

        Raises:
            StateMismatchError: the group of a dimension is not among the groups.
        """
        return rows_of.map(self.joined(rows_of, facts, stamp=stamp))

    def joined(self, rows_of: StateRowMap, facts: pa.Table, *, stamp: Instant | None) -> pa.Table:
        """Facts with the columns of their dimensions, as projections see them; see `map`."""
        rows = facts.select(rows_of.needed)
        for join in rows_of.group.joins:
            for field, column in zip(join.fields, self._joined(join, facts, stamp), strict=True):
                rows = rows.append_column(field.name, column)
        return rows

    def _joined(self, join: GroupJoin, facts: pa.Table, stamp: Instant | None) -> list[pa.Array]:
        """The columns of one join, a value for each fact."""
        group = self._dimensions.get(join.group)
        if group is None:
            raise StateMismatchError(
                f"The dimension group {join.group} of a join is not among the groups given.",
                where=f"columns {', '.join(field.name for field in join.fields)}",
                mend="pass all state groups of the bundle",
            )
        stored = [(field.name, ARROW_TYPES[field.dtype]) for field in group.columns.fields]
        if not facts.num_rows:
            return [pa.array([], ARROW_TYPES[field.dtype]) for field in join.fields]
        types = [part.dtype for part in self._project.entities[group.entity].keys]
        keys = tuple(
            combined(facts[name]).cast(ARROW_TYPES[kind]) for name, kind in zip(join.on, types, strict=True)
        )
        q = _micros(facts["event_time"])
        as_of = np.minimum(_micros(facts["known_at"]), _micros(facts["applied_at"]))
        features = [WindowFeature(name, "last", name) for name, _ in stored]
        asked = Queries(keys if len(keys) > 1 else keys[0], q, as_of)
        found = compute(features, self._history(group, int(q.max()), stamp), asked)
        columns = {name: found[name].cast(kind) for name, kind in stored}
        if join.valid_to is not None:
            until = columns[join.valid_to].cast(pa.int64())
            ended = pc.fill_null(pc.less(until, pa.array(q)), False)
            columns = {
                name: pc.if_else(ended, pa.scalar(None, one.type), one) for name, one in columns.items()
            }
        return [_one_zero(columns[column]) for _, column in join.columns]

    def _history(self, group: StateGroup, until: Instant, stamp: Instant | None) -> History:
        rows_of = self.map_of(group)
        facts = self._facts.rows(
            group.source, until=until, stamp=stamp, columns=rows_of.needed, for_features=True
        )
        facts = facts.filter(pc.not_equal(facts["operation"], Operation.RETRACT.value))
        mapped = rows_of.map(facts.select(rows_of.needed))
        ids = pa.array([row_id(text) for text in facts["event_id"].to_pylist()], pa.binary(16))
        return History.build(
            mapped.keys if len(mapped.keys) > 1 else mapped.keys[0],
            _micros(facts["event_time"]),
            columns=mapped.columns,
            order=mapped.order,
            row_id=ids,
            visible_from=_micros(facts["known_at"]),
            visible_until=_micros(facts["superseded_known_at"].cast(pa.int64()).fill_null(NEVER)),
        )


def _one_zero(column: pa.Array) -> pa.Array:
    """Without negative zeros, as state keeps values."""
    return pc.add(column, 0.0) if pa.types.is_floating(column.type) else column


def _micros(column: pa.ChunkedArray | pa.Array) -> Micros:
    values: Micros = combined(column).cast(pa.int64()).to_numpy(zero_copy_only=False)
    return values
