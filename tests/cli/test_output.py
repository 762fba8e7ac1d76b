"""What verbs print: cells, records, release events, an explained decision."""

from __future__ import annotations

import msgspec
import pytest

from tests.decide.projects import NOON, make_project, release
from tests.decide.test_explain import MADE, label
from volano.cli.decisions import print_explained
from volano.cli.output import cell, print_record, print_table, release_lines, when
from volano.decide.explain import explain_decision
from volano.records.label import LabelState
from volano.records.learning import Evaluation
from volano.records.receipt import Reconciliation


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "–"), (True, "yes"), (1234567, "1,234,567"), (0.123456, "0.1235"), ("a", "a")]
)
def test_cells_are_short(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_an_instant_is_shown_to_the_second() -> None:
    assert when(NOON + 5) == "2013-03-01T12:00:00Z"
    assert when(None) == "–"


def test_a_record_is_printed_by_its_names(capsys: pytest.CaptureFixture[str]) -> None:
    class Part(msgspec.Struct):
        name: str
        applied_at: int
        took_us: int

    class Whole(msgspec.Struct):
        bundle: str
        counts: Reconciliation
        parts: tuple[Part, ...]

    print_record(Whole("abc", Reconciliation(6, 1, 2, 3, 0, 0), (Part("x", NOON, 60_000_000),)))
    shown = capsys.readouterr().out
    assert "counts.accepted" in shown
    assert "2013-03-01T12:00:00Z" in shown
    assert "1m" in shown


def test_a_table_without_rows_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("label", ("a", "b"), [])
    assert capsys.readouterr().out == "label: none\n"


def test_markup_in_data_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("t", ("a",), [("[bold]x[/bold] :smile:",)])
    assert "[bold]x[/bold] :smile:" in capsys.readouterr().out


def test_a_release_is_told_with_its_numbers() -> None:
    evidence = Evaluation("roc_auc", 1200, 0.75, 0.72, 0.03, 0.01, 0.05, 0.95, "h", NOON, NOON)
    event = msgspec.structs.replace(release("risk-0002"), evidence=(evidence,), outcome="rolled_back")
    assert release_lines(event) == [
        "get_risk: risk-0002 rolled back; risk-0002 serves.",
        "  reason: first",
        "  roc_auc on 1,200 labels: challenger 0.7500, champion 0.7200,"
        " difference between +0.0100 and +0.0500 at 95% confidence",
    ]


def test_a_first_release_has_an_interval_of_its_own() -> None:
    evidence = Evaluation("roc_auc", 327, 0.85, None, None, 0.81, 0.88, 0.9, "h", NOON, NOON)
    event = msgspec.structs.replace(release(), evidence=(evidence,))
    assert release_lines(event)[-1] == (
        "  roc_auc on 327 labels: challenger 0.8500, between 0.8100 and 0.8800 at 90% confidence"
    )


def test_an_explained_decision_shows_what_was_read_and_what_came_of_it(
    capsys: pytest.CaptureFixture[str],
) -> None:
    explained = explain_decision(MADE, make_project(), labels=[label(LabelState.MATURE, NOON + 1, True)])
    print_explained(explained)
    shown = capsys.readouterr().out
    for part in (
        "d-1",
        "threshold(action=warn, at=0.5)",
        "long_haul(distance)",
        "mature",
        "risk-0001",
        "tailnum",
    ):
        assert part in shown
