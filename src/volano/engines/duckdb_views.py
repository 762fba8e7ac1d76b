"""People's SQL over views, in a database in memory that can read what it is given, and write nothing.

Each query has a database of its own: nothing that one leaves behind can be seen by another. What does not fit in
memory goes to a folder below the system's temporary one, which is removed with the query.
"""

from __future__ import annotations

import difflib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any, Final

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds

from volano.errors import AuthorCodeError, StoreError, UnknownNameError

View = tuple[str, str, str]
"""Schema, name and SELECT."""

_MISSING: Final = re.compile(r"Table with name (.+?) does not exist|Referenced table \"(.+?)\" not found")
_PLACE: Final = re.compile(r"^LINE (\d+):", re.MULTILINE)
_SHOW_TABLES: Final = re.compile(r"\s*show\s+(all\s+)?tables\s*;?\s*", re.IGNORECASE)
_N_NEAR: Final = 3


def ask_views(
    sql: str,
    relations: Mapping[str, pa.Table | ds.Dataset],
    views: Sequence[View],
    *,
    config: Mapping[str, Any],
    known: Sequence[str],
    limit: int | None,
) -> pa.Table:
    """The result of one SELECT.

    Args:
        relations: what the views read, by name.
        views: in an order in which they can be made.
        config: settings of the database.
        known: the names that can be asked, for the error about one that cannot.
        limit: at most so many rows; all when None.

    Raises:
        UnknownNameError: a table is not known.
        AuthorCodeError: the engine refuses the SQL; says where.
    """
    if _SHOW_TABLES.fullmatch(sql):  # DuckDB's own list would name what the views read as well
        made = {name for _, name, _ in views} | {f"{schema}.{name}" for schema, name, _ in views}
        return pa.table({"name": pa.array([name for name in known if name in made], pa.string())}).slice(
            0, limit
        )
    with tempfile.TemporaryDirectory(prefix="volano-sql-") as folder:
        settings = {**config, "enable_external_access": "false", "temp_directory": folder}
        with duckdb.connect(config=settings) as connection:
            connection.execute("SET TimeZone = 'UTC'")
            connection.execute("SET lock_configuration = true")
            for name, relation in relations.items():
                connection.register(name, relation)
            for schema in dict.fromkeys(schema for schema, _, _ in views):
                connection.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
            for view in views:
                _create(connection, view)
            try:
                _require_one_select(sql)
                found = connection.sql(sql)
                if limit is not None:
                    found = found.limit(limit)
                return _distinct_names(_whole_numbers(found.to_arrow_table()))
            except duckdb.Error as error:
                raise _refusal(error, sql, known) from error


def _create(connection: duckdb.DuckDBPyConnection, view: View) -> None:
    schema, name, select = view
    quoted = name.replace('"', '""')
    try:
        connection.execute(f'CREATE VIEW "{schema}"."{quoted}" AS {select}')
    except duckdb.Error as error:
        raise StoreError(
            f"The view {schema}.{name} cannot be made: {error}",
            where="the tables that it reads",
            mend="look whether an author's table still has the columns that its event declares",
        ) from error


def _distinct_names(table: pa.Table) -> pa.Table:
    """No two columns of one name: JSON and Parquet have none.

    >>> _distinct_names(pa.table([[1], [2], [3]], names=["n", "n", "m"])).column_names
    ['n', 'n_1', 'm']
    """
    names: list[str] = []
    for name in table.column_names:
        found, n = name, 0
        while found in names:
            n += 1
            found = f"{name}_{n}"
        names.append(found)
    return table.rename_columns(names)


def _whole_numbers(table: pa.Table) -> pa.Table:
    """Sums of integers are 128 bits wide in DuckDB: they are int64 where they fit."""
    for at, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                table = table.set_column(at, field.name, table.column(at).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue
    return table


def _require_one_select(sql: str) -> None:
    statements = duckdb.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        raise duckdb.InvalidInputException("one SELECT is expected, and nothing else: nothing can be written")


def _refusal(error: duckdb.Error, sql: str, known: Sequence[str]) -> UnknownNameError | AuthorCodeError:
    said = str(error)
    if isinstance(error, duckdb.CatalogException | duckdb.BinderException) and (
        found := _MISSING.search(said)
    ):
        name = (found[1] or found[2]).strip('"')
        near = difflib.get_close_matches(name, known, n=_N_NEAR)
        listed = ", ".join(known) or "none: nothing is applied and committed yet"
        hint = f"did you mean {' or '.join(near)}? there are: {listed}" if near else f"there are: {listed}"
        return UnknownNameError(f"There is no table named {name!r}.", where=_where(said, sql), mend=hint)
    return AuthorCodeError(
        f"DuckDB refuses the SQL: {said}",
        where=_where(said, sql),
        mend="correct the SQL; `volano lake describe` shows tables and their columns",
    )


def _where(said: str, sql: str) -> str:
    """The line that the engine names, and the place in it where it points."""
    place = _PLACE.search(said)
    if place is None:
        return " ".join(sql.split())
    lines = said[place.start() :].splitlines()
    pointer = next((line.index("^") for line in lines[1:] if "^" in line), None)
    at = f"line {place[1]}"
    if pointer is not None and pointer >= len(place[0]) + 1:
        at += f", column {pointer - len(place[0])}"
    number = int(place[1]) - 1
    shown = sql.splitlines()[number].strip() if number < len(sql.splitlines()) else ""
    return f"{at}: {shown}"
