"""Owners: who answers for a definition."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Owner:
    """A team or person that answers for definitions; alerts go to them.

    Args:
        name: how definitions and alerts name the owner.
        contact: an address that a person reads.

    >>> Owner("flight-ops", contact="flight-ops@example.org").name
    'flight-ops'
    """

    name: str
    contact: str | None = None
