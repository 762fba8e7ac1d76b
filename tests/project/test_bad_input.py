"""What is wrong is told: what, where and the mend. And nothing that was accepted before is lost by it."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

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
from volano.cli.main import app
from volano.errors import ProjectError, VolanoError
from volano.project import Project
from volano.records.journal import Operation
from volano.records.receipt import ReceiptStatus
from volano.values.instants import HOUR_US, to_datetime

ROOT = Path(__file__).parents[2]


@pytest.fixture
def world(copy, unfinished) -> Iterator[World]:
    with World(copy(unfinished), items()) as opened:
        opened.resume()
        yield opened


@contextmanager
def told(code: str, where: str = "") -> Iterator[None]:
    """The block raises an error of this code that says what, where (this, among other things) and how to mend it."""
    with pytest.raises(VolanoError) as caught:
        yield
    error = caught.value
    assert error.code == code, error
    assert where in str(error)
    for mistake in error.mistakes if isinstance(error, ProjectError) else [error]:
        assert mistake.what, error
        assert mistake.where, error
        assert mistake.mend, error


def fates(world: World) -> dict[str, str]:
    """How every accepted event ended."""
    world.project.drain(commit=True)
    rows = world.work.stores.lake.read("receipt", columns=["receipt_id", "status"])
    return dict(zip(rows["receipt_id"].to_pylist(), rows["status"].to_pylist(), strict=True))


@contextmanager
def nothing_lost(world: World) -> Iterator[None]:
    """What was accepted before the block ended as it would have without it, and the loop goes on."""
    before = fates(world)
    assert len(before) > 100
    yield
    world.run(HALF + 10, start=HALF)
    after = fates(world)
    assert {receipt: after.get(receipt) for receipt in before} == before
    account = world.work.session.reconcile()
    assert account.is_exact
    assert (account.events.accepted, account.total.pending) == (len(after), 0)
    assert len(after) > len(before)
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
        project.check()


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
        with told("partly_applied", "landings.parquet"):  # the table that it names is not there
            project.apply()


SECOND = """
import sys
from volano.errors import VolanoError
from volano.project import Project
for verb in ("drain", "apply", "train", "decide", "run_due"):
    try:
        with Project.open(sys.argv[1]) as project:
            call = getattr(project, verb)
            call("delay") if verb == "train" else call("get_delay_risk", {}) if verb == "decide" else call()
        print(verb, "nothing was raised")
    except VolanoError as error:
        print(verb, error.code, error.retryable, bool(error.where), bool(error.mend))
"""


def test_a_second_process_is_told_that_the_folder_is_in_use(world):
    with nothing_lost(world):
        found = subprocess.run(
            [sys.executable, "-c", SECOND, str(world.folder)],
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        told = [line.split(maxsplit=1) for line in found.stdout.splitlines()]
        verbs = ("drain", "apply", "train", "decide", "run_due")
        assert told == [[verb, "store_busy True True True"] for verb in verbs]


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


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_a_damaged_model_is_never_served(copy, unfinished):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        champion = learnt(world)["releases"][-1].champion
        damage(Path(world.work.stores.artifacts.path(learnt(world)["versions"][champion].artifact)))
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[HALF - 1].at)
        made = world.project.decide(DECISION, request())
        assert made.fallback.startswith("unservable: ")
        assert "does not hold the bytes of its digest" in made.fallback
        assert (made.action, made.score) == ("ok", None)
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
        damage(Path(world.work.stores.artifacts.path(made.artifact)))
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


@pytest.mark.parametrize("n_bytes", [0, 3_000, 30_000])
def test_a_disk_that_is_full_while_it_learns_changes_nothing_in_the_end(copy, unfinished, n_bytes):
    one, other = copy(unfinished), copy(unfinished)
    with World(one, items()) as world, nothing_lost(world):
        world.resume()
        with files_no_larger_than(n_bytes), told("store_full"):
            world.project.train(MODEL)
        disturbed = world.project.train(MODEL)
    with World(other, items()) as world:
        world.resume()
        assert disturbed == world.project.train(MODEL)


def test_a_disk_that_is_full_while_it_is_applied_is_told_and_apply_goes_on(copy, unfinished):
    folder = copy(unfinished)
    wider = DEFINITIONS.replace('within="60d"', 'within="50d"')
    with World(folder, items()) as world, nothing_lost(world):
        world.resume()
        (folder / "flights.py").write_text(wider)
        for n_bytes in (0, 500, 20_000):
            with files_no_larger_than(n_bytes), told("store_full"):
                world.project.apply()
        world.project.apply()
        assert world.project.plan().is_empty


UNPRIVILEGED = """
import ctypes, sys
class Header(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]
class Sets(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]
libc, header, sets = ctypes.CDLL(None, use_errno=True), Header(0x20080522, 0), (Sets * 2)()
assert libc.capget(ctypes.byref(header), sets) == 0
sets[0].effective &= ~2  # CAP_DAC_OVERRIDE: whoever has it writes what is read-only
sets[0].permitted &= ~2
assert libc.capset(ctypes.byref(header), sets) == 0
"""
OBSERVE = """
from volano.project import Project
from volano.cli.failures import failures_shown
with failures_shown(False), Project.open(sys.argv[1]) as project:
    project.observe("landings", {})
