"""The verbs of learning on a project with a past: train, release, refuse, roll back; decisions say what served."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from volano.cli.main import app
from volano.project import Project

AT = pa.timestamp("us", tz="UTC")


def write_past(folder: Path, n: int = 3_000) -> None:
    """Orders of four months, the dear ones often returned."""
    random = np.random.default_rng(1)
    now = datetime.now(UTC)
    asked = [now - timedelta(days=float(days)) for days in random.uniform(31, 150, n)]
    amount = random.lognormal(3, 1, n)
    ids, customers = [f"o{i}" for i in range(n)], [f"c{i}" for i in random.integers(100, size=n)]
    shared = {"order_id": ids, "customer_id": customers, "amount": amount}
    returned = random.random(n) < 1 / (1 + np.exp(-2 * (np.log(amount) - 3.5)))
    closed = pa.array([at + timedelta(days=2) for at in asked], AT)
    pq.write_table(pa.table({**shared, "asked_at": pa.array(asked, AT)}), folder / "asked.parquet")
    pq.write_table(pa.table({**shared, "returned": returned, "closed_at": closed}), folder / "orders.parquet")


def give_it_a_past(folder: Path) -> None:
    """Change the blank template as its author would."""
    file = folder / "project.py"
    text = file.read_text()
    for old, new in (
        ("from typing", "from datetime import datetime\nfrom typing"),
        ("Order, stream=True", 'Order, table="orders.parquet", available_after="1h", stream=True'),
        ("    amount: float\n\n\nreturned", "    amount: float\n    asked_at: datetime\n\n\nreturned"),
        ("returned = ", 'asked = vo.Requests(Checkout, table="asked.parquet", at="asked_at")\nreturned = '),
        ("trainer=trees", "history=asked, trainer=trees"),
        ("min_labels=200", "min_labels=100"),
    ):
        assert old in text, old
        text = text.replace(old, new, 1)
    file.write_text(text)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop") / "project"
    assert CliRunner().invoke(app, ["init", str(folder)]).exit_code == 0
    write_past(folder)
    give_it_a_past(folder)
    applied = CliRunner().invoke(app, ["apply", "--yes", "-C", str(folder)])
    assert applied.exit_code == 0, applied.output
    return folder


def run(shop: Path, *call: str) -> Any:
    return CliRunner().invoke(app, [*call, "-C", str(shop)])


def test_a_version_is_trained_released_and_serves(shop: Path) -> None:
    trained = run(shop, "train", "risk", "--json")
    assert trained.exit_code == 0, trained.output
    version = json.loads(trained.stdout)["version"]
    released = run(shop, "release", "--decision", "get_return_risk")
    assert released.exit_code == 0, released.output
    assert f"{version} released; {version} serves" in released.stdout

    with Project.open(shop) as project:
        asked = {"order_id": "q1", "customer_id": "c1", "amount": 300.0, "asked_at": "2025-01-01T00:00:00Z"}
        made = project.decide("get_return_risk", asked, decision_id="d-1")
    assert (made.fallback, made.model_version, made.action) == ("", version, "ask")

    shown = run(shop, "decisions", "show", "d-1").stdout
    assert version in shown
    assert "2025-01-01T00:00:00Z" in shown
    assert all(finding["sound"] for finding in json.loads(run(shop, "check", "--json").stdout))


def test_there_is_nothing_to_roll_back_to_before_a_second_release(shop: Path) -> None:
    result = run(shop, "rollback", "--decision", "get_return_risk", "--reason", "worse")
    assert result.exit_code == 2
    assert "only" in result.stderr
