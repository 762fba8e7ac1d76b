"""Attribution at size: decisions and observations in the lake to labels and shares in the lake. A script, and a case.

Case `attribute` of `collect.py`: 1 M decisions × 1 M observations of 100,000 customers over 60 days, a horizon of 7
days, about one pair for an observation. Ours: the `labels` job as `volano worker` runs it: decisions and facts read,
keys joined, every observation divided among the decisions before it, sums by share, default outcomes at maturity, both
tables appended. Baseline: DuckDB joins the same Parquet files to the same two tables and writes them as Parquet; it
knows of no revisions, exposures, late evidence or instant of knowledge. `alone_s`: the job without the lake.

Both results are compared in the same run: the same pairs, shares within 2⁻⁵¹, the same labels within 1e-9.
Bias: one decision API, one label; everything lies in the page cache; text keys.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import lake_tables
from volano.organize.labels import Evidence
from volano.organize.labels import attribute as attribute_labels
from volano.plan.built_in import fact_table
from volano.project import Project
from volano.runtime.labelling import update_labels
from volano.testing import DAY_US, MINUTE_US, ReplayClock, parse_instant

START = parse_instant("2026-01-01")
SPAN_US = 60 * DAY_US
N_COMMITS = 20
DECISION, SOURCE = "decision_get_offer", "fact_orders"

PROJECT = """
from typing import Annotated
import volano as vo

shop = vo.Owner("shop", contact="shop@example.org")
customer = vo.Entity("customer", key=str, owner=shop)

class Order(vo.Event, id="order_id"):
    order_id: str
    customer: Annotated[str, customer]
    amount: float
    ordered_at: vo.EventTime

orders = vo.Source("orders", Order, stream=True, accept_late="1d", owner=shop)

class History(vo.FeatureView, entity=customer, source=orders):
    spent_30d = vo.sum("amount", within="30d")

class Visit(vo.Request):
    customer: Annotated[str, customer]

spent = vo.Label("spent_7d", request=Visit, source=orders, on="customer", value="amount", combine="sum", default=0.0,
                 horizon="7d", owner=shop)
worth = vo.Model("worth", features=[History], label=spent, trainer=vo.LightGBM(objective="regression"), owner=shop)
get_offer = vo.Decision("get_offer", request=Visit, model=worth, actions=["offer", "none"],
                        policy=vo.Threshold("offer", at=10), deadline="50ms", fallback="none", owner=shop)
"""

BASELINE = """
CREATE TEMP TABLE touch AS
SELECT o.event_id, d.decision_id, o.amount, 1.0 / count(*) OVER (PARTITION BY o.event_id) AS weight
FROM read_parquet({facts}) o JOIN read_parquet({decisions}) d
  ON o.customer = d.request__customer
 AND o.event_time >= d.decided_at AND o.event_time < d.decided_at + INTERVAL 7 DAYS;
