"""The application: every verb has help, answers at once, and refuses wrong calls."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from volano import __version__
from volano.cli.main import app

VERBS = [
    "init",
    "plan",
    "apply",
    "demo",
    "status",
    "decisions",
    "train",
    "release",
    "rollback",
    "worker",
    "jobs",
    "check",
    "doctor",
]
HEAVY = {"numpy", "pyarrow", "numba", "duckdb", "deltalake", "sqlalchemy", "lmdb", "rich.console"}


def test_help_lists_every_verb() -> None:
    shown = CliRunner().invoke(app, ["--help"]).stdout
    assert all(f" {verb} " in shown for verb in VERBS)


@pytest.mark.parametrize("verb", [*VERBS, "decisions list", "decisions show"])
def test_every_verb_explains_itself(verb: str) -> None:
    result = CliRunner().invoke(app, [*verb.split(), "--help"])
    assert result.exit_code == 0
    assert "--debug" in result.stdout or verb == "decisions"


def test_the_version_is_the_packages() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"volano {__version__}\n"


@pytest.mark.parametrize(
    "call", [["nosuch"], ["train"], ["release"], ["decisions", "show"], ["plan", "--nosuch"]]
)
def test_a_wrong_call_is_a_usage_error(call: list[str]) -> None:
    assert CliRunner().invoke(app, call).exit_code == 2


def test_the_application_loads_nothing_heavy() -> None:
    code = "import sys, volano.cli.main; print(*sys.modules, sep='\\n')"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not HEAVY & set(loaded)


@pytest.mark.parametrize("verb", ["plan", "status", "check", "apply"])
def test_a_folder_without_a_project_is_told_so(verb: str, tmp_path: object) -> None:
    result = CliRunner().invoke(app, [verb, "--folder", str(tmp_path)])
    assert result.exit_code == 2
    assert "volano.toml" in result.stderr
    assert "volano init" in result.stderr
