"""Owners and entities."""

from __future__ import annotations

from collections.abc import Mapping

from volano.compile.annotations import TYPES
from volano.compile.context import Context
from volano.plan.definitions import CompiledEntity, CompiledOwner
from volano.values.schema import DType, Field


def lower_owners(ctx: Context) -> dict[str, CompiledOwner]:
    """Every owner by name."""
    owners = {}
    for at in ctx.of_kind("owner"):
        ctx.name_is_valid(at)
        if not at.value.contact:
            mend = 'give contact="team@example.org": alerts go there'
            ctx.mistake(at, f"{ctx.title(at)} has no contact.", mend)
        owners[at.name] = CompiledOwner(at.name, at.value.contact or "")
    return owners


def lower_entities(ctx: Context) -> None:
    """Resolve every entity and its key parts."""
    for at in ctx.of_kind("entity"):
        ctx.name_is_valid(at)
        owner = ctx.owner(at)
        key = at.value.key
        if key is None:
            ctx.mistake(at, f"{ctx.title(at)} has no key.", "give key=str or key=int")
            continue
        parts = dict(key) if isinstance(key, Mapping) else {at.name: key}
        fields = []
        for name, python in parts.items():
            dtype = TYPES.get(python) if isinstance(python, type) else None
            if dtype not in (DType.STRING, DType.INT64):
                shown = python.__name__ if isinstance(python, type) else repr(python)
                mend = 'a key is str or int; a composite one is key={"carrier": str, "flight": int}'
                ctx.mistake(at, f"{ctx.title(at)}: a key cannot be {shown}.", mend, "key")
                continue
            fields.append(Field(name, dtype, entity=at.name))
        if len(fields) == len(parts):
            ctx.entities[id(at.value)] = CompiledEntity(at.name, tuple(fields), owner)
