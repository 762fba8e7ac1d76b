"""One id, one member: decisions that share an id stay apart, and what was asked live trains once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.project.test_servable import OTHER, TWO_DECISIONS
from tests.project.world import (
    DECISION,
    DEFINITIONS,
    HAND_OVER,
    MODEL,
    SCHEDULE_TABLE,
    Flight,
    World,
    past_flights,
    write_project,
)
from volano.learn.training_set import TrainingSet, load
from volano.values.instants import DAY_US, HOUR_US

RULE = "every member of a training set has an id of its own"
N_FLIGHTS = 40


def coming(prefix: str, delay: float) -> list[Flight]:
    """One flight every four hours, all late by as much."""
    start = HAND_OVER + 3 * HOUR_US
    return [Flight(f"{prefix}{n:02}", "N01", start + n * 4 * HOUR_US, 500, delay) for n in range(N_FLIGHTS)]


def tell(world: World, asked: dict[str, list[Flight]]) -> None:
    """Ask each decision about its flights, both with the visit's id; say what became of them; label as time goes by."""
    for number in range(N_FLIGHTS):
        for decision, flights in asked.items():
            world.clock.advance_to(flights[number].asked_at + 1_000_000)
            world.project.decide(decision, flights[number].request(), decision_id=f"v-{number}")
    for number in range(N_FLIGHTS):
        for flights in asked.values():
            world.clock.advance_to(max(world.clock.now(), flights[number].landed_at + 1_000_000))
            world.project.observe("landings", flights[number].landing(), sync=False)
    world.project.drain(commit=True)
    world.project.run_due()
    for _ in range(8):
        world.clock.advance_to(world.clock.now() + 2 * DAY_US)
        world.project.run_due()


def sets(world: World) -> list[TrainingSet]:
    """The sets of the newest training: its training part and its evaluation part."""
    made = world.project.training_sets()
    last = max(each.label_cutoff for each in made)
    return [load(each, world.work.stores.artifacts) for each in made if each.label_cutoff == last]


def rules(world: World) -> dict[str, bool]:
    return {finding.rule: finding.sound for finding in world.project.check()}


def test_decisions_that_share_ids_keep_their_labels_and_members_apart(tmp_path: Path) -> None:
    with World(write_project(tmp_path / "p", definitions=TWO_DECISIONS), ()) as world:
        world.begin()
        tell(world, {DECISION: coming("late", 60.0), OTHER: coming("early", 0.0)})
        world.project.train(MODEL)
        rows = pa.concat_tables([part.table for part in sets(world)])
        logged = rows.filter(pc.equal(rows["origin"], "logged"))
        seen = Counter(
            (row["id"].partition("/")[0], row["label"]) for row in logged.select(["id", "label"]).to_pylist()
        )
        assert set(seen) == {(DECISION, True), (OTHER, False)}
        assert len(set(rows["id"].to_pylist())) == rows.num_rows
        labels = world.work.stores.lake.read("label")
        changes = Counter(
            zip(*(labels[name].to_pylist() for name in ("decision", "decision_id", "state")), strict=True)
        )
        assert max(changes.values()) == 1, "a label flaps"
        findings = rules(world)
        assert all(findings.values()), findings
        assert RULE in findings


@pytest.mark.parametrize("with_id", [True, False])
def test_a_request_that_history_holds_too_trains_once_as_logged(tmp_path: Path, with_id: bool) -> None:
    named = DEFINITIONS.replace("Departure(vo.Request)", 'Departure(vo.Request, id="flight_id")')
    folder = write_project(tmp_path / "p", definitions=named if with_id else DEFINITIONS)
    flights = coming("late", 60.0)
    never_asked = coming("other", 60.0)
    with World(folder, ()) as world:
        world.begin()
        tell(world, {DECISION: flights})
        everything = [flight.request() for flight in (*past_flights(), *flights, *never_asked)]
        pq.write_table(pa.Table.from_pylist(everything, schema=SCHEDULE_TABLE), folder / "schedule.parquet")
        world.project.train(MODEL)
        origins: dict[str, set[str]] = {"logged": set(), "history": set()}
        for part in sets(world):
            for row in part.table.select(["id", "origin"]).to_pylist():
                origins[row["origin"]].add(row["id"].partition("/")[2])
        live = {name for name in origins["history"] if "late" in name}
        assert origins["logged"]
        # Without an id, history ends where the first decision was made: that request was due a second before it.
        assert len(live) == (0 if with_id else 1), "asked live, and in the set again"
        assert not any("other" in name for name in origins["history"])  # no outcome came: without a label
        assert len(origins["history"]) > 100
        assert all(rules(world).values())
