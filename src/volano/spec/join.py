"""Joins: columns of a dimension, as they stood at the time of an event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from volano.spec.fields import FieldRef
from volano.spec.source import Source


@dataclass(frozen=True, eq=False)
class Join:
    """Columns of a dimension. Made by `join`."""

    source: Source
    columns: Mapping[str, str | FieldRef]
    on: str | FieldRef | Sequence[str | FieldRef] | None


def join(
    source: Source,
    *columns: str | FieldRef,
    on: str | FieldRef | Sequence[str | FieldRef] | None = None,
    **renamed: str | FieldRef,
) -> Join:
    """Columns of a dimension for a view's events: `class ByMaker(FeatureView, ..., join=vo.join(planes, "maker"))`.

    An event gets the values of the newest row of its key that happened strictly before it and was known when it was
    applied; null when there is none. What the dimension says later changes no event.

    Args:
        source: the dimension; a source of any kind whose event names the same entity as the view's event.
        columns: columns of the dimension that keep their names.
        on: the event's column or columns that hold the dimension's key; needed only when several could.
        renamed: columns of the dimension under new names: `seats_of_plane="seats"`.

    Source: docs/decisions/0030-dimensions-and-joins.md.

    >>> planes = Source("planes", None)
    >>> dict(join(planes, "maker", seats_of_plane="seats").columns)
    {'maker': 'maker', 'seats_of_plane': 'seats'}
    """
    kept = {column.name if isinstance(column, FieldRef) else column: column for column in columns}
    return Join(source, {**kept, **renamed}, on)
