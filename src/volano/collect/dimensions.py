"""Events get columns of dimensions while they are applied: as of their time and their stamp, in the order of stamps.

Rows of a dimension that a batch brings count for the events behind them in the same batch, and for no event before.
`organize.enrichment` gives the same values from the lake. See docs/decisions/0030-dimensions-and-joins.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from volano.kernels.dimension import DimensionRows
from volano.plan.state import GroupJoin, key_tail
from volano.protocols.online_store import OnlineSnapshot
from volano.values.instants import Instant
from volano.values.keys import canonical_keys
from volano.values.schema import Scalar

if TYPE_CHECKING:
    from volano.collect.state import Arrival, Cells, GroupState

_TAILS: Final = (key_tail(-1), key_tail(0))
"""A dimension has one chunk a key before 1970, and one since."""


class _Step(NamedTuple):
    """A row of a dimension's source that comes, or goes.

    Args:
        arrival: the row; of one that goes, when it came in the same batch.
        places: of a row that goes and came earlier: heads of its online keys.
    """

    is_coming: bool
    arrival: Arrival | None
    places: Sequence[bytes]
    row_id: bytes
    at: Instant


class DimensionSteps:
    """What one batch changes in the sources of dimensions, in the order of its stamps.

    Args:
        sources: those that some join reads; changes of others are not kept.
    """

    def __init__(self, sources: Iterable[str] = ()) -> None:
        self._steps: dict[str, list[_Step]] = {source: [] for source in sources}
        self._by_head: dict[bytes, dict[bytes, list[_Step]]] = {}

    def come(self, source: str, arrival: Arrival) -> None:
        """A row becomes visible at its stamp."""
        steps = self._steps.get(source)
        if steps is not None:
            steps.append(_Step(True, arrival, (), arrival.row_id, arrival.applied_at))

    def go(
        self, source: str, coming: Arrival | None, places: Sequence[bytes], row_id: bytes, at: Instant
    ) -> None:
        """A row is superseded or retracted at a stamp; `coming` is the row when it came in the same batch."""
        steps = self._steps.get(source)
        if steps is not None:
            steps.append(_Step(False, coming, tuple(places), row_id, at))

    def of(self, group: GroupState) -> Mapping[bytes, Sequence[_Step]]:
        """The steps of a dimension's group, by the head of the online key."""
        found = self._by_head.get(group.prefix)
        if found is None:
            found = self._by_head[group.prefix] = defaultdict(list)
            for step in self._steps[group.group.source]:
                heads = [head for head in step.places if head.startswith(group.prefix)]
                if step.arrival is not None:
                    heads += [head for head in [group.head_of(step.arrival)] if head is not None]
                for head in heads:
                    found[head].append(step)
        return found


class Enrichment:
    """The joins of one group.

    Args:
        names: the columns of the group's source.
        dimensions: the groups that they read, by hash.
    """

    def __init__(
        self, names: Sequence[str], joins: Iterable[GroupJoin], dimensions: Mapping[str, GroupState]
    ) -> None:
        self._joins = [_Join(names, join, dimensions[join.group]) for join in joins]

    def enrich(
        self,
        arrivals: Sequence[Arrival],
        columns: Sequence[Cells],
        steps: DimensionSteps,
        snapshot: OnlineSnapshot,
    ) -> list[Cells]:
        """The columns of some arrivals, with those of all joins behind them.

        Args:
            steps: of the batch that the arrivals belong to.
            snapshot: online state before the batch.
        """
        found = list(columns)
        for join in self._joins:
            found += join.values(arrivals, columns, steps, snapshot)
        return found


class _Join:
    """One join of one group."""

    def __init__(self, names: Sequence[str], join: GroupJoin, dimension: GroupState) -> None:
        stored = dimension.group.columns.names
        self._on = tuple(names.index(name) for name in join.on)
        self._take = tuple(stored.index(column) for _, column in join.columns)
        self._valid_to = None if join.valid_to is None else stored.index(join.valid_to)
        self._dimension = dimension
        self._nothing: tuple[Scalar, ...] = (None,) * len(self._take)

    def values(
        self,
        arrivals: Sequence[Arrival],
        columns: Sequence[Cells],
        steps: DimensionSteps,
        snapshot: OnlineSnapshot,
    ) -> list[Cells]:
        heads = canonical_keys([columns[at] for at in self._on], encode=self._dimension.head)
        rows = self._rows({head for head in heads if head is not None}, steps, snapshot)
        found = [
            self._nothing if head is None else self._value(rows[head], arrival)
            for head, arrival in zip(heads, arrivals, strict=True)
        ]
        return list(zip(*found, strict=True))

    def _value(self, rows: DimensionRows, arrival: Arrival) -> tuple[Scalar, ...]:
        found = rows.newest(arrival.event_time, arrival.applied_at)
        if found is None:
            return self._nothing
        if self._valid_to is not None:
            until = found[self._valid_to]
            if until is not None and until < arrival.event_time:  # type: ignore[operator]
                return self._nothing
        return tuple([found[at] for at in self._take])

    def _rows(
        self, heads: Iterable[bytes], steps: DimensionSteps, snapshot: OnlineSnapshot
    ) -> dict[bytes, DimensionRows]:
        """The rows of each key: one multi-get, then what the batch changes."""
        group = self._dimension
        changes = steps.of(group)
        wanted = list(heads)
        chunks = snapshot.get_many([head + tail for head in wanted for tail in _TAILS])
        found: dict[bytes, DimensionRows] = {}
        for n, head in enumerate(wanted):
            own = (chunk for chunk in chunks[2 * n : 2 * n + 2] if chunk)
            rows = found[head] = DimensionRows(group.layout, *own)
            for step in changes.get(head, ()):
                number = int.from_bytes(step.row_id, "big")
                if not step.is_coming:
                    rows.go(number, step.at)
                elif step.arrival is not None:
                    order, values = group.order_of(step.arrival), group.values_of(step.arrival)
                    rows.come(step.arrival.event_time, order, number, step.at, values)
        return found
