"""Entities: what features describe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass

from volano.spec.owner import Owner


@dataclass(frozen=True, eq=False)
class Entity:
    """What features describe: a plane, a card, a user.

    Mark the fields that hold its key with `Annotated[str, plane]`.

    Args:
        name: unique among the project's entities.
        key: the type of the key, `str` or `int`; or the named parts of a composite key, in order.
        owner: who answers for it.

    >>> Entity("plane", key=str).key
    <class 'str'>
    >>> list(Entity("seat", key={"plane": str, "row": int}).key)
    ['plane', 'row']
    """

    name: str
    _: KW_ONLY
    key: type | Mapping[str, type] | None = None
    owner: Owner | None = None
