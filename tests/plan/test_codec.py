"""Plans and definitions are read for ever."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compile.projects import AIRPORTS, FLIGHTS, compiled
from volano.compile.planner import plan
from volano.errors import CorruptionError
from volano.plan.codec import decode_plan, decode_project, encode_plan, encode_project
from volano.plan.definitions import CompiledModel
from volano.plan.plan import PlanState
from volano.values.identities import content_hash

OLD = Path(__file__).parent / "old"


@pytest.mark.parametrize("file", [FLIGHTS, AIRPORTS], ids=lambda file: file.stem)
def test_what_is_written_is_read_back(file):
    project = compiled(file).project
    done = plan(project, None, PlanState(), bundle="b1")
    assert decode_project(encode_project(project)) == project
    assert decode_plan(encode_plan(done)) == done
    assert encode_plan(decode_plan(encode_plan(done))) == encode_plan(done)


@pytest.mark.parametrize("file", [FLIGHTS, AIRPORTS], ids=lambda file: file.stem)
def test_what_is_read_back_has_the_hashes_it_had(file):
    project = compiled(file).project
    again = decode_project(encode_project(project))
    assert again.definitions_hash == project.definitions_hash
    for name, model in project.models.items():
        assert again.models[name].service.version == model.service.version


def test_a_new_optional_field_changes_no_hash():
    class Wider(CompiledModel, frozen=True, omit_defaults=True):
        novelty: str | None = None
        more: dict[str, int] = {}  # noqa: RUF012 - msgspec copies it

    model = compiled().project.models["delay"]
    wider = Wider(**{name: getattr(model, name) for name in model.__struct_fields__})
    assert content_hash(wider) == content_hash(model)


@pytest.mark.parametrize("file", sorted(OLD.glob("project_*.json")), ids=lambda file: file.stem)
def test_definitions_of_older_versions_are_read(file):
    project = decode_project(file.read_bytes())
    assert project.namespace == "flights" and project.decision("get_delay_risk").model == "delay"


@pytest.mark.parametrize("file", sorted(OLD.glob("plan_*.json")), ids=lambda file: file.stem)
def test_plans_of_older_versions_are_read(file):
    assert decode_plan(file.read_bytes()).steps


def test_there_is_a_file_of_the_first_version():
    assert (OLD / "project_0001.json").exists() and (OLD / "plan_0001.json").exists()


@pytest.mark.parametrize("read", [decode_plan, decode_project])
def test_other_bytes_are_refused(read):
    with pytest.raises(CorruptionError):
        read(b'{"namespace": 3}')
