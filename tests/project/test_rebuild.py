"""A training set rebuilt from its manifest has the same content hash, whatever came since. And the proof can fail."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.project.conftest import HALF
from tests.project.test_old_bundles import RENAMED, with_both_columns
from tests.project.test_versions import WINDOW, ask
from tests.project.world import DEFINITIONS, HAND_OVER, MODEL, World, assert_sound, items, write_project
from volano.cli.main import app
from volano.records.journal import Operation
from volano.records.learning import TrainingSetManifest
from volano.runtime.datasets import rebuild
from volano.runtime.labelling import read_labels
from volano.values.instants import DAY_US, HOUR_US, NEVER, to_datetime

PATIENT = DEFINITIONS.replace('accept_late="2h"', 'accept_late="90d"')
"""Takes rows of long ago into its features."""
LABEL = DEFINITIONS.replace('value=vo.sql("arr_delay >= 30")', 'value=vo.sql("arr_delay >= 10")').replace(
    'horizon="36h"', 'horizon="30h"'
)


@pytest.fixture(scope="module")
def trained(ground) -> Path:
    """A world that trained a version after some days: its set holds past requests, and logged decisions."""
    folder = write_project(ground / "trained")
    with_both_columns(folder)
    with World(folder, items()) as world:
        world.begin()
        world.run(HALF, start=0)
        world.project.train(MODEL)
    return folder


def sets(world: World) -> list[TrainingSetManifest]:
    """Every set but empty ones."""
    return [made for made in world.project.training_sets() if made.n_rows]


def newest(world: World) -> TrainingSetManifest:
    return max((made for made in sets(world) if made.kind == "training"), key=lambda made: made.label_cutoff)


def later(world: World) -> None:
    """Late facts, corrections, retractions, and the labels that change with them."""
    facts = world.work.stores.lake.read("fact_landings").sort_by("applied_at")
    ids = pc.unique(facts["event_id"].combine_chunks()).to_pylist()
    world.clock.advance_to(world.clock.now() + HOUR_US)
    for n, event_id in enumerate(ids[::3]):
        row = facts.filter(pc.equal(facts["event_id"], event_id)).slice(0, 1).to_pylist()[0]
        event = {name: row[name] for name in ("flight_id", "tailnum", "landed_at")}
        if None in event.values() or row["arr_delay"] is None:
            continue
        operation = Operation.CORRECT if n % 2 else Operation.RETRACT
        world.project.observe(
            "landings", {**event, "arr_delay": 70.0 - row["arr_delay"]}, operation=operation, revision=5
        )
    for n in range(24):  # late ones, within what the source accepts and beyond it
        landed = to_datetime(world.clock.now() - n * HOUR_US)
        event = {"flight_id": f"late-{n}", "tailnum": f"N{n:02}", "arr_delay": 99.0, "landed_at": landed}
        world.project.observe("landings", event)
    world.project.drain(commit=True)
    world.clock.advance_to(world.clock.now() + 3 * DAY_US)
    world.project.run_due()


def backfill(world: World) -> None:
    """Rows that were known long ago, of a stamp of today: what a later backfill writes."""
    lake = world.work.stores.lake
    facts = lake.read("fact_landings")
    some = pq.read_table(world.folder / "landings.parquet").slice(0, 200)
    known = pc.cast(pc.add(some["landed_at"].cast(pa.int64()), 300_000_000), pa.timestamp("us", "UTC"))
    stamp = pa.array([world.clock.now()] * some.num_rows).cast(pa.timestamp("us", "UTC"))
    ids = pa.array([f"backfilled-{n}" for n in range(some.num_rows)])
    rows = {
        "event_id": ids,
        "revision": pa.array([0] * some.num_rows),
        "operation": pa.array(["insert"] * some.num_rows),
        "event_time": pc.add(some["landed_at"], pa.scalar(1, pa.duration("us"))),
        "received_at": stamp,
        "applied_at": stamp,
        "known_at": known,
        "flight_id": ids,
        "tailnum": some["tailnum"],
        "arr_delay": pc.add(some["arr_delay"], 1.0),
        "landed_at": pc.add(some["landed_at"], pa.scalar(1, pa.duration("us"))),
    }
    table = pa.table({name: rows[name] for name in facts.column_names if name in rows})
    lake.append("fact_landings", table, writer="backfill", sequence=1)


def test_late_facts_corrections_and_new_labels_change_no_rebuilt_hash(copy, trained):
    with World(copy(trained), items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        before = sets(world)
        assert {made.kind for made in before} == {"training", "evaluation"}
        assert newest(world).n_history > 100
        assert newest(world).n_rows > newest(world).n_history + 50
        labels = read_labels(world.work.session, "late_30").num_rows
        later(world)
        assert read_labels(world.work.session, "late_30").num_rows > labels + 50
        for made in before:
            assert world.project.rebuild(made.name).manifest == made
            assert world.project.verify(made.name).is_sound


@pytest.mark.parametrize("changed", [WINDOW, LABEL, RENAMED], ids=["window", "label", "renamed"])
def test_a_second_apply_with_its_backfill_and_labels_changes_no_rebuilt_hash(copy, trained, changed):
    with World(copy(trained), items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        before = sets(world)
        (world.folder / "flights.py").write_text(changed)
        world.project.apply(allow_breaking=changed == RENAMED)
        if changed != RENAMED:
            later(world)
        world.clock.advance_to(world.clock.now() + DAY_US)
        again = world.project.train(MODEL)
        assert again.training_set_hash not in {made.root_hash for made in before}
        for made in before:
            assert world.project.rebuild(made.name).manifest.root_hash == made.root_hash


def test_requests_that_the_author_rewrites_change_no_rebuilt_hash(copy, trained):
    with World(copy(trained), items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        made = newest(world)
        schedule = world.folder / "schedule.parquet"
        rows = pq.read_table(schedule)
        pq.write_table(
            rows.slice(5).set_column(3, "distance", pc.add(rows["distance"].slice(5), 1)), schedule
        )
        assert world.project.rebuild(made.name).manifest == made
        unfrozen = msgspec.structs.replace(made, asked="")
        assert rebuild(world.work.session, unfrozen).manifest.root_hash != made.root_hash


def test_a_later_backfill_changes_no_rebuilt_hash_and_would_without_the_stamp(fresh):
    folder = write_project(fresh / "patient", definitions=PATIENT)
    with World(folder, items()) as world:
        world.begin()
        world.run(60, start=0)
        world.project.train(MODEL)
        made = newest(world)
        assert made.n_history > 100
        for n in range(3):  # at the very instant of the cut-off, after the set was built
            event = {"tailnum": f"N{n:02}", "arr_delay": 99.0, "landed_at": to_datetime(HAND_OVER - DAY_US)}
            world.project.observe("landings", {**event, "flight_id": f"at-once-{n}"})
        world.project.drain(commit=True)
        assert world.project.rebuild(made.name).manifest == made
        world.clock.advance_to(world.clock.now() + HOUR_US)
        backfill(world)
        assert world.project.rebuild(made.name).manifest == made
        ignored = msgspec.structs.replace(made, stamp=NEVER - 1)
        assert rebuild(world.work.session, ignored).manifest.root_hash != made.root_hash
        # What is trained from now on counts them, also in a process that keeps its frames.
        world.clock.advance_to(world.clock.now() + DAY_US)
        ask(world)  # a later stamp is given
        world.project.train(MODEL)
        again = newest(world)
        assert again.label_cutoff > made.label_cutoff
        features = [f"PlaneHistory__{name}" for name in ("last_delay", "legs_3d")]
        rows = [world.project.rebuild(each.name).table.select(["id", *features]) for each in (made, again)]
        shared = rows[1].filter(pc.is_in(rows[1]["id"], value_set=rows[0]["id"].combine_chunks()))
        assert shared.num_rows > 100
        assert shared.drop_columns(["id"]) != rows[0].slice(0, shared.num_rows).drop_columns(["id"])
        for each in (made, again):
            assert world.project.verify(each.name).is_sound


def test_without_the_pins_the_hash_differs(copy, trained):
    """Each pin is needed: another stamp, cut-off or bundle gives other rows."""
    with World(copy(trained), items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        made = newest(world)
        session = world.work.session
        later(world)
        assert rebuild(session, made).manifest.root_hash == made.root_hash
        for unpinned in ({"stamp": HAND_OVER - 1}, {"label_cutoff": world.clock.now(), "stamp": NEVER - 1}):
            found = rebuild(session, msgspec.structs.replace(made, **unpinned)).manifest
            assert found.root_hash != made.root_hash, unpinned
        (world.folder / "flights.py").write_text(WINDOW)
        today = world.project.apply().bundle
        found = rebuild(world.work.session, msgspec.structs.replace(made, bundle=today)).manifest
        assert found.root_hash != made.root_hash
        assert_sound(world)


def test_a_row_of_the_lake_that_was_changed_is_found_and_its_members_named(copy, trained):
    folder = copy(trained)
    with World(folder, items()) as world:
        made = newest(world)
    for file in (folder / ".volano" / "lake" / "label").rglob("*.parquet"):
        rows = pq.read_table(file)
        if rows.num_rows and "value" in rows.column_names:
            at = rows.column_names.index("value")
            flipped = pc.if_else(
                pc.equal(rows["state"], "mature"), pc.subtract(1.0, rows["value"]), rows["value"]
            )
            pq.write_table(rows.set_column(at, rows.schema.field(at), flipped), file)
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        found = world.project.verify(made.name)
        assert not found.is_sound
        assert not found.frozen
        assert len(found.changed) > 10
        assert (found.missing, found.added) == ((), ())
        findings = {finding.rule: finding for finding in world.project.check()}
        (rule,) = [rule for rule in findings if "rebuilt from its manifest" in rule]
        assert not findings[rule].sound
        assert made.name in findings[rule].detail
    result = CliRunner().invoke(app, ["dataset", "verify", made.name, "-C", str(folder)])
    assert result.exit_code == 1, result.output


def test_sets_are_listed_shown_and_verified_on_the_command_line(trained, copy):
    folder = copy(trained)
    with World(folder, items()) as world:
        name = newest(world).name
    for arguments in (["list"], ["show", name], ["verify", name], ["verify", name, "--json"]):
        result = CliRunner().invoke(app, ["dataset", *arguments, "-C", str(folder)])
        assert result.exit_code == 0, result.output
    assert CliRunner().invoke(app, ["dataset", "show", "nothing", "-C", str(folder)]).exit_code == 2
