"""One call as data: what is sent, how an answer is read, when it is worth another try. Shared by both clients."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from volano.client.answers import (
    UnreachableError,
    decode_decided,
    decode_logged,
    decode_receipt,
    decode_receipts,
    encode,
    refusal,
)
from volano.records.answers import Decided, LoggedAnswer
from volano.records.answers import ReceiptAnswer as Receipt
from volano.values.identities import uuid7

T = TypeVar("T")

BUSY: Final = frozenset({429, 502, 503, 504})
"""Answers that say: later."""
_FIRST_WAIT_S: Final = 0.05


class Call(NamedTuple, Generic[T]):
    """One request and how its answer reads. Every call may be sent twice: it carries an id of its own."""

    method: str
    path: str
    body: bytes | None
    headers: dict[str, str]
    read: Callable[[bytes], T]


def decide_call(name: str, request: Mapping[str, Any] | bytes, decision_id: str | None) -> Call[Decided]:
    """Ask for a decision. Without an id of the caller's one is made here, so that a retry is the same decision."""
    if decision_id is None:
        decision_id = new_id()
    body = request if isinstance(request, bytes) else encode(request)
    return Call(
        "POST",
        f"/v1/decide/{quote(name, safe='')}",
        body,
        {"Volano-Decision-Id": decision_id},
        decode_decided,
    )


def observe_call(
    source: str, event: Mapping[str, Any] | bytes, operation: str, revision: int, wait: bool
) -> Call[Receipt]:
    """Send one event."""
    many = _observe_call(source, [event], operation, revision, wait)
    return Call(many.method, many.path, many.body, many.headers, lambda body: many.read(body)[0])


def observe_many_call(
    source: str, events: Sequence[Mapping[str, Any] | bytes], wait: bool
) -> Call[list[Receipt]]:
    """Send events of one source."""
    return _observe_call(source, events, "insert", 0, wait)


def _observe_call(
    source: str, events: Sequence[Mapping[str, Any] | bytes], operation: str, revision: int, wait: bool
) -> Call[list[Receipt]]:
    asked = {} if operation == "insert" else {"operation": operation, "revision": str(revision)}
    path = f"/v1/observe/{quote(source, safe='')}{_query(asked, wait)}"
    parts = [event if isinstance(event, bytes) else encode(event) for event in events]
    if len(parts) == 1 and not parts[0].lstrip().startswith(b"["):
        # An event alone goes as it is: one that is no JSON ends in quarantine, not as a broken batch.
        return Call("POST", path, parts[0], {}, lambda body: [decode_receipt(body)])
    return Call("POST", path, b"[" + b",".join(parts) + b"]", {}, decode_receipts)


def log_decision_call(name: str, logged: Mapping[str, Any], wait: bool) -> Call[LoggedAnswer]:
    """Log a decision made elsewhere."""
    path = f"/v1/decisions/{quote(name, safe='')}{_query({}, wait)}"
    return Call("POST", path, encode(logged), {}, decode_logged)


def _query(asked: dict[str, str], wait: bool) -> str:
    if wait:
        asked = {**asked, "wait": "true"}
    return "?" + urlencode(asked) if asked else ""


def new_id() -> str:
    """An id for what has none: made once, so that a retry is the same."""
    return uuid7(time.time_ns() // 1_000, os.urandom(8))


def now() -> datetime:
    """The caller's time."""
    return datetime.now(UTC)


def receipt_call(receipt_id: str) -> Call[Receipt]:
    """Ask how an event ended."""
    return Call("GET", f"/v1/receipts/{quote(receipt_id, safe='')}", None, {}, decode_receipt)


def read_answer(call: Call[T], status: int, body: bytes) -> T:
    """What an answer says.

    Raises:
        RefusedError: the server refused.
    """
    if status >= 400:
        raise refusal(status, body)
    return call.read(body)


class Tries:
    """How often one call was tried, and whether it is worth another try.

    The waits double, each drawn from its upper half, so that callers spread.
    """

    def __init__(self, url: str, path: str, retries: int) -> None:
        self._url = url
        self._path = path
        self._retries = retries
        self._failed = 0

    def failed(self, told: str, headers: Mapping[str, str] | None = None) -> float:
        """Seconds to wait before the next try: longer where the server asks for it.

        Raises:
            UnreachableError: that was the last one.
        """
        self._failed += 1
        if self._failed > self._retries:
            raise UnreachableError(
                f"{self._url} gave no answer in {self._failed} tries; at last {told}.",
                where=self._path,
                mend="see whether `volano serve` runs there; then call again",
            )
        asked = "" if headers is None else headers.get("retry-after", "")
        doubled: float = _FIRST_WAIT_S * 2 ** (self._failed - 1)
        wait = doubled * (0.5 + random.random() / 2)
        return max(float(asked), wait) if asked.isdigit() else wait
