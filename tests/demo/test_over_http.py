"""One week of flights through real processes, over HTTP, teaches the same as the replay in one process, bit for bit."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from threading import Event, Thread
from typing import Any

import msgspec
import pytest

from volano.client import Client
from volano.collect.tables import decision_table
from volano.plan.state_index import CURSOR_KEY
from volano.runtime.applied import get_applied
from volano.runtime.clock import FileClock, ReplayClock
from volano.runtime.config import read_config
from volano.runtime.demo import HAND_OVER
from volano.runtime.demo.flights_data import World
from volano.runtime.demo.replay import OwnProcess, Replay, Replayed
from volano.runtime.demo.run import _prepare, _release_first
from volano.runtime.freezing import manifests
from volano.runtime.recurring import label_until
from volano.runtime.silence import Silence
from volano.runtime.stores import Stores
from volano.runtime.workplace import Workplace
from volano.server.serve import serve
from volano.values.instants import DAY_US, Instant

DECISION, MODEL = "get_delay_risk", "delay"
SAMPLE = 0.04
UNTIL = HAND_OVER + 7 * DAY_US
ROUND_US = 10_000

pytestmark = pytest.mark.slow


def rounded(stamp: Instant) -> Instant:
    """How many stamps are given at one instant differs between the two; nobody asks in the same ten milliseconds."""
    return -(-stamp // ROUND_US) * ROUND_US


class Ids:
    """The ids of decisions, in order."""

    def __init__(self) -> None:
        self._n = 0

    def next(self) -> str:
        self._n += 1
        return f"asked-{self._n:06d}"


class InProcess(OwnProcess):
    """The replay of the demo, without jobs between."""

    def __init__(self, work: Workplace) -> None:
        super().__init__(work)
        self._ids = Ids()

    def decide(self, decision: str, request: Any) -> None:
        self._work.session.decide(decision, request, decision_id=self._ids.next())

    def settle(self) -> Instant:
        return rounded(super().settle())

    def run_due(self) -> None:
        pass


class OverHttp:
    """A client; events wait for the next turn, as in a sender that buffers them."""

    def __init__(self, folder: Path, url: str) -> None:
        self._client = Client(url, timeout=60)
        self._stores = Stores(folder, read_config(folder), reads_online=True)
        self._online = self._stores.online(get_applied(self._stores.catalog).state)
        self._ids = Ids()
        self._waiting: list[tuple[str, Any]] = []

    def decide(self, decision: str, request: Any) -> None:
        made = self._client.decide(decision, request, decision_id=self._ids.next())
        assert not made.fallback, made

    def observe(self, source: str, event: Any) -> None:
        self._waiting.append((source, event))

    def settle(self) -> Instant:
        for source, events in groupby(self._waiting, key=lambda each: each[0]):
            receipts = self._client.observe_many(source, [event for _, event in events])
            assert {each.status for each in receipts} == {"pending"}
        self._waiting.clear()
        while True:
            with self._online.snapshot() as snapshot:
                (cursor,) = snapshot.get_many([CURSOR_KEY])
                stamp = snapshot.stamp
            after = {} if cursor is None else msgspec.msgpack.decode(cursor, type=dict[str, int])
            if not self._stores.journal_reader.behind(after):
                return rounded(stamp)
            time.sleep(0.001)

    def run_due(self) -> None:
        pass

    def finish(self) -> None:
        self.settle()

    def champion(self, decision: str) -> str:
        return ""

    def close(self) -> None:
        self._client.close()
        self._stores.close()


@contextmanager
def rehearsed(folder: Path, clock: Path) -> Iterator[str]:
    """Serve a project under a clock that stands in a file; its address."""
    stop, said, failed = Event(), [], []

    def run() -> None:
        try:
            serve(folder, "127.0.0.1", 0, workers=2, stop=stop, say=said.append, replay=clock)
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failed.append(error)

    thread = Thread(target=run)
    thread.start()
    try:
        while not any(line.startswith("serving at ") for line in said):
            assert thread.is_alive(), (said, failed)
            time.sleep(0.05)
        yield next(line.split()[-1] for line in said if line.startswith("serving at "))
    finally:
        stop.set()
        thread.join()
    assert not failed and not any("ended" in line for line in said), (failed, said)


def opened(folder: Path, clock: Any) -> Workplace:
    return Workplace(folder, clock, random.Random(7).randbytes, Silence())


def learned(folder: Path) -> tuple[dict[str, tuple[int, str]], dict[str, Any]]:
    """The sets that exist at the end of the week: logged decisions in them, and hash; and what was decided on."""
    work = opened(folder, ReplayClock(UNTIL + DAY_US))
    try:
        work.session.drain(commit=True)
        account = work.session.reconcile()
        assert account.is_exact and account.total.accepted == account.total.stored
        label_until(work.session, UNTIL)
        work.learner.train(MODEL, cutoff=UNTIL)
        found = {
            each.name: (each.n_rows - each.n_history, each.root_hash)
            for each in manifests(work.stores.catalog)
        }
        made = work.stores.lake.read(decision_table(DECISION)).sort_by("decision_id")
    finally:
        work.close()
    names = [name for name in made.column_names if name.startswith(("feature__", "request__"))]
    return found, made.select(
        ["decision_id", "decided_at", "score", "action", "model_version", *names]
    ).to_pydict()


def test_a_week_over_http_teaches_what_the_replay_in_one_process_does(tmp_path: Path) -> None:
    own, http = tmp_path / "own", tmp_path / "http"
    world: World = _prepare(own, SAMPLE, Silence())
    start = ReplayClock(HAND_OVER)
    work = opened(own, start)
    work.apply()
    _release_first(work, Silence())
    work.close()
    shutil.copytree(own, http)

    here = ReplayClock(start.now())
    work = opened(own, here)
    alone = Replay(InProcess(work), here, DECISION, Silence()).run(world, since=HAND_OVER, until=UNTIL)
    work.close()

    there = FileClock(tmp_path / "clock", start.now())
    with rehearsed(http, tmp_path / "clock") as url:
        entrance = OverHttp(http, url)
        served: Replayed = Replay(entrance, there, DECISION, Silence()).run(
            world, since=HAND_OVER, until=UNTIL
        )
        entrance.close()
    assert served == alone and alone.n_decisions > 150 < alone.n_observations

    (sets, made), (sets_served, made_served) = learned(own), learned(http)
    assert made_served == made
    assert sets_served == sets
    assert sum(n_logged for n_logged, _ in sets.values()) > 100, sets
    assert sum(value is not None for value in made["feature__Plane__last_delay"]) > 20
