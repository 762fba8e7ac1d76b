"""Refreshing sources that are tables only: read again, compared with their facts, the differences journaled.

The facts of such a source stand in the lake from its hand-over on, so that the table may change.
See docs/decisions/0030-dimensions-and-joins.md.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.schemas import raw_bytes
from volano.collect.tables import QUARANTINE
from volano.errors import NotReadyError, RequestError, StateMismatchError
from volano.organize.comparison import ROWS_AT_ONCE, Comparison
from volano.plan.built_in import fact_table
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.records.journal import Operation, TableChange
from volano.runtime.scratch import FileScratch
from volano.runtime.session import Session
from volano.values.instants import Instant, format_instant, from_datetime


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


def refresh(
    session: Session, source: str, *, since: Instant | None = None, until: Instant | None = None
) -> str:
    """Bring the facts of a source up to its table; one sentence on what was done.

    Args:
        since, until: only rows with an event time in `[since, until)`, however old, of a table that rows are added to;
            without both as far back as `accept_late` says.

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
    is_interval = since is not None or until is not None
    if not is_interval and snapshot == (handover.snapshot if last is None else last.snapshot):
        return f"{address} is unchanged"
    newest = _newest(session, source) if last is None or last.newest is None else last.newest
    if is_interval:
        _refuse_interval(definition, since, until)
    else:
        since = _looks_back_to(definition, newest)
    looked_at = (handover.at if entry is None else entry.at) if is_modelled(project, source) else None
    with FileScratch(stores.data / "scratch") as scratch:
        compared = Comparison(
            definition,
            address,
            session.facts,
            stores.sql,
            scratch,
            since=since,
            until=until,
            is_interval=is_interval,
            rows_at_once=ROWS_AT_ONCE,
        )
        n_changes, n_problems, newest = _bring(session, definition, compared, looked_at, newest)
    session.drain(commit=True)
    if not is_interval:  # of the rest of the table nothing is known: the next refresh looks at it
        done = Refresh(snapshot, n_changes, n_problems, newest)
        stores.catalog.append(stream, [msgspec.json.encode(done)], at=session.clock.now())
    wrong = f"; {n_problems} rows do not fit and are in quarantine" if n_problems else ""
    return f"{n_changes} changes from {address}{wrong}"


def _refuse_interval(source: CompiledSource, since: Instant | None, until: Instant | None) -> None:
    if source.change:
        raise RequestError(
            f"Source {source.name!r} is {source.change}: it is compared whole, and takes no interval.",
            where=f"source {source.name}",
            mend="refresh it without --since and --until",
        )
    if since is not None and until is not None and since >= until:
        raise RequestError(
            f"The interval from {format_instant(since)} to {format_instant(until)} is empty.",
            where="since, until",
            mend="give a later end",
        )


def _bring(
    session: Session,
    source: CompiledSource,
    compared: Comparison,
    looked_at: Instant | None,
    newest: Instant | None,
) -> tuple[int, int, Instant | None]:
    """Journal what differs, part by part: how many changes and unfit rows, and the newest event time after it.

    Args:
        looked_at: when the table was read before, where its rows count as known when they were due.
    """
    n_changes = n_problems = 0
    for changes in compared.changes():
        if looked_at is not None:
            changes = [_with_known_at(source, change, looked_at) for change in changes]
        times = [change.event.get(source.event_time) for change in changes]
        found = [from_datetime(time) for time in times if isinstance(time, datetime)]
        newest = max([*found, *([] if newest is None else [newest])], default=None)
        n_problems += session.door.bring(source.name, changes) if changes else 0
        n_changes += len(changes)
    known: set[bytes] | None = None
    for fitting in compared.misfits():
        known = _set_aside(session, source.name) if known is None else known
        payloads = [(event, raw_bytes(event)) for event in fitting.misfits()]
        unseen = [
            TableChange(event, Operation.INSERT, 0) for event, payload in payloads if payload not in known
        ]
        n_problems += session.door.bring(source.name, unseen) if unseen else 0
    return n_changes, n_problems, newest


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


def _newest(session: Session, source: str) -> Instant | None:
    """The newest event time of the facts of a source."""
    lake, table = session.stores.lake, fact_table(source)
    if lake.version(table) is None:
        return None
    times = lake.dataset(table).scanner(columns=["event_time"], batch_size=ROWS_AT_ONCE).to_batches()
    newest = [pc.max(batch.column(0).cast(pa.int64())).as_py() for batch in times]
    return max((each for each in newest if each is not None), default=None)


def _set_aside(session: Session, source: str) -> set[bytes]:
    """The unfit rows of a source that lie in quarantine already."""
    lake = session.stores.lake
    if lake.version(QUARANTINE) is None:
        return set()
    only = {"source": (source, source + "\x00")}
    return set(lake.read(QUARANTINE, columns=["payload"], where=only)["payload"].to_pylist())
