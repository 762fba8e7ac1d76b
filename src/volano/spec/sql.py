"""SQL that authors write, kept as text. Compile parses, checks and types it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sql:
    """A piece of SQL: an expression over columns, or a SELECT over `source`. DuckDB's dialect."""

    text: str


def sql(text: str) -> Sql:
    """SQL over the columns of a source: an expression, or for a view's `select=` a SELECT over `source`.

    It is stateless: no aggregates, joins, windows or subqueries, and it never reads the clock.

    Args:
        text: such as `arr_delay > 30`, or `SELECT *, arr_delay > 15 AS late FROM source`.

    >>> sql("arr_delay > 30").text
    'arr_delay > 30'
    """
    return Sql(text)
