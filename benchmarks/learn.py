"""Learning at size: logged decisions to a frozen training set, and that set proved again. A script; `--json FILE`.

Case `dataset-1m`: 1 M logged decisions (8 features as served) and 1 M outcomes that lie in the lake, to a training set:
labels attributed and appended, mature ones joined, rows sorted, hashed, frozen, manifest stored. `labels_s` is the part
that attributes. Baseline: DuckDB joins the same Parquet files to the same rows; it appends, hashes and freezes nothing.

Case `verify-1m`: what `volano dataset verify` does with that set: its frozen rows read and hashed again, and the set
built again from the lake and compared. `frozen_s` is the former alone.

Bias: one decision, one label, no history; everything lies in the page cache. What the lake holds is appended as the
committer would, in 20 commits, and compared in the same run with what DuckDB makes of it.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table, lake_tables
from volano.project import Project
from volano.testing import DAY_US, HOUR_US, ReplayClock, parse_instant

START = parse_instant("2026-01-01")
SPAN_US = 60 * DAY_US
N_COMMITS = 20
N_CARDS = 50_000

PROJECT = """
from typing import Annotated
import volano as vo

risk = vo.Owner("risk", contact="risk@example.org")
card = vo.Entity("card", key=str, owner=risk)

class Settlement(vo.Event, id="payment_id"):
    payment_id: str
    card: Annotated[str, card]
    amount: float
    stolen: bool
    settled_at: vo.EventTime

settlements = vo.Source("settlements", Settlement, stream=True, accept_late="1d", owner=risk)

class CardHistory(vo.FeatureView, entity=card, source=settlements):
    payments = vo.count(within=("1d", "7d"))
    amount = vo.mean("amount", within=("1d", "7d", "30d"))
    spread = vo.std("amount", within="30d")
    stolen_share = vo.rate("stolen", prior=0.1, weight=10, within="90d")

class Payment(vo.Request):
    payment_id: str
    card: Annotated[str, card]
    amount: float

fraud = vo.Label("fraud", request=Payment, source=settlements, on="payment_id", value=vo.sql("stolen"),
                 horizon="3d", owner=risk)
model = vo.Model("fraud", features=[CardHistory, Payment.amount], label=fraud,
                 trainer=vo.LightGBM(objective="binary"), owner=risk)
get_fraud_score = vo.Decision("get_fraud_score", request=Payment, model=model, actions=["decline", "accept"],
                              policy=vo.Threshold("decline", at=0.5), deadline="50ms", fallback="accept", owner=risk)
"""

EXPECTED = """
SELECT 'get_fraud_score/' || d.decision_id AS id, d.decided_at, f.stolen AS label, COLUMNS('feature__.*')
FROM read_parquet(getvariable('decisions')) d
JOIN (
    SELECT decision_id, arg_min(stolen, (event_time, event_id)) AS stolen
    FROM read_parquet(getvariable('decisions')) o
    JOIN read_parquet(getvariable('facts')) s ON o.request__payment_id = s.payment_id
    WHERE s.event_time >= o.decided_at AND s.event_time < o.decided_at + INTERVAL 3 DAYS
    GROUP BY decision_id
) f USING (decision_id)
WHERE d.decided_at + INTERVAL 3 DAYS <= TIMESTAMPTZ '{cutoff}'
ORDER BY id
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--scale", type=float, default=1.0, help="of the sizes, for a quick look")
    arguments = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("deltalake", "duckdb", "numpy", "pyarrow")}
    print(platform.platform(), platform.python_version(), versions)
    with tempfile.TemporaryDirectory() as folder:
        cases = training_sets(Path(folder), int(1_000_000 * arguments.scale))
    for case in cases:
        print(case)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(cases, indent=2))


def training_sets(folder: Path, n: int) -> list[dict[str, Any]]:
    """The cases `dataset-1m` and `verify-1m`."""
    (folder / "volano.toml").write_text("")
    (folder / "project.py").write_text(PROJECT)
    clock = ReplayClock(START)
    with Project.open(folder, clock=clock) as project:
        project.apply()
        fill_lake(project, n)
        clock.advance_to(START + SPAN_US + 10 * DAY_US)
        asked = {"payment_id": "last", "card": "c-0", "amount": 1.0}
        project.decide(
            "get_fraud_score", asked
        )  # one real decision: the apply log knows how far stamps have come
        project.drain(commit=True)

        from volano.runtime.recurring import label_until

        began = time.perf_counter()
        label_until(project._work.session, clock.now())
        labelled = time.perf_counter()
        made = project.build_set("fraud", "all")
        built = time.perf_counter()
        found = project.verify("all")
        verified = time.perf_counter()
        rows = project.frozen("all").table
        read = time.perf_counter()
        assert found.is_sound
        assert made.n_rows == n
        baseline_s = compare(project, rows, made.label_cutoff)
    common = {"rows": n, "ours_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    return [
        {
            "case": "dataset-1m", "ours_s": round(built - began, 2), "labels_s": round(labelled - began, 2),
            "baseline": "duckdb join", "baseline_s": round(baseline_s, 2),
            "ratio": round((built - began) / baseline_s, 2), **common,
        },
        {
            "case": "verify-1m", "ours_s": round(verified - built, 2),
            "frozen_s": round(read - verified, 2), **common,
        },
    ]  # fmt: skip


