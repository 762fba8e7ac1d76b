"""Events: one typed fact, with an event time and an id."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, TypeAlias

from volano.spec.fields import SchemaType


class EventTimeMark:
    """Marks the field that says when an event happened."""


EventTime: TypeAlias = Annotated[datetime, EventTimeMark]
"""The type of the one field that says when the event happened: an aware datetime, kept as UTC µs."""


class Event(metaclass=SchemaType):
    """One kind of fact; subclass it and annotate the fields. The schema serves every stage.

    Types are `str, int, float, bool`, `datetime` (aware) and `T | None`; `Annotated[str, plane]` marks a key
    of an entity; exactly one field is an `EventTime`.

    Args:
        id: the field or fields that identify an event, as a class keyword.

    >>> class Landing(Event, id="flight_id"):
    ...     flight_id: str
    ...     arr_delay: float
    ...     landed_at: EventTime
    >>> Landing.arr_delay
    Landing.arr_delay
    """
