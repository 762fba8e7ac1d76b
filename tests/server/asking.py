"""Asks an application without a network: its lifespan is run, each request is one call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from volano.runtime.clock import SystemClock
from volano.runtime.processes.worker import Worker, random_bytes
from volano.runtime.tokens import Tokens, list_tokens
from volano.server.app import App


class Answered(NamedTuple):
    """Status, headers and decoded body."""

    status: int
    headers: dict[str, str]
    body: Any


class Asker:
    """Sends requests to an application."""

    def __init__(self, app: App, worker: Worker) -> None:
        self.app = app
        self.worker = worker
        self.said: list[str] = []

    async def ask(
        self, method: str, path: str, body: bytes | object = b"", headers: dict[str, str] | None = None
    ) -> Answered:
        """One request."""
        path, _, query = path.partition("?")
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        messages = iter(
            [
                {"type": "http.request", "body": data[: len(data) // 2], "more_body": True},
                {"type": "http.request", "body": data[len(data) // 2 :], "more_body": False},
            ]
        )
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        given = {"content-length": str(len(data)), **(headers or {})}
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "query_string": query.encode(),
            "headers": [(name.lower().encode(), value.encode()) for name, value in given.items()],
        }
        await self.app(scope, receive, send)
        names = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        content = sent[1]["body"]
        is_json = "json" in names.get("content-type", "")
        return Answered(sent[0]["status"], names, msgspec.json.decode(content) if is_json else content)


@asynccontextmanager
async def asker(folder: Path, *, name: str = "worker_0", **options: Any) -> AsyncIterator[Asker]:
    """An application over a project, started up; shut down at the end."""
    worker = Worker(folder, name, SystemClock(), random_bytes)
    said: list[str] = []
    settings = {
        "needs_token": False,
        "most_body_bytes": 1 << 20,
        "most_batch_events": 10_000,
        "most_behind_bytes": 1 << 28,
        **options,
    }
    app = App(worker, tokens=lambda: Tokens(list_tokens(worker.stores.catalog)), say=said.append, **settings)
    asking = Asker(app, worker)
    asking.said = said
    messages: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    answers: asyncio.Queue[Any] = asyncio.Queue()
    lifespan = asyncio.create_task(app({"type": "lifespan"}, messages.get, answers.put))
    await messages.put({"type": "lifespan.startup"})
    started = await answers.get()
    assert started["type"] == "lifespan.startup.complete", started
    try:
        yield asking
    finally:
        await messages.put({"type": "lifespan.shutdown"})
        await lifespan
        worker.close()


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a coroutine function to its end."""
    asyncio.run(work())
