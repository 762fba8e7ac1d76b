"""Sets that are built by hand: pinned evaluation sets that training never touches, samples, differences, exports."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.project.conftest import HALF
from tests.project.test_rebuild import later, newest, trained  # noqa: F401 - a fixture
from tests.project.world import MODEL, World, assert_sound, items
from volano.cli.main import app
from volano.errors import RequestError, StateMismatchError, UnknownNameError
from volano.values.instants import DAY_US

PINNED_RULE = "no training set touches an evaluation set that was pinned before it"


@pytest.fixture
def world(copy, trained):  # noqa: F811 - the fixture of the other module
    with World(copy(trained), items()) as opened:
        opened.clock.advance_to(opened.script[HALF].at)
        yield opened


def ids(table: pa.Table, column: str = "id") -> set[str]:
    return set(table[column].drop_null().to_pylist())


def test_training_leaves_out_what_was_pinned_and_its_units(world):
    before = newest(world)
    pinned = world.project.build_set(MODEL, "exam", pinned=True, share=0.3)
    judged = world.project.frozen("exam").table
    assert 0 < judged.num_rows < before.n_rows
    world.clock.advance_to(world.clock.now() + DAY_US)
    world.project.train(MODEL)
    after = newest(world)
    rows = world.project.frozen(after.name).table
    assert after.held_out == ("exam",)
    assert after.n_rows > 0
    for column in ("id", "unit"):
        assert not ids(rows, column) & ids(judged, column)
    assert ids(judged) & ids(world.project.frozen(before.name).table)  # it would have been trained on
    assert world.project.rebuild(after.name).manifest == after
    later(world)
    for made in (pinned, after):
        assert world.project.verify(made.name).is_sound
    assert_sound(world)


def test_a_training_set_that_touches_a_pinned_one_is_found(world):
    world.project.build_set(MODEL, "exam", pinned=True, share=0.3)
    world.clock.advance_to(world.clock.now() + DAY_US)
    leaked = world.project.build_set(MODEL, "clean")
    findings = {finding.rule: finding for finding in world.project.check()}
    assert findings[PINNED_RULE].sound
    catalog = world.work.stores.catalog
    exam = world.project.training_set("exam")
    forged = msgspec.structs.replace(leaked, name="leaked", artifact=exam.artifact, root_hash=exam.root_hash)
    catalog.put("training_set", "leaked", msgspec.json.encode(forged), expected=0)
    findings = {finding.rule: finding for finding in world.project.check()}
    assert not findings[PINNED_RULE].sound
    assert "leaked" in findings[PINNED_RULE].detail


def test_a_share_takes_whole_units_and_always_the_same(world):
    whole = world.project.frozen(world.project.build_set(MODEL, "whole").name).table
    made = world.project.build_set(MODEL, "some", share=0.4)
    some = world.project.frozen("some").table
    assert 0 < some.num_rows < whole.num_rows
    named = pc.coalesce(whole["unit"], whole["id"])
    taken = pc.is_in(named, value_set=pc.unique(pc.coalesce(some["unit"], some["id"])))
    assert whole.filter(taken)["id"].to_pylist() == some["id"].to_pylist()
    assert world.project.build_set(MODEL, "some", share=0.4) == made
    with pytest.raises(StateMismatchError):
        world.project.build_set(MODEL, "some", share=0.5)


def test_sets_are_compared_by_member_and_content(world):
    first = newest(world)
    cut = first.label_cutoff
    before = world.project.build_set(MODEL, "before", until=first.decided_until, cutoff=cut)
    later(world)
    after = world.project.build_set(MODEL, "after", until=first.decided_until)
    assert before.root_hash == first.root_hash  # the same rows, frozen by hand
    found = world.project.compare("before", "after")
    old, new = (world.project.frozen(name).table for name in ("before", "after"))
    assert set(found.only_before) == ids(old) - ids(new)
    assert set(found.only_after) == ids(new) - ids(old)
    assert found.changed
    assert after.root_hash != before.root_hash
    assert not any(world.project.compare("before", first.name))


def test_what_cannot_be_built_says_why(world):
    now = world.clock.now()
    for wrong in ({"since": now, "until": now}, {"cutoff": now + DAY_US}, {"share": 0.0}, {"name": "a/b"}):
        with pytest.raises(RequestError) as refused:
            world.project.build_set(MODEL, **wrong)
        assert refused.value.mend
    with pytest.raises(UnknownNameError):
        world.project.build_set("nothing")


def test_the_command_line_builds_compares_and_exports(copy, trained, tmp_path: Path):  # noqa: F811
    folder = str(copy(trained))
    with World(Path(folder), items()) as world:
        name = newest(world).name
        rows = world.project.frozen(name).table
    run = CliRunner().invoke

    def dataset(*arguments: str) -> tuple[int, str]:
        result = run(app, ["dataset", *arguments, "-C", folder])
        return result.exit_code, result.output

    assert (
        dataset("build", MODEL, "--name", "mine", "--until", "2013-01-20", "--pinned", "--share", "0.5")[0]
        == 0
    )
    code, said = dataset("diff", name, "mine")
    assert code == 1
    assert "only in mine" in said
    assert dataset("diff", name, name)[0] == 0
    assert dataset("export", name, str(tmp_path / "set.parquet"))[0] == 0
    assert pq.read_table(tmp_path / "set.parquet").equals(rows)
    assert dataset("export", name, str(tmp_path / "set.csv"))[0] == 0
    assert csv.read_csv(tmp_path / "set.csv").num_rows == rows.num_rows
    code, said = dataset("export", name, str(tmp_path / "set.docx"))
    assert code == 2
    assert ".parquet" in said
    assert dataset("export", name, str(tmp_path / "none" / "set.csv"))[0] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set.csv", "set.parquet"]
