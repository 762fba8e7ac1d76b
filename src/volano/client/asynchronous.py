"""The client for asyncio."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Self, TypeVar

from volano.client.answers import Decided, Receipt, UnreachableError
from volano.client.calls import (
    BUSY,
    Call,
    decide_call,
    observe_call,
    read_answer,
    receipt_call,
    retry_after,
    waits,
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
        told = "nothing was tried"
        pause = waits(self._retries, random.random)
        while True:
            wait = next(pause, None)
            try:
                answer = await self._http.request(
                    call.method, call.path, content=call.body, headers=call.headers
                )
            except self._errors as error:
                told = f"{type(error).__name__}: {error}"
            else:
                if answer.status_code not in BUSY:
                    return read_answer(call, answer.status_code, answer.content)
                told = f"it answered {answer.status_code}"
                wait = None if wait is None else retry_after(answer.headers, wait)
            if wait is None:
                raise UnreachableError(
                    f"{self._url} gave no answer in {self._retries + 1} tries; at last {told}.",
                    where=call.path,
                    mend="see whether `volano serve` runs there; then call again",
                )
            await asyncio.sleep(wait)
