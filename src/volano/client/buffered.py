"""Observations with a durable spool: taken at once, sent in batches in the background, also after a restart."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from importlib.metadata import entry_points
from pathlib import Path
from threading import Event, Thread
from typing import Any, Final, NamedTuple, Self

import msgspec

from volano.client.answers import RefusedError, UnreachableError
from volano.client.answers import encode as encode_json
from volano.client.synchronous import Client
from volano.errors import StoreFullError
from volano.protocols.journal import JournalReader, JournalWriter
from volano.records.answers import ReceiptAnswer as Receipt

_SENT: Final = "sent.json"
_BATCH: Final = 500
_PAUSE_S: Final = 0.05
_LOOK_EVERY_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 5.0


class Spooled(NamedTuple):
    """One event that waits to be sent."""

    source: str
    event: bytes


class BufferedObserver:
    """Takes observations without waiting for the network; nothing is lost when either side goes down.

    What it took is on this machine's disk until it was sent. It is sent in order, at least once; the server recognises
    what came twice by the event's own id. What the server refuses is kept in the folder's `refused` journal, with the
    reason.
    One process a folder.

    Args:
        client: sends.
        folder: the spool.
        segment_bytes: how large one of its files grows; what was sent is deleted a file at a time.
        most_waiting_bytes: `observe` refuses while more waits.
        on_receipt: hears how the server took each event, also those it refused; called in the sending thread.

    Raises:
        StoreBusyError: another process uses the folder.
    """

    def __init__(
        self,
        client: Client,
        folder: str | Path,
        *,
        most_waiting_bytes: int = 1 << 30,
        segment_bytes: int = 8 << 20,
        on_receipt: Callable[[Spooled, Receipt], None] | None = None,
    ) -> None:
        self._client = client
        self._folder = Path(folder)
        self._writer: JournalWriter = _adapter("journal_writer.file")(
            self._folder, "spool", segment_bytes=segment_bytes
        )
        self._reader: JournalReader = _adapter("journal_reader.file")(self._folder)
        self._refused: JournalWriter = _adapter("journal_writer.file")(self._folder / "refused", "spool")
        self._most_waiting_bytes = most_waiting_bytes
        self._on_receipt = on_receipt
        self._cursor = self._read_cursor()
        self._forget()  # what a crash left
        self.trouble = ""
        """Why nothing could be sent at the last try; empty when something could."""
        self._wake = Event()
        self._stop = Event()
        self._thread = Thread(target=self._run, name="volano-spool", daemon=True)
        self._thread.start()

    def observe(self, source: str, event: Mapping[str, Any] | bytes, *, sync: bool = False) -> None:
        """Take one event.

        Args:
            sync: whether it must survive a loss of power here before this returns; a kill it survives anyway.

        Raises:
            StoreFullError: the spool or the disk is full.
        """
        if self.waiting_bytes > self._most_waiting_bytes:
            raise StoreFullError(
                "The spool is full: more waits to be sent than it may hold.",
                where=str(self._folder),
                mend="see whether the server can be reached; or allow more with most_waiting_bytes",
            )
        data = event if isinstance(event, bytes) else encode_json(event)
        self._writer.append([msgspec.msgpack.encode((source, data))], sync=sync)
        self._wake.set()

    @property
    def waiting_bytes(self) -> int:
        """How much waits to be sent."""
        return self._reader.behind(self._cursor)

    def flush(self, timeout: float | None = None) -> bool:
        """Wait until everything taken so far was sent; False when that took longer than `timeout` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        self._wake.set()
        while self.waiting_bytes:
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_LOOK_EVERY_S)
        return True

    def close(self, timeout: float | None = 10.0) -> None:
        """Send what is left, for at most `timeout` seconds; the rest is sent after the next start."""
        self.flush(timeout)
        self._stop.set()
        self._wake.set()
        self._thread.join()
        self._writer.close()
        self._refused.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _run(self) -> None:
        pause = _PAUSE_S
        while not self._stop.is_set():
            entries = self._reader.read(self._cursor, limit=_BATCH)
            if not entries:
                self._wake.wait(1.0)
                self._wake.clear()
                continue
            spooled = [Spooled(*msgspec.msgpack.decode(entry.record)) for entry in entries]
            try:
                n_sent = self._send_front(spooled)
            except Exception as error:  # noqa: BLE001 - a callback's mistake must not end the sending
                self.trouble = f"{type(error).__name__}: {error}"
                n_sent = 0
            if n_sent == 0:
                self._stop.wait(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_S)
                continue
            pause = _PAUSE_S
            # A new dict each time: `waiting_bytes` reads it in other threads.
            self._cursor = self._cursor | {segment: end for segment, _, end, _ in entries[:n_sent]}
            self._write_cursor()
            self._forget()

    def _send_front(self, spooled: list[Spooled]) -> int:
        """Send the events of one source at the front; returns how many are done with."""
        source = spooled[0].source
        n = next((n for n, one in enumerate(spooled) if one.source != source), len(spooled))
        front = spooled[:n]
        try:
            receipts = self._client.observe_many(source, [one.event for one in front])
        except UnreachableError as error:
            self.trouble = str(error)
            return 0
        except RefusedError as error:
            if error.status in (
                401,
                403,
                404,
            ):  # may be mended on the server's side: nothing is thrown away for it
                self.trouble = str(error)
                return 0
            if n > 1:
                return self._send_front(spooled[:1])  # find the one that breaks the batch
            receipts = [Receipt("", "refused", error.kind, "", error.what)]
            self._refused.append([msgspec.msgpack.encode((*front[0], error.kind, error.what))], sync=True)
        self.trouble = ""
        if self._on_receipt is not None:
            for one, receipt in zip(front, receipts, strict=True):
                self._on_receipt(one, receipt)
        return n

    def _forget(self) -> None:
        """Delete what was sent, a segment at a time: written down first, so that none of it is missed."""
        if len(self._cursor) < 2:
            return
        gone = self._writer.forget(self._cursor)
        if gone:
            self._cursor = {segment: end for segment, end in self._cursor.items() if segment not in gone}
            self._write_cursor()

    def _read_cursor(self) -> dict[str, int]:
        try:
            return msgspec.json.decode((self._folder / _SENT).read_bytes(), type=dict[str, int])
        except FileNotFoundError:
            return {}

    def _write_cursor(self) -> None:
        fresh = self._folder / f".{_SENT}.{os.getpid()}"
        fresh.write_bytes(msgspec.json.encode(self._cursor))
        fresh.replace(self._folder / _SENT)


def _adapter(name: str) -> Any:
    """A store by its entry point: the client knows no adapter."""
    (found,) = entry_points(group="volano.stores", name=name)
    return found.load()
