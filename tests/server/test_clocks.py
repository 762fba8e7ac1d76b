"""Clocks that step: stamps never go back, what was decided recomputes, and nothing is lost."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import pytest

from tests.server.shop import DECISION, SOURCE, checkout, make_shop, order, served
from volano.client import AsyncClient
from volano.project import Project
from volano.runtime.clock import SystemClock
from volano.values.instants import HOUR_US, MINUTE_US, Instant, to_datetime

STEPS = (0, 2 * HOUR_US, -3 * MINUTE_US, 90 * MINUTE_US, -2 * MINUTE_US, 0)


class SteppingClock(SystemClock):
    """The machine's clock with an offset that may change at any moment."""

    offset_us = 0

    def now(self) -> Instant:
        return super().now() + self.offset_us


def assert_stamps_go_forward(folder: Path) -> None:
    with Project.open(folder) as project:
        stores = project._work.stores
        batches = stores.apply_log_reader.read(0, limit=1_000_000)
        stamps = [applied.applied_at for batch in batches for applied in batch.applied]
        assert all(before < after for before, after in pairwise(stamps))
        assert all(before.last_stamp <= after.last_stamp for before, after in pairwise(batches))
        assert all(finding.sound for finding in project.check()), project.check()
        whole = project.reconcile()
        assert whole.is_exact and whole.events.stored == whole.events.accepted


def test_stamps_go_forward_however_the_clock_steps(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop")
    clock = SteppingClock()
    n = 0
    for offset_us in STEPS:  # each session begins anew: what it knows of stamps it has from the stores
        clock.offset_us = offset_us
        with Project.open(shop, clock=clock) as project:
            for _ in range(3):
                n += 1
                closed_at = to_datetime(clock.now() - MINUTE_US)
                project.observe(SOURCE, order(n, customer=f"c{n % 2}", closed_at=closed_at.isoformat()))
                project.drain(commit=n % 2 == 0)
                made = project.decide(DECISION, checkout(n, customer=f"c{n % 2}"))
                clock.offset_us -= 20_000_000  # and back within a session
                assert made.decided_at > clock.now()
    assert_stamps_go_forward(shop)


SHIFTED = """
import os, time

_now = time.time_ns
_offset = os.path.join(os.path.dirname(__file__), "offset_ns")


def time_ns():
    try:
        with open(_offset) as file:
            return _now() + int(file.read() or 0)
    except (OSError, ValueError):
        return _now()


time.time_ns = time_ns
"""


@pytest.mark.slow
def test_a_server_goes_on_while_the_clock_of_its_machine_steps(tmp_path: Path) -> None:
    shop = make_shop(tmp_path / "shop", commit_every="1s")
    clock = tmp_path / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(SHIFTED)
    made: list[str] = []
    with served(shop, workers=1, first=(clock,)) as server:

        async def work() -> None:
            async with AsyncClient(server.url, timeout=20, retries=0) as volano:
                for n in range(180):
                    if n % 30 == 0:
                        fresh = clock / "fresh"
                        fresh.write_text(str(STEPS[n // 30] * 1_000))
                        fresh.replace(clock / "offset_ns")
                    await volano.observe(SOURCE, order(n, customer=f"c{n % 3}"))
                    answer = await volano.decide(DECISION, checkout(n, customer=f"c{n % 3}"))
                    made.append(answer.decided_at)
                    await asyncio.sleep(0.02)

        asyncio.run(work())
        assert server.stop() == 0
    assert max(made) > made[-1], "the clock did step"
    assert_stamps_go_forward(shop)
