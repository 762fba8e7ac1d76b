"""The client for asyncio."""

from __future__ import annotations

import asyncio
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


class AsyncClient:
    """Talks to a served project; see `Client` for arguments and errors."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 2.0, retries: int = 3) -> None:
        httpx = import_httpx()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._errors = (httpx.TransportError,)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=headers)
        self._retries = retries
        self._url = url

    async def decide(
        self, name: str, request: Mapping[str, Any] | bytes, *, decision_id: str | None = None
    ) -> Decided:
        """Ask for a decision; see `Client.decide`."""
        return await self._send(decide_call(name, request, decision_id))

    async def observe(
        self, source: str, event: Mapping[str, Any] | bytes, *, operation: str = "insert", revision: int = 0
    ) -> Receipt:
        """Send one event; see `Client.observe`."""
        return (await self._send(observe_call(source, [event], operation, revision)))[0]

    async def observe_many(self, source: str, events: Sequence[Mapping[str, Any] | bytes]) -> list[Receipt]:
        """Send events of one source in one request."""
        return await self._send(observe_call(source, events, "insert", 0)) if events else []

    async def receipt(self, receipt_id: str) -> Receipt:
        """How an accepted event ended, as far as it has."""
        return await self._send(receipt_call(receipt_id))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    async def _send(self, call: Call[T]) -> T:
        tries = Tries(self._url, call.path, self._retries)
        while True:
            try:
                answer = await self._http.request(
                    call.method, call.path, content=call.body, headers=call.headers
                )
            except self._errors as error:
                wait = tries.failed(f"{type(error).__name__}: {error}")
            else:
                if answer.status_code not in BUSY:
                    return read_answer(call, answer.status_code, answer.content)
                wait = tries.failed(f"it answered {answer.status_code}", answer.headers)
            await asyncio.sleep(wait)
