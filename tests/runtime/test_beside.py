"""Looking at a project beside the process that is at work in it, and training twice on one day."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_loop import give_it_a_past, write_past
from volano.cli.init import write_template
from volano.project import Project


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("beside") / "shop"
    write_template("blank", folder)
    write_past(folder)
    give_it_a_past(folder)
    with Project.open(folder) as project:
        project.apply()
    return folder


def test_status_and_plan_work_beside_a_process_at_work(shop: Path) -> None:
    with Project.open(shop) as at_work:
        asked = {"order_id": "q1", "customer_id": "c1", "amount": 3.0, "asked_at": "2025-01-01T00:00:00Z"}
        at_work.decide("get_return_risk", asked)
        with Project.open(shop) as beside:
            assert beside.status().decisions[0].decision == "get_return_risk"
            assert beside.plan().is_empty


def test_a_second_training_set_of_a_day_has_a_name_of_its_own(shop: Path) -> None:
    with Project.open(shop) as project:
        first = project.train("risk")
        file = shop / "project.py"
        file.write_text(file.read_text().replace('retrain="weekly"', 'retrain="14d"'))
        project.apply()
        second = project.train("risk")
        assert second.training_set != first.training_set
        assert second.training_set_hash != first.training_set_hash
        assert project.release("get_return_risk", second.version).champion == second.version
        assert all(finding.sound for finding in project.check())
