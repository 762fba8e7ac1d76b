"""The wheel turns: what was accepted is accounted for, labels say what happened, challengers are judged, all is sound."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import msgspec
import pytest

from tests.project.world import DECISION, Item, World, assert_sound, champion, items, learnt, tables
from volano.learn.training_set import load
from volano.records.job import JobRun
from volano.records.journal import Operation
from volano.records.receipt import ReceiptStatus, Reconciliation
from volano.runtime.outdated import read_outdated
from volano.values.instants import HOUR_US, MINUTE_US, Instant, from_datetime

HORIZON_US = 36 * HOUR_US


@pytest.fixture(scope="module")
def world(finished):
    with World(finished, items()) as opened:
        opened.clock.advance_to(opened.script[-1].at)
        yield opened


def fates(script: list[Item]) -> Counter[str]:
    """What must become of every event, by the plainest reading of the rules."""
    seen: dict[tuple[str, str, int], object] = {}
    found: Counter[str] = Counter()
    for item in script:
        if item.target == DECISION:
            continue
        body = item.body
        if isinstance(body, bytes) or body.get("arr_delay") == "late" or _is_ahead(item):
            found["quarantined"] += 1
            continue
        key = (item.target, body["flight_id"], item.revision)
        said = (item.operation, sorted(body.items(), key=repr))
        before = seen.setdefault(key, said)
        found["stored" if before is said else "duplicate" if before == said else "conflict"] += 1
    return found


def _is_ahead(item: Item) -> bool:
    assert isinstance(item.body, dict)
    said = item.body.get("landed_at") or item.body["cancelled_at"]
    return from_datetime(said) > item.at + 5 * MINUTE_US


def test_every_accepted_event_ends_as_the_rules_say(world):
    whole = world.work.session.reconcile()
    n_asked = sum(item.target == DECISION for item in world.script)
    assert whole.is_exact
    assert whole.decisions == Reconciliation(n_asked, n_asked, 0, 0, 0, 0)
    assert whole.shadows.accepted == whole.shadows.stored > 0
    account, expected = whole.events, fates(world.script)
    assert account.accepted == sum(item.target != DECISION for item in world.script)
    assert account.pending == 0
    assert {name: getattr(account, name) for name in expected} == dict(expected)
    assert all(expected[name] >= 5 for name in ("stored", "duplicate", "conflict", "quarantined"))


def test_every_request_is_a_logged_decision_with_an_answer_of_the_model(world):
    rows = tables(world)[f"decision_{DECISION}"]
    asked = sorted(item.body["flight_id"] for item in world.script if item.target == DECISION)
    assert sorted(row["request__flight_id"] for row in rows) == asked
    assert {row["fallback"] for row in rows} == {""}
    assert {row["action"] for row in rows} == {"warn", "ok"}


class Said(NamedTuple):
    state: str
    value: float | None


def label_of(flight: str, decided_at: Instant, script: list[Item], as_of: Instant) -> Said:
    """The label of one decision, read from the script itself; the naive twin of attribution."""
    told = [item for item in script if item.at <= as_of and isinstance(item.body, dict)]
    told = [item for item in told if item.body.get("flight_id") == flight and item.target != DECISION]
    told = [item for item in told if not _is_ahead_or_wrong(item)]
    is_open = as_of < decided_at + HORIZON_US
    if any(item.target == "cancellations" for item in told):
        return Said("censored", None)
    standing: dict[int, Item] = {}
    for item in told:  # the first statement of a revision stands
        standing.setdefault(item.revision, item)
    if not standing:
        return Said("pending" if is_open else "censored", None)
    newest = standing[max(standing)]
    if newest.operation is Operation.RETRACT:
        return Said("retracted" if is_open else "censored", None)
    assert isinstance(newest.body, dict)
    return Said("provisional" if is_open else "mature", float(newest.body["arr_delay"] >= 30))


def _is_ahead_or_wrong(item: Item) -> bool:
    assert isinstance(item.body, dict)
    return item.body.get("arr_delay") == "late" or _is_ahead(item)


@pytest.mark.parametrize("when", ["finished", "unfinished"])
def test_labels_say_what_happened_as_far_as_it_was_known(request, when):
    with World(request.getfixturevalue(when), items()) as world:
        entry = world.work.stores.catalog.last_entry("job/labels")
        rows = tables(world)
    assert entry is not None
    as_of = msgspec.json.decode(entry.body, type=JobRun).scheduled_at
    written = sorted(rows["label"], key=lambda row: row["computed_at"])
    standing = {row["decision_id"]: Said(row["state"], row["value"]) for row in written}
    wrong, states = {}, Counter()
    for row in rows[f"decision_{DECISION}"]:
        decided_at = from_datetime(row["decided_at"])
        if decided_at > as_of:
            continue
        expected = label_of(row["request__flight_id"], decided_at, world.script, as_of)
        found = standing.get(row["decision_id"], Said("pending", None))
        states[expected.state] += 1
        if found != expected:
            wrong[row["request__flight_id"]] = (found, expected)
    assert not wrong
    assert states["mature"] > 150
    assert states["censored"] > 10
    assert when == "finished" or states["provisional"] > 5


def test_a_challenger_is_refused_and_one_is_released(world):
    events = learnt(world)["releases"]
    assert [event.outcome for event in events[:1]] == ["released"]
    outcomes = Counter(event.outcome for event in events[1:])
    assert outcomes["released"] >= 1
    assert outcomes["refused"] >= 1
    assert all(event.reason and event.evidence for event in events)


def test_a_decision_names_the_release_that_was_in_force(world):
    released = [event for event in learnt(world)["releases"] if event.outcome == "released"]
    versions = Counter(row["model_version"] for row in tables(world)[f"decision_{DECISION}"])
    assert set(versions) <= {event.champion for event in released}
    assert len(versions) >= 2
    for row in tables(world)[f"decision_{DECISION}"]:
        event = next(event for event in released if event.release_id == row["release_id"])
        assert event.champion == row["model_version"]
        assert event.at <= from_datetime(row["decided_at"])


def test_the_first_model_runs_along_as_a_shadow(world):
    scored = tables(world)["shadow_score"]
    first = learnt(world)["releases"][0].first
    own = {
        row["decision_id"]: row["score"]
        for row in tables(world)[f"decision_{DECISION}"]
        if row["model_version"] == first
    }
    assert {row["model_version"] for row in scored} == {first}
    same = [row["score"] == own[row["decision_id"]] for row in scored if row["decision_id"] in own]
    assert len(same) > 100
    assert all(same)


def test_models_that_learnt_from_labels_which_changed_are_flagged(world):
    standing = {}
    for row in sorted(tables(world)["label"], key=lambda row: row["computed_at"]):
        standing[f"{row['decision']}/{row['decision_id']}"] = row
    learnt_from = learnt(world)
    expected = {}
    for name, version in learnt_from["versions"].items():
        for part in ("training", "evaluation"):
            suffix = "" if part == "training" else "-evaluation"
            manifest = learnt_from["sets"][version.training_set + suffix]
            rows = load(manifest, world.work.stores.artifacts).table.select(["id", "label"]).to_pylist()
            changed = [
                row["id"] for row in rows if row["id"] in standing and _differs(row, standing[row["id"]])
            ]
            if changed:
                expected[name, part] = (len(changed), min(changed), len(rows), "flight-ops")
    flagged = read_outdated(world.work.stores.catalog)
    found = {
        (each.version, each.part): (each.n_changed, each.first, each.n_members, each.owner)
        for each in flagged
    }
    assert found == expected
    assert expected, "the script corrects landings long after their labels were mature"
    assert all("volano train delay" in each.mend for each in flagged)
    serving = champion(world)
    assert world.project.status().outdated == tuple(each for each in flagged if each.version == serving)


def _differs(member, now):
    return now["state"] != "mature" or bool(now["value"]) != member["label"]


def test_every_invariant_holds(world):
    assert_sound(world)


def test_every_receipt_tells_how_its_event_ended(world):
    rows = tables(world)["receipt"]
    for row in rows[:: len(rows) // 20]:
        assert world.work.session.receipt(row["receipt_id"]).status is ReceiptStatus(row["status"])