"""
VERB = """
from volano.cli.main import app
app([*sys.argv[2:], "-C", sys.argv[1]])
"""


@pytest.mark.parametrize("has_data", [True, False], ids=["a data folder", "no data folder yet"])
@pytest.mark.parametrize("call", ["observe", "train delay", "apply --yes"])
def test_a_read_only_folder_is_told(copy, unfinished, has_data, call):
    folder = copy(unfinished)
    if not has_data:
        (folder / ".volano").rename(folder.parent / "elsewhere")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        result = subprocess.run(
            [sys.executable, "-c", UNPRIVILEGED + (OBSERVE if call == "observe" else VERB), str(folder)]
            + call.split() * (call != "observe"),
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    assert result.returncode == 1, result.stderr
    assert f"where: {folder}" in result.stderr
    assert "cannot be" in result.stderr
    assert "mend:  make the" in result.stderr
    if has_data:
        with World(folder, items()) as world:
            world.resume()
            with nothing_lost(world):
                pass


# --- the command line ---------------------------------------------------------------------------------------------


def volano(folder: Path, *call: str) -> Result:
    return CliRunner().invoke(app, [*call, "-C", str(folder)])


def assert_told(result: Result, exit_code: int, said: str) -> None:
    assert result.exit_code == exit_code, result.stderr
    assert result.stderr.startswith("error: ") or "mistake" in result.stderr
    assert said in result.stderr
    assert "where: " in result.stderr
    assert "mend:  " in result.stderr
    assert "Traceback" not in result.stderr


@contextmanager
def still_sound(folder: Path) -> Iterator[None]:
    """`volano check` accepts and counts the same before and after."""
    before = volano(folder, "check")
    assert before.exit_code == 0, before.stdout
    yield
    after = volano(folder, "check")
    assert after.stdout == before.stdout
    assert after.exit_code == 0


WRONG_NAMES: dict[str, tuple[Sequence[str], str]] = {
    "a decision": (("decisions", "list", "get_delay_rsik"), "'get_delay_rsik'"),
    "a decision's id": (("decisions", "show", "d-0"), "'d-0'"),
    "a model": (("train", "dealy"), "'dealy'"),
    "a released decision": (("release", "--decision", "get_delay_rsik"), "'get_delay_rsik'"),
    "a version": (("release", "--decision", DECISION, "--version", "delay-0099"), "'delay-0099'"),
    "a decision to roll back": (("rollback", "--decision", "x", "--reason", "why not"), "'x'"),
}


def test_the_command_line_tells_unknown_names(copy, unfinished):
    folder = copy(unfinished)
    with still_sound(folder):
        for call, said in WRONG_NAMES.values():
            assert_told(volano(folder, *call), 2, said)


def test_the_command_line_tells_that_there_is_no_release_to_go_back_to(copy, unfinished):
    folder = copy(unfinished)
    with still_sound(folder):
        assert_told(
            volano(folder, "rollback", "--decision", DECISION, "--reason", "why not"), 2, "go back to"
        )


def test_the_command_line_tells_every_mistake_of_a_project(copy, unfinished):
    folder = copy(unfinished)
    with still_sound(folder):
        for file, text, code in PROJECTS.values():
            (folder / file).write_text(text)
            for call in (("plan",), ("apply", "--yes")):
                assert_told(volano(folder, *call), 2, "mistake" if code == "project" else "landings")
        (folder / "flights.py").write_text(DEFINITIONS)


def test_the_command_line_tells_a_bad_configuration(copy, unfinished):
    folder = copy(unfinished)
    with still_sound(folder):
        for text in CONFIGS.values():
            (folder / "volano.toml").unlink(missing_ok=True)
            if text is not None:
                (folder / "volano.toml").write_text(text)
            for verb in ("status", "plan", "check"):
                assert_told(volano(folder, verb), 2, "volano.toml")
        (folder / "volano.toml").write_text(CONFIG)


def test_the_command_line_tells_that_nothing_is_applied_yet(fresh):
    (fresh / "volano.toml").write_text(CONFIG)
    (fresh / "flights.py").write_text(DEFINITIONS)
    for call in (
        ("train", MODEL),
        ("check",),
        ("decisions", "list", DECISION),
        ("release", "--decision", "x"),
    ):
        assert_told(volano(fresh, *call), 2, "volano apply")
    assert volano(fresh, "status").exit_code == 0


def test_the_command_line_tells_that_the_folder_is_in_use(world):
    with nothing_lost(world):
        (world.folder / "flights.py").write_text(DEFINITIONS.replace('within="60d"', 'within="50d"'))
        for call in (("train", MODEL), ("apply", "--yes")):
            assert_told(volano(world.folder, *call), 1, "in use")
        looked = volano(world.folder, "check")
        assert looked.exit_code == 0, looked.output
        assert "another process is at work" in looked.stderr
        (world.folder / "flights.py").write_text(DEFINITIONS)


def test_the_command_line_tells_a_full_disk(copy, unfinished):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        world.resume()
        world.push(HALF)
    with files_no_larger_than(0):
        assert_told(volano(folder, "check"), 1, "space")
    result = volano(folder, "check", "--json")
    assert result.exit_code == 0, result.stdout
