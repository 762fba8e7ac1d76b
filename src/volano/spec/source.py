"""Sources: where events come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Literal

from volano.spec.fields import FieldRef, SchemaType
from volano.spec.owner import Owner


@dataclass(frozen=True, eq=False)
class Source:
    """Where events of one schema come from: a table, a stream, or both, united by id at a hand-over.

    Args:
        name: unique among the project's sources; names the fact table. Lower case, digits and underscores.
        event: the event's class.
        table: address of a table with past events, relative to the project: `landings.parquet`, `x.csv`,
            `delta:PATH`, `duckdb:SELECT ...`.
        stream: whether events are pushed.
        available_after: how long after its event_time a table's row could first be used (its known_at). A
            duration such as "5m". Too small a value leaks the future into training.
        known_at: in place of `available_after`: the column that holds known_at.
        accept_late: a pushed event later than this after its event_time is stored and changes no feature.
        order_by: columns that order events of one instant, before their id does.
        change: how the table changes. "append": a row is an event. "slowly_changing": a row holds from its event time
            on, until a newer row of its key. "snapshots": full dumps; each row's event time is the instant of its
            dump, and `id=` names what identifies a row within one. What differs from dump to dump becomes the facts.
        valid_to: of a slowly changing table: the column that says until when a row holds, null while it does.
        owner: who answers for it.
    """

    name: str
    event: SchemaType
    _: KW_ONLY
    table: str | None = None
    stream: bool = False
    available_after: str | timedelta | None = None
    known_at: str | FieldRef | None = None
    accept_late: str | timedelta | None = None
    order_by: str | FieldRef | Sequence[str | FieldRef] = ()
    change: Literal["append", "slowly_changing", "snapshots"] = "append"
    valid_to: str | FieldRef | None = None
    owner: Owner | None = None
