"""Views of dimensions: an entity as it is now, and every span of time in which it was otherwise. Pure.

Derived from the facts of slowly changing and dumped tables, by the rule that joins read them with
(docs/decisions/0030-dimensions-and-joins.md): a row is valid on (valid_from, valid_to].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from volano.organize.view_sql import (
    HISTORY,
    MAIN,
    SYSTEM,
    LakeContents,
    LakeView,
    columns_of,
    has_facts,
    instant_sql,
    quoted,
    ref,
)
from volano.plan.definitions import CompiledEntity, CompiledProject, CompiledSource
from volano.records.journal import Operation
from volano.values.instants import Instant


def dimension_views(project: CompiledProject, contents: LakeContents) -> Iterator[LakeView]:
    for entity in project.entities.values():
        keyed = [
            (source, keys)
            for source in project.sources.values()
            if source.change and has_facts(source, contents) and (keys := _key_columns(entity, source))
        ]
        if len(keyed) == 1:
            yield from _dimension(entity, f"dim_{entity.name}", *keyed[0], contents.now)
        elif keyed:
            for source, keys in keyed:
                yield from _dimension(entity, f"dim_{entity.name}__{source.name}", source, keys, contents.now)
            yield from _joined_dimension(entity, keyed, contents.now)
        elif seen := _seen(entity, project, contents):
            yield seen


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
    left_out = {*keys, source.event_time, source.valid_to, *SYSTEM}
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
        f"FROM {ref(MAIN, fact)} WHERE {known}) "
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
        f"SELECT * FROM {ref(HISTORY, name)} WHERE {_holds('valid_from', 'valid_to', now)}",
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
        view, alias = ref(HISTORY, f"{name}__{source.name}"), quoted(source.name)
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
        left_out = {*keys, source.event_time, source.valid_to, *SYSTEM}
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
        f"SELECT * FROM {ref(HISTORY, name)} WHERE {_holds('valid_from', 'valid_to', now)}",
        ((HISTORY, name),),
        f"one {entity.name}, as it is now",
        tuple(parts),
        entity.name,
        entity.owner,
    )


def _holds(since: str, until: str, now: Instant) -> str:
    """A row is valid on (since, until], as joins read it (docs/decisions/0030-dimensions-and-joins.md)."""
    return f"{since} < {instant_sql(now)} AND ({until} IS NULL OR {until} >= {instant_sql(now)})"


def _seen(entity: CompiledEntity, project: CompiledProject, contents: LakeContents) -> LakeView | None:
    """An entity that no source describes: the keys that facts name, and when."""
    parts, reads = [], []
    for source in project.sources.values():
        marked = [field.name for field in source.schema.fields if field.entity == entity.name]
        groups = [[name] for name in marked] if len(entity.keys) == 1 else [marked]
        for columns in groups if has_facts(source, contents) else ():
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
                f"FROM {ref(MAIN, f'fact_{source.name}')} WHERE {known} GROUP BY ALL"
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
