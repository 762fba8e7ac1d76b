"""What heads the ledger can be served, what it may go back to is built again, and one bad head harms no other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.project.conftest import HALF
from tests.project.test_versions import FEATURE, POLICY, REASON, WINDOW, apply, ask, outcomes
from tests.project.world import DECISION, DEFINITIONS, MODEL, World, assert_sound, items, write_project
from volano.cli.main import app
from volano.compile.state import state_groups
from volano.errors import RequestError, StateMismatchError, StoreFullError
from volano.learn.train import get_version
from volano.runtime.applied import get_applied
from volano.runtime.checks import audit_decisions

OTHER = "get_long_risk"
TWO_DECISIONS = DEFINITIONS + (
    f'{OTHER} = vo.Decision(\n    "{OTHER}", request=Departure, model=delay, actions=["warn", "ok"],\n'
    '    policy=vo.Threshold("warn", at=0.5), deadline="1h", fallback="ok", owner=ops,\n)\n'
    f'other_release = vo.Release({OTHER}, gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=40))\n'
)


@pytest.fixture(scope="module")
def two(ground) -> Path:
    """Two decisions, each served by a version of its own."""
    folder = write_project(ground / "two decisions", definitions=TWO_DECISIONS)
    with World(folder, items()) as world:
        world.begin()
        world.run(180, start=0)
        version = world.project.train(MODEL)
        assert world.project.release(OTHER, version.version).outcome == "released"
        assert ask(world).model_version != version.version
    return folder


@pytest.fixture
def broken(copy, two) -> Iterator[World]:
    """The same, after the artifact of the second decision's version was damaged."""
    folder = copy(two)
    with World(folder, items()) as world:
        newest = world.project.status().decisions[1].champion
        artifact = get_version(world.work.stores.catalog, newest).artifact
    files = (folder / ".volano" / "artifacts").rglob("*")
    (path,) = [path for path in files if path.is_file() and "".join(path.parts).endswith(artifact)]
    path.chmod(0o644)
    path.write_bytes(b"damaged")
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[180].at)
        yield world


def test_one_head_that_cannot_be_loaded_falls_back_and_the_others_serve_on(broken):
    world = broken
    sound = ask(world)
    assert (sound.fallback, sound.score is None) == ("", False)
    fallen = world.project.decide(OTHER, {**sound.request, "sched_dep": "2013-03-20T00:00:00Z"})
    assert fallen.fallback.startswith("unservable: ")
    assert (fallen.action, fallen.propensity, fallen.score, fallen.features) == ("ok", 1.0, None, [])
    assert fallen.release_id == f"{OTHER}-r0001"
    logged = world.project.decisions(OTHER, limit=1).to_pylist()[0]
    assert logged["fallback"] == fallen.fallback
    assert world.project.decision(fallen.decision_id).fallback == fallen.fallback
    assert audit_decisions(world.work.session, OTHER).skipped == 1
    with pytest.raises(RequestError):  # what is wrong with a request is still the caller's
        world.project.decide(OTHER, {"flight_id": "x"})


def test_check_and_doctor_tell_which_head_cannot_be_loaded(broken):
    world = broken
    assert set(world.project.problems()) == {OTHER}
    assert [each.problem for each in world.project.status().decisions] == ["", ""], (
        "it reads, and loads nothing"
    )
    findings = {finding.rule: finding for finding in world.project.check()}
    broken_rules = [rule for rule, finding in findings.items() if not finding.sound]
    assert broken_rules == ["every release has its evidence and a loadable champion and rollback target"]
    assert OTHER in findings[broken_rules[0]].detail
    world.project.close()
    result = CliRunner().invoke(app, ["doctor", "-C", str(world.folder), "--json"])
    assert result.exit_code == 1
    assert "the fallback answers" in result.output
    assert OTHER in CliRunner().invoke(app, ["status", "-C", str(world.folder), "--json"]).output


