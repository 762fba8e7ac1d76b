"""Waiting for the applier: callers who want to know how their events ended share one look at the apply log."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from volano.errors import StoreError
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
        self._waiting: dict[str, list[asyncio.Future[Applied]]] = {}
        self._task: asyncio.Task[None] | None = None
        self._beginning = asyncio.Lock()

    async def expect(self, ids: Sequence[str]) -> Expected:
        """Begin to wait for records. Call before they are journaled: what is applied earlier is not seen."""
        loop = asyncio.get_running_loop()
        expected = Expected(self, {name: loop.create_future() for name in ids})
        async with self._beginning:  # who skips must not skip what another one waits for already
            if not self._waiting:
                await loop.run_in_executor(self._thread, self._fates.skip)
            for name, future in expected.futures.items():
                self._waiting.setdefault(name, []).append(future)
        if self._task is None:
            self._task = loop.create_task(self._follow())
        return expected

    def forget(self, expected: Expected) -> None:
        """Wait for these no more."""
        for name, future in expected.futures.items():
            others = [other for other in self._waiting.get(name, ()) if other is not future]
            if others:
                self._waiting[name] = others
            else:
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
                    for future in self._waiting.pop(name, ()):
                        if not future.done():
                            future.set_result(applied)
                await asyncio.sleep(_LOOK_EVERY_S)
        except StoreError:
            pass  # whoever waits is answered what is known; the next caller looks again
        finally:
            self._task = None


class Expected:
    """The records of one call on their way."""

    def __init__(self, outcomes: Outcomes, futures: dict[str, asyncio.Future[Applied]]) -> None:
        self._outcomes = outcomes
        self.futures = futures

    async def within(self, seconds: float) -> dict[str, Applied]:
        """What became of them, of as many as were applied in time."""
        try:
            await asyncio.wait(self.futures.values(), timeout=seconds)
        finally:
            self.forget()
        return {name: future.result() for name, future in self.futures.items() if future.done()}

    def forget(self) -> None:
        """Wait for them no more."""
        self._outcomes.forget(self)
