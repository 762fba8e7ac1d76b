"""Applied events as rows of the lake, by columns: each column is made once, however many tables it goes to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from operator import attrgetter
from typing import Any, Final

import pyarrow as pa

from volano.collect.schemas import Misfit, SourceSchema
from volano.collect.tables import FACT_COLUMNS, RECEIPT_COLUMNS
from volano.errors import StateMismatchError
from volano.records.journal import EVENT, EventReceived, Operation
from volano.records.receipt import Applied
from volano.values.arrow import ARROW_TYPES

_RECORDED: Final = ("receipt_id", "event_id", "revision", "received_at", "payload_hash")
"""Columns that stand in the record under the same name."""


class EventRows:
    """Some applied events, in order.

    Args:
        records, fates: one each.
    """

    def __init__(self, records: Sequence[EventReceived], fates: Sequence[Applied]) -> None:
        self._records = records
        self._fates = fates

    def take(self, places: Sequence[int]) -> EventRows:
        """The events at some places."""
        if len(places) == len(self._records):
            return self
        return EventRows([self._records[at] for at in places], [self._fates[at] for at in places])

    def receipts(self) -> pa.Table:
        """Their rows in the table of receipts."""
        n = len(self._records)
        columns = {
            **self._columns,
            "kind": pa.repeat(EVENT, n),
            "source": _texts([record.source for record in self._records]),
            "status": _texts([fate.status for fate in self._fates]),
        }
        return pa.Table.from_arrays(
            [columns[field.name].cast(field.type) for field in RECEIPT_COLUMNS], schema=RECEIPT_COLUMNS
        )

    def facts(self, schema: SourceSchema) -> pa.Table:
        """Their rows in the table of their source's facts.

        Raises:
            StateMismatchError: what was accepted no longer fits the schema.
        """
        try:
            cells = schema.columns([record.payload for record in self._records])
        except Misfit as misfit:
            raise StateMismatchError(
                f"Accepted events of {schema.source.name!r} no longer fit its schema: {misfit.problem[2]}.",
                where=f"source {schema.source.name}, column {misfit.problem[1]}",
                mend="give the changed column a new name, or change its type back until everything is committed",
            ) from misfit
        fields, arrays = [], []
        for field, values in zip(schema.source.schema.fields, cells, strict=True):
            fields.append(pa.field(field.name, ARROW_TYPES[field.dtype]))
            arrays.append(pa.array(values, fields[-1].type))
        columns = {
            **self._columns,
            "operation": _texts([record.operation for record in self._records]),
            "event_time": arrays[schema.time_at],
            "known_at": self._known_at(),
            "too_late": pa.array([fate.late for fate in self._fates], pa.bool_()),
        }
        own = [at for at, field in enumerate(fields) if field.name not in FACT_COLUMNS.names]
        return pa.Table.from_arrays(
            [columns[field.name].cast(field.type) for field in FACT_COLUMNS] + [arrays[at] for at in own],
            schema=pa.schema([*FACT_COLUMNS, *(fields[at] for at in own)]),
        )

    @cached_property
    def _columns(self) -> dict[str, pa.Array]:
        columns = {
            name: pa.array(list(map(attrgetter(name), self._records)), FACT_COLUMNS.field(name).type)
            for name in _RECORDED
        }
        columns["applied_at"] = pa.array(
            [fate.applied_at for fate in self._fates], FACT_COLUMNS.field("applied_at").type
        )
        return columns

    def _known_at(self) -> pa.Array:
        applied_at = self._columns["applied_at"]
        known_at = [record.known_at for record in self._records]
        if known_at.count(None) == len(known_at):
            return applied_at
        stated = zip(known_at, self._fates, strict=True)
        return pa.array([fate.applied_at if at is None else at for at, fate in stated], applied_at.type)


def _texts(values: list[Any]) -> pa.Array:
    """A column of texts that are often all the same."""
    first = values[0]
    if values.count(first) == len(values):
        return pa.repeat(first.value if isinstance(first, Operation) else first, len(values))
    return pa.array(values, pa.string())
