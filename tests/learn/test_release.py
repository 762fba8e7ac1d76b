"""Releases: every transition has evidence, a way back, and happens once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from tests.learn.turn import Rows, challenge
from tests.learn.world import CUTOFF, LABEL, MODEL, STAMP, Stores, World, make_world, open_stores
from volano.errors import ConflictError, InvariantError, NotReadyError, UnknownNameError
from volano.learn import release as releases
from volano.learn.checks import check_releases
from volano.learn.train import get_version, load_version
from volano.learn.training_set import find_manifest, verify
from volano.plan.definitions import CompiledGate
from volano.protocols.trainer import Predictor
from volano.records.learning import Evaluation, ModelVersion, ReleaseEvent
from volano.trainers.lightgbm import LightGbmTrainer
from volano.values.instants import DAY_US

WEEK = 7 * DAY_US
GATE = CompiledGate("roc_auc", margin=0.0, confidence=0.95, min_labels=50)
ALONE = Evaluation("roc_auc", 100, 0.8, None, None, 0.7, 0.9, 0.95, "e1", 0, 9)
PAIRED = Evaluation("roc_auc", 100, 0.82, 0.8, 0.02, 0.01, 0.03, 0.95, "e2", 0, 9)


def version(number: int) -> ModelVersion:
    return ModelVersion(
        f"delay-{number:04d}",
        "delay",
        f"bundle-{number}",
        "s",
        "lightgbm",
        "a",
        "set",
        "hash",
        0,
        0,
        0,
        ("x",),
    )


def loads(name: str) -> None:
    """Every version loads."""


def first() -> ReleaseEvent:
    return releases.first_release("get_risk", version(1), at=1, actor="job", reason="first", evidence=[ALONE])


def second(before: ReleaseEvent, number: int = 2, at: int = 2) -> ReleaseEvent:
    return releases.release(
        before, version(number), at=at, actor="job", reason="better", evidence=[PAIRED], verify=loads
    )


def three_champions() -> list[ReleaseEvent]:
    events = [first()]
    events.append(second(events[-1]))
    events.append(
        releases.refuse(events[-1], "delay-0003", at=3, actor="job", reason="no", evidence=[PAIRED])
    )
    events.append(second(events[-1], 4, 4))
    return events


def test_a_refusal_changes_nothing_that_serves() -> None:
    events = three_champions()
    assert [event.champion for event in events] == ["delay-0001", "delay-0002", "delay-0002", "delay-0004"]
    assert [event.previous for event in events] == [None, "delay-0001", "delay-0002", "delay-0002"]
    assert [event.release_id for event in events] == [
        "get_risk-r0001",
        "get_risk-r0002",
        "get_risk-r0002",
        "get_risk-r0003",
    ]
    assert [event.bundle for event in events] == ["bundle-1", "bundle-2", "bundle-2", "bundle-4"]
    assert {event.first for event in events} == {"delay-0001"}
    check_releases(events)


def test_a_rollback_goes_to_the_champion_before_and_to_its_bundle() -> None:
    events = three_champions()
    back = releases.rollback(events, at=5, actor="ops", reason="incident", verify=loads)
    assert (back.outcome, back.champion, back.previous) == ("rolled_back", "delay-0002", "delay-0004")
    assert (back.bundle, back.release_id) == ("bundle-2", "get_risk-r0004")
    again = releases.rollback([*events, back], at=6, actor="ops", reason="worse", verify=loads)
    assert again.champion == "delay-0001"
    check_releases([*events, back, again])
    with pytest.raises(NotReadyError, match="only 'delay-0001'"):
        releases.rollback([*events, back, again], at=7, actor="ops", reason="?", verify=loads)


def test_a_rollback_to_a_named_version() -> None:
    events = three_champions()
    assert (
        releases.rollback(events, at=5, actor="ops", reason="x", verify=loads, to="delay-0001").champion
        == "delay-0001"
    )
    with pytest.raises(UnknownNameError, match="'delay-0003'"):
        releases.rollback(events, at=5, actor="ops", reason="x", verify=loads, to="delay-0003")


def test_no_rollback_before_a_release() -> None:
    with pytest.raises(NotReadyError, match="nothing was released yet"):
        releases.rollback([], at=5, actor="ops", reason="x", verify=loads)


def gone(name: str) -> None:
    if name == "delay-0001":
        raise UnknownNameError(f"no artifact of {name}")


def test_no_release_without_a_loadable_rollback_target() -> None:
    with pytest.raises(UnknownNameError, match="delay-0001"):
        releases.release(first(), version(2), at=2, actor="j", reason="r", evidence=[PAIRED], verify=gone)


def test_no_rollback_to_a_version_that_does_not_load() -> None:
    events = [first(), second(first())]
    with pytest.raises(UnknownNameError, match="delay-0001"):
        releases.rollback(events, at=5, actor="ops", reason="x", verify=gone)


@pytest.mark.parametrize("evidence", [(), (ALONE,)])
def test_no_release_without_a_comparison(evidence: tuple[Evaluation, ...]) -> None:
    with pytest.raises(InvariantError, match="evidence"):
        releases.release(first(), version(2), at=2, actor="j", reason="r", evidence=evidence, verify=loads)


def test_no_first_release_without_evidence() -> None:
    with pytest.raises(InvariantError, match="no evidence"):
        releases.first_release("d", version(1), at=1, actor="j", reason="r", evidence=[])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"evidence": ()}, "has no evidence"),
        ({"previous": "delay-0009"}, "replaces 'delay-0009', but 'delay-0001' served"),
        ({"outcome": "refused"}, "changes the champion"),
        ({"outcome": "rolled_back"}, "never served"),
        ({"outcome": "promoted"}, "unknown outcome"),
    ],
)
def test_an_unsound_ledger_is_caught(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InvariantError, match=message):
        check_releases([first(), msgspec.structs.replace(second(first()), **change)])


def test_the_ledger_is_compared_and_set(stores: Stores) -> None:
    start = releases.append(stores.catalog, first(), after=None)
    left, right = second(start, 2), second(start, 3)
    releases.append(stores.catalog, left, after=start)
    with pytest.raises(ConflictError, match="changed while version 'delay-0003' was judged"):
        releases.append(stores.catalog, right, after=start)
    releases.append(stores.catalog, left, after=start)  # the same once more adds nothing
    assert releases.history(stores.catalog, "get_risk") == [start, left]
    assert releases.current(stores.catalog, "get_risk") == left
    assert releases.current(stores.catalog, "other") is None


# --- a whole turn, undisturbed and killed ------------------------------------------------------------------------


def turn(world: World, stores: Stores, at: int, *, gate: CompiledGate = GATE) -> ReleaseEvent:
    def predictor_of(name: str) -> Predictor:
        return load_version(get_version(stores.catalog, name), LightGbmTrainer(), stores.artifacts)

    return challenge(
        MODEL,
        LABEL,
        "get_risk",
        gate,
        Rows(world.decisions, world.labels, STAMP),
        at=at,
        period_us=WEEK,
        bundle="b1",
        trainer=LightGbmTrainer(),
        predictor_of=predictor_of,
        artifacts=stores.artifacts,
        catalog=stores.catalog,
        actor="job",
    )


def changing_world() -> World:
    """A world whose rule turns round after three weeks, so that the first model goes bad."""
    return make_world(6_000, days=60.0, seed=2)


def turned(world: World) -> World:
    names = world.decisions.column_names
    decided = world.decisions["decided_at"].cast("int64").to_numpy()
    x = world.decisions["feature__x"].to_pylist()
    flipped = [
        -value if value is not None and at > 21 * DAY_US else value
        for value, at in zip(x, decided, strict=True)
    ]
    return World(world.decisions.set_column(names.index("feature__x"), "feature__x", [flipped]), world.labels)


def test_a_turn_releases_the_first_model_and_refuses_one_that_is_no_better(
    world: World, stores: Stores
) -> None:
    start = turn(world, stores, CUTOFF - WEEK)
    assert (start.outcome, start.champion, start.previous) == ("released", "delay-0001", None)
    after = turn(world, stores, CUTOFF)
    assert (after.outcome, after.champion, after.challenger) == ("refused", "delay-0001", "delay-0002")
    assert "not more than the margin" in after.reason
    check_releases(releases.history(stores.catalog, "get_risk"))
    manifest = find_manifest("delay-1970-02-10", stores.catalog)
    assert manifest is not None
    verify(manifest, stores.artifacts)


def test_a_world_that_turned_releases_a_better_model(stores: Stores) -> None:
    world = turned(changing_world())
    turn(world, stores, 28 * DAY_US)
    after = turn(world, stores, 60 * DAY_US)
    assert (after.outcome, after.champion) == ("released", "delay-0002")
    assert "better by" in after.reason


def test_too_few_labels_release_nothing_first(world: World, stores: Stores) -> None:
    strict = CompiledGate("roc_auc", margin=0.0, confidence=0.95, min_labels=100_000)
    with pytest.raises(NotReadyError, match="the gate asks for 100,000"):
        turn(world, stores, CUTOFF, gate=strict)
    assert releases.current(stores.catalog, "get_risk") is None


class Killed(BaseException):
    """The process is gone: no handler of ours may see it."""


class Mortal:
    """A store that dies at its n-th write, before or after the write is done."""

    def __init__(self, inner: Any, fuse: Fuse) -> None:
        self._inner, self._fuse = inner, fuse

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        return self._fuse.wrap(method) if name in ("put", "append") else method


class Fuse:
    def __init__(self, writes: int, *, after: bool) -> None:
        self._left, self._after, self.blown = writes, after, False

    def wrap(self, method: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0:
                self.blown = True
                if self._after:
                    method(*arguments, **named)
                raise Killed
            return method(*arguments, **named)

        return call


def everything(stores: Stores) -> tuple[Any, ...]:
    catalog = stores.catalog
    return (
        releases.history(catalog, "get_risk"),
        [document.body for document in catalog.documents("model_version")],
        [document.body for document in catalog.documents("training_set")],
    )


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
def test_a_turn_killed_at_any_write_and_run_again_ends_as_if_undisturbed(tmp_path: Path, after: bool) -> None:
    world = turned(make_world(1_500, days=60.0, seed=2))
    calm = open_stores(tmp_path / "calm")
    for at in (28 * DAY_US, 60 * DAY_US):
        turn(world, calm, at)
    expected = everything(calm)
    assert [event.outcome for event in expected[0]] == ["released", "released"]
    kills = 0
    for number in range(1, 40):
        folder = tmp_path / f"kill-{number}"
        fuse = Fuse(number, after=after)
        real = open_stores(folder)
        mortal = Stores(Mortal(real.artifacts, fuse), Mortal(real.catalog, fuse))
        for at in (28 * DAY_US, 60 * DAY_US):
            try:
                turn(world, mortal, at)
            except Killed:
                kills += 1
                reopened = open_stores(folder)
                check_releases(releases.history(reopened.catalog, "get_risk"))
                turn(world, reopened, at)
        assert everything(open_stores(folder)) == expected
        if not fuse.blown:
            break
    assert kills == number - 1 >= 14


def test_a_turn_run_twice_leaves_one_entry(world: World, stores: Stores) -> None:
    first_time = turn(world, stores, CUTOFF - WEEK)
    assert turn(world, stores, CUTOFF - WEEK) == first_time
    refused = turn(world, stores, CUTOFF)
    assert turn(world, stores, CUTOFF) == refused
    assert len(releases.history(stores.catalog, "get_risk")) == 2
    assert np.all([document.revision == 1 for document in stores.catalog.documents("model_version")])


def test_a_turn_run_again_after_a_rollback_does_not_release_again(stores: Stores) -> None:
    world = turned(make_world(1_500, days=60.0, seed=2))
    for at in (28 * DAY_US, 60 * DAY_US):
        released = turn(world, stores, at)
    events = releases.history(stores.catalog, "get_risk")
    back = releases.rollback(events, at=61 * DAY_US, actor="ada", reason="worse", verify=lambda version: None)
    releases.append(stores.catalog, back, after=events[-1])
    assert turn(world, stores, 60 * DAY_US) == released
    assert releases.current(stores.catalog, "get_risk") == back
    anew = {"at": 62 * DAY_US, "actor": released.actor}
    assert releases.find_verdict(stores.catalog, "get_risk", released.challenger, **anew) is None
