"""After an apply that changes a request, the release of yesterday answers what it can, and falls back on the rest."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.runtime.test_forced_release import DECISION, strict_shop
from volano.errors import RequestError
from volano.project import Project

OLD = {"order_id": "q1", "customer_id": "c1", "amount": 300.0, "asked_at": "2025-01-01T00:00:00Z"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = strict_shop(tmp_path_factory.mktemp("requests") / "shop", gate="min_labels=100")
    with Project.open(folder) as project:
        project.release(DECISION)
        project.decide(DECISION, OLD, decision_id="old")
    return folder


def test_a_renamed_field_is_told_by_the_plan_and_makes_the_fallback_answer(
    shop: Path,
) -> None:
    past = pq.read_table(shop / "asked.parquet")
    pq.write_table(past.append_column("price", past["amount"]), shop / "asked.parquet")
    file = shop / "project.py"
    text = file.read_text()
    text = text.replace(
        "    amount: float\n    asked_at", "    price: float\n    coupon: str | None\n    asked_at"
    )
    assert "price: float" in text
    file.write_text(text.replace("Checkout.amount", "Checkout.price"))
    pq.write_table(
        pq.read_table(shop / "asked.parquet").append_column("coupon", past["order_id"]),
        shop / "asked.parquet",
    )
    new = {key: value for key, value in OLD.items() if key != "amount"} | {"price": 300.0}
    with Project.open(shop) as project:
        (warning,) = [
            each for each in project.plan().warnings if "asks for the request field 'amount'" in each
        ]
        assert "Mend: keep it" in warning and "risk-0001" in warning
        applied = project.apply()

        made = project.decide(DECISION, new, decision_id="new")
        assert made.fallback.startswith("unservable: ") and "'amount'" in made.fallback
        assert (made.bundle, made.action, made.request["price"]) == (applied.bundle, "accept", 300.0)
        still = project.decide(DECISION, OLD, decision_id="still")
        assert (still.fallback, still.model_version) == ("", "risk-0001")
        with pytest.raises(RequestError, match="is missing"):
            project.decide(DECISION, {"order_id": "q1"})

        assert project.decide(DECISION, new, decision_id="new") == made, "an answer stays the answer"
        project.drain(commit=True)
        assert all(finding.sound for finding in project.check()), project.check()


def test_a_field_that_is_new_is_left_aside_by_the_release_of_before(tmp_path: Path) -> None:
    folder = strict_shop(tmp_path / "shop", gate="min_labels=100")
    with Project.open(folder) as project:
        project.release(DECISION)
    past = pq.read_table(folder / "asked.parquet")
    pq.write_table(past.append_column("items", past["amount"]), folder / "asked.parquet")
    file = folder / "project.py"
    text = file.read_text().replace(
        "    amount: float\n    asked_at", "    amount: float\n    items: float\n    asked_at"
    )
    file.write_text(text.replace("Checkout.amount]", "Checkout.amount, Checkout.items]"))
    with Project.open(folder) as project:
        assert not [each for each in project.plan().warnings if "request field" in each]
        project.apply()
        made = project.decide(DECISION, OLD | {"items": 2.0})
        assert (made.fallback, made.model_version) == ("", "risk-0001")
        assert "items" not in made.request
        project.drain(commit=True)
        assert all(finding.sound for finding in project.check()), project.check()
