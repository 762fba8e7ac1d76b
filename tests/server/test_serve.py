"""Real processes: `volano serve` under load and `kill -9`, its client, its spool, its end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from tests.server.shop import DECISION, SOURCE, Served, checkout, environment, make_shop, order, served
from volano.client import AsyncClient, BufferedObserver, Client, RefusedError, UnreachableError
from volano.project import Project

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(make_shop(tmp_path_factory.mktemp("serve") / "shop", commit_every="1s"), workers=1) as one:
        yield one


def _ended(client: Client, receipt_id: str) -> str:
    for _ in range(4_000):
        status = client.receipt(receipt_id).status
        if status != "pending":
            return status
        time.sleep(0.05)
    raise AssertionError("the receipt stays pending")


def test_the_client_decides_observes_and_asks(server: Served) -> None:
    with Client(server.url, timeout=120) as volano:
        receipt = volano.observe(SOURCE, order(1))
        assert _ended(volano, receipt.receipt_id) == "stored"
        assert _ended(volano, volano.observe(SOURCE, order(1) | {"amount": 2.0}).receipt_id) == "conflict"
        corrected = volano.observe(SOURCE, order(1, returned=True), operation="correct", revision=1)
        assert _ended(volano, corrected.receipt_id) == "stored"
        assert [each.status for each in volano.observe_many(SOURCE, [order(2), order(3)])] == ["pending"] * 2
        assert volano.observe(SOURCE, b"{no json").status == "quarantined"
        made = volano.decide(DECISION, checkout(1), decision_id="mine")
        assert (made.decision_id, made.action) == ("mine", "accept")
        with pytest.raises(RefusedError) as refused:
            volano.decide(DECISION, {"order_id": 1})
        assert refused.value.status == 400 and refused.value.mend


def test_the_asynchronous_client_does_the_same(server: Served) -> None:
    async def work() -> None:
        async with AsyncClient(server.url, timeout=120) as volano:
            receipts = await asyncio.gather(*(volano.observe(SOURCE, order(100 + n)) for n in range(20)))
            assert len({each.receipt_id for each in receipts}) == 20
            assert (await volano.decide(DECISION, checkout(100))).action == "accept"

    asyncio.run(work())


def test_both_clients_log_what_was_decided_shown_and_done_elsewhere(server: Served) -> None:
    given = {"decided_at": "2026-01-01T10:00:00Z", "propensity": 0.5, "propensity_method": "a coin"}
    with Client(server.url, timeout=120) as volano:
        shown = volano.log_exposure(DECISION, "old-1", surface="app")
        assert _ended(volano, shown.receipt_id) == "pending_parent"
        logged = volano.log_decision(DECISION, "old-1", checkout(7), "ask", origin="rules", **given)
        assert (logged.decision_id, logged.status) == ("old-1", "pending")
        again = volano.log_decision(DECISION, "old-1", checkout(7), "ask", origin="rules", wait=True, **given)
        # Fates are told by id: while the first is still on its way, its own is what comes.
        assert again.status in ("stored", "duplicate", "pending")
        assert _ended(volano, shown.receipt_id) in ("stored", "pending_parent")
        assert (
            _ended(volano, volano.log_action(DECISION, "old-1", "call", actor="ann").receipt_id) == "stored"
        )
        assert volano.observe(SOURCE, order(7), wait=True).status in ("stored", "pending")
        with pytest.raises(RefusedError) as refused:
            volano.log_decision(DECISION, "old-2", checkout(7), "dance", **given)
        assert refused.value.status == 400 and refused.value.mend

    async def work() -> None:
        async with AsyncClient(server.url, timeout=120) as volano:
            told = await volano.log_decision(DECISION, "old-1", checkout(7), "accept", wait=True, **given)
            assert told.status in ("conflict", "pending")
            action = await volano.log_action(DECISION, "old-1", "ask", action_id="a-9")
            assert action.status == "pending"
            (many,) = await volano.observe_many(SOURCE, [order(8)], wait=True)
            assert many.status in ("stored", "pending")

    asyncio.run(work())


def test_a_server_that_is_not_there_is_unreachable_not_a_traceback() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}", retries=1) as volano, pytest.raises(UnreachableError) as error:
        volano.decide(DECISION, checkout(1))
    assert "2 tries" in error.value.what


def test_a_spool_keeps_what_it_took_until_the_server_is_there(server: Served, tmp_path: Path) -> None:
    with Client("http://127.0.0.1:9", retries=0, timeout=0.2) as nowhere:
        spool = BufferedObserver(nowhere, tmp_path / "spool")
        for n in range(200, 230):
            spool.observe(SOURCE, order(n))
        assert not spool.flush(0.2)
        spool.close(timeout=0)
    assert spool.trouble
    told: list[str] = []
    with Client(server.url, timeout=120) as client:
        again = BufferedObserver(
            client, tmp_path / "spool", on_receipt=lambda _, receipt: told.append(receipt.status)
        )
        again.observe(SOURCE, b"{no json")
        assert again.flush(300)
        again.close()
        assert again.waiting_bytes == 0
    assert told == ["pending"] * 30 + ["quarantined"]


def test_one_folder_is_served_once(server: Served) -> None:
    second = _serve(server.folder, "--port", "0")
    assert second.returncode == 1
    assert "served already" in second.stderr and server.url in second.stderr


def test_beyond_loopback_only_with_a_token(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    refused = _serve(shop, "--host", "0.0.0.0", "--port", "0")
    assert refused.returncode == 2
    assert "token" in refused.stderr


def test_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """Workers, applier and committer die at random instants under load: every acknowledged event is stored once."""
    shop = make_shop(tmp_path / "shop", commit_every="1s")
    random = Random(20)
    rounds = int(os.environ.get("VOLANO_KILL_ROUNDS", "5"))
    acknowledged: set[str] = set()
    decided: set[str] = set()
    with served(shop, workers=2) as server:
        stop_at = [False]

        async def load() -> None:
            async with AsyncClient(server.url, timeout=300, retries=200) as volano:

                async def send(lane: int) -> None:
                    n = 0
                    while not stop_at[0]:
                        n += 1
                        # Every other lane sends batches, which the door looks at by columns.
                        keys = [f"k{lane}-{n}-{i}" for i in range(20 if lane % 2 else 1)]
                        events = [order(n, customer=f"c{n % 7}", order_id=key) for key in keys]
                        receipts = await volano.observe_many(SOURCE, events)
                        assert {receipt.status for receipt in receipts} == {"pending"}
                        acknowledged.update(keys)
                        if n % 5 == 0:
                            made = await volano.decide(DECISION, checkout(n), decision_id=f"d{lane}-{n}")
                            decided.add(made.decision_id)

                async def kill() -> None:
                    for _ in range(rounds):
                        await asyncio.sleep(random.uniform(0.2, 1.0))
                        pids = _processes(server)
                        for pid in random.sample(sorted(pids), k=random.choice([1, 1, 2])):
                            os.kill(pid, signal.SIGKILL)
                        while len(_processes(server)) < len(pids):
                            await asyncio.sleep(0.1)
                    while len(acknowledged) <= 500:  # however slow the machine is
                        await asyncio.sleep(0.1)
                    stop_at[0] = True

                await asyncio.gather(kill(), *(send(lane) for lane in range(8)))

        asyncio.run(load())
        assert server.stop() == 0
    with Project.open(shop) as project:
        project.drain(commit=True)
        whole = project.reconcile()
        assert whole.is_exact and whole.total.pending == 0
        account = whole.events
        assert account.conflict == account.quarantined == 0
        stored = project._work.stores.lake.read("fact_orders", columns=["order_id"])["order_id"].to_pylist()
        assert len(stored) == len(set(stored)) == account.stored
        assert acknowledged <= set(stored)
        logged = project._work.stores.lake.read(f"decision_{DECISION}", columns=["decision_id"])
        assert decided <= set(logged["decision_id"].to_pylist())
        assert all(finding.sound for finding in project.check()), project.check()


def _processes(server: Served) -> set[int]:
    """Process ids of applier, committer and workers: the living children of the supervisor."""
    pids = set()
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
        except OSError:
            continue
        if int(parent) == server.process.pid and state != "Z":
            pids.add(int(path.parent.name))
    return pids


def _serve(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "from volano.cli.main import app; app()", "serve", *options],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
