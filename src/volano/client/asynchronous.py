"""The client for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Self, TypeVar

from volano.client.calls import BUSY, Call, Tries, read_answer
from volano.client.transport import import_httpx
from volano.client.verbs import Verbs
from volano.records.answers import Decided, LoggedAnswer
from volano.records.answers import ReceiptAnswer as Receipt

T = TypeVar("T")


class AsyncClient(
    Verbs[Awaitable[Decided], Awaitable[Receipt], Awaitable[list[Receipt]], Awaitable[LoggedAnswer]]
):
    """Talks to a served project from asyncio: each verb of `Client`, awaited."""

    def __init__(self, url: str, *, token: str | None = None, timeout: float = 2.0, retries: int = 3) -> None:
        httpx = import_httpx()
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._errors = (httpx.TransportError,)
        self._http = httpx.AsyncClient(base_url=url, timeout=timeout, headers=headers)
        self._retries = retries
        self._url = url

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
