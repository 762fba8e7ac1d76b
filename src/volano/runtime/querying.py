"""Asking the lake in SQL: pins one consistent snapshot of its tables, brings what the query reads, asks the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from volano.collect.receipts import committed_until
from volano.collect.tables import lake_tables
from volano.errors import StoreError, UnknownNameError
from volano.organize.fact_views import tabled_sql
from volano.organize.facts import facts_of_table
from volano.organize.lake_views import lake_views, needed_views
from volano.organize.view_sql import IN_PLACE, MAIN, STORED, TABLED, LakeContents, LakeView, ref
from volano.runtime.session import Session
from volano.values.instants import Instant


class LakeSnapshot(NamedTuple):
    """The lake at one instant.

    Args:
        versions: of every table.
        until: only rows applied by then belong to it; None: all of these versions.
    """

    versions: Mapping[str, int]
    until: Instant | None


def pin(session: Session, *, whole: bool) -> LakeSnapshot:
    """Versions of all tables that belong together.

    A commit of another process goes table by table, receipts last. So first what is derived from decisions and facts
    (labels) is pinned, then the stamp up to which every table is whole, then the tables themselves: whatever a pinned
    row speaks of is there.

    Args:
        whole: this process has committed everything, and nobody else commits.
    """
    lake = session.stores.lake
    collected = lake_tables(session.applied.project)
    names = sorted(
        lake.tables(), key=lambda name: (name in collected or name.startswith(("fact_", "decision_")), name)
    )
    versions: dict[str, int] = {}
    until: Instant | None = None
    for name in names:
        if until is None and not whole and name in collected:
            until = committed_until(session.stores.apply_log_reader, lake)
        version = lake.version(name)
        if version is not None:
            versions[name] = version
    return LakeSnapshot(versions, until)


def views_of(session: Session, snapshot: LakeSnapshot) -> list[LakeView]:
    """Every view of a snapshot."""
    lake = session.stores.lake
    columns = {
        name: lake.dataset(name, version=version).schema.names for name, version in snapshot.versions.items()
    }
    contents = LakeContents(columns, session.applied.handovers, session.clock.now(), snapshot.until)
    return lake_views(session.applied.project, contents)


def ask(session: Session, sql: str, *, whole: bool, limit: int | None) -> pa.Table:
    """The result of one SELECT over the lake's views.

    Raises:
        UnknownNameError: a table is not known; says which are.
        AuthorCodeError: the engine refuses the SQL; says where.
        StoreError: an author's table cannot be read.
    """
    snapshot = pin(session, whole=whole)
    return ask_snapshot(session, snapshot, views_of(session, snapshot), sql, limit=limit)


def ask_snapshot(
    session: Session, snapshot: LakeSnapshot, views: Sequence[LakeView], sql: str, *, limit: int | None = None
) -> pa.Table:
    """The result of one SELECT over the views of a snapshot; see `ask`."""
    found = _bring(session, snapshot, needed_views(views, sql))
    listed = [(view.schema, view.name, view.sql) for view in found.views]
    aliases = [
        (MAIN, view.bare, f"SELECT * FROM {ref(*view.qualified)}")
        for view in found.views
        if view.bare and view.schema != MAIN
    ]
    known = sorted(view.shown for view in views)
    try:
        return session.stores.sql.ask(
            sql, found.relations, [*found.rows, *listed, *aliases], known=known, limit=limit
        )
    except UnknownNameError as error:
        for name, why in found.unreadable.items():
            if f"{name!r}" in error.what:
                raise why from error
        raise


class _Brought(NamedTuple):
    """What a query reads.

    Args:
        relations: tables and datasets, by name.
        rows: views over them that are no views of people: schema, name and SQL.
        views: those that can be made.
        unreadable: why the others cannot, by their names: the words of a query may mean more than it reads.
    """

    relations: dict[str, Any]
    rows: list[tuple[str, str, str]]
    views: list[LakeView]
    unreadable: dict[str, StoreError]


def _bring(session: Session, snapshot: LakeSnapshot, needed: Sequence[LakeView]) -> _Brought:
    found = _Brought({}, [], [], {})
    missing: dict[tuple[str, str], StoreError] = {}
    for view in needed:
        why: StoreError | None = None
        for schema, name in view.reads:
            if not schema and ("", name) not in missing:
                try:
                    _bring_relation(session, snapshot, name, found)
                except StoreError as error:
                    missing["", name] = error
            why = why or missing.get((schema, name))
        if why is None:
            found.views.append(view)
        else:
            missing[view.qualified] = why
            found.unreadable.update(dict.fromkeys((view.name, view.shown, ".".join(view.qualified)), why))
    return found


def _bring_relation(session: Session, snapshot: LakeSnapshot, name: str, found: _Brought) -> None:
    """A relation that a view reads: of the lake, of an author's table in place, or of its rows as facts."""
    stores, relations = session.stores, found.relations
    if name in relations:
        return
    if name.startswith(STORED):
        table = name.removeprefix(STORED)
        relations[name] = stores.lake.dataset(table, version=snapshot.versions[table])
        return
    source = session.applied.project.source(name.removeprefix(IN_PLACE).removeprefix(TABLED))
    handover = session.applied.handovers.get(source.name)
    address = (handover.table if handover is not None else "") or source.table or ""
    in_place = IN_PLACE + source.name
    if in_place not in relations:
        relations[in_place] = stores.sql.scan(address)
    if name.startswith(TABLED) and all(name != made for _, made, _ in found.rows):
        sql = tabled_sql(source, handover, relations[in_place].schema.names)
        if sql is None:
            relations[name] = facts_of_table(source, stores.sql.read_table(address), handover, address)
        else:
            found.rows.append((MAIN, name, sql))