def fill_lake(project: Project, n: int) -> None:
    """Decisions and their outcomes, in the order of time, as the committer appends them."""
    random = np.random.default_rng(1)
    session = project._work.session
    lake, definitions = session.stores.lake, session.applied.project
    tables = lake_tables(definitions)
    service = definitions.models["fraud"].service
    decided = np.sort(START + random.integers(0, SPAN_US, n))
    facts, decisions = "fact_settlements", decision_table("get_fraud_score")
    for name in (facts, decisions):
        lake.create(name, tables[name])
    for number, part in enumerate(np.array_split(np.arange(n), N_COMMITS), start=1):
        at, size = decided[part], len(part)
        ids = pa.array([f"p-{each}" for each in part])
        cards = pa.array([f"c-{each}" for each in random.integers(0, N_CARDS, size)])
        amount = random.lognormal(3, 1, size)
        features = {
            f"feature__{read.name}": pa.array(random.integers(0, 9, size))
            if read.dtype.value == "int64"
            else pa.array(random.random(size))
            for read in service.inputs
        }
        made = {
            "decision_id": ids, "decided_at": at, "features_as_of": at - 1, "applied_at": at + 1_000,
            "bundle": session.applied.bundle, "model": "fraud", "service_version": service.version,
            "attempt": 0, "mode": "live", "role": "champion", "action": "accept", "propensity": 1.0,
            "propensity_method": "deterministic", "fallback": "", "unit": "",
            "request__payment_id": ids, "request__card": cards, "request__amount": amount, **features,
        }  # fmt: skip
        happened = at + random.integers(HOUR_US, 2 * DAY_US, size)
        seen = {
            "event_id": ids, "payment_id": ids, "card": cards, "amount": amount, "settled_at": happened,
            "event_time": happened, "received_at": happened + 500, "applied_at": happened + 1_000,
            "known_at": happened + 1_000, "revision": 0, "operation": "insert", "too_late": False,
            "stolen": random.random(size) < 0.1,
        }  # fmt: skip
        for name, columns in ((decisions, made), (facts, seen)):
            lake.append(name, _table(columns, tables[name], size), writer="benchmark", sequence=number)


def _table(columns: dict[str, Any], schema: pa.Schema, size: int) -> pa.Table:
    """Columns as the lake's types; a single value stands in every row."""
    arrays = {}
    for name, values in columns.items():
        kind = schema.field(name).type
        if isinstance(values, str | int | float | bool):
            values = pa.repeat(pa.scalar(values), size)
        arrays[name] = pa.array(values) if isinstance(values, np.ndarray) else values
        arrays[name] = arrays[name].cast(kind)
    return pa.table(arrays)


def compare(project: Project, rows: pa.Table, cutoff: int) -> float:
    """DuckDB's seconds for the same rows; fails when they are others."""
    data = project._work.stores.data / "lake"
    files = {name: _files(data / name) for name in ("fact_settlements", "decision_get_fraud_score")}
    with duckdb.connect(config={"threads": 2}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.execute("SET VARIABLE decisions = ?", [files["decision_get_fraud_score"]])
        connection.execute("SET VARIABLE facts = ?", [files["fact_settlements"]])
        sql = EXPECTED.format(cutoff=np.datetime64(cutoff, "us").item().isoformat() + "+00:00")
        began = time.perf_counter()
        expected = connection.sql(sql).to_arrow_table()
        elapsed = time.perf_counter() - began
    assert expected.num_rows == rows.num_rows, (expected.num_rows, rows.num_rows)
    for name in expected.column_names:
        ours, theirs = rows[name.removeprefix("feature__")], expected[name]
        assert pc.all(pc.equal(ours, theirs.cast(ours.type))).as_py(), name
    return elapsed


def _files(folder: Path) -> list[str]:
    return [str(path) for path in sorted(folder.rglob("*.parquet")) if "_delta_log" not in path.parts]


if __name__ == "__main__":
    main()
