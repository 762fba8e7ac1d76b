"""Requests: what a decision is asked with, and the requests of the past."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from volano.spec.fields import SchemaType
from volano.spec.sql import Sql


class Request(metaclass=SchemaType):
    """What a decision is asked with; subclass it and annotate the fields.

    Args:
        id: the field or fields that identify the event that the request is, when it is an event of its own
            (a card payment that is being judged); needed by features with `include_request=True`.

    >>> class Departure(Request):
    ...     distance: int
    >>> Departure.distance
    Departure.distance
    """


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests of the past, from a table: what would have been asked, and when. They train the first model.

    Args:
        request: the request class; the table has a column for each of its fields.
        table: address of the table, relative to the project: `schedule.parquet`, `x.csv`, `delta:PATH`,
            `duckdb:SELECT ...`.
        at: when each would have been asked: SQL over the request's fields that gives a timestamp.
        name: needed only when a request has several histories; otherwise the request's name.
    """

    request: SchemaType
    _: KW_ONLY
    table: str | None = None
    at: Sql | str | None = None
    name: str | None = None
