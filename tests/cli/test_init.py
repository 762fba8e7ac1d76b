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


@pytest.mark.parametrize(
    ("folder", "namespace"),
    [("shop", "shop"), ("card-risk", "card-risk"), ("My Shop", "my-shop"), ("Fraud__v2!", "fraud_v2")],
)
@pytest.mark.parametrize("template", template_names())
def test_the_namespace_is_the_name_of_the_folder(
    tmp_path: Path, template: str, folder: str, namespace: str
) -> None:
    result = CliRunner().invoke(app, ["init", str(tmp_path / folder), "--template", template])
    assert result.exit_code == 0, result.output
    assert read_config(tmp_path / folder, {}).namespace == namespace


def test_init_of_the_present_folder_takes_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "orders").mkdir()
    monkeypatch.chdir(tmp_path / "orders")
    assert CliRunner().invoke(app, ["init", "."]).exit_code == 0
    assert read_config(tmp_path / "orders", {}).namespace == "orders"


@pytest.mark.parametrize("arguments", [["2013"], ["shop", "--namespace", "a/b"]])
def test_a_name_that_is_no_namespace_is_refused_before_anything_is_written(
    tmp_path: Path, arguments: list[str]
) -> None:
    folder, *options = arguments
    result = CliRunner().invoke(app, ["init", str(tmp_path / folder), *options])
    assert result.exit_code == 2, result.output
    assert "--namespace" in result.output
    assert not (tmp_path / folder).exists()
    assert CliRunner().invoke(app, ["init", str(tmp_path / folder), "--namespace", "flights"]).exit_code == 0
    assert read_config(tmp_path / folder, {}).namespace == "flights"


def test_a_wrong_namespace_in_the_configuration_is_told(tmp_path: Path) -> None:
    (tmp_path / "volano.toml").write_text('namespace = "no name"')
    with pytest.raises(ConfigError, match="no namespace"):
        read_config(tmp_path, {})


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
