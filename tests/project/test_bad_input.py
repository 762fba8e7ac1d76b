"""What is wrong is told: what, where and the mend. And nothing that was accepted before is lost by it."""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.project.conftest import HALF
from tests.project.world import (
    CONFIG,
    DECISION,
    DEFINITIONS,
    MODEL,
    World,
    assert_sound,
    differences,
    items,
    learnt,
)
from volano.errors import ProjectError, VolanoError
from volano.project import Project
from volano.records.journal import Operation
from volano.records.receipt import ReceiptStatus
from volano.values.instants import HOUR_US, to_datetime

ROOT = Path(__file__).parents[2]
NOBODY = 65534


@pytest.fixture
def world(copy, unfinished) -> Iterator[World]:
    with World(copy(unfinished), items()) as opened:
        opened.resume()
        yield opened


@contextmanager
def told(code: str) -> Iterator[None]:
    """The block raises an error of this code that says what, and how to mend it."""
    with pytest.raises(VolanoError) as caught:
        yield
    error = caught.value
    mistakes = error.mistakes if isinstance(error, ProjectError) else [error]
    assert error.code == code, error
    assert error.what
    assert all(mistake.mend for mistake in mistakes), error


@contextmanager
def nothing_lost(world: World) -> Iterator[None]:
    """What was accepted before the block is there after it, and the loop goes on."""
    before = world.work.session.reconcile().accepted
    yield
    world.run(HALF + 10, start=HALF)
    account = world.work.session.reconcile()
    assert account.is_exact
    assert account.accepted > before
    assert_sound(world)


def landing(world: World, **changed: Any) -> dict[str, Any]:
    values = {
        "flight_id": "x1",
        "tailnum": "N01",
        "arr_delay": 5.0,
        "landed_at": to_datetime(world.clock.now()),
    }
    return {**values, **changed}


def request(**changed: Any) -> dict[str, Any]:
    values = {"flight_id": "x1", "tailnum": "N01", "sched_dep": "2013-03-20T00:00:00Z", "distance": 1000}
    return {**values, **changed}


def without(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != name}


EVENTS: dict[str, tuple[Callable[[World], Any], str]] = {
    "not JSON": (lambda world: b"{landed", ""),
    "not an object": (lambda world: b"[1, 2]", ""),
    "a missing field": (lambda world: without(landing(world), "arr_delay"), "arr_delay"),
    "a missing id": (lambda world: without(landing(world), "flight_id"), "flight_id"),
    "a wrong type": (lambda world: landing(world, arr_delay="late"), "arr_delay"),
    "an unknown field": (lambda world: landing(world, gate="B7"), "gate"),
    "a null that is not allowed": (lambda world: landing(world, arr_delay=None), "arr_delay"),
    "a time without a zone": (lambda world: landing(world, landed_at="2013-03-16T00:00:00"), "landed_at"),
    "a time in the future": (
        lambda world: landing(world, landed_at=to_datetime(world.clock.now() + HOUR_US)),
        "landed_at",
    ),
}


@pytest.mark.parametrize("name", EVENTS)
def test_an_event_that_does_not_fit_is_kept_and_told_why(world, name):
    make, field = EVENTS[name]
    good = world.project.observe("landings", landing(world, flight_id="good"))
    receipt = world.project.observe("landings", make(world))
    assert receipt.status is ReceiptStatus.QUARANTINED
    code, where, message = receipt.problem
    assert code
    assert where == field
    assert message
    world.project.drain(commit=True)
    assert world.work.session.receipt(receipt.receipt_id).status is ReceiptStatus.QUARANTINED
    assert world.work.session.receipt(good.receipt_id).status is ReceiptStatus.STORED
    (row,) = [
        row
        for row in world.work.stores.lake.read("quarantine").to_pylist()
        if row["receipt_id"] == receipt.receipt_id
    ]
    assert row["payload"]
    with nothing_lost(world):
        pass


