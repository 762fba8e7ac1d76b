"""Authors' SQL: parsed, checked against the columns it may use, typed. DuckDB's dialect; nothing is executed.

An expression is stateless: it sees one row. So aggregates, windows, joins, subqueries and anything that
reads the clock or chance are mistakes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from sqlglot import ErrorLevel, exp, parse_one
from sqlglot.dialects import DuckDB
from sqlglot.errors import ParseError, TokenError
from sqlglot.optimizer.annotate_types import annotate_types

from volano.compile.report import nearest
from volano.values.schema import DType

Problem = tuple[str, str]
"""What is wrong, and the mend."""

_DIALECT: Final = "duckdb"
_SQL_TYPES: Final = {
    DType.BOOL: "BOOLEAN",
    DType.INT64: "BIGINT",
    DType.FLOAT64: "DOUBLE",
    DType.STRING: "VARCHAR",
    DType.TIMESTAMP: "TIMESTAMPTZ",
}
_KINDS: Final = exp.DataType.Type
_FROM_SQL: Final[tuple[tuple[frozenset[Any], DType], ...]] = (
    (frozenset({_KINDS.BOOLEAN}), DType.BOOL),
    (frozenset(exp.DataType.INTEGER_TYPES), DType.INT64),
    (frozenset({*exp.DataType.REAL_TYPES}), DType.FLOAT64),
    (frozenset(exp.DataType.TEXT_TYPES), DType.STRING),
    (
        frozenset({_KINDS.TIMESTAMPTZ, _KINDS.TIMESTAMPLTZ, _KINDS.TIMESTAMP, _KINDS.DATETIME}),
        DType.TIMESTAMP,
    ),
)
_CLOCK: Final = frozenset(
    {
        "age", "current_date", "current_datetime", "current_time", "current_timestamp", "get_current_time",
        "get_current_timestamp", "localtime", "localtimestamp", "now", "today", "transaction_timestamp",
    }
)  # fmt: skip
_CHANCE: Final = frozenset(
    {"gen_random_uuid", "nextval", "rand", "random", "setseed", "uuid", "uuidv4", "uuidv7"}
)
_PLAIN: Final = re.compile("[a-z_][a-z0-9_]*")
_STATEFUL: Final = (exp.AggFunc, exp.Window, exp.Subquery, exp.Select, exp.Exists)


@dataclass(frozen=True)
class Expression:
    """A checked expression: its text as written, its type (None when unknown), the columns it reads."""

    sql: str
    dtype: DType | None
    columns: tuple[str, ...]


@dataclass(frozen=True)
class Selection:
    """A checked SELECT: whether it keeps all columns, and what it computes or picks, by output name."""

    keeps_all: bool
    outputs: tuple[tuple[str, Expression], ...]


def read_expression(text: str, columns: Mapping[str, DType]) -> tuple[Expression | None, list[Problem]]:
    """Parse, check and type one expression.

    Args:
        text: SQL over the columns of one row.
        columns: what it may read.

    >>> read_expression("delay > 30", {"delay": DType.FLOAT64})[0].dtype
    <DType.BOOL: 'bool'>
    >>> read_expression("delai > 30", {"delay": DType.FLOAT64})[1]
    [("SQL reads the unknown column 'delai'", "did you mean 'delay'? (known: delay)")]
    """
    select, problems = _parse(f"SELECT {text}\n AS value FROM source", text)
    if select is None:
        return None, problems
    if (
        len(select.expressions) != 1
        or _has_clauses(select)
        or isinstance(select.expressions[0].unalias(), exp.Star)
    ):
        return None, [
            (f"SQL {text!r} is not one expression", "write one expression over the columns of a row")
        ]
    found, problems = _check(select, columns)
    if problems:
        return None, problems
    expression = found[0][1]
    has_comment = "--" in text or "/*" in text
    return (expression if has_comment else replace(expression, sql=text.strip())), []


def read_select(text: str, columns: Mapping[str, DType]) -> tuple[Selection | None, list[Problem]]:
    """Parse, check and type a SELECT that computes columns of a source.

    >>> read_select("SELECT *, delay > 15 AS late FROM source", {"delay": DType.FLOAT64})[0].outputs[0][0]
    'late'
    """
    select, problems = _parse(text, text)
    if select is None:
        return None, problems
    origin = select.args.get("from_") or select.args.get("from")
    table = origin.this if origin is not None else None
    if not isinstance(table, exp.Table) or table.name != "source":
        return None, [("The SELECT does not read from `source`", "write SELECT ... FROM source")]
    if select.args.get("where") is not None:
        mend = "a projection keeps every row; put the condition into where=vo.sql(...) of the features"
        return None, [("The SELECT leaves out rows", mend)]
    if _has_clauses(select):
        mend = "a projection maps each row to one row: SELECT expressions FROM source, nothing else"
        return None, [("The SELECT joins, groups, sorts or limits", mend)]
    stars = [item for item in select.expressions if isinstance(item, exp.Star)]
    if any(star.args.get("except_") or star.args.get("except") or star.args.get("replace") for star in stars):
        return None, [("The SELECT changes what * means", "write *, and the computed columns after it")]
    for star in stars:
        star.pop()
    unnamed = [item for item in select.expressions if not item.alias_or_name]
    if unnamed:
        return None, [(f"{item.sql('duckdb')} has no name", "add AS name") for item in unnamed]
    found, problems = _check(select, columns)
    names = [name for name, _ in found]
    problems += [
        (f"The SELECT gives two columns named {name!r}", "give each a name of its own")
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    return (None if problems else Selection(bool(stars), tuple(found))), problems


def cast(expression: Expression, dtype: DType) -> str:
    """SQL of an expression that gives exactly a logical type; a bool does so by itself.

    >>> cast(Expression("a + 1", DType.INT64, ("a",)), DType.INT64)
    'CAST(a + 1 AS BIGINT)'
    """
    exact = expression.dtype is dtype is DType.BOOL
    return expression.sql if exact else f"CAST({expression.sql} AS {_SQL_TYPES[dtype]})"


def identifier(name: str) -> str:
    """A column name as SQL: quoted unless it is plain.

    >>> identifier("delay"), identifier("order")
    ('delay', '"order"')
    """
    node = exp.to_identifier(name, quoted=not _is_plain(name))
    return str(node.sql(_DIALECT))


def compute(relation: str, computed: Sequence[tuple[str, str]], *, replaced: Sequence[str] = ()) -> str:
    """SQL that adds columns to every row of a relation and keeps all others, in the same order.

    Args:
        relation: a table name or a parenthesised SELECT.
        computed: pairs of name and SQL.
        replaced: the names among them that the relation already has.

    >>> compute("source", [("late", "delay > 15")])
    'SELECT *, delay > 15 AS late FROM source'
    """
    new = [f"{sql} AS {identifier(name)}" for name, sql in computed if name not in replaced]
    old = [f"{sql} AS {identifier(name)}" for name, sql in computed if name in replaced]
    star = f"* REPLACE ({', '.join(old)})" if old else "*"
    return f"SELECT {', '.join([star, *new])} FROM {relation}"


def _is_plain(name: str) -> bool:
    return bool(_PLAIN.fullmatch(name)) and name.upper() not in DuckDB.Tokenizer.KEYWORDS


def _parse(statement: str, shown: str) -> tuple[exp.Select | None, list[Problem]]:
    try:
        parsed = parse_one(statement, read=_DIALECT)
    except ParseError as error:
        near = str(error.errors[0].get("highlight", "")).strip() if error.errors else ""
        at = f" near {near!r}" if near and near in shown else ", it is not complete"
        return None, [(f"SQL {shown!r} does not parse{at}", "correct the SQL (DuckDB's dialect)")]
    except TokenError:
        return None, [(f"SQL {shown!r} does not parse: a quote is not closed", "close the quote")]
    if not isinstance(parsed, exp.Select):
        return None, [(f"SQL {shown!r} is not a SELECT", "write an expression, or SELECT ... FROM source")]
    return parsed, []


def _has_clauses(select: exp.Select) -> bool:
    return any(value for key, value in select.args.items() if key not in ("expressions", "from", "from_"))


def _check(
    select: exp.Select, columns: Mapping[str, DType]
) -> tuple[list[tuple[str, Expression]], list[Problem]]:
    problems: list[Problem] = []
    for item in select.expressions:
        problems += _refused(item)
        for column in item.find_all(exp.Column):
            if column.table not in ("", "source") or column.name not in columns:
                problems.append(
                    (f"SQL reads the unknown column {column.name!r}", nearest(column.name, columns))
                )
    if problems:
        return [], list(dict.fromkeys(problems))
    return [(item.alias_or_name, _expression(item, columns)) for item in select.expressions], problems


def _expression(item: exp.Expr, columns: Mapping[str, DType]) -> Expression:
    """Type an expression whose columns are known. The tree is changed in place; nobody reads it again."""
    plain = item.unalias()
    names: dict[str, None] = {}
    for column in plain.find_all(exp.Column):
        column.set("table", None)
        column.type = _SQL_TYPES[columns[column.name]]
        names[column.name] = None
    annotate_types(plain, dialect=_DIALECT, overwrite_types=False)
    text = plain.sql(_DIALECT, comments=False, unsupported_level=ErrorLevel.IGNORE)
    return Expression(text, _dtype(plain), tuple(names))


def _refused(item: exp.Expr) -> list[Problem]:
    problems = []
    for node in item.walk():
        if isinstance(node, _STATEFUL):
            shown = node.sql(_DIALECT)
            problems.append(
                (
                    f"SQL {shown!r} looks at more than one row",
                    "the engine aggregates: use vo.mean and the like",
                )
            )
        elif isinstance(node, exp.Func) and {node.sql_name().lower(), node.name.lower()} & (_CLOCK | _CHANCE):
            mend = "time arrives in a column; the result must depend on the row alone"
            problems.append((f"SQL {node.sql('duckdb')!r} reads the clock or chance", mend))
    return problems[:1]


def _dtype(item: exp.Expr) -> DType | None:
    kind = item.type.this if item.type is not None else None
    return next((dtype for kinds, dtype in _FROM_SQL if kind in kinds), None)
