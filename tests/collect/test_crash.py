"""Kill it anywhere: nothing accepted is lost or doubled, nothing is stamped twice, the tables are those of a quiet run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.collect.world import START, World, content, sale
from volano.collect.applier import Applier
from volano.collect.committer import Committer
from volano.collect.door import Door
from volano.collect.receipts import reconcile
from volano.plan.state_index import CURSOR_KEY
from volano.records.journal import Operation, decode_record
from volano.runtime.clock import ReplayClock
from volano.values.instants import MINUTE_US

N_EVENTS = 120
ROOT = Path(__file__).parents[2]


def journaled(world: World) -> int:
    return len(world.reader.read({}, limit=1_000_000))


def go_on(world: World, n_events: int, told: Callable[[int], None] = lambda n: None) -> None:
    """Accept, apply and commit from wherever the last process stopped; a pure function of the event's number."""
    start = journaled(world)
    world.clock.advance_to(START + max(start - 1, 0) * MINUTE_US)
    world.applier.recover()
    world.applier.step()
    for n in range(start, n_events):
        world.clock.advance_to(START + n * MINUTE_US)
        door = Door(world.project, world.journal, world.clock, Random(n).randbytes)
        told(n)
        _push(door, n)
        world.applier.step()
        if n % 9 == 0:
            world.committer.step()
    world.committer.step()


def _push(door: Door, n: int) -> None:
    random = Random(n)
    values: dict[str, Any] = {
        "shop": random.choice(["a", "b", None]),
        "amount": random.random(),
        "till": n % 2,
    }
    number = random.randrange(n + 1) // 2
    event = sale(f"s{number}", START + number * MINUTE_US, **values)
    match random.randrange(6):
        case 0:
            door.accept("sales", [b"junk"], sync=False)
        case 1:
            door.accept(
                "sales", [event], operation=Operation.CORRECT, revision=random.randrange(1, 4), sync=False
            )
        case 2:
            door.accept(
                "sales", [event], operation=Operation.RETRACT, revision=random.randrange(1, 4), sync=False
            )
        case _:
            door.accept("sales", [event], sync=False)


def result(world: World) -> dict[str, object]:
    """Everything that may be compared: tables, fates and stamps, online state."""
    account = reconcile(world.reader, world.apply_log, world.lake)
    assert account.is_exact
    assert account.total.pending == 0
    with world.online.snapshot() as snapshot:
        online = {key: value for key, value in snapshot.scan(b"", b"\xff" * 40) if key != CURSOR_KEY}
    return {
        "account": account,
        "tables": {name: content(world.lake.read(name)) for name in world.lake.tables()},
        "receipts": [
            decode_record(entry.record).receipt_id  # type: ignore[union-attr]
            for entry in world.reader.read({}, limit=1_000_000)
        ],
        "applied": [applied for batch in world.apply_log.read(0, limit=100_000) for applied in batch.applied],
        "online": online,
    }


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> dict[str, object]:
    with World(tmp_path_factory.mktemp("quiet")) as world:
        go_on(world, N_EVENTS)
        return result(world)


class Killed(BaseException):
    """Stands for the end of the process."""


class Fragile:
    """A store that dies at the n-th write, before or after it is done."""

    def __init__(self, store: Any, method: str, at: int, *, after: bool) -> None:
        self._store = store
        self._method = method
        self._left = at
        self._after = after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if name != self._method:
            return found

        def fragile(*arguments: Any, **named: Any) -> Any:
            self._left -= 1
            if self._left == 0 and not self._after:
                raise Killed
            done = found(*arguments, **named)
            if self._left == 0:
                raise Killed
            return done

        return fragile


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(
    ("store", "method"),
    [("journal", "append"), ("apply_log", "append"), ("online", "write"), ("lake", "append")],
)
def test_a_kill_around_any_write_changes_nothing_in_the_end(tmp_path, quiet, store, method, after):
    random = Random(f"{store} {after}")
    while True:
        world = World(tmp_path, clock=ReplayClock(START))
        setattr(world, store, Fragile(getattr(world, store), method, random.randrange(2, 40), after=after))
        world.applier = Applier(
            world.project,
            world.groups,
            world.reader,
            world.apply_log,
            world.online,
            world.functions,
            world.sql,
            world.clock,
        )
        world.committer = Committer(world.project, world.reader, world.apply_log, world.lake)
        try:
            go_on(world, N_EVENTS)
        except Killed:
            continue
        finally:
            world.close()
        break
    with World(tmp_path) as world:
        assert result(world) == quiet


@pytest.mark.slow
def test_kill_9_at_random_instants_changes_nothing_in_the_end(tmp_path, quiet):
    random = Random(9)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-m", "tests.collect.test_crash", str(tmp_path), str(N_EVENTS)]
    n_kills = 0
    for _ in range(25):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(random.randrange(2, 20)):
            process.stdout.readline()  # a line an event: how fast the machine is does not matter
        time.sleep(random.random() * 0.005)
        process.send_signal(signal.SIGKILL)
        finished = process.wait() == 0
        process.stdout.close()
        if finished:
            break
        n_kills += 1
    with World(tmp_path) as world:
        go_on(world, N_EVENTS)
        assert result(world) == quiet
    assert n_kills >= 5


def tell(n: int) -> None:
    sys.stdout.write(f"{n}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    with World(Path(sys.argv[1])) as opened:
        go_on(opened, int(sys.argv[2]), told=tell)
