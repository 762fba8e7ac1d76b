"""The units of a plan: a closed set of small frozen structs. The same list is explained and applied.

Each is idempotent when carried out with its id: apply notes the ids that are done under the plan's id, and a
second run skips them. Add a step by adding a struct here, a line in `explain`, and a case in the runtime;
`assert_never` finds the rest.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from volano.values.identities import content_hash
from volano.values.schema import Schema


class StoreBundle(msgspec.Struct, frozen=True, tag="store_bundle", tag_field="step"):
    """Put the bundle of the project's sources into the artifact store."""

    bundle: str


class CreateTable(msgspec.Struct, frozen=True, tag="create_table", tag_field="step"):
    """Create a lake table. `columns` are the author's; the system adds its own."""

    table: str
    columns: Schema


class WidenTable(msgspec.Struct, frozen=True, tag="widen_table", tag_field="step"):
    """Add the author's new columns to a lake table; rows written before hold null."""

    table: str
    columns: Schema


class RetypeColumns(msgspec.Struct, frozen=True, tag="retype_columns", tag_field="step"):
    """Give columns of a lake table a wider type; rows written before are written again with it, and mean the same."""

    table: str
    columns: Schema


class HandOver(msgspec.Struct, frozen=True, tag="hand_over", tag_field="step"):
    """Pin the instant at which a source goes over from its table to its stream, and the table's snapshot.

    `table` is empty for a source that is only streamed.
    """

    source: str
    table: str


class BackfillGroup(msgspec.Struct, frozen=True, tag="backfill_group", tag_field="step"):
    """Compute a state group from its source's facts into online state that nobody reads yet."""

    group: str
    entity: str
    source: str
    views: tuple[str, ...]


class PublishState(msgspec.Struct, frozen=True, tag="publish_state", tag_field="step"):
    """Swap online state in: from now on these groups receive events and are read."""

    groups: tuple[str, ...]


class RegisterDefinitions(msgspec.Struct, frozen=True, tag="register_definitions", tag_field="step"):
    """Put the compiled project in force, unless something else was applied since the plan was made.

    Args:
        definitions: hash of the project.
        based_on: hash of the project that must be in force; empty before the first apply.
    """

    definitions: str
    bundle: str
    based_on: str


class RetireState(msgspec.Struct, frozen=True, tag="retire_state", tag_field="step"):
    """Drop state groups that no definition and no release that serves, or may be rolled back to, needs."""

    groups: tuple[str, ...]


Step: TypeAlias = (
    StoreBundle
    | CreateTable
    | WidenTable
    | RetypeColumns
    | HandOver
    | BackfillGroup
    | PublishState
    | RegisterDefinitions
    | RetireState
)


def step_id(step: Step) -> str:
    """The stable id of a step: the hash of its content. Equal steps of two plans have one id.

    >>> step_id(StoreBundle("ab")) == step_id(StoreBundle("ab")) != step_id(StoreBundle("cd"))
    True
    """
    return content_hash(step)[:16]
