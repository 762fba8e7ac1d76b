"""The lake as SQL views that people ask: facts, dimensions, decisions, labels, and what came of decisions. Pure.

Writes SQL of DuckDB over relations that somebody else brings; says what a row of each view is, and which views it
reads. Stores nothing: a dimension and its history are derived from the facts of their sources, so they can never say
something else than these (docs/decisions/0047-asking-the-lake.md). Never reads the clock: what is current is as of an
instant that is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from volano.organize.dimension_views import dimension_views
from volano.organize.fact_views import built_in_fact_views, fact_views
from volano.organize.outcome_views import (
    attribution_views,
    decision_views,
    label_views,
    outcome_views,
)
from volano.organize.view_sql import (
    HISTORY,
    IN_PLACE,
    LAKE,
    MAIN,
    SOURCE,
    STORED,
    LakeContents,
    LakeView,
    instant_sql,
    quoted,
)
from volano.plan.built_in import is_fact_table
from volano.plan.definitions import CompiledProject

_WORD: Final = re.compile(r"\w+")
_LISTING: Final = re.compile(r"\bshow\b|\binformation_schema\b|\bduckdb_\w+|\bpragma\w*", re.IGNORECASE)
_GRAINS: Final = {
    "label": "one state of a label: every state that it had",
    "attribution": "one event that a label stands on: every state of that",
    "receipt": "one accepted event; of decisions and shadow scores, those that are not stored",
    "quarantine": "one record that was set aside",
    "quarantine_resolution": "one record in quarantine that was replayed or discarded",
    "shadow_score": "one score that another version would have given",
}


def lake_views(project: CompiledProject, contents: LakeContents) -> list[LakeView]:
    """Every view of a project's lake, those that others read first.

    A bare name that two of them could have is given in this order: facts, dimensions, decisions, labels and outcomes;
    their histories; tables of the lake; authors' tables. The others are found in their schemas. Letters' case does not
    tell names apart.

    >>> from volano.organize.view_sql import SYSTEM
    >>> from volano.plan.definitions import CompiledSource
    >>> from volano.values.schema import DType, Field, Schema
    >>> clicks = CompiledSource("clicks", "Click", Schema((Field("ad", DType.STRING),)), ("ad",), "at", "", stream=True)
    >>> project = CompiledProject("shop", sources={"clicks": clicks})
    >>> found = lake_views(project, LakeContents({"fact_clicks": [*SYSTEM, "ad"], "receipt": ["status"]}, {}, 0))
    >>> [view.shown for view in found]
    ['lake.fact_clicks', 'receipt', 'fact_clicks_history', 'fact_clicks']
    """
    found = [
        *_tables(contents),
        *_in_place(project),
        *fact_views(project, contents),
        *built_in_fact_views(contents),
        *dimension_views(project, contents),
        *decision_views(project, contents),
        *label_views(project, contents),
        *attribution_views(contents),
        *outcome_views(project, contents),
    ]
    return _with_bare_names(found)


def needed_views(views: Sequence[LakeView], sql: str) -> list[LakeView]:
    """The views that a query may mean by its words, and those that they read, in an order in which they can be made."""
    words = {word.lower() for word in _WORD.findall(sql)}
    lists_all = _LISTING.search(sql) is not None
    wanted: set[tuple[str, str]] = set()
    for view in reversed(views):
        named = {word.lower() for name in (view.name, view.bare) for word in _WORD.findall(name)[:1]}
        if view.qualified in wanted or lists_all or named & words:
            wanted.add(view.qualified)
            wanted.update(view.reads)
    return [view for view in views if view.qualified in wanted]


def _tables(contents: LakeContents) -> Iterator[LakeView]:
    """The tables as they are stored, cut at one instant."""
    for name, columns in contents.tables.items():
        sql = f"SELECT * FROM {quoted(STORED + name)}"
        if contents.until is not None and "applied_at" in columns:
            sql += f" WHERE applied_at <= {instant_sql(contents.until)}"
        yield LakeView(LAKE, name, "table", sql, (("", STORED + name),), _grain_of(name), _key_of(name))


def _in_place(project: CompiledProject) -> Iterator[LakeView]:
    for source in project.sources.values():
        if source.table is not None:
            yield LakeView(
                SOURCE,
                source.name,
                "source",
                f"SELECT * FROM {quoted(IN_PLACE + source.name)}",
                (("", IN_PLACE + source.name),),
                f"one row of the author's table {source.table}, as it is now",
                about=source.name,
                owner=source.owner,
            )


def _grain_of(table: str) -> str:
    kind, _, of = table.partition("_")
    if is_fact_table(table):
        return f"one statement about an event of {of if kind == 'fact' else table}: every revision"
    if kind == "decision":
        return f"one answer of {of}: every attempt"
    return _GRAINS.get(table, "one row as it was written")


def _key_of(table: str) -> tuple[str, ...]:
    if is_fact_table(table):
        return "event_id", "revision"
    if table.startswith("decision_"):
        return "decision_id", "attempt"
    return ("decision", "decision_id", "label", "computed_at") if table == "label" else ()


def _with_bare_names(views: Sequence[LakeView]) -> list[LakeView]:
    taken: dict[str, tuple[str, str]] = {}
    for schema in (MAIN, HISTORY, LAKE, SOURCE):
        for view in views:
            if view.schema == schema:
                name = f"{view.name}_history" if schema == HISTORY else view.name
                taken.setdefault(name.lower(), view.qualified)
    found = []
    for view in views:
        name = f"{view.name}_history" if view.schema == HISTORY else view.name
        found.append(view._replace(bare=name if taken[name.lower()] == view.qualified else ""))
    return found
