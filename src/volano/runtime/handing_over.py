"""Taking a source's table over: its columns are judged, its rows kept or left where they are, the unfit ones set aside.

Rows of a table are no accepted events: they have revision -1, in facts as in quarantine, and no account counts them.
See docs/decisions/0036-rows-of-tables-that-do-not-fit.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.collect.schemas import Misfit, SourceSchema, raw_bytes
from volano.collect.tables import QUARANTINE, QUARANTINE_COLUMNS, lake_tables
from volano.organize.declared import Fitness, FittingRows, fitting_rows
from volano.organize.facts import facts_of_table, refuse_repeated_ids, unfit_ids
from volano.plan.built_in import fact_table
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.plan.state_index import TABLE_REVISION
from volano.protocols.lake import LakeWriter
from volano.protocols.sql_engine import SqlEngine
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.records.receipt import ReceiptStatus
from volano.values.identities import short_hash, uuid7

ROWS_AT_ONCE: Final = 200_000
_WRITER: Final = "handover"
_ENTROPY_BYTES: Final = 8


class TakenOver(NamedTuple):
    """The hand-over as it is to be pinned, and one sentence on the rows that did not fit."""

    handover: HandOver
    said: str


def take_over(
    project: CompiledProject,
    handover: HandOver,
    lake: LakeWriter,
    sql: SqlEngine,
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> TakenOver:
    """Judge a table, and write its rows into the lake where it is kept there: all of them in one commit, or none.

    Args:
        handover: whether the table is kept (`imported`), and the stamp of its rows.
        rows_at_once: how many are held in memory; a table of snapshots is held whole.

    Raises:
        RequestError: a column is missing, is of another type, or fits in no row; or ids occur twice. Nothing is kept.
        TableUnreadableError: the table cannot be read.
    """
    source = project.sources[handover.source]
    name, schema = fact_table(source.name), lake_tables(project)[fact_table(source.name)]
    seen = Fitness(source, handover.table)
    facts = _facts(source, handover, sql, seen, rows_at_once)
    if not handover.imported:
        for _ in facts:
            pass
    else:
        lake.create(name, schema)
        if lake.committed(name, _WRITER):
            # An apply that was cut short kept it, as it was then: the first refresh compares all of it.
            return TakenOver(msgspec.structs.replace(handover, snapshot=""), "")
        lake.append(name, (_in_schema(rows, schema) for rows in facts), writer=_WRITER, sequence=1)
    return TakenOver(msgspec.structs.replace(handover, n_unfit=seen.n_misfits), seen.say())


def quarantine_misfits(
    source: CompiledSource,
    handover: HandOver,
    lake: LakeWriter,
    sql: SqlEngine,
    *,
    rows_at_once: int = ROWS_AT_ONCE,
) -> None:
    """Set the unfit rows of a pinned table aside, once: in the quarantine, as the door would have done."""
    if not handover.n_unfit or sql.snapshot(handover.table) != handover.snapshot:
        return
    if lake.version(QUARANTINE) is None:
        lake.create(QUARANTINE, QUARANTINE_COLUMNS)
    schema = SourceSchema(source)

    def rows() -> Iterator[pa.Table]:
        for fitting in _fitting(source, handover, sql, rows_at_once):
            if fitting.n_misfits:
                yield _set_aside(schema, fitting.misfits(), handover)

    lake.append(QUARANTINE, rows(), writer=f"{_WRITER}/{source.name}", sequence=1)


def _fitting(
    source: CompiledSource, handover: HandOver, sql: SqlEngine, rows_at_once: int
) -> Iterator[FittingRows]:
    parts = (
        iter([sql.read_table(handover.table)])
        if source.change == "snapshots"  # a dump says something only beside the dump before it
        else sql.scan_table(handover.table, rows_at_once=rows_at_once)
    )
    for part in parts:
        yield fitting_rows(source, part, handover.table)


def _facts(
    source: CompiledSource, handover: HandOver, sql: SqlEngine, seen: Fitness, rows_at_once: int
) -> Iterator[pa.Table]:
    """The facts of a table, part by part; refused at the end when its columns or ids are wrong."""
    ids = _Ids(source, handover, sql)
    for fitting in _fitting(source, handover, sql, rows_at_once):
        seen.see(fitting)
        facts = facts_of_table(
            source, fitting.rows, handover, handover.table, unfit=unfit_ids(fitting, source)
        )
        ids.see(facts)
        yield facts
    seen.refuse_columns()
    if ids.may_repeat():
        repeated = (
            ids.suspects(facts_of_table(source, fitting.rows, handover, handover.table))
            for fitting in _fitting(source, handover, sql, rows_at_once)
        )
        refuse_repeated_ids(pa.concat_tables(repeated), f"source {source.name}, table {handover.table}")


class _Ids:
    """The ids of a table that is seen in parts, eight bytes each: an id that occurs in two parts is found."""

    def __init__(self, source: CompiledSource, handover: HandOver, sql: SqlEngine) -> None:
        self._sql = sql
        self._hashes: list[NDArray[np.int64]] = []
        self._doubtful = np.zeros(0, np.int64)

    def see(self, facts: pa.Table) -> None:
        self._hashes.append(self._hashed(facts))

    def may_repeat(self) -> bool:
        """Whether two ids have one hash."""
        hashes = np.sort(np.concatenate(self._hashes))
        self._doubtful = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        self._hashes.clear()
        return bool(len(self._doubtful))

    def suspects(self, facts: pa.Table) -> pa.Table:
        """The rows whose id has the hash of another; only after `may_repeat`."""
        return facts.select(["event_id"]).filter(pa.array(np.isin(self._hashed(facts), self._doubtful)))

    def _hashed(self, facts: pa.Table) -> NDArray[np.int64]:
        query = "SELECT CAST(hash(event_id) >> 1 AS BIGINT) AS hashed FROM facts"
        found = self._sql.query(query, {"facts": facts.select(["event_id"])})["hashed"]
        hashed: NDArray[np.int64] = found.to_numpy()
        return hashed


def _in_schema(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    for field in schema:
        if field.name not in rows.column_names:
            rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    return rows.select(schema.names).cast(schema)


def _set_aside(schema: SourceSchema, events: list[dict[str, Any]], handover: HandOver) -> pa.Table:
    """Rows of the quarantine."""
    rows = []
    for event in events:
        payload = raw_bytes(event)
        reason, field, message = "wrong_type", "", "the row does not fit the declared schema"
        try:
            schema.fit(event, Operation.INSERT)
        except Misfit as misfit:
            reason, field, message = misfit.problem
        # The same row of the same hand-over has the same receipt, however often it is set aside.
        entropy = short_hash(f"{handover.source}\x00{handover.stamp}\x00".encode() + payload)[:_ENTROPY_BYTES]
        rows.append(
            {
                "kind": "event",
                "receipt_id": uuid7(handover.stamp, entropy),
                "source": handover.source,
                "event_id": schema.salvage_id(event),
                "operation": Operation.INSERT.value,
                "revision": TABLE_REVISION,
                "status": ReceiptStatus.QUARANTINED.value,
                "reason": reason,
                "field": field,
                "message": message,
                "payload": payload,
                "received_at": handover.at,
                "applied_at": handover.stamp,
            }
        )
    columns = [pa.array([row.get(field.name) for row in rows], field.type) for field in QUARANTINE_COLUMNS]
    return pa.Table.from_arrays(columns, schema=QUARANTINE_COLUMNS)
