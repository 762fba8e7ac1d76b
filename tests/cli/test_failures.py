"""How errors end a verb: words on stderr, an exit code, and a traceback only when it was asked for."""

from __future__ import annotations

import pytest
import typer

from volano.cli.failures import exit_code, failures_shown
from volano.errors import (
    ConfigError,
    DefinitionError,
    InvariantError,
    NotReadyError,
    ProjectError,
    StoreBusyError,
    StoreFullError,
    UnknownNameError,
    VolanoError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), 2),
        (DefinitionError("x"), 2),
        (ProjectError((DefinitionError("x"),)), 2),
        (NotReadyError("x"), 2),
        (UnknownNameError("x"), 2),
        (StoreBusyError("x"), 1),
        (StoreFullError("x"), 1),
        (InvariantError("x"), 1),
        (VolanoError("x"), 1),
    ],
)
def test_the_author_must_change_is_two_and_failure_is_one(error: VolanoError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_is_shown_with_its_mend_and_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, failures_shown(debug=False):
        raise ConfigError("Unknown key 'dta'.", where="volano.toml", mend="did you mean 'data'?")
    assert caught.value.exit_code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "error: Unknown key 'dta'.\n  where: volano.toml\n  mend:  did you mean 'data'?\n"


def test_every_mistake_of_a_project_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), failures_shown(debug=False):
        raise ProjectError((DefinitionError("One.", where="p.py:1"), DefinitionError("Two.", where="p.py:2")))
    shown = capsys.readouterr().err
    assert "2 mistakes" in shown
    assert "One.\n  where: p.py:1" in shown
    assert "Two.\n  where: p.py:2" in shown


def test_a_mistake_of_ours_asks_for_a_report(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, failures_shown(debug=False):
        raise ZeroDivisionError("by zero")
    assert caught.value.exit_code == 1
    assert "ZeroDivisionError: by zero" in capsys.readouterr().err


@pytest.mark.parametrize("error", [ConfigError("x"), ZeroDivisionError("x")])
def test_debug_lets_the_traceback_through(error: Exception) -> None:
    with pytest.raises(type(error)), failures_shown(debug=True):
        raise error


def test_an_interrupt_says_that_work_is_kept(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as caught, failures_shown(debug=False):
        raise KeyboardInterrupt
    assert caught.value.exit_code == 130
    assert "kept" in capsys.readouterr().err
