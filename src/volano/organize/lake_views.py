"""The lake as SQL views that people ask: facts, dimensions, decisions, labels, and what came of decisions. Pure.

Writes SQL of DuckDB over relations that somebody else brings; says what a row of each view is, and which views it
reads. Stores nothing: a dimension and its history are derived from the facts of their sources, so they can never say
something else than these (docs/decisions/0047-asking-the-lake.md). Never reads the clock: what is current is as of an
instant that is passed in.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from volano.organize.facts import FACT_COLUMNS
from volano.plan.definitions import (
    CompiledDecision,
    CompiledEntity,
    CompiledLabel,
    CompiledProject,
    CompiledSource,
)
from volano.plan.state_index import TABLE_REVISION
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.instants import Instant
from volano.values.schema import DType, Field

MAIN, HISTORY, LAKE, SOURCE = "main", "history", "lake", "source"
"""Schemas: the views; their histories; tables as they are stored; authors' tables in place."""

STORED: Final = "volano_stored_"
TABLED: Final = "volano_tabled_"
IN_PLACE: Final = "volano_in_place_"
"""What the relations are named that the views read: lake tables, rows of authors' tables as facts, authors' tables."""

_SYSTEM: Final = (*FACT_COLUMNS.names[:7], "receipt_id", *FACT_COLUMNS.names[7:])
_TYPES: Final = {
    DType.BOOL: "BOOLEAN",
    DType.INT64: "BIGINT",
    DType.FLOAT64: "DOUBLE",
    DType.STRING: "VARCHAR",
    DType.TIMESTAMP: "TIMESTAMPTZ",
    DType.LIST_FLOAT64: "DOUBLE[]",
    DType.LIST_INT64: "BIGINT[]",
    DType.LIST_STRING: "VARCHAR[]",
}
_WORD: Final = re.compile(r"\w+")
_LISTING: Final = re.compile(r"\bshow\b|\binformation_schema\b|\bduckdb_\w+|\bpragma\w*", re.IGNORECASE)


class LakeView(NamedTuple):
    """One view.

    Args:
        schema: where it is, beside its bare name.
        name: in that schema.
        kind: fact, dimension, decision, label, outcome, table (as stored) or source (in place).
        sql: a SELECT over relations and other views.
        reads: other views, as (schema, name), and relations, as ("", name).
        grain: what a row is.
        key: the columns that identify a row; empty where none do.
        about: the name of the definition that it is a view of; empty for a table of the system's.
        owner: of that definition.
        bare: the name under which it is found without its schema; empty when another view has it.
    """

    schema: str
    name: str
    kind: str
    sql: str
    reads: tuple[tuple[str, str], ...]
    grain: str
    key: tuple[str, ...] = ()
    about: str = ""
    owner: str = ""
    bare: str = ""

    @property
    def qualified(self) -> tuple[str, str]:
        return self.schema, self.name

    @property
    def shown(self) -> str:
        """The shortest name that it is found under."""
        return self.bare or f"{self.schema}.{self.name}"


class LakeContents(NamedTuple):
    """What there is to look at.

    Args:
        tables: the columns of every table of the lake.
        handovers: of sources with a table.
        now: what is current, is so as of this instant.
        until: only rows applied by then, where a table says when; None: all.
    """

    tables: Mapping[str, Sequence[str]]
    handovers: Mapping[str, HandOver]
    now: Instant
    until: Instant | None = None


