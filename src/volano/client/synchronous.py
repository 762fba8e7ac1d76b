"""The client for ordinary code. Safe to share among threads."""

from __future__ import annotations

import time
from typing import Self, TypeVar

from volano.client.calls import BUSY, Call, Tries, read_answer
from volano.client.transport import import_httpx
from volano.client.verbs import Verbs
from volano.records.answers import Decided, LoggedAnswer
from volano.records.answers import ReceiptAnswer as Receipt

T = TypeVar("T")


class Client(Verbs[Decided, Receipt, list[Receipt], LoggedAnswer]):
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
