"""Yesterday's code serves until a version trained on today's is released, and again after a rollback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.project.conftest import HALF
from tests.project.world import DECISION, DEFINITIONS, MODEL, World, assert_sound, items, learnt
from volano.records.journal import DecisionMade
from volano.runtime.applied import get_applied

FUNCTION = DEFINITIONS.replace("distance > 1500 and (d or 0) > 30", "distance > 500 or (d or 0) > 30")
WINDOW = DEFINITIONS.replace(
    'mean_delay_7d = vo.mean("arr_delay", within="7d")', 'mean_delay_7d = vo.mean("arr_delay", within="14d")'
)
FEATURE = DEFINITIONS.replace(
    "    legs_3d = ", '    worst_7d = vo.max("arr_delay", within="7d")\n    legs_3d = '
)
POLICY = DEFINITIONS.replace('vo.Threshold("warn", at=0.5)', 'vo.Threshold("warn", at=0.0001)')
REASON = "a new definition"


@pytest.fixture
def world(copy, unfinished) -> Iterator[World]:
    with World(copy(unfinished), items()) as opened:
        opened.resume()
        yield opened


def apply(world: World, definitions: str) -> str:
    """Put changed definitions in force; returns their bundle."""
    assert definitions != DEFINITIONS
    (world.folder / "flights.py").write_text(definitions)
    return world.project.apply().bundle


def ask(world: World, plane: int = 5, **more: Any) -> DecisionMade:
    request = {
        "flight_id": "asked",
        "tailnum": f"N{plane:02}",
        "sched_dep": "2013-03-20T00:00:00Z",
        "distance": 1000,
    }
    return world.project.decide(DECISION, {**request, **more})


def served(made: DecisionMade, world: World) -> dict[str, Any]:
    explained = world.project.decision(made.decision_id)
    assert explained.bundle == made.bundle
    return {feature.name: feature.value for feature in explained.features}


def outcomes(world: World) -> list[tuple[str, str]]:
    return [(event.outcome, event.champion) for event in learnt(world)["releases"]]


@pytest.mark.parametrize("changed", [FUNCTION, WINDOW, FEATURE], ids=["function", "window", "feature"])
def test_a_change_of_inputs_waits_for_the_release_and_is_undone_by_a_rollback(world, changed):
    before = ask(world)
    new_bundle = apply(world, changed)
    after_apply = ask(world)
    assert after_apply.bundle == before.bundle != new_bundle
    assert after_apply.service_version == before.service_version
    assert (after_apply.features, after_apply.score) == (before.features, before.score)

    world.run(HALF + 40, start=HALF)  # the old views go on receiving events
    version = world.project.train(MODEL)
    assert version.bundle == new_bundle
    world.project.release(DECISION, version.version, force_reason=REASON)
    released = ask(world)
    assert released.bundle == new_bundle
    assert released.service_version != before.service_version
    assert released.model_version == version.version
    old_values, new_values = served(after_apply, world), served(released, world)

    world.run(HALF + 60, start=HALF + 40)
    still_old_inputs = ask(world)
    world.project.rollback(DECISION, "it was no better")
    restored = ask(world)
    assert (restored.bundle, restored.service_version) == (before.bundle, before.service_version)
    assert restored.model_version == before.model_version
    assert still_old_inputs.bundle == new_bundle
    match changed:
        case _ if changed == FUNCTION:
            assert (old_values["tired_long_haul"], new_values["tired_long_haul"]) == (False, True)
            assert served(restored, world)["tired_long_haul"] is False
        case _ if changed == WINDOW:
            name = "PlaneHistory__mean_delay_7d"
            wide, narrow = served(still_old_inputs, world), served(restored, world)
            assert wide[name] != narrow[name]
            assert {key for key in wide if wide[key] != narrow[key]} == {name}
        case _:
            assert "PlaneHistory__worst_7d" in new_values
            assert "PlaneHistory__worst_7d" not in served(restored, world)

    world.run(HALF + 80, start=HALF + 60)
    assert_sound(world)  # every decision is recomputed with the definitions of its own bundle
    assert outcomes(world)[-2:] == [("released", version.version), ("rolled_back", before.model_version)]
    explained = world.project.decision(before.decision_id)
    assert explained.bundle == before.bundle
    assert [feature.value for feature in explained.features] == before.features


@pytest.mark.parametrize("changed", [FUNCTION, WINDOW], ids=["function", "window"])
def test_another_process_serves_the_old_bundle_too(copy, unfinished, changed):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        world.resume()
        before = ask(world)
        apply(world, changed)
    with World(folder, items()) as world:
        world.run(HALF + 20)
        assert ask(world).bundle == before.bundle
        world.project.train(MODEL)
        world.project.release(DECISION, force_reason=REASON)
        released = ask(world)
    # Decisions of both releases wait in the journal; the rollback target's views still need their code.
    with World(folder, items()) as world:
        world.resume()
        assert ask(world).bundle == released.bundle != before.bundle
        world.project.rollback(DECISION, "back")
        assert ask(world).bundle == before.bundle
        assert_sound(world)


def test_a_threshold_takes_effect_at_apply(world):
    before = ask(world)
    assert before.action == "ok"
    bundle = apply(world, POLICY)
    after = ask(world)
    assert after.action == "warn"
    assert (after.features, after.score, after.model_version) == (
        before.features,
        before.score,
        before.model_version,
    )
    assert after.bundle == bundle
    assert after.release_id != before.release_id
    event = learnt(world)["releases"][-1]
    assert (event.outcome, event.champion, event.bundle) == ("applied", before.model_version, bundle)
    assert world.project.decision(before.decision_id).policy.params["at"] == 0.5
    assert world.project.decision(after.decision_id).policy.params["at"] == 0.0001
    n_events = len(learnt(world)["releases"])
    world.project.apply()
    assert len(learnt(world)["releases"]) == n_events
    world.run(HALF + 20, start=HALF)
    assert_sound(world)


def test_a_version_trained_before_a_threshold_was_applied_serves_with_the_new_one(world):
    version = world.project.train(MODEL)
    bundle = apply(world, POLICY)
    event = world.project.release(DECISION, version.version, force_reason=REASON)
    assert event.champion == version.version != version.bundle
    assert event.bundle == bundle
    assert ask(world).action == "warn"
    assert world.project.rollback(DECISION, "back").bundle == bundle
    assert ask(world).action == "warn"
    assert_sound(world)


def test_releasing_the_champion_again_changes_nothing(world):
    version = world.project.train(MODEL)
    first = world.project.release(DECISION, version.version, force_reason=REASON)
    again = world.project.release(DECISION, version.version, force_reason=REASON)
    assert again == first
    assert outcomes(world).count(("released", version.version)) == 1


def test_a_model_is_trained_on_features_of_one_meaning(world):
    """Decisions served with the narrow window are recomputed with the wide one, not mixed with it."""
    old = world.project.train(MODEL)
    apply(world, WINDOW)
    new = world.project.train(MODEL)
    rows = {made.name: made for made in learnt(world)["sets"].values()}
    assert rows[old.training_set].service_version != rows[new.training_set].service_version
    assert rows[old.training_set].n_rows == rows[new.training_set].n_rows
    assert rows[old.training_set].root_hash != rows[new.training_set].root_hash


def test_the_same_definitions_again_change_nothing(world):
    before = get_applied(world.work.stores.catalog)
    states = _states(world.folder)
    assert world.project.plan().is_empty
    assert world.project.apply() == before
    assert _states(world.folder) == states


def _states(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / ".volano" / "online").iterdir())
