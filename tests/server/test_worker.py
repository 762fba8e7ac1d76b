"""A worker follows the ledger of releases; what it cannot load leaves in force what was, and it says so once."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.runtime.test_forced_release import DECISION, strict_shop
from volano.errors import IdReusedError
from volano.project import Project
from volano.runtime.answers import InLakeError
from volano.runtime.clock import SystemClock
from volano.runtime.processes.worker import Worker
from volano.runtime.serving import ServingLoader


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[Path]:
    yield strict_shop(tmp_path / "shop", gate="min_labels=100")


class Looks:
    """Stands in for the event that ends `watch`: so many looks, then it is set."""

    def __init__(self, n: int) -> None:
        self.left = n

    def wait(self, timeout: float) -> bool:
        self.left -= 1
        return self.left < 0


def test_a_release_that_cannot_be_loaded_leaves_in_force_what_was_and_is_said_once(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("volano.runtime.processes.desk.FIRST_RETRY_S", 0.0)
    with Project.open(shop) as project:
        project.release(DECISION)
        file = shop / "project.py"
        file.write_text(file.read_text().replace('retrain="weekly"', 'retrain="14d"'))
        project.apply()
        artifact = project.train("risk").artifact
    worker = Worker(shop, "worker_0", SystemClock(), os.urandom)
    asked = {"order_id": "q", "customer_id": "c1", "amount": 3.0, "asked_at": "2025-01-01T00:00:00Z"}
    try:
        worker.warm_up()
        assert worker.decide(DECISION, asked).model_version == "risk-0001"
        with Project.open(shop) as project:
            project.release(DECISION, "risk-0002", force_reason="now")
        said: list[str] = []
        (file,) = (shop / ".volano").rglob(artifact[2:])
        hidden = file.rename(shop / "hidden")
        worker.watch(Looks(3), said.append, also=lambda: None)  # type: ignore[arg-type]
        made = worker.decide(DECISION, asked)
        assert (made.model_version, made.fallback) == ("risk-0001", "")
        assert len(said) == 1 and f"{DECISION}-r" in said[0] and "goes on with" in said[0]

        hidden.rename(file)
        worker.watch(Looks(1), said.append, also=lambda: None)  # type: ignore[arg-type]
        assert worker.decide(DECISION, asked).model_version == "risk-0002"
        assert len(said) == 1
    finally:
        worker.close()


def test_a_worker_that_begins_on_its_fallback_serves_the_release_once_it_can(
    shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Project.open(shop) as project:
        project.release(DECISION)
        artifact = project.train("risk").artifact
    (file,) = (shop / ".volano").rglob(artifact[2:])
    hidden = file.rename(shop / "hidden")
    worker = Worker(shop, "worker_0", SystemClock(), os.urandom)
    asked = {"order_id": "q", "customer_id": "c1", "amount": 3.0, "asked_at": "2025-01-01T00:00:00Z"}
    tries = []
    prepare = ServingLoader.prepare
    monkeypatch.setattr(
        ServingLoader,
        "prepare",
        lambda self, *given, **named: tries.append(1) or prepare(self, *given, **named),
    )
    said: list[str] = []
    try:
        worker.warm_up()
        assert worker.decide(DECISION, asked).fallback.startswith("unservable")
        worker.watch(Looks(5), said.append, also=lambda: None)  # type: ignore[arg-type]
        assert len(tries) == 1, "it is tried again after a pause, not at every look"
        assert len(said) == 1 and "goes on with its fallback" in said[0]

        hidden.rename(file)
        monkeypatch.setattr("time.monotonic", lambda late=time.monotonic: late() + 10.0)
        worker.watch(Looks(1), said.append, also=lambda: None)  # type: ignore[arg-type]
        assert worker.decide(DECISION, asked).model_version == "risk-0001"
        assert len(said) == 1
    finally:
        worker.close()


def test_an_answer_that_only_the_lake_has_is_fetched_aside(shop: Path) -> None:
    asked = {"order_id": "q", "customer_id": "c1", "amount": 3.0, "asked_at": "2025-01-01T00:00:00Z"}
    with Project.open(shop) as project:
        first = project.decide(DECISION, asked, decision_id="mine")
        project.drain(commit=True)
        state = project._work.session.applied.state
    shutil.rmtree(shop / ".volano" / "online" / state)
    with Project.open(
        shop
    ) as project:  # the index is filled from the lake, so it has no places in the journal
        project.drain()
    worker = Worker(shop, "worker_0", SystemClock(), os.urandom)
    try:
        worker.warm_up()
        with pytest.raises(InLakeError):
            worker.decide(DECISION, asked, decision_id="mine")
        worker.recall(DECISION, "mine")
        assert worker.decide(DECISION, asked, decision_id="mine") == first
        with pytest.raises(IdReusedError):
            worker.decide(DECISION, asked | {"amount": 4.0}, decision_id="mine")
    finally:
        worker.close()
