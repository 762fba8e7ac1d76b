"""One call as data: what is sent, how an answer is read, when it is worth another try. Shared by both clients."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from volano.client.answers import (
    Decided,
    Receipt,
    decode_decided,
    decode_receipt,
    decode_receipts,
    encode,
    refusal,
)
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
        decision_id = uuid7(time.time_ns() // 1_000, os.urandom(8))
    body = request if isinstance(request, bytes) else encode(request)
    return Call(
        "POST",
        f"/v1/decide/{quote(name, safe='')}",
        body,
        {"Volano-Decision-Id": decision_id},
        decode_decided,
    )


def observe_call(
    source: str, events: Sequence[Mapping[str, Any] | bytes], operation: str, revision: int
) -> Call[list[Receipt]]:
    """Send events of one source."""
    query = "" if operation == "insert" else "?" + urlencode({"operation": operation, "revision": revision})
    path = f"/v1/observe/{quote(source, safe='')}{query}"
    parts = [event if isinstance(event, bytes) else encode(event) for event in events]
    if len(parts) == 1 and not parts[0].lstrip().startswith(b"["):
        # An event alone goes as it is: one that is no JSON ends in quarantine, not as a broken batch.
        return Call("POST", path, parts[0], {}, lambda body: [decode_receipt(body)])
    return Call("POST", path, b"[" + b",".join(parts) + b"]", {}, decode_receipts)


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


def waits(retries: int, draw: Callable[[], float]) -> Iterator[float]:
    """Seconds to wait before each retry: doubling, each drawn from its upper half, so that callers spread."""
    for n in range(retries):
        yield _FIRST_WAIT_S * 2**n * (0.5 + draw() / 2)


def retry_after(headers: Mapping[str, str], otherwise: float) -> float:
    """What the server asks for, or `otherwise`."""
    asked = headers.get("retry-after", "")
    return max(float(asked), otherwise) if asked.isdigit() else otherwise
