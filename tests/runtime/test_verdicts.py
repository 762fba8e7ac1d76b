"""A verdict holds for the champion and the gate it was given by; a release judges anew, and says what serves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.cli.test_loop import give_it_a_past, write_past
from volano.cli.main import app
from volano.project import Project
from volano.runtime.templates import write_template

DECISION = "get_return_risk"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """A project with a champion and a second version, which its gate asks more of than it can give."""
    folder = tmp_path / "shop"
    write_template("blank", folder)
    write_past(folder)
    give_it_a_past(folder)
    file = folder / "project.py"
    text = file.read_text()
    assert "margin=0.0" in text
    file.write_text(text.replace("margin=0.0", "margin=0.3"))
    with Project.open(folder) as project:
        project.apply()
        project.train("risk")
        project.release(DECISION)
        file.write_text(file.read_text().replace('retrain="weekly"', 'retrain="14d"'))
        project.apply()
        assert project.train("risk").version == "risk-0002"
    return folder


def serves(project: Project) -> str:
    return project.status().decisions[0].champion


def test_a_release_after_a_rollback_judges_again_and_says_what_serves(shop: Path) -> None:
    with Project.open(shop) as project:
        project.release(DECISION, force_reason="the launch is today")
        assert serves(project) == "risk-0002"
        project.rollback(DECISION, reason="complaints")
        assert serves(project) == "risk-0001"
        again = project.release(DECISION, "risk-0002")
        assert (again.outcome, again.champion) == ("refused", "risk-0001")
        assert again.champion == serves(project)


def test_a_refused_version_is_judged_by_the_gate_of_now(shop: Path) -> None:
    with Project.open(shop) as project:
        assert project.release(DECISION, "risk-0002").outcome == "refused"
        file = shop / "project.py"
        file.write_text(file.read_text().replace("margin=0.3", "margin=-0.9"))
        project.apply()
        released = project.release(DECISION, "risk-0002")
        assert (released.outcome, released.champion, serves(project)) == (
            "released",
            "risk-0002",
            "risk-0002",
        )


def test_what_serves_already_is_no_refusal_though_another_version_was_refused_last(shop: Path) -> None:
    runner = CliRunner()
    call = ["release", "--decision", DECISION, "--json", "-C", str(shop)]
    refused = runner.invoke(app, call)
    assert (refused.exit_code, json.loads(refused.stdout)["outcome"]) == (1, "refused")
    standing = runner.invoke(app, [*call, "--version", "risk-0001"])
    assert standing.exit_code == 0, standing.output
    event = json.loads(standing.stdout)
    assert (event["outcome"], event["challenger"], event["champion"]) == ("applied", "risk-0001", "risk-0001")
