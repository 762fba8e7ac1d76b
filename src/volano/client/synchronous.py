"""The client for ordinary code. Safe to share among threads."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from volano.client.answers import Decided, Receipt
from volano.client.calls import (
    BUSY,
    Call,
    Tries,
    decide_call,
    observe_call,
    read_answer,
    receipt_call,
)
from volano.client.transport import import_httpx

T = TypeVar("T")


class Client:
    """Talks to a served project.

    Args:
        url: where it is served, such as `http://127.0.0.1:8066`.
        token: made by `volano token create`; None where none is needed.
        timeout: seconds that one try may take.
        retries: how often a call is sent again when nobody answers or the server is busy. Safe: decisions carry an id,
            observations are recognised by theirs.

    Raises:
        MissingExtraError: the extra `client` is not installed.
    """

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 2.0, retries: int = 3) -> None:
        httpx = import_httpx()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._errors = (httpx.TransportError,)
        self._http = httpx.Client(base_url=url, timeout=timeout, headers=headers)
        self._retries = retries
        self._url = url

    def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> Decided:
        """Ask for a decision.

        Args:
            name: of the decision.
            request: field values by name, or JSON.
            decision_id: yours, to find it by later; one is made when None.

        Raises:
            RefusedError: the request does not fit, the decision is unknown, or the token may not.
            UnreachableError: no answer after all retries.
        """
        return self._send(decide_call(name, request, decision_id))

    def observe(
        self, source: str, event: Mapping[str, Any] | bytes, *, operation: str = "insert", revision: int = 0
    ) -> Receipt:
        """Send one event; it is on the server's disk when this returns.

        Args:
            operation: `insert` states a row; `correct` and `retract` replace it by id.
            revision: 0 for an insert, higher for what replaces it.
        """
        return self._send(observe_call(source, [event], operation, revision))[0]

    def observe_many(self, source: str, events: Sequence[Mapping[str, Any] | bytes]) -> list[Receipt]:
        """Send events of one source in one request; one receipt each, in order."""
        return self._send(observe_call(source, events, "insert", 0)) if events else []

    def receipt(self, receipt_id: str) -> Receipt:
        """How an accepted event ended, as far as it has."""
        return self._send(receipt_call(receipt_id))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _send(self, call: Call[T]) -> T:
        tries = Tries(self._url, call.path, self._retries)
        while True:
            try:
                answer = self._http.request(call.method, call.path, content=call.body, headers=call.headers)
            except self._errors as error:
                wait = tries.failed(f"{type(error).__name__}: {error}")
            else:
                if answer.status_code not in BUSY:
                    return read_answer(call, answer.status_code, answer.content)
                wait = tries.failed(f"it answered {answer.status_code}", answer.headers)
            time.sleep(wait)
