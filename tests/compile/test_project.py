"""Modules → compiled project."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.compile.projects import AIRPORTS, FLIGHTS, compiled, edited
from volano.compile.loaded import LoadedProject
from volano.compile.project import compile_project
from volano.errors import ProjectError
from volano.plan.codec import encode_project


@pytest.mark.parametrize("file", [FLIGHTS, AIRPORTS], ids=lambda file: file.stem)
def test_a_project_compiles_to_what_its_golden_says(file, golden):
    project = compiled(file).project
    golden(f"{file.stem}.json", msgspec.json.format(encode_project(project)).decode() + "\n")


def test_compiling_twice_gives_the_same_definitions():
    assert compiled().project == compiled().project


def test_a_decision_without_a_release_is_warned_of():
    (warning,) = compiled(AIRPORTS).warnings
    assert "no release" in warning.what and warning.where.startswith("airports.py:")


def test_a_decision_without_a_label_is_warned_of(tmp_path):
    file = edited(tmp_path, ("label=late, history=asked,", "history=asked,"))
    found = compiled(file)
    assert found.project.models["delay"].label == ""
    assert any("no label and no KPI" in warning.what for warning in found.warnings)


def test_a_project_without_modules_is_a_mistake():
    with pytest.raises(ProjectError, match="1 mistake"):
        compile_project(LoadedProject(()))


def hashes(file: Path) -> dict[str, str]:
    return {view.name: view.definition_hash for view in compiled(file).project.views.values()}


@pytest.mark.parametrize(
    "edit",
    [
        ('"365d"', '"364d"'),
        ("arr_delay > 15", "arr_delay > 16"),
        ("prior=0.2", "prior=0.3"),
        ('accept_late="2h"', 'accept_late="3h"'),
        ('available_after="5m"', 'available_after="6m"'),
        ('vo.last("arr_delay"', 'vo.first("arr_delay"'),
    ],
    ids=lambda edit: edit[1],
)
def test_what_changes_a_value_changes_the_hash_of_the_view(tmp_path, edit):
    assert hashes(edited(tmp_path, edit)) != hashes(FLIGHTS)


@pytest.mark.parametrize(
    "edit",
    [
        ("flight-ops@example.org", "somebody@example.org"),
        ('"landings.parquet"', '"other.parquet"'),
        ('deadline="20ms"', 'deadline="30ms"'),
        ("    landed_at: vo.EventTime", "    gate: str | None\n    landed_at: vo.EventTime"),
        ("# minutes", "# in minutes"),
    ],
    ids=lambda edit: edit[1],
)
def test_what_changes_no_value_leaves_the_hash_of_the_view(tmp_path, edit):
    assert hashes(edited(tmp_path, edit)) == hashes(FLIGHTS)


def weigh_hash(folder: Path) -> str:
    view = compiled(folder / "airports.py").project.views["RouteWeights"]
    assert view.projection is not None and view.projection.code is not None
    return view.projection.code.source_hash


def test_a_helper_that_a_function_calls_is_part_of_its_hash(tmp_path):
    helper = AIRPORTS.with_name("weights.py").read_text(encoding="utf-8")
    edited(tmp_path, of=AIRPORTS)
    (tmp_path / "weights.py").write_text(helper)
    before = weigh_hash(tmp_path)
    (tmp_path / "weights.py").write_text(helper + "\n\n# a comment\nUNUSED = 1\n")
    assert weigh_hash(tmp_path) == before
    (tmp_path / "weights.py").write_text(helper.replace("30.0", "31.0"))
    assert weigh_hash(tmp_path) != before


def test_a_helper_that_reads_the_clock_is_a_mistake_at_its_own_line(tmp_path):
    edited(tmp_path, of=AIRPORTS)
    (tmp_path / "weights.py").write_text(
        "import time\n\n\ndef heavy(delays):\n    return delays + time.time()\n"
    )
    with pytest.raises(ProjectError) as caught:
        compiled(tmp_path / "airports.py")
    (mistake,) = caught.value.mistakes
    assert mistake.where == "weights.py:5" and "time.time" in mistake.what


def test_an_unused_import_of_the_clock_is_no_mistake(tmp_path):
    file = edited(
        tmp_path, ("import volano as vo", "import time\n\nimport volano as vo\n\nSTARTED = time.time()")
    )
    assert compiled(file).project.views


def test_an_authors_trainer_is_two_references_into_the_bundle(tmp_path):
    functions = "def learn(features, label, params, seed):\n    return b''\n\n\ndef score(artifact, features):\n    return []\n"
    file = edited(
        tmp_path,
        ("delay = vo.Model(", functions + "\n\ndelay = vo.Model("),
        ('vo.LightGBM(objective="binary")', "vo.PythonTrainer(learn, score, depth=3)"),
    )
    trainer = compiled(file).project.models["delay"].trainer
    assert trainer.kind == "python" and trainer.params == {"depth": 3}
    assert trainer.code is not None and trainer.code.qualname == "learn"
    assert trainer.predict is not None and trainer.predict.qualname == "score"
