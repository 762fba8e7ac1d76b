"""Group commit: what arrives during one fsync shares the next one. Bounded: what does not fit is refused at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from volano.protocols.journal import JournalWriter
from volano.server.problems import HttpError

MOST_WAITING_BYTES: Final = 64 << 20


class GroupCommit:
    """Appends records durably for many callers of one event loop.

    Args:
        journal: a writer of its own; only one thread at a time appends to it.
        most_waiting_bytes: how much may wait for the disk.
    """

    def __init__(self, journal: JournalWriter, *, most_waiting_bytes: int = MOST_WAITING_BYTES) -> None:
        self._journal = journal
        self._most_waiting_bytes = most_waiting_bytes
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="group-commit")
        self._records: list[bytes] = []
        self._callers: list[asyncio.Future[None]] = []
        self._n_bytes = 0
        self._task: asyncio.Task[None] | None = None

    async def append(self, records: Sequence[bytes]) -> None:
        """Return when the records survive a loss of power.

        Raises:
            HttpError: too much waits for the disk; nothing of this call is kept.
            StoreError: the disk refused; see `JournalWriter.append`.
        """
        if not records:
            return
        n_bytes = sum(map(len, records))
        if self._n_bytes + n_bytes > self._most_waiting_bytes:
            raise HttpError(
                429,
                "overloaded",
                "More waits for the disk than this worker holds.",
                mend="send again after Retry-After",
                retry_after_s=1,
            )
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._records.extend(records)
        self._callers.append(done)
        self._n_bytes += n_bytes
        if self._task is None:
            self._task = loop.create_task(self._write())
        await done

    async def close(self) -> None:
        """Wait for what is under way."""
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        while self._records:
            records, callers = self._records, self._callers
            self._records, self._callers, self._n_bytes = [], [], 0
            try:
                await loop.run_in_executor(self._thread, self._append, records)
            except Exception as error:  # every caller of the group hears of it
                for caller in callers:
                    if not caller.done():
                        caller.set_exception(error)
            else:
                for caller in callers:
                    if not caller.done():
                        caller.set_result(None)
        self._task = None

    def _append(self, records: list[bytes]) -> None:
        self._journal.append(records, sync=True)
