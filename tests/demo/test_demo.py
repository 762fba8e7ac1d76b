"""The demo on a few planes: what it promises of every run, and that two runs are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from volano.errors import ConfigError, UnknownNameError
from volano.runtime.demo import HAND_OVER, Outcome, run_demo
from volano.values.instants import DAY_US

UNTIL = HAND_OVER + 24 * DAY_US
SAMPLE = 0.04


def run(folder: Path) -> Outcome:
    return run_demo("flights", folder=folder / "p", sample=SAMPLE, report=folder / "r.json", until=UNTIL)


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, Outcome, Path]:
    folders = [tmp_path_factory.mktemp(name) for name in ("first", "second")]
    first, second = (run(folder) for folder in folders)
    return first, second, folders[0] / "r.json"


def test_an_unknown_demo_and_a_wrong_end_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        run_demo("trains", folder=tmp_path)
    with pytest.raises(ConfigError):
        run_demo("flights", folder=tmp_path, until=HAND_OVER)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_every_promise_holds(twice: tuple[Outcome, Outcome, Path]) -> None:
    outcome, _, _ = twice
    assert outcome.is_sound, outcome.text
    report = outcome.report
    assert report.skew.checked > 500
    assert report.skew.mismatched == 0
    assert report.reconciliation.is_exact
    assert report.reconciliation.accepted == report.reconciliation.stored
    assert report.account.events.accepted == report.observations
    assert report.account.decisions.accepted == report.decisions
    assert report.account.shadows.accepted > 0
    assert report.account.total == report.reconciliation
    assert sum(report.labels.values()) == report.decisions
    assert sum(month.decisions for month in report.months) == report.decisions


@pytest.mark.slow
def test_two_runs_build_the_same_sets_and_take_the_same_releases(
    twice: tuple[Outcome, Outcome, Path],
) -> None:
    first, second = (outcome.report for outcome in twice[:2])
    assert len(first.training_sets) == 2 * len(first.releases) > 2
    assert first.training_sets == second.training_sets
    assert first.releases == second.releases
    assert first.months == second.months


@pytest.mark.slow
def test_the_report_holds_what_is_promised(twice: tuple[Outcome, Outcome, Path]) -> None:
    report = json.loads(twice[2].read_text())
    assert {
        "decisions", "observations", "labels", "months", "training_sets", "releases", "skew", "reconciliation", "seconds",
    } <= set(report)  # fmt: skip
    (month,) = report["months"]
    assert month["month"] == "2013-03"
    assert {"decisions", "live_auc", "frozen_auc", "base_auc"} <= set(month)
    assert {"mature", "censored"} <= set(report["labels"])
    assert {"name", "rows", "content_hash"} <= set(report["training_sets"][0])
    assert {"model", "at", "outcome", "reason"} <= set(report["releases"][0])
    assert {each["outcome"] for each in report["releases"]} <= {"released", "refused"}
    assert set(report["skew"]) == {"checked", "mismatched"}
    assert set(report["reconciliation"]) == {
        "accepted", "stored", "duplicate", "conflict", "quarantined", "pending",
    }  # fmt: skip


@pytest.mark.slow
def test_the_text_tells_months_releases_checks_and_what_next(twice: tuple[Outcome, Outcome, Path]) -> None:
    text = twice[0].text
    for word in ("2013-03", "delay-0001", "ok ", "What next", "volano decisions list get_delay_risk"):
        assert word in text
    assert "BROKEN" not in text
