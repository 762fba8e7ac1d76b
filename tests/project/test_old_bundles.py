"""A new apply renames everything: what the old bundle decided is still committed, audited, explained and labelled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.project.conftest import HALF
from tests.project.test_versions import ask
from tests.project.world import DECISION, DEFINITIONS, MODEL, World, assert_sound, items
from volano.errors import PlanRefused, RequestError, StateMismatchError
from volano.runtime.applied import get_applied
from volano.runtime.checks import audit_decisions, run_checks
from volano.runtime.labelling import read_labels, update_labels
from volano.values.instants import DAY_US, HOUR_US, to_datetime

RENAMED = (
    DEFINITIONS.replace("    arr_delay: float\n", "    delay: float\n")  # a column of the source
    .replace('vo.sql("arr_delay', 'vo.sql("delay')
    .replace('"arr_delay"', '"delay"')
    .replace("class PlaneHistory", "class Plane")  # the view
    .replace("PlaneHistory", "Plane")
    .replace('"late_30"', '"late_20"')  # the label
    .replace("delay >= 30", "delay >= 20")
    .replace("    distance: int\n\n", "    miles: int\n\n")  # a field of the request
    .replace("distance: int = Departure.distance", "distance: int = Departure.miles")
    .replace("Departure.distance]", "Departure.miles]")
)


def with_both_columns(folder: Path) -> None:
    """The tables hold the columns under both names from the beginning: a pinned table may not change."""
    for name, old, new in (("landings", "arr_delay", "delay"), ("schedule", "distance", "miles")):
        rows = pq.read_table(folder / f"{name}.parquet")
        pq.write_table(rows.append_column(new, rows[old]), folder / f"{name}.parquet")


@pytest.fixture(scope="module")
def served(ground) -> Path:
    """A world with both names in its tables that stopped after some days, with decisions that wait for their label."""
    from tests.project.world import write_project

    folder = write_project(ground / "both names")
    with_both_columns(folder)
    with World(folder, items()) as world:
        world.begin()
        world.run(180, start=0)
    return folder


def change(world: World, definitions: str = RENAMED) -> str:
    (world.folder / "flights.py").write_text(definitions)
    return world.project.apply(allow_breaking=True).bundle


def land(world: World, flight: str, **more: Any) -> None:
    now = to_datetime(world.clock.now())
    world.project.observe("landings", {"flight_id": flight, "tailnum": "N05", "landed_at": now, **more})
    world.project.drain()


def rows_of(world: World, bundle: str) -> pa.Table:
    rows = world.work.stores.lake.read(f"decision_{DECISION}")
    return rows.filter(pa.compute.equal(rows["bundle"], bundle))


def test_the_old_bundle_goes_on_under_new_names(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        old = get_applied(world.work.stores.catalog).bundle
        before = ask(world, flight_id="asked-before")
        world.clock.advance_to(world.clock.now() + HOUR_US)
        land(world, "asked-before", arr_delay=45.0)
        labels_before = read_labels(world.work.session, "late_30").num_rows

        new = change(world)
        assert new != old

        # The old version serves, with the old request.
        after = ask(world, flight_id="asked-after")
        assert (after.bundle, after.service_version) == (old, before.service_version)
        with pytest.raises(RequestError):
            world.project.decide(DECISION, {"flight_id": "x", "tailnum": None, "miles": 3})
        # Its views see the new events too, but for the column that these do not have.
        world.clock.advance_to(world.clock.now() + HOUR_US)
        land(world, "asked-after", delay=45.0)
        world.clock.advance_to(world.clock.now() + 1)
        last = ask(world, flight_id="asked-last")
        assert world.project.decision(last.decision_id).features[0].value is None
        legs = [feature.name for feature in world.project.decision(last.decision_id).features].index(
            "PlaneHistory__legs_3d"
        )
        # Two more landings: one of the old schema at the very instant of `after`, one of the new.
        assert last.features[legs] == after.features[legs] + 2

        # Committed as they were asked and served ...
        world.project.drain(commit=True)
        logged = {row["decision_id"]: row for row in rows_of(world, old).to_pylist()}
        for made in (before, after, last):
            row = logged[made.decision_id]
            assert row["request__distance"] == 1000
            assert row["feature__PlaneHistory__legs_3d"] == made.features[legs]
        # ... audited with their own sources, requests and functions, bit for bit ...
        report = audit_decisions(world.work.session, DECISION)
        assert (report.mismatched, report.skipped) == (0, 0)
        assert report.checked == world.work.stores.lake.read(f"decision_{DECISION}").num_rows > 50
        # ... explained ...
        explained = world.project.decision(before.decision_id)
        assert explained.request == before.request
        assert [feature.value for feature in explained.features] == before.features
        # ... and labelled by the label that they were made under.
        world.clock.advance_to(world.clock.now() + 3 * DAY_US)
        world.project.drain(commit=True)
        update_labels(world.work.session, as_of=world.clock.now())
        states = [label.state for label in world.project.decision(before.decision_id).labels]
        assert states[-1] == "mature"
        assert world.project.decision(before.decision_id).labels[-1].value == 1.0
        unknown = world.project.decision(after.decision_id).labels[-1]
        assert (unknown.label, unknown.state, unknown.reason) == (
            "late_30",
            "censored",
            "the outcome has no value",
        )
        assert read_labels(world.work.session, "late_30").num_rows > labels_before
        assert read_labels(world.work.session, "late_20").num_rows == 0
        assert_sound(world)


def test_the_new_version_serves_when_released_and_the_old_one_after_a_rollback(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        before = ask(world)
        new = change(world)
        version = world.project.train(MODEL)
        assert version.bundle == new
        world.project.release(DECISION, version.version, force_reason="renamed")
        request = {key: value for key, value in before.request.items() if key != "distance"}
        request["sched_dep"] = "2013-03-20T00:00:00Z"
        released = world.project.decide(DECISION, {**request, "miles": 1000})
        assert (released.bundle, released.fallback) == (new, "")
        world.clock.advance_to(world.clock.now() + HOUR_US)
        land(world, "c9999", delay=45.0)
        world.clock.advance_to(world.clock.now() + 1)
        again = world.project.decide(DECISION, {**request, "miles": 1000})
        assert again.features != released.features

        world.project.rollback(DECISION, "back")
        restored = ask(world)
        assert (restored.bundle, restored.service_version) == (before.bundle, before.service_version)
        assert restored.request["distance"] == 1000
    with World(world.folder, items()) as world:  # another process: all three wait in its journal
        world.clock.advance_to(world.script[HALF].at)
        assert ask(world).bundle == before.bundle
        report = audit_decisions(world.work.session, DECISION)
        assert report.mismatched == 0
        assert_sound(world)


def test_the_audit_of_an_old_bundle_can_fail(copy, served, monkeypatch):
    """Read with the sources of today, as it once was, the old decisions do not come out the same."""
    with World(copy(served), items()) as world:
        world.resume()
        ask(world)
        change(world)
        world.project.drain(commit=True)
        session = world.work.session
        monkeypatch.setattr(session.definitions, "facts", lambda bundle: session.facts)
        session.__dict__["facts"] = type(session.definitions).facts(
            session.definitions, session.applied.bundle
        )
        findings = {finding.rule: finding for finding in run_checks(session)}
        assert not findings["served features equal recomputed ones, bit for bit"].sound


def test_a_decision_that_is_declared_no_more_is_still_explained_and_audited(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        made = ask(world)
        change(world, DEFINITIONS.replace("get_delay_risk", "get_risk"))
        world.project.drain(commit=True)
        assert world.project.decision(made.decision_id).features[0].name == "PlaneHistory__last_delay"
        assert audit_decisions(world.work.session, DECISION).mismatched == 0
        assert_sound(world)


def test_rules_of_time_do_not_change_under_views_that_serve(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        (world.folder / "flights.py").write_text(DEFINITIONS.replace('accept_late="2h"', 'accept_late="6h"'))
        with pytest.raises(PlanRefused, match="accept_late"):
            world.project.plan()


def test_a_column_of_a_served_release_does_not_come_back_with_another_type(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        change(world)
        text = RENAMED.replace("    miles: int\n\n", "    miles: int\n    distance: str\n\n")
        (world.folder / "flights.py").write_text(text)
        with pytest.raises(PlanRefused, match="request__distance"):
            world.project.plan()


def test_a_committer_without_the_old_definitions_says_so_and_loses_nothing(copy, served):
    with World(copy(served), items()) as world:
        world.resume()
        made = ask(world)
        world.project.drain()
        session = world.work.session
        get = session.definitions.get
        session.definitions._projects.clear()
        catalog = world.work.stores.catalog
        find = catalog.find
        catalog.find = lambda kind, name: None if kind == "definitions" else find(kind, name)
        with pytest.raises(StateMismatchError, match="does not declare"):
            world.project.drain(commit=True)
        catalog.find = find
        assert get(made.bundle) is not None
        world.project.drain(commit=True)
        assert world.project.decision(made.decision_id).decision_id == made.decision_id
