"""A new project comes from a template, never over something that is there, and compiles as it is."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from volano.cli.main import app
from volano.compile.project import compile_project
from volano.errors import ConfigError, UnknownNameError
from volano.runtime.config import read_config
from volano.runtime.loader import load_project
from volano.runtime.templates import template_names, write_template


def test_init_writes_a_project_and_says_what_is_next(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["init", str(tmp_path / "shop")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"Next: cd {tmp_path / 'shop'} && volano plan"
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == ["project.py", "volano.toml"]


def test_the_blank_template_compiles_without_a_warning(tmp_path: Path) -> None:
    write_template("blank", tmp_path / "shop")
    config = read_config(tmp_path / "shop", {})
    compiled = compile_project(load_project(tmp_path / "shop" / "project.py"), namespace=config.namespace)
    assert list(compiled.project.decisions) == ["get_return_risk"]
    assert compiled.warnings == ()


def test_a_folder_that_is_not_empty_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="not an empty folder"):
        write_template("blank", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    assert CliRunner().invoke(app, ["init", str(tmp_path)]).exit_code == 2


def test_an_unknown_template_names_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        write_template("blnk", tmp_path / "x")
    assert "blank" in caught.value.mend
    assert "blank" in template_names()
    assert not (tmp_path / "x").exists()
