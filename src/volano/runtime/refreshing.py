"""Refreshing sources that are tables only: read again, compared with their facts, the differences journaled.

The facts of such a source stand in the lake from its hand-over on, so that the table may change.
See docs/decisions/0030-dimensions-and-joins.md.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.schemas import raw_bytes
from volano.collect.tables import QUARANTINE
from volano.errors import NotReadyError, RequestError, StateMismatchError
from volano.organize.declared import Fitness, FittingRows, fitting_rows
from volano.organize.facts import unfit_ids
from volano.organize.refresh import changes_to
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.protocols.sql_engine import SqlEngine
from volano.records.journal import Operation, TableChange
from volano.runtime.session import Session
from volano.values.instants import Instant, from_datetime


class Refresh(msgspec.Struct, frozen=True):
    """One refresh, in the ledger (stream `refresh/<source>`).

    Args:
        snapshot: token of the table's content.
        newest: the newest event time that stood after it.
    """

    snapshot: str
    n_changes: int
    n_problems: int
    newest: Instant | None = None


def refresh_every_us(project: CompiledProject, source: str) -> int | None:
    """How often a source is refreshed: twice within its staleness; None when it needs no refresh."""
    definition = project.sources[source]
    staleness_us = project.staleness_us(source)
    if definition.stream or definition.table is None or staleness_us is None:
        return None
    return max(staleness_us // 2, 1)


def refreshable(project: CompiledProject, source: str) -> CompiledSource:
    """A source that is a table only.

    Raises:
        UnknownNameError: there is none of that name.
        RequestError: its events are pushed.
    """
    definition = project.source(source)
    if definition.table is None or definition.stream:
        raise RequestError(
            f"Source {source!r} is not refreshed: what comes after its hand-over is pushed.",
            where=f"source {source}",
            mend="push what is new; a source that is a table only can be refreshed",
        )
    return definition


def refresh(session: Session, source: str) -> str:
    """Bring the facts of a source up to its table; one sentence on what was done.

    Raises:
        UnknownNameError, RequestError: see `refreshable`; or the table does not fit the schema, or goes back in time.
        StateMismatchError: its table was handed over before tables were kept in the lake.
        StoreError: it cannot be read.
    """
    stores, project = session.stores, session.applied.project
    definition = refreshable(project, source)
    address = definition.table
    assert address is not None
    handover = session.applied.handovers.get(source)
    if handover is None:
        raise NotReadyError(
            f"The table of source {source!r} could not be used when it was applied.",
            where=f"source {source}, table {address}",
            mend="run `volano apply`: it says why, and goes on once the table is mended",
        )
    if not handover.imported:
        raise StateMismatchError(
            f"The table of source {source!r} is not kept in the lake, so it cannot be refreshed.",
            where=f"source {source}",
            mend="declare the source under a new name and apply",
        )
    session.drain(commit=True)
    stream = f"refresh/{source}"
    entry = stores.catalog.last_entry(stream)
    last = None if entry is None else msgspec.json.decode(entry.body, type=Refresh)
    snapshot = stores.sql.snapshot(address)
    if snapshot == (handover.snapshot if last is None else last.snapshot):
        return f"{address} is unchanged"
    newest = _newest(session, source) if last is None or last.newest is None else last.newest
    since = _looks_back_to(definition, newest)
    fitting = fitting_rows(definition, _rows_since(stores.sql, definition, address, since), address)
    _refuse_columns(stores.sql, definition, address, fitting)
    present = session.facts.rows(source, since=None if definition.change else since)
    rows = _not_before(definition, fitting.rows, since)
    changes = changes_to(definition, rows, present, address, unfit=unfit_ids(fitting, definition))
    if is_modelled(project, source):
        looked_at = handover.at if entry is None else entry.at
        changes = [_with_known_at(definition, change, looked_at) for change in changes]
    misfits = _unseen(session, source, fitting)
    n_problems = session.door.bring(source, [*changes, *misfits]) if changes or misfits else 0
    session.drain(commit=True)
    done = Refresh(snapshot, len(changes), n_problems, _newest(session, source))
    stores.catalog.append(stream, [msgspec.json.encode(done)], at=session.clock.now())
    wrong = f"; {n_problems} rows do not fit and are in quarantine" if n_problems else ""
    return f"{len(changes)} changes from {address}{wrong}"


def is_modelled(project: CompiledProject, source: str) -> bool:
    """Whether a refreshed row counts as known when it was due, not when the refresh came.

    So it is where no decision reads the source online: then the refresh is our bookkeeping, and training on history
    models `available_after`. Where one does, production could use the row from its refresh on, and not before. A join
    looks at what was there, so a source on either side of one is never modelled.
    """
    if project.staleness_us(source) is not None or any(view.joins for view in project.views_of(source)):
        return False
    return not any(join.source == source for view in project.views.values() for join in view.joins)


def _with_known_at(source: CompiledSource, change: TableChange, looked_at: Instant) -> TableChange:
    """A new row is known when it was due; one that was due and not there when the table was looked at came late."""
    if change.revision or change.operation not in (Operation.INSERT, Operation.END):
        return change
    declared = None if source.known_at is None else change.event.get(source.known_at)
    if isinstance(declared, datetime):
        due = from_datetime(declared)
    else:
        due = from_datetime(change.event[source.event_time]) + (source.available_after_us or 0)
    return change._replace(known_at=due) if due > looked_at else change


def _looks_back_to(source: CompiledSource, newest: Instant | None) -> Instant | None:
    """The event time before which a refresh does not look again; None: it compares everything."""
    if newest is None or source.change == "slowly_changing":
        return None
    if source.change == "snapshots":
        return newest
    return None if source.accept_late_us is None else newest - source.accept_late_us


def _rows_since(sql: SqlEngine, source: CompiledSource, address: str, since: Instant | None) -> pa.Table:
    """The table, as far back as a refresh looks; all of it where nothing is as new."""
    if since is None:
        return sql.read_table(address)
    rows = sql.read_table(address, between=(source.event_time, since, None))
    return rows if rows.num_rows else sql.read_table(address)


def _refuse_columns(sql: SqlEngine, source: CompiledSource, address: str, fitting: FittingRows) -> None:
    """Refuse a table in which a column fits in no row; of a few new rows none may fit, and the declaration be right."""
    if fitting.n_rows in fitting.n_wrong.values():
        seen = Fitness(source, address)
        for part in sql.scan_table(address):
            seen.see(fitting_rows(source, part, address))
        seen.refuse_columns()


def _not_before(source: CompiledSource, rows: pa.Table, since: Instant | None) -> pa.Table:
    """The rows since an instant; all where nothing is as new: the table went back in time, which is refused."""
    if since is None:
        return rows
    recent = rows.filter(pc.greater_equal(rows[source.event_time].cast(pa.int64()), since))
    return recent if recent.num_rows else rows


def _newest(session: Session, source: str) -> Instant | None:
    times = session.facts.rows(source, columns=())["event_time"].drop_null()
    return int(np.max(times.cast(pa.int64()).to_numpy())) if len(times) else None


def _unseen(session: Session, source: str, fitting: FittingRows) -> list[TableChange]:
    """The rows that do not fit, without those that lie in quarantine already."""
    if not fitting.n_misfits:
        return []
    lake, seen = session.stores.lake, set[bytes]()
    if lake.version(QUARANTINE) is not None:
        only = {"source": (source, source + "\x00")}
        seen.update(lake.read(QUARANTINE, columns=["payload"], where=only)["payload"].to_pylist())
    return [
        TableChange(event, Operation.INSERT, 0) for event in fitting.misfits() if raw_bytes(event) not in seen
    ]