def lake_views(project: CompiledProject, contents: LakeContents) -> list[LakeView]:
    """Every view of a project's lake, those that others read first.

    A bare name that two of them could have is given in this order: facts, dimensions, decisions, labels and outcomes;
    their histories; tables of the lake; authors' tables. The others are found in their schemas. Letters' case does not
    tell names apart.

    >>> from volano.plan.definitions import CompiledSource
    >>> from volano.values.schema import Schema
    >>> clicks = CompiledSource("clicks", "Click", Schema((Field("ad", DType.STRING),)), ("ad",), "at", "", stream=True)
    >>> project = CompiledProject("shop", sources={"clicks": clicks})
    >>> found = lake_views(project, LakeContents({"fact_clicks": [*_SYSTEM, "ad"], "receipt": ["status"]}, {}, 0))
    >>> [view.shown for view in found]
    ['lake.fact_clicks', 'receipt', 'fact_clicks_history', 'fact_clicks']
    """
    found = [
        *_tables(contents),
        *_in_place(project),
        *_facts(project, contents),
        *_built_in_facts(contents),
        *_dimensions(project, contents),
        *_decisions(project, contents),
        *_labels(project, contents),
        *_outcomes(project, contents),
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


def is_in_place(source: CompiledSource, handovers: Mapping[str, HandOver]) -> bool:
    """Whether rows of a source's table are facts that stand in the table alone."""
    handover = handovers.get(source.name)
    if source.table is None or (handover is not None and handover.imported):
        return False
    return handover is not None or not source.stream


def quoted(name: str) -> str:
    """A name as SQL.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


# --- tables ---------------------------------------------------------------------------------------


def _tables(contents: LakeContents) -> Iterator[LakeView]:
    """The tables as they are stored, cut at one instant."""
    for name, columns in contents.tables.items():
        sql = f"SELECT * FROM {quoted(STORED + name)}"
        if contents.until is not None and "applied_at" in columns:
            sql += f" WHERE applied_at <= {_instant(contents.until)}"
        yield LakeView(
            LAKE, name, "table", sql, (("", STORED + name),), _grain_of(name), _key_of(name, columns)
        )


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
    match kind:
        case "fact":
            return f"one statement about an event of {of}: every revision"
        case "decision":
            return f"one answer of {of}: every attempt"
        case "label":
            return "one state of a label: every state that it had"
        case "receipt":
            return "one accepted event; of decisions and shadow scores, those that are not stored"
        case "quarantine":
            return "one record that was set aside"
        case "shadow":
            return "one score that another version would have given"
        case _:
            return "one row as it was written"


def _key_of(table: str, columns: Sequence[str]) -> tuple[str, ...]:
    if {"event_id", "revision", "operation"} <= set(columns):
        return "event_id", "revision"
    if table.startswith("decision_"):
        return "decision_id", "attempt"
    return ("decision", "decision_id", "label", "computed_at") if table == "label" else ()


# --- facts ----------------------------------------------------------------------------------------


def _facts(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    """Of every source its facts as they stand, and every revision of them."""
    for source in project.sources.values():
        stored, tabled = f"fact_{source.name}", is_in_place(source, contents.handovers)
        if stored not in contents.tables and not tabled:
            continue
        parts, reads = [], []
        if stored in contents.tables:
            parts.append(f"SELECT * FROM {_ref(LAKE, stored)}")
            reads.append((LAKE, stored))
        if tabled:
            parts.append(f"SELECT * FROM {quoted(TABLED + source.name)}")
            reads.append(("", TABLED + source.name))
        own = [field.name for field in source.schema.fields if field.name not in _SYSTEM]
        held = set(contents.tables.get(stored, ()))
        if not tabled:
            own = [name for name in own if name in held]
        may_be_replaced = tabled or source.table is not None
        yield from _fact_pair(
            stored,
            " UNION ALL BY NAME ".join(parts),
            tuple(reads),
            own,
            may_be_replaced,
            source.name,
            source.owner,
        )
    declared = {f"fact_{name}" for name in project.sources}
    for stored, columns in contents.tables.items():
        if stored.startswith("fact_") and stored not in declared:
            own = [name for name in columns if name not in _SYSTEM]
            sql = f"SELECT * FROM {_ref(LAKE, stored)}"
            yield from _fact_pair(stored, sql, ((LAKE, stored),), own, True, stored.removeprefix("fact_"), "")


def _built_in_facts(contents: LakeContents) -> Iterator[LakeView]:
    """Facts of sources that no author declares: tables with the columns of facts and another name."""
    for stored, columns in contents.tables.items():
        if not stored.startswith("fact_") and {"event_id", "revision", "operation"} <= set(columns):
            if "receipt_id" in columns and "status" in columns:
                continue  # receipts and quarantine speak of events and are none
            own = [name for name in columns if name not in _SYSTEM]
            sql = f"SELECT * FROM {_ref(LAKE, stored)}"
            yield from _fact_pair(stored, sql, ((LAKE, stored),), own, False, stored, "")


def _fact_pair(
    name: str,
    rows: str,
    reads: tuple[tuple[str, str], ...],
    own: Sequence[str],
    table_rows_are_replaced: bool,
    about: str,
    owner: str,
) -> Iterator[LakeView]:
    columns = ", ".join(quoted(each) for each in (*_SYSTEM, *own))
    system, others = columns_of(_SYSTEM), columns_of(own)
    yield LakeView(
        HISTORY,
        name,
        "fact",
        f"SELECT {system}, min(applied_at) OVER (PARTITION BY event_id ORDER BY revision DESC "
        f"ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS superseded_at{', ' if own else ''}{others} "
        f"FROM ({rows})",
        reads,
        f"one statement about an event of {about}: every revision, visible until superseded_at",
        ("event_id", "revision"),
        about,
        owner,
    )
    # What replaces a row is rare, so it is looked up apart: no sort of all rows.
    least = TABLE_REVISION if table_rows_are_replaced else 0
    yield LakeView(
        MAIN,
        name,
        "fact",
        f"SELECT {columns} FROM ({rows}) AS stated WHERE operation <> '{Operation.RETRACT.value}' AND NOT EXISTS ("
        f"FROM (SELECT event_id AS replaced, max(revision) AS newest FROM ({rows}) WHERE revision > {least} "
        "GROUP BY ALL) "
        "WHERE replaced = stated.event_id AND newest > stated.revision)",
        reads,
        f"one event of {about}, as it stands: its newest revision, unless it was taken back",
        ("event_id",),
        about,
        owner,
    )


def columns_of(names: Iterable[str]) -> str:
    """Names as a list of columns."""
    return ", ".join(quoted(name) for name in names)


# --- dimensions -----------------------------------------------------------------------------------


def _dimensions(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    for entity in project.entities.values():
        keyed = [
            (source, keys)
            for source in project.sources.values()
            if source.change and _has_facts(source, contents) and (keys := _key_columns(entity, source))
        ]
        if len(keyed) == 1:
            yield from _dimension(entity, f"dim_{entity.name}", *keyed[0], contents.now)
        elif keyed:
            for source, keys in keyed:
                yield from _dimension(entity, f"dim_{entity.name}__{source.name}", source, keys, contents.now)
            yield from _joined_dimension(entity, keyed, contents.now)
        elif seen := _seen(entity, project, contents):
            yield seen


def _has_facts(source: CompiledSource, contents: LakeContents) -> bool:
    return f"fact_{source.name}" in contents.tables or is_in_place(source, contents.handovers)


def _key_columns(entity: CompiledEntity, source: CompiledSource) -> tuple[str, ...]:
    """The columns of a dimension that hold an entity's key; empty when it does not say which."""
    marked = [field.name for field in source.schema.fields if field.entity == entity.name]
    if len(marked) > len(entity.keys):
        marked = [name for name in marked if name in source.id_columns]
    return tuple(marked) if len(marked) == len(entity.keys) else ()


def _dimension(
    entity: CompiledEntity, name: str, source: CompiledSource, keys: Sequence[str], now: Instant
) -> Iterator[LakeView]:
    """The rows of one source as spans of time, and those that hold now."""
    fact = f"fact_{source.name}"
    left_out = {*keys, source.event_time, source.valid_to, *_SYSTEM}
    attributes = [field.name for field in source.schema.fields if field.name not in left_out]
    order = columns_of(["event_time", *source.order_by, "event_id"])
    until = "next_at" if source.valid_to is None else f"least({quoted(source.valid_to)}, next_at)"
    known = " AND ".join(f"{quoted(key)} IS NOT NULL" for key in keys)
    yield LakeView(
        HISTORY,
        name,
        "dimension",
        f"SELECT {columns_of([*keys, *attributes])}, event_time AS valid_from, {until} AS valid_to, known_at, event_id "
        f"FROM (SELECT *, lead(event_time) OVER (PARTITION BY {columns_of(keys)} ORDER BY {order}) AS next_at "
        f"FROM {_ref(MAIN, fact)} WHERE {known}) "
        f"WHERE operation <> '{Operation.END.value}' AND coalesce({until} > event_time, true)",
        ((MAIN, fact),),
        f"one span of time of one {entity.name}: valid after valid_from, up to valid_to (null: it still is)",
        (*keys, "valid_from"),
        entity.name,
        entity.owner,
    )
    yield LakeView(
        MAIN,
        name,
        "dimension",
        f"SELECT * FROM {_ref(HISTORY, name)} WHERE {_holds('valid_from', 'valid_to', now)}",
        ((HISTORY, name),),
        f"one {entity.name}, as it is now",
        tuple(keys),
        entity.name,
        entity.owner,
    )


def _joined_dimension(
    entity: CompiledEntity, keyed: Sequence[tuple[CompiledSource, tuple[str, ...]]], now: Instant
) -> Iterator[LakeView]:
    """Several sources of one entity: the spans in which none of them changes; columns are named after their source."""
    parts = [field.name for field in entity.keys]
    name = f"dim_{entity.name}"
    instants, joins, columns, known, reads = [], [], [], [], []
    for source, keys in keyed:
        view, alias = _ref(HISTORY, f"{name}__{source.name}"), quoted(source.name)
        reads.append((HISTORY, f"{name}__{source.name}"))
        named = ", ".join(f"{quoted(key)} AS {quoted(part)}" for key, part in zip(keys, parts, strict=True))
        instants.append(f"SELECT {named}, valid_from AS at_ FROM {view}")
        instants.append(f"SELECT {named}, valid_to AS at_ FROM {view} WHERE valid_to IS NOT NULL")
        same = [
            f"{alias}.{quoted(key)} = spans.{quoted(part)}" for key, part in zip(keys, parts, strict=True)
        ]
        joins.append(
            f"LEFT JOIN {view} AS {alias} ON {' AND '.join(same)} AND {alias}.valid_from <= spans.valid_from "
            f"AND ({alias}.valid_to IS NULL OR {alias}.valid_to > spans.valid_from)"
        )
        left_out = {*keys, source.event_time, source.valid_to, *_SYSTEM}
        columns += [
            f"{alias}.{quoted(field.name)} AS {quoted(f'{source.name}__{field.name}')}"
            for field in source.schema.fields
            if field.name not in left_out
        ]
        known.append(f"{alias}.valid_from IS NOT NULL")
    own = columns_of(parts)
    listed = "".join(f", {column}" for column in columns)
    yield LakeView(
        HISTORY,
        name,
        "dimension",
        f"WITH instants AS ({' UNION '.join(instants)}), "
        f"spans AS (SELECT {own}, at_ AS valid_from, lead(at_) OVER (PARTITION BY {own} ORDER BY at_) AS valid_to "
        "FROM instants) "
        f"SELECT {', '.join(f'spans.{quoted(part)}' for part in parts)}{listed}, spans.valid_from, spans.valid_to "
        f"FROM spans {' '.join(joins)} WHERE {' OR '.join(known)}",
        tuple(reads),
        f"one span of time of one {entity.name}: valid after valid_from, up to valid_to (null: it still is)",
        (*parts, "valid_from"),
        entity.name,
        entity.owner,
    )
    yield LakeView(
        MAIN,
        name,
        "dimension",
        f"SELECT * FROM {_ref(HISTORY, name)} WHERE {_holds('valid_from', 'valid_to', now)}",
        ((HISTORY, name),),
        f"one {entity.name}, as it is now",
        tuple(parts),
        entity.name,
        entity.owner,
    )


def _holds(since: str, until: str, now: Instant) -> str:
    """A row is valid on (since, until], as joins read it (docs/decisions/0030-dimensions-and-joins.md)."""
    return f"{since} < {_instant(now)} AND ({until} IS NULL OR {until} >= {_instant(now)})"


def _seen(entity: CompiledEntity, project: CompiledProject, contents: LakeContents) -> LakeView | None:
    """An entity that no source describes: the keys that facts name, and when."""
    parts, reads = [], []
    for source in project.sources.values():
        marked = [field.name for field in source.schema.fields if field.entity == entity.name]
        groups = [[name] for name in marked] if len(entity.keys) == 1 else [marked]
        for columns in groups if _has_facts(source, contents) else ():
            if len(columns) != len(entity.keys):
                continue
            named = ", ".join(
                f"{quoted(column)} AS {quoted(part.name)}"
                for column, part in zip(columns, entity.keys, strict=True)
            )
            known = " AND ".join(f"{quoted(column)} IS NOT NULL" for column in columns)
            reads.append((MAIN, f"fact_{source.name}"))
            parts.append(
                f"SELECT {named}, min(event_time) AS first_at, max(event_time) AS last_at, count(*) AS n "
                f"FROM {_ref(MAIN, f'fact_{source.name}')} WHERE {known} GROUP BY ALL"
            )
    if not parts:
        return None
    keys = [part.name for part in entity.keys]
    return LakeView(
        MAIN,
        f"dim_{entity.name}",
        "dimension",
        f"SELECT {columns_of(keys)}, min(first_at) AS first_seen_at, max(last_at) AS last_seen_at, "
        f"sum(n)::BIGINT AS n_facts FROM ({' UNION ALL BY NAME '.join(parts)}) GROUP BY ALL",
        tuple(dict.fromkeys(reads)),
        f"one {entity.name} that facts name; no source describes it",
        tuple(keys),
        entity.name,
        entity.owner,
    )


# --- decisions, labels, outcomes ------------------------------------------------------------------


def _decisions(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    for name in contents.tables:
        if name.startswith("decision_"):
            decision = name.removeprefix("decision_")
            declared = project.decisions.get(decision)
            yield LakeView(
                MAIN,
                name,
                "decision",
                f"SELECT * FROM {_ref(LAKE, name)} WHERE attempt = 0",
                ((LAKE, name),),
                f"one decision of {decision}: the answer that counts",
                ("decision_id",),
                decision,
                "" if declared is None else declared.owner,
            )


def _labels(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    if "label" not in contents.tables:
        return
    for label in project.labels.values():
        yield LakeView(
            MAIN,
            f"label_{label.name}",
            "label",
            f"SELECT * REPLACE ({_value(label)} AS value) FROM {_ref(LAKE, 'label')} WHERE label = {_text(label.name)} "
            "QUALIFY row_number() OVER (PARTITION BY decision, decision_id ORDER BY computed_at DESC) = 1",
            ((LAKE, "label"),),
            f"the state of {label.name} that stands, of one decision; a decision without a row is pending",
            ("decision", "decision_id"),
            label.name,
            label.owner,
        )


def _value(label: CompiledLabel) -> str:
    match label.dtype:
        case DType.STRING:
            return "value_text"
        case DType.TIMESTAMP:
            return "make_timestamptz(CAST(value AS BIGINT))"
        case dtype:
            return f"CAST(value AS {_TYPES[dtype]})"


def _outcomes(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    """Of every decision what is known of it since: its label, the event behind it, exposure and action taken."""
    for decision in project.decisions.values():
        if f"decision_{decision.name}" not in contents.tables:
            continue
        columns, reads = ["made.*"], [(MAIN, f"decision_{decision.name}")]
        joins: list[str] = []
        if label := project.model(decision.model).label:
            declared = project.labels[label]
            if "label" in contents.tables:
                _join_label(
                    decision, declared, project.sources[declared.source], contents, columns, joins, reads
                )
            else:
                columns.append("'pending' AS label_state")
        for table in ("exposure", "action_taken"):
            if "decision_id" in contents.tables.get(table, ()):
                _join_newest(table, contents.tables[table], columns, joins, reads)
        yield LakeView(
            MAIN,
            f"outcome_{decision.name}",
            "outcome",
            f"SELECT {', '.join(columns)} FROM {_ref(MAIN, f'decision_{decision.name}')} AS made {' '.join(joins)}",
            tuple(reads),
            f"one decision of {decision.name}, with what happened",
            ("decision_id",),
            decision.name,
            decision.owner,
        )


def _join_label(
    decision: CompiledDecision,
    label: CompiledLabel,
    source: CompiledSource,
    contents: LakeContents,
    columns: list[str],
    joins: list[str],
    reads: list[tuple[str, str]],
) -> None:
    columns.append(
        "coalesce(judged.state, 'pending') AS label_state, judged.value AS label_value, "
        f"coalesce(judged.matures_at, made.decided_at + to_microseconds({label.horizon_us})) AS label_matures_at, "
        "judged.computed_at AS label_computed_at, judged.reason AS label_reason, judged.evidence AS label_evidence"
    )
    joins.append(
        f"LEFT JOIN {_ref(MAIN, f'label_{label.name}')} AS judged "
        f"ON judged.decision_id = made.decision_id AND judged.decision = {_text(decision.name)}"
    )
    reads.append((MAIN, f"label_{label.name}"))
    if _has_facts(source, contents):
        fields = ["event_time", *(field.name for field in source.schema.fields if field.name not in _SYSTEM)]
        columns.extend(f"happened.{quoted(name)} AS {quoted(f'event__{name}')}" for name in fields)
        joins.append(
            f"LEFT JOIN {_ref(MAIN, f'fact_{source.name}')} AS happened "
            f"ON happened.event_id = judged.evidence AND judged.evidence_source = {_text(source.name)}"
        )
        reads.append((MAIN, f"fact_{source.name}"))


def _join_newest(
    table: str, held: Sequence[str], columns: list[str], joins: list[str], reads: list[tuple[str, str]]
) -> None:
    """The newest row of a table that names decisions, its columns named after it."""
    own = ["event_time", *(name for name in held if name not in (*_SYSTEM, "decision", "decision_id"))]
    columns.extend(f"{table}.{quoted(name)} AS {quoted(f'{table}__{name}')}" for name in own)
    joins.append(
        f"LEFT JOIN (SELECT * FROM {_ref(MAIN, table)} QUALIFY row_number() OVER "
        f"(PARTITION BY decision_id ORDER BY event_time DESC, event_id DESC) = 1) AS {table} "
        f"ON {table}.decision_id = made.decision_id"
    )
    reads.append((MAIN, table))


# --- names ----------------------------------------------------------------------------------------


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


def _ref(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _instant(instant: Instant) -> str:
    return f"make_timestamptz({instant})"


# --- rows of authors' tables ----------------------------------------------------------------------


def tabled_sql(source: CompiledSource, handover: HandOver | None, columns: Iterable[str]) -> str | None:
    """The rows of an author's table as facts, as SQL over `IN_PLACE + name`; see `organize.facts.facts_of_table`.

    Returns:
        None where SQL cannot say it: dumps of a table, ids that hold a number with a fraction.
    """
    held = set(columns)
    parts = [source.schema.find(name) for name in source.id_columns]
    if source.change == "snapshots" or any(part is None or part.dtype is DType.FLOAT64 for part in parts):
        return None
    fields = {field.name: _declared(field, held) for field in source.schema.fields}
    known = (
        fields[source.known_at]
        if source.known_at is not None
        else f"{fields[source.event_time]} + to_microseconds({source.available_after_us or 0})"
    )
    applied = known if handover is None else _instant(handover.stamp)
    system = {
        "event_id": _joined_id([part for part in parts if part is not None], fields),
        "revision": f"CAST({TABLE_REVISION} AS BIGINT)",
        "operation": f"'{Operation.INSERT.value}'",
        "event_time": fields[source.event_time],
        "received_at": applied,
        "applied_at": applied,
        "known_at": known,
        "receipt_id": "CAST(NULL AS VARCHAR)",
        "payload_hash": "CAST(NULL AS BLOB)",
        "too_late": "false",
    }
    own = {name: sql for name, sql in fields.items() if name not in system}
    listed = ", ".join(f"{sql} AS {quoted(name)}" for name, sql in (system | own).items())
    sql = f"SELECT {listed} FROM {quoted(IN_PLACE + source.name)}"
    if handover is not None and source.stream:
        sql += f" WHERE {fields[source.event_time]} < {_instant(handover.at)}"
    return sql


def _declared(field: Field, held: set[str]) -> str:
    value = quoted(field.name) if field.name in held else "NULL"
    return f"CAST({value} AS {_TYPES[field.dtype]})"


def _joined_id(parts: Sequence[Field], fields: Mapping[str, str]) -> str:
    """`values.event_ids.event_id` as SQL."""
    texts = []
    for part in parts:
        value = fields[part.name]
        text = (
            f"CAST(epoch_us({value}) AS VARCHAR)"
            if part.dtype is DType.TIMESTAMP
            else f"CAST({value} AS VARCHAR)"
        )
        if len(parts) > 1 and part.dtype is DType.STRING:
            text = f"replace(replace({text}, '\\', '\\\\'), '|', '\\|')"
        texts.append(text)
    return " || '|' || ".join(texts)
