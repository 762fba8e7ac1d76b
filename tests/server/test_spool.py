"""The spool against a server that refuses, and a callback that fails: nothing disappears."""

from __future__ import annotations

from pathlib import Path

import msgspec

from volano.client import BufferedObserver, Receipt, RefusedError, UnreachableError
from volano.stores.file_journal import FileJournalReader


class _Refusing:
    """Stands for a client whose server refuses one event, alone or in a batch."""

    def observe_many(self, source: str, events: list[bytes]) -> list[Receipt]:
        if b"bad" in events:
            raise RefusedError(413, "too_large", "A body may have 16 MiB.")
        return [Receipt(f"r-{event.decode()}", "pending") for event in events]


def test_what_is_refused_is_kept_with_the_reason_and_its_neighbours_are_sent(tmp_path: Path) -> None:
    told: list[str] = []
    spool = BufferedObserver(_Refusing(), tmp_path, on_receipt=lambda _, receipt: told.append(receipt.status))  # type: ignore[arg-type]
    for event in (b"one", b"bad", b"two"):
        spool.observe("orders", event)
    assert spool.flush(30)
    spool.close()
    assert told == ["pending", "refused", "pending"]
    kept = FileJournalReader(tmp_path / "refused").read({}, limit=10)
    assert [msgspec.msgpack.decode(entry.record) for entry in kept] == [
        ["orders", b"bad", "too_large", "A body may have 16 MiB."]
    ]


def test_a_callback_that_fails_stops_nothing(tmp_path: Path) -> None:
    calls: list[str] = []

    def fail_once(_: object, receipt: Receipt) -> None:
        calls.append(receipt.receipt_id)
        if len(calls) == 1:
            raise ValueError("not today")

    spool = BufferedObserver(_Refusing(), tmp_path, on_receipt=fail_once)  # type: ignore[arg-type]
    spool.observe("orders", b"one")
    assert spool.flush(30)
    spool.close()
    assert calls == ["r-one", "r-one"]


class _Taking:
    """Stands for a client whose server takes everything, and may be away."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.is_away = False

    def observe_many(self, source: str, events: list[bytes]) -> list[Receipt]:
        if self.is_away:
            raise UnreachableError("nobody answers")
        self.taken += events
        return [Receipt("r", "pending") for _ in events]


def test_what_was_sent_is_deleted_and_what_was_not_is_sent_after_a_restart(tmp_path: Path) -> None:
    server, events = _Taking(), [b"%04d" % n + b"x" * 200 for n in range(400)]
    spool = BufferedObserver(server, tmp_path, segment_bytes=4_000)  # type: ignore[arg-type]
    for event in events[:300]:
        spool.observe("orders", event)
    assert spool.flush(30)
    assert spool.waiting_bytes == 0
    spool.close()
    assert len(list(tmp_path.glob("spool-*"))) <= 2
    server.is_away = True
    spool = BufferedObserver(server, tmp_path, segment_bytes=4_000)  # type: ignore[arg-type]
    for event in events[300:]:
        spool.observe("orders", event)
    assert not spool.flush(0.2)
    spool.close(timeout=0.1)
    assert len(list(tmp_path.glob("spool-*"))) > 2
    server.is_away = False
    spool = BufferedObserver(server, tmp_path, segment_bytes=4_000)  # type: ignore[arg-type]
    assert spool.flush(30)
    spool.close()
    assert server.taken == events
    assert len(list(tmp_path.glob("spool-*"))) <= 2
