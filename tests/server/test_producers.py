"""Producers of an older and a newer schema at once, against real processes, while the schema changes under them."""

from __future__ import annotations

import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from tests.server.shop import SOURCE, make_shop, order, served
from volano.client import Client
from volano.project import Project
from volano.records.quarantine import Fate

pytestmark = pytest.mark.slow


class Producer(Thread):
    """Sends orders with ids of its own until told to stop; each until it is answered."""

    def __init__(self, url: str, name: str, **more: Any) -> None:
        super().__init__(name=name)
        self.url, self.more = url, more
        self.sent: dict[str, str] = {}
        self.done = Event()

    def run(self) -> None:
        with Client(self.url, timeout=30, retries=20) as client:
            n = 0
            while not self.done.is_set():
                n += 1
                event = order(n, order_id=f"{self.name}-{n}", **self.more)
                receipt = client.observe(SOURCE, event, wait=True)
                again = client.observe(SOURCE, event)
                assert again.receipt_id != receipt.receipt_id
                self.sent[event["order_id"]] = receipt.code or receipt.status

    def codes(self) -> set[str]:
        return set(self.sent.values())


def wait_until(true: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_old_and_new_producers_go_on_while_the_schema_widens_and_what_was_ahead_is_replayed(
    tmp_path: Path,
) -> None:
    shop = make_shop(tmp_path / "shop", commit_every="1s")
    path = shop / "project.py"
    with served(shop) as server:
        old = Producer(server.url, "old")
        new = Producer(server.url, "new", channel="app")
        for producer in (old, new):
            producer.start()
        wait_until(lambda: len(old.sent) > 5 and len(new.sent) > 5)
        assert (old.codes() - {"pending"}, new.codes() - {"pending"}) == ({"stored"}, {"unknown_field"})
        path.write_text(
            path.read_text().replace("    returned: bool\n", "    returned: bool\n    channel: str | None\n")
        )
        with Project.open(shop) as project:
            project.apply()
        before = len(old.sent)
        wait_until(lambda: "stored" in new.codes() and len(old.sent) > before + 5)
        for producer in (old, new):
            producer.done.set()
            producer.join(60)
        assert old.codes() <= {"stored", "pending"}
        with Project.open(shop) as project:
            rows = project.quarantine(source=SOURCE, reason="unknown_field")
            assert rows
            assert {each.status for each in project.replay(*(row.receipt_id for row in rows))} <= {
                "stored",
                "duplicate",
            }
        assert server.stop() == 0
    with Project.open(shop) as project:
        project.drain(commit=True)
        facts = project._work.stores.lake.read(f"fact_{SOURCE}", columns=["event_id", "channel"])
        held = dict(zip(facts["event_id"].to_pylist(), facts["channel"].to_pylist(), strict=True))
        assert facts.num_rows == len(held)
        assert held == {name: None for name in old.sent} | {name: "app" for name in new.sent}
        assert not project.quarantine(fate=Fate.OPEN)
        assert project.reconcile().is_exact
        assert all(finding.sound for finding in project.check())
