"""A release by force: it overrules the gate, also when nothing serves yet, and never goes without evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_loop import give_it_a_past, write_past
from volano.cli.init import write_template
from volano.errors import NotReadyError
from volano.project import Project

DECISION = "get_return_risk"


def strict_shop(
    folder: Path, *, gate: str = "min_labels=100000", prepare: Callable[[str], str] = str
) -> Path:
    """A project whose gate asks for more labels than there are."""
    write_template("blank", folder)
    write_past(folder)
    give_it_a_past(folder)
    file = folder / "project.py"
    text = file.read_text()
    assert "min_labels=100)" in text
    file.write_text(prepare(text.replace("min_labels=100)", f"{gate})")))
    with Project.open(folder) as project:
        project.apply()
        project.train("risk")
    return folder


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return strict_shop(tmp_path_factory.mktemp("forced") / "shop")


def test_force_overrules_the_gate_when_nothing_serves_and_a_rollback_target_is_there_later(
    shop: Path,
) -> None:
    with Project.open(shop) as project:
        with pytest.raises(NotReadyError, match="the gate asks for 100,000"):
            project.release(DECISION)
        first = project.release(DECISION, force_reason="the launch is today")
        assert (first.outcome, first.champion, first.previous) == ("released", "risk-0001", None)
        assert first.reason.startswith("the launch is today (forced; the gate said: Only ")
        (evidence,) = first.evidence
        assert 0 < evidence.n < 100_000 and evidence.champion is None
        asked = {"order_id": "q1", "customer_id": "c1", "amount": 3.0, "asked_at": "2025-01-01T00:00:00Z"}
        assert project.decide(DECISION, asked).model_version == "risk-0001"
        assert all(finding.sound for finding in project.check())


def test_what_cannot_be_measured_is_refused_and_says_why(tmp_path: Path) -> None:
    folder = strict_shop(
        tmp_path / "shop", prepare=lambda text: text.replace('retrain="weekly"', 'retrain="1m"')
    )
    with Project.open(folder) as project:
        with pytest.raises(NotReadyError, match="forced or not, for it cannot be measured") as refused:
            project.release(DECISION, force_reason="now")
        assert "No mature labels" in refused.value.what and refused.value.mend
        assert project.status().decisions[0].champion.startswith("none")
