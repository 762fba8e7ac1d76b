"""A disk that is full, or read-only: what cannot be kept is refused, what was accepted is kept, nobody has to help."""

from __future__ import annotations

import errno
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.server.asking import asker, run
from tests.server.shop import DECISION, SOURCE, checkout, make_shop, order, served
from volano.client import Client, RefusedError, UnreachableError
from volano.project import Project


@contextmanager
def room(pid: int, most_bytes: int) -> Iterator[None]:
    """For a process no file may grow beyond so many bytes, as if the disk were full."""
    before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, before)


def wait_for(true: Any) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_every_process_outlives_a_full_disk_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", commit_every="1s")
    kept: list[str] = []
    with served(shop, workers=1) as server, Client(server.url, timeout=20, retries=0) as volano:

        def push(n: int) -> str:
            receipt = volano.observe(SOURCE, order(n, order_id=f"o{len(kept)}-{n}"))
            kept.append(receipt.receipt_id)
            return receipt.receipt_id

        pids = {beat.role: beat.pid for beat in server.beats.all()}
        for n in range(20):
            push(n)
        (segment,) = (shop / ".volano" / "journal").glob("worker_0_observed-*.journal")
        with room(pids["worker_0"], segment.stat().st_size + 700):
            refused: list[Any] = []
            for n in range(20):
                try:
                    push(n)
                except (RefusedError, UnreachableError) as error:
                    refused.append(error)
            assert refused, "the disk was full"
            with pytest.raises((RefusedError, UnreachableError)) as told:
                volano.observe(SOURCE, order(1, order_id="never"))
            assert "No space left" in str(told.value)
        push(1)

        (log,) = (shop / ".volano" / "apply_log").glob("*.journal")
        wait_for(lambda: volano.receipt(kept[-1]).status == "stored")
        with room(pids["applier"], log.stat().st_size):
            waiting = push(2)
            time.sleep(1.5)
            assert volano.receipt(waiting).status == "pending"
            assert volano.decide(DECISION, checkout(1)).action == "accept"
        wait_for(lambda: volano.receipt(waiting).status == "stored")

        with room(pids["committer"], 10):
            push(3)
            time.sleep(2.5)
        last = push(4)
        wait_for(lambda: volano.receipt(last).status == "stored")
        assert {beat.role: beat.pid for beat in server.beats.all()} == pids, "nobody had to be started again"
        assert server.stop() == 0
    with Project.open(shop) as project:
        project.drain(commit=True)
        whole = project.reconcile()
        assert whole.is_exact and whole.events.stored == whole.events.accepted == len(kept)
        stored = project._work.stores.lake.read("receipt", columns=["receipt_id"])["receipt_id"].to_pylist()
        assert set(kept) <= set(stored)
        assert all(finding.sound for finding in project.check())


def test_a_read_only_disk_refuses_and_keeps_nothing_half(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = make_shop(tmp_path / "shop")

    def refuse(*given: Any) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    async def work() -> None:
        async with asker(shop) as asking:
            assert (await asking.ask("POST", f"/v1/observe/{SOURCE}", order(1))).status == 202
            with monkeypatch.context() as patch:
                patch.setattr("volano.stores.local_files.LocalFile.append", refuse)
                for path, body in (("observe/orders", order(2)), (f"decide/{DECISION}", checkout(1))):
                    refused = await asking.ask("POST", f"/v1/{path}", body)
                    assert refused.status == 503
                    assert refused.body["type"].endswith("store_read_only") and refused.body["mend"]
            assert (await asking.ask("POST", f"/v1/observe/{SOURCE}", order(3))).status == 202
            assert (await asking.ask("POST", f"/v1/decide/{DECISION}", checkout(1))).status == 200

    run(work)
    with Project.open(shop) as project:
        project.drain(commit=True)
        whole = project.reconcile()
        assert (whole.events.stored, whole.decisions.stored, whole.total.pending) == (2, 1, 0)


def test_a_server_that_is_about_to_end_refuses_what_is_new_and_ends_what_is_under_way(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")

    async def work() -> None:
        async with asker(shop) as asking:
            asking.app.stop()
            for path in (f"/v1/observe/{SOURCE}", f"/v1/decide/{DECISION}"):
                refused = await asking.ask("POST", path, order(1))
                assert refused.status == 503 and refused.headers["retry-after"] == "1"
                assert refused.headers["connection"] == "close"
                assert refused.body["type"].endswith("stopping") and refused.body["retryable"]
            assert (await asking.ask("GET", "/readyz")).status == 503
            assert (await asking.ask("GET", "/healthz")).status == 200

    run(work)
