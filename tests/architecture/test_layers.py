"""Imports go one way: import-linter's contracts in pyproject.toml."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib

from tests.architecture.source import PACKAGE, ROOT

# Outside the layers on purpose; `rules.direct_imports` speaks of them.
BESIDE_THE_LAYERS = {"testing", "client", "__init__", "templates"}


def lint(cwd, source) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as f; f()"]
    env = {**os.environ, "PYTHONPATH": str(source)}
    arguments = ["--no-logo", "--no-cache", "--config", str(ROOT / "pyproject.toml")]
    return subprocess.run([*command, *arguments], cwd=cwd, env=env, capture_output=True, text=True)


def test_the_layers_are_kept():
    result = lint(ROOT, PACKAGE.parent)
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_broken_layer_is_caught(tmp_path):
    package = tmp_path / "volano"
    for name, text in {"errors": "", "values": "import volano.cli", "cli": ""}.items():
        (package / name).mkdir(parents=True)
        (package / name / "__init__.py").write_text(text)
    (package / "__init__.py").write_text("")
    result = lint(tmp_path, tmp_path)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "volano.values" in result.stdout


def test_every_package_has_its_layer():
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = config["tool"]["importlinter"]["contracts"]
    layers = " ".join(contract["layers"]).replace("|", " ").replace(":", " ")
    placed = {name.strip("()") for name in layers.split()}
    present = {path.stem for path in PACKAGE.iterdir() if path.is_dir() or path.suffix == ".py"}
    unplaced = present - placed - BESIDE_THE_LAYERS - {"__pycache__"}
    assert not unplaced, f"{sorted(unplaced)}: add to the layers in pyproject.toml"
