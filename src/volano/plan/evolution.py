"""How the schema of a source changes, as its producers meet it: what goes on working, and what does not.

A producer knows one schema and is deployed on its own day. A change is compatible when events of both schemas fit the
new one and mean the same; widening when they fit and a column gets a wider type; breaking when what a producer sends
today would be set aside. Null is the only default: any other would put words into the mouth of old rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Final

import msgspec

from volano.plan.definitions import CompiledProject, CompiledSource
from volano.values.schema import DType, Field

WIDER: Final = {DType.INT64: DType.FLOAT64}
"""The types that a column may grow into: every value of the first is one of the second, up to 2^53."""


class Evolution(StrEnum):
    """How much a change of a schema matters to producers."""

    COMPATIBLE = "compatible"
    WIDENING = "widening"
    BREAKING = "breaking"


class SchemaChange(msgspec.Struct, frozen=True):
    """One change of a source's schema.

    Args:
        consequence: what becomes of events and rows, a sentence.
        mend: how to do without it; empty where nothing breaks.
    """

    source: str
    field: str
    evolution: Evolution
    consequence: str
    mend: str = ""


def evolve(applied: CompiledProject | None, declared: CompiledProject) -> tuple[SchemaChange, ...]:
    """Every change of a schema that producers push events by, in declaration order."""
    if applied is None:
        return ()
    return tuple(
        change
        for name, source in declared.sources.items()
        if (past := applied.sources.get(name)) is not None and past.stream and source.stream
        for change in changes_of(past, source)
    )


def changes_of(past: CompiledSource, source: CompiledSource) -> Iterator[SchemaChange]:
    """The changes of one source's schema."""
    for field in source.schema.fields:
        old = past.schema.find(field.name)
        if old is None:
            yield _added(source.name, field)
        elif old.dtype is not field.dtype:
            yield _retyped(source.name, old, field)
        elif old.nullable != field.nullable:
            yield _nullability(source.name, field)
    for old in past.schema.fields:
        if source.schema.find(old.name) is None:
            yield _removed(source.name, old)


def carried(applied: CompiledProject | None, declared: CompiledProject) -> CompiledProject:
    """Declared definitions that know which columns were narrower once: an event sent again must still be known."""
    if applied is None:
        return declared
    sources = dict(declared.sources)
    for name, source in declared.sources.items():
        past = applied.sources.get(name)
        if past is None:
            continue
        widened = [*past.widened, *(field.name for field in widened_fields(past, source))]
        kept = tuple(dict.fromkeys(name for name in widened if _is_float(source, name)))
        if kept:
            sources[name] = msgspec.structs.replace(source, widened=kept)
    return msgspec.structs.replace(declared, sources=sources)


def widened_fields(past: CompiledSource, source: CompiledSource) -> tuple[Field, ...]:
    """The fields of a source that have a wider type than before."""
    return tuple(
        field
        for field in source.schema.fields
        if (old := past.schema.find(field.name)) is not None and WIDER.get(old.dtype) is field.dtype
    )


def _added(source: str, field: Field) -> SchemaChange:
    if field.nullable:
        what = "producers that do not know it go on; rows without it hold null"
        return SchemaChange(source, field.name, Evolution.COMPATIBLE, what)
    return SchemaChange(
        source,
        field.name,
        Evolution.BREAKING,
        "events of producers that do not send it are set aside as missing_field; rows of the past hold null",
        f"declare it as `{field.name}: ... | None` until every producer sends it",
    )


def _removed(source: str, field: Field) -> SchemaChange:
    return SchemaChange(
        source,
        field.name,
        Evolution.BREAKING,
        "events of producers that still send it are set aside as unknown_field; the lake keeps the column",
        f"keep `{field.name}: ... | None` until no producer sends it; a new name is a new field beside it",
    )


def _retyped(source: str, old: Field, field: Field) -> SchemaChange:
    if WIDER.get(old.dtype) is field.dtype:
        what = f"{old.dtype} becomes {field.dtype}: producers of both go on; rows of the past are read as {field.dtype}"
        if field.dtype is DType.FLOAT64:
            what += ", which rounds whole numbers beyond 2^53"
        return SchemaChange(source, field.name, Evolution.WIDENING, what)
    return SchemaChange(
        source,
        field.name,
        Evolution.BREAKING,
        f"{old.dtype} becomes {field.dtype}: stored rows hold the other type",
        "give the new meaning a new name, and keep the old field until no producer sends it",
    )


def _nullability(source: str, field: Field) -> SchemaChange:
    if field.nullable:
        return SchemaChange(source, field.name, Evolution.COMPATIBLE, "it may be left out from now on")
    return SchemaChange(
        source,
        field.name,
        Evolution.BREAKING,
        "events of producers that leave it out are set aside as missing_field",
        f"keep `{field.name}: ... | None` until every producer sends it",
    )


def _is_float(source: CompiledSource, name: str) -> bool:
    field = source.schema.find(name)
    return field is not None and field.dtype is DType.FLOAT64
