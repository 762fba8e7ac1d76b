"""Views of facts: rows as they stand, every revision, and rows of an author's table as facts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from volano.organize.view_sql import (
    HISTORY,
    IN_PLACE,
    LAKE,
    MAIN,
    SYSTEM,
    TABLED,
    TYPES,
    LakeContents,
    LakeView,
    columns_of,
    instant_sql,
    is_in_place,
    quoted,
    ref,
)
from volano.plan.built_in import BUILT_IN
from volano.plan.definitions import CompiledProject, CompiledSource
from volano.plan.state_index import TABLE_REVISION
from volano.records.handover import HandOver
from volano.records.journal import Operation
from volano.values.schema import DType, Field


def fact_views(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    """Of every source its facts as they stand, and every revision of them."""
    for source in project.sources.values():
        stored, tabled = f"fact_{source.name}", is_in_place(source, contents.handovers)
        if stored not in contents.tables and not tabled:
            continue
        parts, reads = [], []
        if stored in contents.tables:
            parts.append(f"SELECT * FROM {ref(LAKE, stored)}")
            reads.append((LAKE, stored))
        if tabled:
            parts.append(f"SELECT * FROM {quoted(TABLED + source.name)}")
            reads.append(("", TABLED + source.name))
        own = [field.name for field in source.schema.fields if field.name not in SYSTEM]
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
            own = [name for name in columns if name not in SYSTEM]
            sql = f"SELECT * FROM {ref(LAKE, stored)}"
            yield from _fact_pair(stored, sql, ((LAKE, stored),), own, True, stored.removeprefix("fact_"), "")


def built_in_fact_views(contents: LakeContents) -> Iterator[LakeView]:
    """Facts of sources that no author declares; their tables are named as they are."""
    for stored, columns in contents.tables.items():
        if stored in BUILT_IN:
            own = [name for name in columns if name not in SYSTEM]
            sql = f"SELECT * FROM {ref(LAKE, stored)}"
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
    columns = ", ".join(quoted(each) for each in (*SYSTEM, *own))
    system, others = columns_of(SYSTEM), columns_of(own)
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
        f"SELECT {columns} FROM ({rows}) AS stated ANTI JOIN ("
        f"SELECT event_id AS replaced, max(revision) AS newest FROM ({rows}) WHERE revision > {least} GROUP BY ALL"
        f") AS newer ON replaced = stated.event_id AND newest > stated.revision "
        f"WHERE operation <> '{Operation.RETRACT.value}'",
        reads,
        f"one event of {about}, as it stands: its newest revision, unless it was taken back",
        ("event_id",),
        about,
        owner,
    )


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
    applied = known if handover is None else instant_sql(handover.stamp)
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
        sql += f" WHERE {fields[source.event_time]} < {instant_sql(handover.at)}"
    return sql


def _declared(field: Field, held: set[str]) -> str:
    value = quoted(field.name) if field.name in held else "NULL"
    return f"CAST({value} AS {TYPES[field.dtype]})"


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
