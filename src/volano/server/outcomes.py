"""Waiting for the applier: callers who want to know how their events ended share one look at the apply log."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from volano.records.receipt import Applied
from volano.runtime.processes.fates import Fates

MOST_WAIT_S: Final = 1.0
"""How long an answer is held back for `wait=true`; after that it says what is known."""
_LOOK_EVERY_S: Final = 0.003


class Outcomes:
    """Tells callers of one event loop how their records ended. Looks only while somebody waits."""

    def __init__(self, fates: Fates) -> None:
        self._fates = fates
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")
        self._waiting: dict[str, asyncio.Future[Applied]] = {}
        self._task: asyncio.Task[None] | None = None

    async def expect(self, ids: Iterable[str]) -> Expected:
        """Begin to wait for records. Call before they are journaled: what is applied earlier is not seen."""
        loop = asyncio.get_running_loop()
        if not self._waiting:
            await loop.run_in_executor(self._thread, self._fates.skip)
        futures = {name: loop.create_future() for name in ids}
        self._waiting |= futures
        if self._task is None and futures:
            self._task = loop.create_task(self._follow())
        return Expected(self, futures)

    def forget(self, ids: Iterable[str]) -> None:
        """Wait for these no more."""
        for name in ids:
            self._waiting.pop(name, None)

    def close(self) -> None:
        """Wait for nobody."""
        self._waiting.clear()
        if self._task is not None:
            self._task.cancel()
        self._thread.shutdown()

    async def _follow(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                found = await loop.run_in_executor(self._thread, self._fates.look, self._waiting)
                for name, applied in found.items():
                    future = self._waiting.pop(name, None)
                    if future is not None and not future.done():
                        future.set_result(applied)
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            self._task = None


class Expected:
    """The records of one call on their way."""

    def __init__(self, outcomes: Outcomes, futures: dict[str, asyncio.Future[Applied]]) -> None:
        self._outcomes = outcomes
        self._futures = futures

    async def within(self, seconds: float) -> dict[str, Applied]:
        """What became of them, of as many as were applied in time."""
        try:
            if self._futures:
                await asyncio.wait(self._futures.values(), timeout=seconds)
        finally:
            self._outcomes.forget(self._futures)
        return {name: future.result() for name, future in self._futures.items() if future.done()}
