"""Asking the lake in SQL: pins one consistent snapshot of its tables, brings what the query reads, asks the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from volano.collect.receipts import committed_until
from volano.collect.tables import lake_tables
from volano.organize.fact_views import tabled_sql
from volano.organize.facts import facts_of_table
from volano.organize.lake_views import lake_views, needed_views
from volano.organize.view_sql import IN_PLACE, STORED, TABLED, LakeContents, LakeView
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
    needed = needed_views(views, sql)
    relations, made = _relations(session, snapshot, needed)
    listed = [(view.schema, view.name, view.sql) for view in needed]
    aliases = [
        ("main", view.bare, f'SELECT * FROM "{view.schema}"."{view.name}"')
        for view in needed
        if view.bare and view.schema != "main"
    ]
    known = sorted(view.shown for view in views)
    return session.stores.sql.ask(sql, relations, [*made, *listed, *aliases], known=known, limit=limit)


def _relations(
    session: Session, snapshot: LakeSnapshot, needed: Sequence[LakeView]
) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    """What views read that are no views: tables and datasets by name, and SQL over them."""
    stores, project = session.stores, session.applied.project
    relations: dict[str, Any] = {}
    made: list[tuple[str, str, str]] = []

    def bring(source: str) -> None:
        name = IN_PLACE + source
        if name not in relations:
            declared, handover = project.source(source), session.applied.handovers.get(source)
            address = (handover.table if handover is not None else "") or declared.table
            relations[name] = stores.sql.scan(address or "")

    for name in dict.fromkeys(name for view in needed for schema, name in view.reads if not schema):
        if name.startswith(STORED):
            table = name.removeprefix(STORED)
            relations[name] = stores.lake.dataset(table, version=snapshot.versions[table])
        elif name.startswith(IN_PLACE):
            bring(name.removeprefix(IN_PLACE))
        elif name.startswith(TABLED):
            source, handover = project.source(name.removeprefix(TABLED)), None
            handover = session.applied.handovers.get(source.name)
            bring(source.name)
            scanned = relations[IN_PLACE + source.name]
            sql = tabled_sql(source, handover, scanned.schema.names)
            if sql is None:
                address = (handover.table if handover is not None else "") or source.table or ""
                relations[name] = facts_of_table(source, stores.sql.read_table(address), handover, address)
            else:
                made.append(("main", name, sql))
    return relations, made