def test_a_shadow_that_cannot_be_loaded_harms_no_request(copy, unfinished, monkeypatch):
    with World(copy(unfinished), items()) as world:
        world.resume()
        version = world.project.train(MODEL)
        world.project.release(DECISION, version.version, force_reason=REASON)
        assert world.project.problems() == {}
    with World(world.folder, items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        loader = world.work.session.loader
        model = loader.model
        monkeypatch.setattr(loader, "model", lambda name: model(name) if name == version.version else 1 / 0)
        made = ask(world)
        assert (made.model_version, made.fallback) == (version.version, "")
        assert loader.find_problem(DECISION).startswith("shadow delay-0001: ZeroDivisionError")


def thrice(world: World) -> list[str]:
    """Three releases of three bundles, and one more apply; returns the bundles, oldest first."""
    bundles = [ask(world).bundle]
    for n, definitions in enumerate((WINDOW, FEATURE)):
        bundles.append(apply(world, definitions))
        world.run(HALF + 30 * (n + 1), start=HALF + 30 * n)
        version = world.project.train(MODEL)
        world.project.release(DECISION, version.version, force_reason=REASON)
        assert ask(world).bundle == bundles[-1]
    apply(world, FEATURE.replace('vo.Threshold("warn", at=0.5)', 'vo.Threshold("warn", at=0.0001)'))
    return bundles


def holds(world: World, bundle: str) -> bool:
    """Whether online state holds all that a bundle reads."""
    kept = {group.hash for group in get_applied(world.work.stores.catalog).groups}
    groups = state_groups(world.work.session.definitions.get(bundle))
    return all(group.hash in kept for group in groups)


def test_a_rollback_to_state_that_was_dropped_builds_it_again(copy, unfinished):
    with World(copy(unfinished), items()) as world:
        world.resume()
        first = ask(world)
        bundles = thrice(world)
        assert [holds(world, bundle) for bundle in bundles] == [False, True, True]
        world.project.rollback(DECISION, "once")
        assert ask(world).bundle == bundles[1]
        world.project.rollback(DECISION, "twice")
        assert holds(world, bundles[0])
        restored = ask(world)
        assert (restored.bundle, restored.model_version) == (bundles[0], first.model_version)
        assert outcomes(world)[-1] == ("rolled_back", first.model_version)
        world.run(HALF + 90, start=HALF + 60)  # its views receive events again
        again = ask(world)
        assert (again.bundle, again.fallback) == (bundles[0], "")
        assert again.features != restored.features
        assert_sound(world)
    with World(world.folder, items()) as world:
        world.clock.advance_to(world.script[HALF + 90].at)
        assert ask(world).bundle == bundles[0]


def test_a_rollback_whose_building_was_cut_short_changes_nothing_and_is_repeated(
    copy, unfinished, monkeypatch
):
    with World(copy(unfinished), items()) as world:
        world.resume()
        bundles = thrice(world)
        world.project.rollback(DECISION, "once")
        entries = outcomes(world)
        with monkeypatch.context() as cut:
            from volano.runtime import apply as applying

            def full(*arguments, **named):
                raise StoreFullError("No space is left.", mend="free some")

            cut.setattr(applying, "fill", full)
            with pytest.raises(StoreFullError):
                world.project.rollback(DECISION, "twice")
        assert outcomes(world) == entries
        assert ask(world).bundle == bundles[1]
        world.project.rollback(DECISION, "twice")
        assert ask(world).bundle == bundles[0]
        assert_sound(world)


def test_the_ledger_takes_no_release_whose_state_is_not_kept(copy, unfinished):
    """The learner alone builds no state: it refuses, and the ledger stays as it was."""
    with World(copy(unfinished), items()) as world:
        world.resume()
        thrice(world)
        world.project.rollback(DECISION, "once")
        entries = outcomes(world)
        with pytest.raises(StateMismatchError) as caught:
            world.work.learner.rollback(DECISION, at=world.clock.now(), actor="test", reason="twice")
        assert caught.value.mend
        assert outcomes(world) == entries


def test_a_bundle_that_cannot_serve_the_champion_does_not_become_the_head(copy, unfinished, monkeypatch):
    with World(copy(unfinished), items()) as world:
        world.resume()
        before = ask(world)
        from volano.runtime.serving import ServingLoader

        prepare = ServingLoader.prepare

        def refuses(self, decision, release, **named):
            if release is not None and release.outcome == "applied":
                raise StateMismatchError("It cannot be served.")
            return prepare(self, decision, release, **named)

        monkeypatch.setattr(ServingLoader, "prepare", refuses)
        apply(world, POLICY)
        after = ask(world)
        assert (after.bundle, after.fallback) == (before.bundle, "")
        assert outcomes(world)[-1] == ("refused", before.model_version)
        n_entries = len(outcomes(world))
        world.project.apply()
        assert len(outcomes(world)) == n_entries
        monkeypatch.undo()
        world.project.apply()
        assert outcomes(world)[-1] == ("applied", before.model_version)
        assert ask(world).action == "warn"
        assert_sound(world)


def test_a_failed_apply_leaves_no_stale_session(copy, two, monkeypatch):
    folder = copy(two)
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[180].at)
        assert world.project.status().decisions
        session = world.work.session
        from volano.runtime import apply as applying

        def killed(*arguments, **named):
            raise StoreFullError("No space is left.", mend="free some")

        with monkeypatch.context() as cut:  # the definitions are in force, what follows fails
            cut.setattr(applying, "note_applied", killed)
            (folder / "flights.py").write_text(TWO_DECISIONS.replace(', deadline="1h"', ', deadline="2h"', 1))
            with pytest.raises(StoreFullError):
                world.project.apply()
        assert world.work.session is not session
        assert world.work.session.applied.bundle != session.applied.bundle
        assert ask(world).fallback == ""
