"""The verbs on a real project: begun with `init`, applied, used, looked at."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from volano.cli.main import app
from volano.project import Project

Run = Callable[..., Any]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with five orders of one customer and two decisions."""
    folder = tmp_path_factory.mktemp("shop") / "project"
    for call in (["init", str(folder)], ["apply", "--yes", "-C", str(folder)]):
        result = CliRunner().invoke(app, call)
        assert result.exit_code == 0, result.output
    with Project.open(folder) as project:
        for n in range(5):
            closed_at = datetime.now(UTC) - timedelta(minutes=n)
            order = {"order_id": f"o{n}", "customer_id": "c1", "amount": 10.0 + n}
            project.observe("orders", {**order, "returned": n == 1, "closed_at": closed_at})
        project.drain()
        for n in range(2):
            asked = {"order_id": f"q{n}", "customer_id": "c1", "amount": 20.0}
            project.decide("get_return_risk", asked, decision_id=f"d-{n}")
    return folder


@pytest.fixture
def run(shop: Path) -> Iterator[Run]:
    def invoke(*call: str, **options: Any) -> Any:
        return CliRunner().invoke(app, [*call, "-C", str(shop)], **options)

    yield invoke


def test_a_plan_that_is_applied_has_nothing_left(run: Run) -> None:
    assert "Nothing to do" in run("plan").stdout
    assert json.loads(run("plan", "--json").stdout)["steps"] == []
    assert run("apply").exit_code == 0


def test_apply_asks_before_it_acts(tmp_path: Path) -> None:
    runner = CliRunner()
    runner.invoke(app, ["init", str(tmp_path / "p")])
    refused = runner.invoke(app, ["apply", "-C", str(tmp_path / "p")], input="n\n")
    assert refused.exit_code == 1
    assert "Apply this plan?" in refused.stdout
    status = runner.invoke(app, ["status", "--json", "-C", str(tmp_path / "p")])
    assert json.loads(status.stdout)["applied_at"] == "never"


def test_decisions_are_listed_newest_first(run: Run) -> None:
    listed = json.loads(run("decisions", "list", "get_return_risk", "--json").stdout)
    assert [row["decision_id"] for row in listed] == ["d-1", "d-0"]
    assert listed[0]["latency_us"]["total"] >= 0
    assert len(json.loads(run("decisions", "list", "get_return_risk", "--limit", "1", "--json").stdout)) == 1
    assert "d-1" in run("decisions", "list", "get_return_risk").stdout


def test_decisions_since_an_instant(run: Run) -> None:
    assert "d-0" in run("decisions", "list", "get_return_risk", "--since", "2020-01-01").stdout
    assert (
        run("decisions", "list", "get_return_risk", "--since", "2999-01-01").stdout
        == "get_return_risk: none\n"
    )
    wrong = run("decisions", "list", "get_return_risk", "--since", "yesterday")
    assert wrong.exit_code == 2
    assert "--since" in wrong.stderr


def test_a_decision_is_explained(run: Run) -> None:
    explained = json.loads(run("decisions", "show", "d-0", "--json").stdout)
    features = {each["name"]: each["value"] for each in explained["features"]}
    assert features == {
        "CustomerHistory__n_orders": 5,
        "CustomerHistory__mean_amount": 12.0,
        "amount": 20.0,
    }
    shown = run("decisions", "show", "d-0").stdout
    assert "CustomerHistory.n_orders of customer_id='c1'" in shown
    assert "no_release" in shown


def test_an_unknown_decision_says_what_to_do(run: Run) -> None:
    result = run("decisions", "show", "nosuch")
    assert result.exit_code == 2
    assert "mend:" in result.stderr
    assert "Traceback" not in result.output


def test_every_invariant_is_checked(run: Run) -> None:
    result = run("check", "--json")
    assert result.exit_code == 0
    findings = json.loads(result.stdout)
    assert len(findings) > 3
    assert all(finding["sound"] for finding in findings)
    assert "sound" in run("check").stdout


def test_status_names_what_is_in_force(run: Run) -> None:
    assert json.loads(run("status", "--json").stdout)["namespace"] == "project"
    shown = run("status").stdout
    assert "fact_orders" in shown
    assert "get_return_risk" in shown


@pytest.mark.parametrize(
    "call",
    [
        ["train", "risk"],
        ["train", "nosuch"],
        ["release", "--decision", "get_return_risk"],
        ["release", "--decision", "nosuch"],
        ["rollback", "--decision", "get_return_risk", "--reason", "worse"],
    ],
)
def test_what_cannot_be_done_yet_says_why(run: Run, call: list[str]) -> None:
    result = run(*call)
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("error: ")


def test_the_doctor_finds_a_sound_project_sound(run: Run) -> None:
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    symptoms = {symptom["what"]: symptom for symptom in json.loads(result.stdout)}
    assert symptoms["lock"]["detail"] == "free"
    assert symptoms["state"]["detail"].startswith("applied 20")
    assert symptoms["volano.trainers"]["state"] == "ok"


def test_the_doctor_sees_who_holds_the_lock(run: Run, shop: Path) -> None:
    with Project.open(shop) as project:
        project.drain()
        busy = {symptom["what"]: symptom for symptom in json.loads(run("doctor", "--json").stdout)}
    assert busy["lock"]["state"] == "note"
    assert "writer.lock" in busy["lock"]["detail"]


def test_the_doctor_names_a_wrong_configuration(tmp_path: Path) -> None:
    (tmp_path / "volano.toml").write_text("dta = 1")
    result = CliRunner().invoke(app, ["doctor", "-C", str(tmp_path)])
    assert result.exit_code == 1
    assert "did you mean 'data'?" in result.stdout


def test_a_mistake_in_the_definitions_is_shown_with_its_line(tmp_path: Path) -> None:
    runner = CliRunner()
    runner.invoke(app, ["init", str(tmp_path / "p")])
    file = tmp_path / "p" / "project.py"
    file.write_text(file.read_text().replace('fallback="accept"', 'fallback="acept"'))
    result = runner.invoke(app, ["plan", "-C", str(tmp_path / "p")])
    assert result.exit_code == 2
    assert "project.py:" in result.stderr
    assert "Traceback" not in result.output
