"""Every verb beside a running `volano serve`, under load: nothing has to stop for learning."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from random import Random
from threading import Event, Thread
from typing import Any

import pytest

from tests.cli.test_loop import give_it_a_past, write_past
from tests.server.shop import DECISION, SOURCE, Served, environment, order, served
from volano.client import AsyncClient
from volano.project import Project
from volano.runtime.templates import write_template

pytestmark = pytest.mark.slow


def past_shop(folder: Path, **config: str) -> Path:
    """The blank template with four months of orders, applied; nothing is trained."""
    write_template("blank", folder)
    path = folder / "volano.toml"
    path.write_text(
        path.read_text() + "online_map_gib = 1\n" + "".join(f'{k} = "{v}"\n' for k, v in config.items())
    )
    write_past(folder)
    give_it_a_past(folder)
    with Project.open(folder) as project:
        project.apply()
    return folder


def asked(n: int) -> dict[str, Any]:
    """A request of the shop with a past."""
    return {
        "order_id": f"q{n}",
        "customer_id": f"c{n % 7}",
        "amount": 5.0,
        "asked_at": "2025-01-01T00:00:00Z",
    }


class Load:
    """Decides and observes without a pause; keeps every answer."""

    def __init__(self, server: Served) -> None:
        self.server = server
        self.made: list[Any] = []
        self.observed: set[str] = set()
        self.errors: list[BaseException] = []
        self._stop = Event()
        self._n = 0

    async def _lane(self, volano: AsyncClient) -> None:
        while not self._stop.is_set():
            self._n += 1
            n = self._n
            try:
                await volano.observe(SOURCE, order(n, customer=f"c{n % 7}", order_id=f"load-{n}"))
                self.observed.add(f"load-{n}")
                self.made.append(await volano.decide(DECISION, asked(n), decision_id=f"d-{n}"))
            except Exception as error:  # noqa: BLE001 - it is what is counted
                self.errors.append(error)
            await asyncio.sleep(0.01)

    async def _run(self) -> None:
        async with AsyncClient(self.server.url, timeout=300, retries=0) as volano:
            await asyncio.gather(*(self._lane(volano) for _ in range(4)))

    @contextmanager
    def running(self) -> Iterator[None]:
        thread = Thread(target=lambda: asyncio.run(self._run()))
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()


def assert_whole(folder: Path, load: Load) -> None:
    """After the server: every answer is logged once as it was given, every acknowledged event stored once."""
    with Project.open(folder) as project:
        project.drain(commit=True)
        whole = project.reconcile()
        assert whole.is_exact and whole.total.pending == 0
        assert whole.events.conflict == whole.events.quarantined == whole.events.duplicate == 0
        lake = project._work.stores.lake
        stored = lake.read("fact_orders", columns=["order_id"], where={"revision": (0, None)})
        ids = stored["order_id"].to_pylist()
        assert len(ids) == len(set(ids)) and load.observed <= set(ids)
        logged = lake.read(f"decision_{DECISION}", columns=["decision_id", "attempt"]).to_pylist()
        assert [row["decision_id"] for row in logged if row["attempt"] == 0]
        assert {made.decision_id for made in load.made} <= {row["decision_id"] for row in logged}
        assert all(finding.sound for finding in project.check()), project.check()


def wait_until(true: Any, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


def test_learning_and_its_verbs_work_beside_a_server_under_load(tmp_path: Path) -> None:
    shop = past_shop(tmp_path / "shop", commit_every="1m", label_every="1d")
    with served(shop, workers=1) as server:
        load = Load(server)
        with load.running():
            wait_until(lambda: len(load.made) > 50)
            with Project.open(shop) as project:
                assert project.run_due() == [] or all(run.failure is None for run in project.run_due())
                trained = project.train("risk")
                released = project.release(DECISION)
                assert released.champion == trained.version
                wait_until(lambda: load.made[-1].fallback == "")
                assert project.verify(trained.training_set).is_sound
                assert project.decision(load.made[-20].decision_id).action
                assert all(finding.sound for finding in project.check()), project.check()
                for _ in range(2):
                    rounds = list(project.work(Event(), once=True))
                    assert [each.error for each in rounds] == [None]
                assert project._work.session.prune(10**15) >= 0
        assert load.errors == []
        assert {made.model_version for made in load.made} >= {"", trained.version}
        assert server.stop() == 0
    assert_whole(shop, load)


def change(shop: Path, old: str, new: str) -> None:
    file = shop / "project.py"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def states(shop: Path) -> list[str]:
    return sorted(path.name for path in (shop / ".volano" / "online").iterdir())


def in_force(shop: Path) -> tuple[str, str]:
    """State and bundle."""
    with Project.open(shop) as project:
        applied = project._work.session.applied
        return applied.state, applied.bundle


def test_a_changed_view_is_applied_beside_a_server_under_load(tmp_path: Path) -> None:
    shop = past_shop(tmp_path / "shop", commit_every="2s")
    with Project.open(shop) as project:
        project.train("risk")
        project.release(DECISION)
    first_state, first_bundle = in_force(shop)
    with served(shop, workers=2) as server:
        load = Load(server)
        with load.running(), Project.open(shop) as project:
            wait_until(lambda: len(load.made) > 50)
            first_release = load.made[-1].release_id

            change(shop, 'vo.Threshold("ask", at=0.5)', 'vo.Threshold("ask", at=0.6)')
            project.apply()  # the policy alone: the same state, another bundle
            second_bundle = in_force(shop)[1]
            wait_until(lambda: load.made[-1].release_id != first_release)
            assert states(shop) == [first_state]

            change(
                shop,
                'mean_amount = vo.mean("amount", within="90d")',
                'mean_amount = vo.mean("amount", within="60d")',
            )
            before = len(load.made)
            applied = project.apply()
            assert len(load.made) > before, "decisions went on meanwhile"
            wait_until(lambda: states(shop) == [applied.state])
            wait_until(lambda: len(load.made) > before + 100)
            assert load.made[-1].model_version == "risk-0001", (
                "the release keeps its view until another is released"
            )
            version = project.train("risk").version
            project.release(DECISION, version, force_reason="a new view")
            wait_until(lambda: load.made[-1].model_version == version)
            project.rollback(DECISION, "as before")
            wait_until(lambda: load.made[-1].model_version == "risk-0001")
            n = len(load.made)
            wait_until(lambda: len(load.made) > n + 50)
        assert load.errors == []
        fallen = {made.fallback for made in load.made if made.fallback}
        assert all(why.startswith("deadline") for why in fallen), fallen  # a loaded machine may miss 20 ms
        assert server.stop() == 0
    assert_whole(shop, load)
    with Project.open(shop) as project:
        lake = project._work.stores.lake
        rows = lake.read(
            f"decision_{DECISION}", columns=["decided_at", "features_as_of", "bundle", "model_version"]
        )
        rows = rows.sort_by("decided_at").to_pylist()
        assert {row["bundle"] for row in rows} == {first_bundle, second_bundle, applied.bundle}
        ages = [(row["decided_at"] - row["features_as_of"]).total_seconds() for row in rows]
        assert max(ages) < 5.0, "state went on being fed"


def _stands_alone(shop: Path, state: str) -> bool:
    return states(shop) == [state]


def _apply(shop: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "from volano.cli.main import app; app()", "apply", "--yes"]
    return subprocess.Popen(
        command, cwd=shop, env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def test_kills_of_an_apply_and_of_the_applier_in_the_middle_of_it_are_recovered_from(tmp_path: Path) -> None:
    shop = past_shop(tmp_path / "shop", commit_every="2s")
    with Project.open(shop) as project:
        project.train("risk")
        project.release(DECISION)
    random = Random(7)
    rounds = int(os.environ.get("VOLANO_KILL_ROUNDS", "3"))
    with served(shop, workers=1) as server:
        load = Load(server)
        with load.running():
            wait_until(lambda: len(load.made) > 20)
            within = 90
            for n in range(rounds):
                change(
                    shop,
                    f'mean_amount = vo.mean("amount", within="{within}d")',
                    f'mean_amount = vo.mean("amount", within="{within - 1}d")',
                )
                within -= 1
                process = _apply(shop)
                time.sleep(random.uniform(0.8, 3.0))
                victims = [
                    [process.pid],
                    [server.beats.read("applier").pid],
                    [process.pid, server.beats.read("applier").pid],
                ][n % 3]
                for pid in victims:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.wait(120)
                again = _apply(shop)
                assert again.wait(120) == 0
                state, _ = in_force(shop)
                wait_until(partial(_stands_alone, shop, state), 60)
                with Project.open(shop) as project:
                    assert project.plan().is_empty
        assert load.errors == []
        assert server.stop() == 0
    assert_whole(shop, load)
