"""The floor of collect.py: the same HTTP server, the same group commit, and nothing else.

Every body becomes one record of a journal, as it came, and is answered after the fsync with a body of the same length
as the real answer. Nothing is decoded, checked or applied. Started as one process a worker; says `ready`.
"""

from __future__ import annotations

import argparse
import gc
import socket
import sys
from pathlib import Path
from typing import Any

import uvicorn

from volano.server.group_commit import GroupCommit
from volano.stores.file_journal import FileJournalWriter

ONE = b'{"receipt_id":"0198a7a0-0000-7000-8000-000000000000","status":"pending"}'


class BareAppend:
    """A plain ASGI application."""

    def __init__(self, commit: GroupCommit, answer: bytes) -> None:
        self._commit = commit
        self._start = {
            "type": "http.response.start",
            "status": 202,
            "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))],
        }
        self._body = {"type": "http.response.body", "body": answer}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            while (message := await receive())["type"] != "lifespan.shutdown":
                gc.collect()
                gc.freeze()
                await send({"type": message["type"] + ".complete"})
                sys.stdout.write("ready\n")
                sys.stdout.flush()
            await self._commit.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        await self._commit.append([b"".join(parts)])
        await send(self._start)
        await send(self._body)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    given = parser.parse_args()
    journal = FileJournalWriter(given.folder, given.name)
    answer = ONE if not given.batch else b"[" + b",".join([ONE] * given.batch) + b"]"
    server = uvicorn.Server(
        uvicorn.Config(
            BareAppend(GroupCommit(journal), answer),
            http="httptools",
            loop="uvloop",
            interface="asgi3",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=2048,
        )
    )
    server.run(sockets=[socket.socket(fileno=given.fd)])
    journal.close()


if __name__ == "__main__":
    main()