REQUESTS: dict[str, Any] = {
    "not JSON": b"{flight",
    "not an object": b"7",
    "a missing field": without(request(), "distance"),
    "a missing key": without(request(), "flight_id"),
    "a wrong type": request(distance="far"),
    "an unknown field": request(gate="B7"),
    "a null that is not allowed": request(distance=None),
    "a time without a zone": request(sched_dep="2013-03-20T00:00:00"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_does_not_fit_is_refused_and_not_logged(world, name):
    with nothing_lost(world):
        before = world.n_done()
        with told("invalid_input"):
            world.project.decide(DECISION, REQUESTS[name])
        assert world.n_done() == before


def test_unknown_names_are_told_with_those_that_exist(world):
    with nothing_lost(world):
        for call in (
            lambda: world.project.decide("get_delay_rsik", request()),
            lambda: world.project.observe("landing", landing(world)),
            lambda: world.project.train("dealy"),
            lambda: world.project.release("get_delay_rsik"),
            lambda: world.project.release(DECISION, "delay-0099"),
            lambda: world.project.rollback("get_delay_rsik", "why not"),
            lambda: world.project.decisions("get_delay_rsik"),
            lambda: world.project.decision("no such id"),
        ):
            with told("unknown_name"):
                call()


def test_a_revision_that_does_not_fit_its_operation_is_refused(world):
    with nothing_lost(world):
        with told("invalid_input"):
            world.project.observe("landings", landing(world), operation=Operation.CORRECT)
        with told("invalid_input"):
            world.project.observe("landings", landing(world), revision=3)


def test_there_is_no_release_to_go_back_to(world):
    with nothing_lost(world), told("not_ready"):
        world.project.rollback(DECISION, "why not")


@pytest.mark.parametrize("tailnum", ["N-never-seen", None])
def test_an_unknown_entity_serves_nulls_and_the_model_still_answers(world, tailnum):
    made = world.project.decide(DECISION, request(tailnum=tailnum))
    values = dict(zip(learnt(world)["versions"][made.model_version].features, made.features, strict=True))
    assert values["PlaneHistory__last_delay"] is None
    assert values["PlaneHistory__mean_delay_7d"] is None
    assert values["distance"] == 1000
    if tailnum is not None:
        assert values["PlaneHistory__legs_3d"] == 0
        assert values["PlaneHistory__late_7d"] == 0.2  # the prior
    assert made.fallback == ""
    assert made.score is not None
    assert made.action in ("warn", "ok")
    with nothing_lost(world):
        pass


PROJECTS = {
    "a syntax error": ("flights.py", DEFINITIONS + "\nclass Broken(:\n", "project"),
    "an import that fails": ("flights.py", "import no_such_package\n" + DEFINITIONS, "project"),
    "code that raises": ("flights.py", DEFINITIONS + "\n1 / 0\n", "project"),
    "nothing declared": ("flights.py", "", "project"),
    "a wrong definition": ("flights.py", DEFINITIONS.replace('"36h"', '"36 parsecs"'), "project"),
    "a column of another type": (
        "flights.py",
        DEFINITIONS.replace("arr_delay: float", "arr_delay: int"),
        "plan_refused",
    ),
}


@pytest.mark.parametrize("name", PROJECTS)
def test_a_bad_project_is_refused_and_the_one_in_force_goes_on(world, name):
    file, text, code = PROJECTS[name]
    with nothing_lost(world):
        (world.folder / file).write_text(text)
        with told(code):
            world.project.plan()
        with told(code):
            world.project.apply()


CONFIGS = {
    "no file": None,
    "no TOML": "namespace = ",
    "an unknown key": CONFIG + 'comit_every = "1d"\n',
    "a wrong type": CONFIG.replace("online_map_gib = 1", 'online_map_gib = "much"'),
    "a wrong duration": CONFIG.replace('"1d"', '"one day"'),
    "an unknown store": CONFIG + '[stores]\nlake = "detla"\n',
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_bad_configuration_is_told(copy, unfinished, name):
    folder = copy(unfinished)
    text = CONFIGS[name]
    (folder / "volano.toml").unlink() if text is None else (folder / "volano.toml").write_text(text)
    with told("unknown_name" if name == "an unknown store" else "config"), Project.open(folder) as project:
        project.drain()


def test_a_project_that_was_never_applied_says_so(fresh):
    (fresh / "volano.toml").write_text(CONFIG)
    (fresh / "flights.py").write_text(DEFINITIONS)
    with Project.open(fresh) as project:
        for call in (
            lambda: project.decide(DECISION, request()),
            lambda: project.observe("landings", {}),
            lambda: project.train(MODEL),
            project.check,
        ):
            with told("not_ready"):
                call()
        with told("store"):  # the table that it names is not there
            project.apply()


SECOND = """
import sys
from volano.errors import VolanoError
from volano.project import Project
try:
    with Project.open(sys.argv[1]) as project:
        project.observe("landings", {})
except VolanoError as error:
    print(error.code, error.retryable, bool(error.mend))
"""


def test_a_second_process_is_told_that_the_folder_is_in_use(world):
    with nothing_lost(world):
        found = subprocess.run(
            [sys.executable, "-c", SECOND, str(world.folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
        )
        assert found.stdout.split() == ["store_busy", "True", "True"]


def test_a_changed_table_behind_a_pinned_hand_over_is_told(copy, unfinished):
    folder = copy(unfinished)
    rows = pq.read_table(folder / "landings.parquet")
    pq.write_table(rows.slice(0, rows.num_rows - 1), folder / "landings.parquet")
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[HALF - 1].at)
        with told("state_mismatch"):
            world.project.train(MODEL)
        made = world.project.decide(DECISION, request())  # what is online does not need the table
        assert made.fallback == ""


# --- damaged files ---------------------------------------------------------------------------------------------------


def damage(folder: Path, digest: str) -> None:
    (path,) = [path for path in (folder / ".volano" / "artifacts").rglob("*") if path.name.startswith(digest)]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_damaged_model_is_never_served(copy, unfinished):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        champion = learnt(world)["releases"][-1].champion
        artifact = learnt(world)["versions"][champion].artifact
    damage(folder, artifact)
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[HALF - 1].at)
        with told("corruption"):
            world.project.decide(DECISION, request())
        receipt = world.project.observe("landings", landing(world))
        assert receipt.status is ReceiptStatus.PENDING
        world.project.drain(commit=True)
        broken = [finding for finding in world.project.check() if not finding.sound]
        assert len(broken) == 1
        assert "mend" in broken[0].detail


def test_a_damaged_training_set_is_found(copy, unfinished):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        made = next(iter(learnt(world)["sets"].values()))
    damage(folder, made.artifact)
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[HALF - 1].at)
        broken = [finding for finding in world.project.check() if not finding.sound]
        assert "training sets match their manifests" in {finding.rule for finding in broken}
        assert all("mend" in finding.detail for finding in broken)


# --- full and read-only disks ------------------------------------------------------------------------------------------


@contextmanager
def files_no_larger_than(n_bytes: int) -> Iterator[None]:
    """Every write behind this size fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_accepts_nothing_more_and_loses_nothing(world):
    journal = world.folder / ".volano" / "journal"
    size = max(path.stat().st_size for path in journal.glob("*"))
    accepted = []
    with nothing_lost(world):
        with files_no_larger_than(size + 2_000), told("store_full"):
            for number in range(100):
                receipt = world.project.observe("landings", landing(world, flight_id=f"full{number}"))
                accepted.append(receipt.receipt_id)
        assert 0 < len(accepted) < 100
        world.project.drain(commit=True)
        session = world.work.session
        assert all(session.receipt(each).status is ReceiptStatus.STORED for each in accepted)


@pytest.mark.parametrize("n_bytes", [0, 100, 5_000, 60_000])
@pytest.mark.parametrize("commit", [False, True])
def test_a_disk_that_is_full_while_the_loop_turns_changes_nothing_in_the_end(
    copy, unfinished, n_bytes, commit
):
    one, other = copy(unfinished), copy(unfinished)
    for folder, is_disturbed in ((one, True), (other, False)):
        with World(folder, items()) as world:
            world.resume()
            for number in range(HALF, HALF + 8):
                world.push(number)
                if is_disturbed:
                    try:
                        with files_no_larger_than(n_bytes):
                            world.project.drain(commit=commit)
                    except VolanoError as error:
                        assert error.code == "store_full", error
                        assert error.mend
                world.settle(number)
            world.project.drain(commit=True)
            assert_sound(world)
    with World(one, items()) as first, World(other, items()) as second:
        assert differences(first, second) == []


def _use_read_only(folder: Path, answers: Any) -> None:
    """In a process of its own: without privileges, that ignore permissions, if there are any to lose."""
    if os.geteuid() == 0:
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    for verb in ("observe", "apply"):
        try:
            with Project.open(folder) as project:
                project.observe("landings", {}) if verb == "observe" else project.apply()
        except VolanoError as error:
            answers.send((error.code, bool(error.mend)))
        else:
            answers.send(("nothing was raised", False))


@pytest.mark.parametrize("has_data", [True, False], ids=["a data folder", "no data folder yet"])
def test_a_read_only_folder_is_told(copy, unfinished, ground, has_data):
    folder = copy(unfinished)
    for part in (folder, folder.parent, ground):
        part.chmod(0o755)
    for path in folder.rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    if not has_data:
        (folder / ".volano").rename(folder.parent / "elsewhere")
    folder.chmod(0o555)
    receive, send = multiprocessing.get_context("fork").Pipe(duplex=False)
    process = multiprocessing.get_context("forkserver").Process(target=_use_read_only, args=(folder, send))
    process.start()
    try:
        assert [receive.recv() for _ in range(2)] == [("store_read_only", True)] * 2
    finally:
        process.join()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
