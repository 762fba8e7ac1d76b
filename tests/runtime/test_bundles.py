"""Bundles: yesterday's code beside today's, in one process."""

from __future__ import annotations

import traceback

import pytest

from tests.compile.projects import AIRPORTS, FLIGHTS, compiled, edited
from volano.errors import AuthorCodeError, CorruptionError, UnknownNameError
from volano.plan.definitions import CodeRef
from volano.runtime.bundles import open_bundle
from volano.runtime.loader import pack

CODE = CodeRef("flights", "tired_long_haul", "")


def test_two_versions_of_a_function_live_side_by_side(tmp_path):
    old = open_bundle(pack(FLIGHTS))
    new = open_bundle(pack(edited(tmp_path, ("distance > 1500", "distance > 2500"))))
    assert old.digest != new.digest
    assert [bundle.get(CODE)(2000, 60.0) for bundle in (old, new, old)] == [True, False, True]


def test_helpers_of_two_versions_do_not_mix(tmp_path):
    edited(tmp_path, of=AIRPORTS)
    helper = AIRPORTS.with_name("weights.py").read_text(encoding="utf-8")
    (tmp_path / "weights.py").write_text(helper.replace("30.0", "60.0"))
    pandas = pytest.importorskip("pandas")
    batch = pandas.DataFrame({"dep_delay": [45.0]})
    code = CodeRef("airports", "weigh", "")
    old, new = open_bundle(pack(AIRPORTS)), open_bundle(pack(tmp_path / "airports.py"))
    assert [list(bundle.get(code)(batch).weight) for bundle in (old, new)] == [[1.0], [0.0]]


def test_what_an_author_raises_keeps_their_traceback_and_hides_ours():
    function = open_bundle(pack(FLIGHTS)).get(CODE)
    with pytest.raises(AuthorCodeError) as caught:
        function("far", 1.0)
    cause = caught.value.__cause__
    assert isinstance(cause, TypeError)
    frames = traceback.extract_tb(cause.__traceback__)
    assert [frame.name for frame in frames] == ["tired_long_haul"]
    assert frames[0].line == "return distance > 1500 and (d or 0) > 30"
    assert "flights.py:" in caught.value.where


def test_a_function_knows_its_name():
    assert open_bundle(pack(FLIGHTS)).get(CODE).__name__ == "tired_long_haul"


def test_an_unknown_function_is_an_error():
    bundle = open_bundle(pack(FLIGHTS))
    for code in (
        CodeRef("flights", "missing", ""),
        CodeRef("missing", "x", ""),
        CodeRef("flights", "ops", ""),
    ):
        with pytest.raises(UnknownNameError):
            bundle.get(code)


def test_a_module_that_fails_to_import_is_the_authors_error(tmp_path):
    file = tmp_path / "a.py"
    file.write_text("import volano as vo\nfrom missing_package import x\n")
    with pytest.raises(AuthorCodeError, match="missing_package"):
        open_bundle(pack(file)).get(CodeRef("a", "x", ""))


def test_every_reference_of_a_compiled_project_is_found_in_its_bundle():
    project, bundle = compiled(AIRPORTS).project, open_bundle(pack(AIRPORTS))
    views = [view.projection.code for view in project.views.values() if view.projection is not None]
    codes = [code for code in (*views, *(f.code for f in project.on_demand.values())) if code is not None]
    assert len(codes) == 3
    assert all(callable(bundle.get(code)) for code in codes)


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"\x80\x04pickle", b'{"entries": [], "sources": {}, "version": 99}']
)
def test_other_bytes_are_refused(data):
    with pytest.raises(CorruptionError):
        open_bundle(data)
