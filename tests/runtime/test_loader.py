"""An author's files → modules, or every mistake with its line."""

from __future__ import annotations

import sys
import typing

import pytest

from tests.compile.projects import AIRPORTS, FLIGHTS
from volano.errors import ProjectError
from volano.runtime.bundles import decode_bundle
from volano.runtime.loader import load_project, pack
from volano.values.identities import digest


def mistakes_of(path):
    with pytest.raises(ProjectError) as caught:
        load_project(path)
    return caught.value.mistakes


def test_a_file_is_loaded_with_the_helpers_it_imports():
    loaded = load_project(AIRPORTS)
    assert [(module.name, module.file) for module in loaded.modules] == [
        ("airports", "airports.py"),
        ("weights", "weights.py"),
    ]


def test_a_folder_is_loaded_file_by_file(tmp_path):
    (tmp_path / "a.py").write_text("import volano as vo\nfrom b import ops\n")
    (tmp_path / "b.py").write_text("import volano as vo\nops = vo.Owner('ops', contact='x')\n")
    (tmp_path / "script.py").write_text("raise RuntimeError('never imported')\n")
    (tmp_path / "test_a.py").write_text("import volano as vo\nraise RuntimeError('never imported')\n")
    first, second = load_project(tmp_path).modules
    assert [first.name, second.name] == ["a", "b"]
    assert first.values["ops"] is second.values["ops"]


def test_a_script_that_drives_the_project_is_no_part_of_it(tmp_path):
    (tmp_path / "a.py").write_text("import volano as vo\nops = vo.Owner('ops', contact='x')\n")
    before = pack(tmp_path)
    (tmp_path / "live.py").write_text(
        "from volano.project import Project\nimport volano.errors\nraise SystemExit\n"
    )
    assert [module.name for module in load_project(tmp_path).modules] == ["a"]
    assert pack(tmp_path) == before


def test_loading_leaves_no_public_traces(tmp_path):
    path = list(sys.path)
    load_project(AIRPORTS)
    assert sys.path == path and "airports" not in sys.modules and "weights" not in sys.modules


def test_packages_relative_imports_and_late_imports_work(tmp_path):
    package = tmp_path / "shop"
    package.mkdir()
    (package / "__init__.py").write_text("from .owners import ops as ops\nfrom . import sizes\n")
    (package / "owners.py").write_text("import volano as vo\nops = vo.Owner('ops', contact='x')\n")
    (package / "sizes.py").write_text("import shop.owners\nBIG = shop.owners.ops.name\n")
    (package / "late.py").write_text("WORD = 'late'\n")
    (tmp_path / "main.py").write_text(
        "import volano as vo\nimport shop.sizes as s\nfrom shop import ops, sizes\nimport json\n\n"
        "def word():\n    from shop.late import WORD\n    return WORD\n"
    )
    loaded = load_project(tmp_path / "main.py")
    main = loaded.modules[0].values
    assert main["s"] is main["sizes"] and main["sizes"].BIG == "ops"
    assert main["word"]() == "late"
    assert set(decode_bundle(pack(tmp_path / "main.py")).sources) == {
        "main.py", "shop/__init__.py", "shop/owners.py", "shop/sizes.py", "shop/late.py",
    }  # fmt: skip


def test_type_hints_and_dataclasses_find_their_module(tmp_path):
    (tmp_path / "p.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\nimport volano as vo\n\n"
        "@dataclass\nclass Size:\n    n: int\n    owner: vo.Owner | None = None\n"
    )
    values = load_project(tmp_path / "p.py").modules[0].values
    assert values["Size"](3).n == 3
    assert typing.get_type_hints(values["Size"])["n"] is int


def test_the_same_sources_give_the_same_bundle_wherever_they_lie(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flights.py").write_bytes(FLIGHTS.read_bytes())
    one, two = pack(tmp_path / "one" / "flights.py"), pack(tmp_path / "two" / "flights.py")
    assert one == two
    assert load_project(tmp_path / "one" / "flights.py").bundle == digest(one)


def test_the_lock_is_part_of_the_bundle(tmp_path):
    (tmp_path / "flights.py").write_bytes(FLIGHTS.read_bytes())
    before = pack(tmp_path)
    (tmp_path / "requirements.lock").write_text("volano==0.1.0\n")
    assert pack(tmp_path) != before


def test_every_file_that_does_not_parse_is_reported(tmp_path):
    (tmp_path / "a.py").write_text("import volano as vo\nx = (\n")
    (tmp_path / "b.py").write_text("import volano as vo\ny = = 2\n")
    assert [mistake.where for mistake in mistakes_of(tmp_path)] == ["a.py:2", "b.py:2"]


def test_an_error_inside_a_helper_is_reported_at_the_helper(tmp_path):
    (tmp_path / "a.py").write_text("import volano as vo\nimport helper\n")
    (tmp_path / "helper.py").write_text("x = 1\ny = x / 0\n")
    (mistake,) = mistakes_of(tmp_path / "a.py")
    assert mistake.where == "helper.py:2" and "ZeroDivisionError" in mistake.what


def test_a_failed_import_can_be_mended_and_loaded_again(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import volano as vo\nx = 1 / 0\n")
    mistakes_of(file)
    mistakes_of(file)
    file.write_text("import volano as vo\nx = 1\n")
    assert load_project(file).modules[0].values["x"] == 1


@pytest.mark.parametrize(
    "content", [b"import volano\n\x00", "import volano # é".encode("latin-1")], ids=["null", "latin"]
)
def test_a_file_that_is_not_text_is_reported(tmp_path, content):
    (tmp_path / "a.py").write_bytes(content)
    (mistake,) = mistakes_of(tmp_path / "a.py")
    assert mistake.where.startswith("a.py:") and mistake.mend


def test_what_is_no_project_is_said_so(tmp_path):
    (tmp_path / "notes.txt").write_text("hello")
    for path in (tmp_path / "missing.py", tmp_path, tmp_path / "notes.txt"):
        (mistake,) = mistakes_of(path)
        assert "volano init" in mistake.mend and mistake.where == str(path)


def test_a_symbolic_link_to_the_folder_is_followed(tmp_path):
    real = tmp_path / "real"
    real.mkdir()
    (real / "flights.py").write_bytes(FLIGHTS.read_bytes())
    (tmp_path / "link").symlink_to(real)
    assert load_project(tmp_path / "link").bundle == load_project(real).bundle
