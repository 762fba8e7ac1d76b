"""Joins of a view: which dimension, by which key, which columns. Checks names and types; reads no data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from volano.compile.annotations import NAMES
from volano.compile.context import Context, column_names
from volano.compile.report import nearest
from volano.compile.resolve import Definition, kind_of
from volano.plan.definitions import CompiledEntity, CompiledJoin, CompiledSource
from volano.spec.join import Join
from volano.values.identities import content_hash
from volano.values.schema import Field, Schema


def lower_joins(at: Definition, source: CompiledSource, ctx: Context) -> tuple[CompiledJoin, ...]:
    """The joins of a view over a source; what has a mistake is left out."""
    written: Any = at.value.options.join
    if written is None:
        return ()
    taken: dict[str, str] = dict.fromkeys(source.schema.names, f"source {source.name!r}")
    found = []
    for given in written if isinstance(written, list | tuple) else [written]:
        if not isinstance(given, Join):
            mend = 'give vo.join(source, "column"), or a list of such'
            shown = f"a {kind_of(given)}" if kind_of(given) else repr(given)
            ctx.mistake(at, f"{ctx.title(at)} cannot join {shown} as it is.", mend, "join")
            continue
        joined = _join(at, given, source, taken, ctx)
        if joined is not None:
            found.append(joined)
    return tuple(found)


def dimension_hash(source: CompiledSource, entity: CompiledEntity, columns: Iterable[str]) -> str:
    """Hash of all that changes a value of some columns of a dimension; not of owners or the table's address."""
    names = {
        *columns,
        source.event_time,
        *source.id_columns,
        *source.order_by,
        source.known_at,
        source.valid_to,
    }
    fields = tuple(field for field in source.schema.fields if field.name in names)
    of_source = msgspec.structs.replace(source, owner="", table=None, stream=True, schema=Schema(fields))
    return content_hash([of_source, msgspec.structs.replace(entity, owner="")])


def _join(
    at: Definition, given: Join, source: CompiledSource, taken: dict[str, str], ctx: Context
) -> CompiledJoin | None:
    where = ctx.refer(at, given.source, "source", "join")
    dimension = ctx.sources.get(id(given.source))
    if where is None or dimension is None:
        return None
    entity, on = _entity(at, given, source, dimension, ctx)
    columns = _columns(at, given.columns, dimension, taken, ctx)
    if entity is None or columns is None:
        return None
    keys = _holding(dimension.schema, entity)
    per_dump = dimension.id_columns[:-1]
    if dimension.change == "snapshots" and set(keys) != set(per_dump):
        ids = ", ".join(per_dump)
        what = f"source {dimension.name!r} is known by {ids} within a dump, and joined by {', '.join(keys)}"
        mend = f"make {', '.join(keys)} the id of {dimension.event}"
        ctx.mistake(at, f"{ctx.title(at)}: {what}.", mend, "join")
        return None
    of = {field.name: field for field in dimension.schema.fields}
    fields = tuple(
        Field(name, of[column].dtype, nullable=True, entity=of[column].entity) for name, column in columns
    )
    read = [*keys, *(column for _, column in columns)]
    return CompiledJoin(
        source=dimension.name,
        entity=entity.name,
        keys=keys,
        on=on,
        columns=columns,
        fields=fields,
        dimension_hash=dimension_hash(dimension, entity, read),
    )


def _entity(
    at: Definition, given: Join, source: CompiledSource, dimension: CompiledSource, ctx: Context
) -> tuple[CompiledEntity | None, tuple[str, ...]]:
    """The entity whose key both hold, and the event's columns that hold it."""
    on = column_names(given.on)
    for name in on:
        if source.schema.find(name) is None:
            mend = nearest(name, source.schema.names)
            ctx.mistake(at, f"{ctx.title(at)}: on={name!r} is not a column of its source.", mend, "join")
            return None, ()
    whole = [
        entity
        for entity in ctx.entities.values()
        if len(_holding(dimension.schema, entity)) == len(entity.keys)
    ]
    fits = [entity for entity in whole if _fits(entity, on or _holding(source.schema, entity), source.schema)]
    if on and len(fits) > 1:
        named = {field.entity for field in source.schema.fields if field.name in on}
        fits = [entity for entity in fits if entity.name in named] or fits
    if len(fits) == 1:
        return fits[0], on or _holding(source.schema, fits[0])
    title = f"{ctx.title(at)} cannot join {dimension.name!r}"
    names = ", ".join(entity.name for entity in fits or whole)
    if fits:
        ctx.mistake(
            at, f"{title}: both hold keys of several entities ({names}).", "say by which: on=", "join"
        )
    elif whole:
        several = [name for entity in whole for name in _holding(source.schema, entity)]
        mend = f"mark the one that does: `Annotated[{NAMES[whole[0].keys[0].dtype]}, {whole[0].name}]`, or name it: on="
        if several:
            mend = f'say which column holds it: on="{several[0]}"'
        what = f"it is known by its {names}, and no one column of source {source.name!r} holds that key"
        if on:
            parts = ", ".join(f"{part.name}: {NAMES[part.dtype]}" for part in whole[0].keys)
            types = ", ".join(NAMES[field.dtype] for name in on if (field := source.schema.find(name)))
            what, mend = (
                f"on= names {types}, and the key of its {names} is {parts}",
                "name columns of these types",
            )
        ctx.mistake(at, f"{title}: {what}.", mend, "join")
    else:
        mend = f"mark its key in {dimension.event}: `Annotated[str, entity]`"
        ctx.mistake(
            at, f"{title}: its event holds no whole key of an entity, or one several times.", mend, "join"
        )
    return None, ()


def _holding(schema: Schema, entity: CompiledEntity) -> tuple[str, ...]:
    return tuple(field.name for field in schema.fields if field.entity == entity.name)


def _fits(entity: CompiledEntity, columns: tuple[str, ...], schema: Schema) -> bool:
    found = [schema.find(name) for name in columns]
    return len(found) == len(entity.keys) and all(
        field is not None and field.dtype is part.dtype
        for field, part in zip(found, entity.keys, strict=True)
    )


def _columns(
    at: Definition, written: Mapping[str, Any], dimension: CompiledSource, taken: dict[str, str], ctx: Context
) -> tuple[tuple[str, str], ...] | None:
    found = []
    for name, column in written.items():
        asked = column_names(column)[0]
        if dimension.schema.find(asked) is None:
            mend = nearest(asked, dimension.schema.names)
            ctx.mistake(
                at, f"{ctx.title(at)}: source {dimension.name!r} has no column {asked!r}.", mend, "join"
            )
        elif name in taken:
            what = f"the column {name!r} comes from {taken[name]} and from source {dimension.name!r}"
            mend = f'give it another name: vo.join(..., {dimension.name}_{name}="{asked}")'
            ctx.mistake(at, f"{ctx.title(at)}: {what}.", mend, "join")
        else:
            taken[name] = f"source {dimension.name!r}"
            found.append((name, asked))
            continue
        return None
    if not found:
        mend = 'name the columns that it adds: vo.join(planes, "maker")'
        ctx.mistake(at, f"{ctx.title(at)} joins {dimension.name!r} and takes no column of it.", mend, "join")
    return tuple(found) or None
