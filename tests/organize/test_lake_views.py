"""Views of the lake: names, what they read, and SQL that holds over tables made by hand."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from volano.engines.duckdb_engine import DuckDbEngine
from volano.organize.lake_views import lake_views, needed_views
from volano.organize.view_sql import STORED, LakeContents
from volano.plan.definitions import (
    CompiledDecision,
    CompiledLabel,
    CompiledModel,
    CompiledPolicy,
    CompiledProject,
    CompiledRequest,
    CompiledService,
    CompiledSource,
    CompiledTrainer,
)
from volano.values.event_ids import event_id
from volano.values.instants import DAY_US
from volano.values.schema import DType, Field, Schema

INSTANT = pa.timestamp("us", "UTC")
ORDER = Schema((Field("order_id", DType.STRING), Field("at", DType.TIMESTAMP)))
SYSTEM = [
    "event_id", "revision", "operation", "event_time", "received_at", "applied_at", "known_at", "receipt_id",
    "payload_hash", "too_late",
]  # fmt: skip


def source(name: str, **more: Any) -> CompiledSource:
    return CompiledSource(name, "Order", ORDER, ("order_id",), "at", "", **{"stream": True, **more})


def project(*sources: CompiledSource) -> CompiledProject:
    service = CompiledService("risk", "Checkout", ())
    return CompiledProject(
        "shop",
        sources={each.name: each for each in sources},
        requests={"Checkout": CompiledRequest("Checkout", ORDER)},
        labels={
            "back": CompiledLabel(
                "back", "Checkout", "orders", (("order_id", "order_id"),), "true", DType.BOOL, DAY_US, ""
            )
        },
        models={"risk": CompiledModel("risk", service, "back", CompiledTrainer("lightgbm"), "")},
        decisions={
            "get_risk": CompiledDecision(
                "get_risk", "Checkout", "risk", ("a", "b"), CompiledPolicy("greedy"), 1, "a", ""
            )
        },
    )


def test_a_name_that_two_could_have_belongs_to_the_first_and_the_other_keeps_its_schema() -> None:
    sources = [source("orders"), source("orders_history"), source("receipt", table="x.csv")]
    facts = [*SYSTEM, "order_id", "at"]
    tables = {"fact_orders": facts, "fact_orders_history": facts, "receipt": ["status"]}
    views = lake_views(project(*sources), LakeContents(tables, {}, 0))
    shown = {view.qualified: view.shown for view in views}
    assert shown["main", "fact_orders_history"] == "fact_orders_history"
    assert shown["history", "fact_orders"] == "history.fact_orders"
    assert shown["history", "fact_orders_history"] == "fact_orders_history_history"
    assert shown["lake", "receipt"] == "receipt" and shown["source", "receipt"] == "source.receipt"
    assert len(set(shown.values())) == len(views)


def test_a_query_brings_what_its_words_may_mean_and_what_that_reads() -> None:
    tables = {
        "fact_orders": [*SYSTEM, "order_id"],
        "decision_get_risk": ["decision_id", "attempt"],
        "receipt": ["status"],
    }
    views = lake_views(project(source("orders")), LakeContents(tables, {}, 0))

    def needed(sql: str) -> set[str]:
        return {view.shown for view in needed_views(views, sql)}

    assert needed("FROM fact_ORDERS") >= {"fact_orders", "lake.fact_orders"}
    assert "receipt" not in needed("FROM fact_orders") and needed("SELECT 1") == set()
    assert needed("SHOW TABLES") == {view.shown for view in views}


def ask(
    sql: str, definitions: CompiledProject, tables: dict[str, pa.Table], until: int | None = None
) -> list[dict[str, Any]]:
    columns = {name: table.column_names for name, table in tables.items()}
    views = needed_views(lake_views(definitions, LakeContents(columns, {}, 0, until)), sql)
    relations = {f"{STORED}{name}": table for name, table in tables.items()}
    made = [(view.schema, view.name, view.sql) for view in views]
    found: list[dict[str, Any]] = DuckDbEngine(".").ask(sql, relations, made, known=[]).to_pylist()
    return found


def instants(*micros: int) -> pa.Array:
    return pa.array(micros, pa.int64()).cast(INSTANT)


def decisions(*ids: str) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "decision_id": ids,
            "attempt": [0] * n,
            "decided_at": instants(*range(n)),
            "applied_at": instants(*range(n)),
        }
    )


def test_an_outcome_lists_the_events_that_its_label_stands_on() -> None:
    attribution = pa.table(
        {
            "decision": ["get_risk"] * 4,
            "decision_id": ["d-0", "d-0", "d-0", "d-1"],
            "label": ["back"] * 4,
            "source": ["orders"] * 4,
            "event_id": ["b", "a", "b", "a"],
            "state": ["attached", "attached", "detached", "attached"],
            "weight": [0.5, 0.5, 0.0, 0.25],
            "event_time": instants(5, 3, 5, 3),
            "attached_at": instants(6, 6, 9, 6),
        }
    )
    label = pa.table(
        {
            "decision": ["get_risk"], "decision_id": ["d-1"], "label": ["back"], "state": ["mature"], "value": [1.0],
            "value_text": pa.nulls(1, pa.string()), "decided_at": instants(1), "matures_at": instants(2),
            "computed_at": instants(3), "evidence": ["a"], "evidence_source": ["orders"], "reason": [""],
        }
    )  # fmt: skip
    tables = {"attribution": attribution, "decision_get_risk": decisions("d-0", "d-1", "d-2"), "label": label}
    rows = ask("FROM outcome_get_risk ORDER BY decision_id", project(source("orders")), tables)
    assert [row["label_value"] for row in rows] == [None, True, None]
    touches = [[(each["event_id"], each["weight"]) for each in row["touches"] or ()] for row in rows]
    assert touches == [[("a", 0.5)], [("a", 0.25)], []]


def test_only_what_was_applied_by_the_stamp_is_there() -> None:
    tables = {"decision_get_risk": decisions("d-0", "d-1", "d-2")}
    assert [
        row["decision_id"]
        for row in ask("FROM decision_get_risk", project(source("orders")), tables, until=1)
    ] == ["d-0", "d-1"]


@pytest.mark.parametrize("values", [("a|b", "c\\"), ("", "x"), ("a\\|b", "|")])
def test_ids_joined_in_sql_are_those_joined_in_python(values: tuple[str, str]) -> None:
    from volano.organize.fact_views import _joined_id

    fields = [
        Field("one", DType.STRING),
        Field("two", DType.STRING),
        Field("n", DType.INT64),
        Field("at", DType.TIMESTAMP),
        Field("flag", DType.BOOL),
    ]
    sql = _joined_id(fields, {field.name: f'"{field.name}"' for field in fields})
    row = pa.table(
        {"one": [values[0]], "two": [values[1]], "n": [-7], "at": instants(1_500_000), "flag": [True]}
    )
    found = DuckDbEngine(".").query(f"SELECT {sql} AS id FROM t", {"t": row})["id"].to_pylist()
    assert found == [event_id((*values, -7, 1_500_000, True))]
