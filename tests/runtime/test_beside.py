"""Looking at a project beside the process that is at work in it, and training twice on one day."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.cli.test_loop import give_it_a_past, write_past
from volano.cli.init import write_template
from volano.cli.main import app
from volano.project import Project

AUDITED = "served features equal recomputed ones, bit for bit"


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


AT_WORK = """
import sys, threading
from datetime import UTC, datetime
from volano.project import Project

stop = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), stop.set()), daemon=True).start()
with Project.open(sys.argv[1]) as project:
    n = 0
    while not stop.is_set():
        for _ in range(20):
            asked = {"order_id": f"live-{n}", "customer_id": f"c{n % 7}", "amount": 1.0, "asked_at": datetime.now(UTC)}
            project.decide("get_return_risk", asked, decision_id=f"live-{n}")
            closed = {"order_id": f"live-{n}", "customer_id": f"c{n % 7}", "amount": 1.0, "returned": False}
            project.observe("orders", {**closed, "closed_at": datetime.now(UTC)}, sync=False)
            n += 1
            if n % 7 == 0:
                project.drain()
        project.drain(commit=True)
        if n == 40:
            print("at work", flush=True)
        stop.wait(0.1)  # so much that a check, which looks at all of it, comes to an end
    project.drain(commit=True)
    print(n, flush=True)
"""


def volano(*call: str, folder: Path) -> Any:
    return CliRunner().invoke(app, [*call, "-C", str(folder)])


def test_decisions_and_checks_work_beside_a_process_that_decides_observes_and_commits(tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    write_template("blank", folder)
    write_past(folder, 300)
    give_it_a_past(folder)
    with Project.open(folder) as project:
        project.apply()
    command = [sys.executable, "-c", AT_WORK, str(folder)]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert worker.stdout is not None and worker.stdout.readline() == "at work\n"
        seen = []
        for _ in range(5):
            checked = volano("check", "--json", folder=folder)
            assert checked.exit_code == 0, checked.stdout
            findings = {each["rule"]: each for each in json.loads(checked.stdout)}
            assert "another process is at work" in findings[AUDITED]["detail"]
            listed = volano("decisions", "list", "get_return_risk", "--json", "--limit", "3", folder=folder)
            assert listed.exit_code == 0 and "live-" in listed.stdout
            assert volano("decisions", "show", "live-0", folder=folder).exit_code == 0
            status = json.loads(volano("status", "--json", folder=folder).stdout)["account"]
            ended = ("stored", "duplicate", "conflict", "quarantined", "pending")
            assert status["accepted"] == sum(status[name] for name in ended) > 0
            seen.append(status["accepted"])
        assert worker.poll() is None, "the process at work was disturbed"
        assert seen == sorted(seen) and 0 < seen[0] < seen[-1]
        n_asked = int(worker.communicate("stop", timeout=60)[0])
    finally:
        worker.kill()
        with worker:  # closes its pipes
            worker.wait()
    with Project.open(folder) as project:
        assert all(finding.sound for finding in project.check())
        assert project.decisions("get_return_risk", limit=10**6).num_rows == n_asked


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
