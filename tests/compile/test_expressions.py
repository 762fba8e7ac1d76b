"""Authors' SQL: types as DuckDB has them, and nothing that sees more than a row."""

from __future__ import annotations

import duckdb
import pytest

from volano.compile.expressions import cast, compute, read_expression, read_select
from volano.values.schema import DType

COLUMNS = {
    "delay": DType.FLOAT64,
    "n": DType.INT64,
    "b": DType.BOOL,
    "s": DType.STRING,
    "t": DType.TIMESTAMP,
}
ROW = """SELECT 31.5::DOUBLE AS delay, 3::BIGINT AS n, true AS b, 'aa' AS s,
                TIMESTAMPTZ '2013-01-01 10:00:00+00' AS t, 7 AS hidden"""
DUCKDB_TYPES = {
    "BOOLEAN": DType.BOOL,
    "BIGINT": DType.INT64,
    "DOUBLE": DType.FLOAT64,
    "VARCHAR": DType.STRING,
    "TIMESTAMP WITH TIME ZONE": DType.TIMESTAMP,
}


def types_of(sql: str) -> dict[str, str]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        described = connection.execute(f"DESCRIBE {sql}").fetchall()
    return {row[0]: row[1] for row in described}


@pytest.mark.parametrize(
    "text",
    [
        "delay", "n", "s", "t", "delay > 30", "n + 1", "n / 2", "n * delay", "n % 7", "-n", "abs(delay)", "upper(s)",
        "length(s)", "s LIKE 'a%'", "s IN ('aa', 'b')", "b AND n > 2", "NOT b", "n IS NULL", "coalesce(n, 0)",
        "CASE WHEN b THEN 1 ELSE 0 END", "t - INTERVAL 2 HOURS", "t + INTERVAL '1' DAY", "extract(hour FROM t)",
        "date_trunc('day', t)", "date_diff('minute', t, t)", "greatest(n, delay)", "CAST(n AS DOUBLE)", "n::VARCHAR",
        "ln(delay)", "round(delay)", "floor(delay)", "s || '!'", "nullif(n, 0)", "1", "1.5", "'x'", "true",
    ],
)  # fmt: skip
def test_the_inferred_type_is_the_type_that_duckdb_gives(text):
    found, problems = read_expression(text, COLUMNS)
    assert not problems and found is not None and found.dtype is not None
    sql = compute(f"({ROW}) AS source", [("out", cast(found, found.dtype))])
    assert DUCKDB_TYPES[types_of(sql)["out"]] is found.dtype


@pytest.mark.parametrize(
    "text",
    [
        "sum(n)", "n > avg(n)", "row_number() OVER ()", "(SELECT 1)", "n IN (SELECT 1)", "now() > t", "current_date",
        "random()", "uuid()", "n, s", "*", "delai", "source.delai", "other.delay", "delay >", "delay FROM source WHERE b",
        "1; DROP TABLE x", "", "'open",
    ],
)  # fmt: skip
def test_what_is_not_one_row_of_known_columns_is_refused(text):
    found, problems = read_expression(text, COLUMNS)
    assert found is None and len(problems) >= 1


def test_a_comment_does_not_swallow_what_follows():
    found, _ = read_expression("delay > 30 -- late", COLUMNS)
    assert found is not None and found.sql == "delay > 30"


def test_a_projection_keeps_every_column_also_those_the_author_does_not_know():
    selection, problems = read_select('SELECT *, delay * 60 AS s, b AS "order" FROM source', COLUMNS)
    assert not problems and selection is not None
    computed = [(name, cast(found, found.dtype or DType.STRING)) for name, found in selection.outputs]
    sql = compute(f"({ROW}) AS source", computed, replaced=["s"])
    assert list(types_of(sql)) == ["delay", "n", "b", "s", "t", "hidden", "order"]
    assert types_of(sql)["s"] == "DOUBLE"


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM landings", "SELECT * FROM source WHERE b", "SELECT DISTINCT n FROM source", "SELECT n FROM source LIMIT 1",
        "SELECT s, sum(n) AS n FROM source GROUP BY s", "SELECT n FROM source ORDER BY n", "SELECT n + 1 FROM source",
        "SELECT * FROM source JOIN other USING (n)", "WITH x AS (SELECT 1) SELECT n FROM source", "DELETE FROM source",
        "SELECT n, n FROM source", "SELECT * EXCLUDE (n) FROM source", "SELECT n FROM source UNION SELECT n FROM source",
        "SELECT 1 AS x", "SELECT * FROM source, source AS b",
    ],
)  # fmt: skip
def test_a_select_that_is_no_map_of_rows_is_refused(text):
    found, problems = read_select(text, COLUMNS)
    assert found is None and len(problems) >= 1
