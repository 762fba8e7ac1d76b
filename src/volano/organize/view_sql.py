"""What a view of the lake is, and the words of SQL that all of them are written with. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from volano.organize.facts import FACT_COLUMNS
from volano.plan.definitions import CompiledSource
from volano.records.handover import HandOver
from volano.values.instants import Instant
from volano.values.schema import DType

MAIN, HISTORY, LAKE, SOURCE = "main", "history", "lake", "source"
"""Schemas: the views; their histories; tables as they are stored; authors' tables in place."""

STORED: Final = "volano_stored_"
TABLED: Final = "volano_tabled_"
IN_PLACE: Final = "volano_in_place_"
"""What the relations are named that the views read: lake tables, rows of authors' tables as facts, authors' tables."""

SYSTEM: Final = (*FACT_COLUMNS.names[:7], "receipt_id", *FACT_COLUMNS.names[7:])
TYPES: Final = {
    DType.BOOL: "BOOLEAN",
    DType.INT64: "BIGINT",
    DType.FLOAT64: "DOUBLE",
    DType.STRING: "VARCHAR",
    DType.TIMESTAMP: "TIMESTAMPTZ",
    DType.LIST_FLOAT64: "DOUBLE[]",
    DType.LIST_INT64: "BIGINT[]",
    DType.LIST_STRING: "VARCHAR[]",
}


class LakeView(NamedTuple):
    """One view.

    Args:
        schema: where it is, beside its bare name.
        name: in that schema.
        kind: fact, dimension, decision, label, outcome, table (as stored) or source (in place).
        sql: a SELECT over relations and other views.
        reads: other views, as (schema, name), and relations, as ("", name).
        grain: what a row is.
        key: the columns that identify a row; empty where none do.
        about: the name of the definition that it is a view of; empty for a table of the system's.
        owner: of that definition.
        bare: the name under which it is found without its schema; empty when another view has it.
    """

    schema: str
    name: str
    kind: str
    sql: str
    reads: tuple[tuple[str, str], ...]
    grain: str
    key: tuple[str, ...] = ()
    about: str = ""
    owner: str = ""
    bare: str = ""

    @property
    def qualified(self) -> tuple[str, str]:
        return self.schema, self.name

    @property
    def shown(self) -> str:
        """The shortest name that it is found under."""
        return self.bare or f"{self.schema}.{self.name}"


class LakeContents(NamedTuple):
    """What there is to look at.

    Args:
        tables: the columns of every table of the lake.
        handovers: of sources with a table.
        now: what is current, is so as of this instant.
        until: only rows applied by then, where a table says when; None: all.
    """

    tables: Mapping[str, Sequence[str]]
    handovers: Mapping[str, HandOver]
    now: Instant
    until: Instant | None = None


def is_in_place(source: CompiledSource, handovers: Mapping[str, HandOver]) -> bool:
    """Whether rows of a source's table are facts that stand in the table alone."""
    handover = handovers.get(source.name)
    if source.table is None or (handover is not None and handover.imported):
        return False
    return handover is not None or not source.stream


def has_facts(source: CompiledSource, contents: LakeContents) -> bool:
    return f"fact_{source.name}" in contents.tables or is_in_place(source, contents.handovers)


def quoted(name: str) -> str:
    """A name as SQL.

    >>> quoted('a"b')
    '"a""b"'
    """
    return '"' + name.replace('"', '""') + '"'


def columns_of(names: Iterable[str]) -> str:
    """Names as a list of columns."""
    return ", ".join(quoted(name) for name in names)


def ref(schema: str, name: str) -> str:
    return f"{quoted(schema)}.{quoted(name)}"


def text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def instant_sql(instant: Instant) -> str:
    return f"make_timestamptz({instant})"
