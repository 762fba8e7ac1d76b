"""Refreshing sources that are tables only: read again, compared with their facts, the differences journaled.

The facts of such a source stand in the lake from its hand-over on, so that the table may change.
See docs/decisions/0030-dimensions-and-joins.md.
"""

from __future__ import annotations

import msgspec
import pyarrow as pa

from volano.collect.tables import fact_table, lake_tables
from volano.errors import StateMismatchError
from volano.organize.facts import facts_of_table
from volano.organize.refresh import changes_to
from volano.plan.definitions import CompiledProject
from volano.protocols.lake import LakeWriter
from volano.protocols.sql_engine import SqlEngine
from volano.records.handover import HandOver
from volano.runtime.session import Session

_WRITER = "handover"


class Refresh(msgspec.Struct, frozen=True):
    """One refresh, in the ledger (stream `refresh/<source>`)."""

    snapshot: str
    n_changes: int
    n_problems: int


def refresh_every_us(project: CompiledProject, source: str) -> int | None:
    """How often a source is refreshed: twice within its staleness; None when it needs no refresh."""
    definition = project.sources[source]
    staleness_us = project.staleness_us(source)
    if definition.stream or definition.table is None or staleness_us is None:
        return None
    return max(staleness_us // 2, 1)


def import_table(project: CompiledProject, handover: HandOver, lake: LakeWriter, sql: SqlEngine) -> bool:
    """Write the rows of a source's table into the lake; False when they stand there already."""
    source = project.sources[handover.source]
    name = fact_table(source.name)
    schema = lake_tables(project)[name]
    lake.create(name, schema)
    if lake.committed(name, _WRITER):
        return False
    rows = facts_of_table(source, sql.read_table(handover.table), handover, handover.table)
    missing = [field for field in schema if field.name not in rows.column_names]
    for field in missing:
        rows = rows.append_column(field, pa.nulls(rows.num_rows, field.type))
    lake.append(name, rows.select(schema.names).cast(schema), writer=_WRITER, sequence=1)
    return True


def refresh(session: Session, source: str) -> str:
    """Bring the facts of a source up to its table; one sentence on what was done.

    Raises:
        StateMismatchError: its table was handed over before tables were kept in the lake.
        RequestError: the table does not fit the schema, or goes back in time.
        StoreError: it cannot be read.
    """
    stores = session.stores
    definition = session.applied.project.sources[source]
    handover = session.applied.handovers[source]
    assert definition.table is not None
    if not handover.imported:
        raise StateMismatchError(
            f"The table of source {source!r} is not kept in the lake, so it cannot be refreshed.",
            where=f"source {source}",
            mend="declare the source under a new name and apply",
        )
    session.drain(commit=True)
    stream = f"refresh/{source}"
    entry = stores.catalog.last_entry(stream)
    last = handover.snapshot if entry is None else msgspec.json.decode(entry.body, type=Refresh).snapshot
    snapshot = stores.sql.snapshot(definition.table)
    if snapshot == last:
        return f"{definition.table} is unchanged"
    table = stores.sql.read_table(definition.table)
    changes = changes_to(definition, table, session.facts.rows(source), definition.table)
    n_problems = session.door.bring(source, changes) if changes else 0
    session.drain(commit=True)
    done = Refresh(snapshot, len(changes), n_problems)
    stores.catalog.append(stream, [msgspec.json.encode(done)], at=session.clock.now())
    wrong = f", {n_problems} of them in quarantine" if n_problems else ""
    return f"{len(changes)} changes from {definition.table}{wrong}"