COPY touch TO '{folder}/attribution.parquet';
COPY (
    SELECT d.decision_id, d.decided_at, coalesce(sum(t.weight * t.amount), 0.0) AS value
    FROM read_parquet({decisions}) d LEFT JOIN touch t USING (decision_id) GROUP BY ALL
) TO '{folder}/label.parquet';
"""


def attribute(scale: float = 1.0) -> dict[str, Any]:
    """The case `attribute`.

    Args:
        scale: of the number of decisions and of observations, 1 M each.
    """
    n = int(1_000_000 * scale)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "volano.toml").write_text("")
        (folder / "project.py").write_text(PROJECT)
        clock = ReplayClock(START)
        with Project.open(folder, clock=clock) as project:
            project.apply()
            fill_lake(project, n)
            clock.advance_to(START + SPAN_US + 10 * DAY_US)
            session = project._work.session
            began, used = time.perf_counter(), time.process_time()
            n_labels = update_labels(session, as_of=clock.now())
            ours_s, ours_cpu_s = time.perf_counter() - began, time.process_time() - used
            assert n_labels == n
            alone_s = alone(project, clock.now())
            lake = session.stores.lake
            began, used = time.perf_counter(), time.process_time()
            join(folder, lake.files(SOURCE), lake.files(DECISION))
            baseline_s, baseline_cpu_s = time.perf_counter() - began, time.process_time() - used
            n_pairs = compare(folder, lake.read("label"), lake.read("attribution"))
    return {
        "case": "attribute",
        "decisions": n,
        "observations": n,
        "pairs": n_pairs,
        "ours_s": round(ours_s, 2),
        "ours_cpu_s": round(ours_cpu_s, 2),
        "alone_s": round(alone_s, 2),
        "baseline": "duckdb join of the same files to the same tables",
        "baseline_s": round(baseline_s, 2),
        "baseline_cpu_s": round(baseline_cpu_s, 2),
        "events_s": round(n / ours_s),
        "floor_events_s": round(n / baseline_s),
        "ratio": round(baseline_s / ours_s, 2),
    }


def fill_lake(project: Project, n: int) -> None:
    """Decisions and observations in the order of time, as the committer appends them."""
    random = np.random.default_rng(1)
    session = project._work.session
    lake, tables = session.stores.lake, lake_tables(session.applied.project)
    customers = pa.array([f"customer-{number}" for number in range(max(n // 10, 1))])
    for name in (SOURCE, DECISION):
        lake.create(name, tables[name])
    decided = np.sort(START + random.integers(0, SPAN_US, n))
    happened = np.sort(START + random.integers(0, SPAN_US + 7 * DAY_US, n))
    for number, part in enumerate(np.array_split(np.arange(n), N_COMMITS), start=1):
        ids = pa.array([f"{each:08d}" for each in part])
        made = {
            "decision_id": ids, "decided_at": decided[part], "applied_at": decided[part] + 1_000, "attempt": 0,
            "bundle": session.applied.bundle, "mode": "live",
            "request__customer": customers.take(pa.array(random.integers(0, len(customers), len(part)))),
        }  # fmt: skip
        seen = {
            "event_id": ids, "order_id": ids, "revision": 0, "operation": "insert", "too_late": False,
            "event_time": happened[part], "ordered_at": happened[part], "received_at": happened[part] + MINUTE_US,
            "applied_at": happened[part] + MINUTE_US, "known_at": happened[part] + MINUTE_US,
            "customer": customers.take(pa.array(random.integers(0, len(customers), len(part)))),
            "amount": random.lognormal(3, 1, len(part)).round(2),
        }  # fmt: skip
        for name, columns in ((DECISION, made), (SOURCE, seen)):
            lake.append(name, _table(columns, tables[name], len(part)), writer="benchmark", sequence=number)


def _table(columns: dict[str, Any], schema: pa.Schema, size: int) -> pa.Table:
    """Columns as the lake's types: a single value stands in every row, what is not given is null."""
    arrays = []
    for field in schema:
        values = columns.get(field.name)
        if values is None:
            arrays.append(pa.nulls(size, field.type))
        elif isinstance(values, str | int | bool):
            arrays.append(pa.repeat(pa.scalar(values, field.type), size))
        else:
            arrays.append(pa.array(values).cast(field.type))
    return pa.table(arrays, schema=schema)


def alone(project: Project, as_of: int) -> float:
    """The same without the lake: decisions and facts lie in memory, the rows stay there."""
    session = project._work.session
    definitions = session.applied.project
    columns = ["decision_id", "decided_at", "applied_at", "request__customer"]
    decisions = session.stores.lake.read(DECISION, columns=columns)
    facts = session.facts.rows("orders")
    assert fact_table("orders") == SOURCE
    began = time.perf_counter()
    attribute_labels(
        definitions.labels["spent_7d"],
        decisions,
        Evidence(facts),
        decision="get_offer",
        as_of=as_of,
        sql=session.stores.sql,
    )
    return time.perf_counter() - began


def join(folder: Path, facts: list[str], decisions: list[str]) -> None:
    """The baseline, two threads."""
    with duckdb.connect() as connection:
        connection.execute("SET threads = 2")
        connection.execute(BASELINE.format(facts=facts, decisions=decisions, folder=folder))


def compare(folder: Path, labels: pa.Table, pairs: pa.Table) -> int:
    """Both made the same tables; returns how many pairs."""
    with duckdb.connect() as connection:
        theirs = connection.sql(
            f"SELECT event_id, decision_id, weight FROM '{folder}/attribution.parquet' ORDER BY ALL"
        ).to_arrow_table()
        values = connection.sql(
            f"SELECT decision_id, value FROM '{folder}/label.parquet' ORDER BY decision_id"
        ).to_arrow_table()
    ours = pairs.select(["event_id", "decision_id", "weight"]).sort_by(
        [("event_id", "ascending"), ("decision_id", "ascending")]
    )
    assert ours.select(["event_id", "decision_id"]).equals(theirs.select(["event_id", "decision_id"]))
    assert np.abs(ours["weight"].to_numpy() - theirs["weight"].to_numpy()).max() <= 2**-51
    labels = labels.sort_by("decision_id")
    assert labels["decision_id"].equals(values["decision_id"])
    assert pc.all(pc.equal(labels["state"], "mature")).as_py()
    assert np.allclose(labels["value"].to_numpy(), values["value"].to_numpy(), rtol=1e-9, atol=1e-9)
    return int(ours.num_rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes, for a quick look")
    arguments = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("deltalake", "duckdb", "numpy", "pyarrow")}
    print(platform.platform(), platform.python_version(), versions)
    case = attribute(arguments.scale)
    print(case)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps([case], indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
