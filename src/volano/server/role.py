"""One process of `volano serve`: `python -m volano.server.role ROLE ...`. Started and watched by the supervisor.

Says `ready` on standard output when it is; stops in good order on SIGTERM, SIGINT, and when standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread, Timer
from types import FrameType
from typing import Final

from volano.errors import VolanoError
from volano.runtime.applied import Applied, get_applied
from volano.runtime.clock import FileClock, SystemClock
from volano.runtime.config import Config, read_config
from volano.runtime.processes.applier import run_applier
from volano.runtime.processes.committer import run_committer
from volano.runtime.processes.supervisor import READY
from volano.runtime.session import Session
from volano.runtime.stores import Stores

APPLIER, COMMITTER, WORKER = "applier", "committer", "worker"
STOPPING_S: Final = 1.0
"""How long a worker that is to end answers 503: callers that hold a connection learn that it goes."""


def main(arguments: list[str] | None = None) -> int:
    """Run one role until told to stop; returns the exit status."""
    given = _parse(arguments)
    folder = Path(given.folder)
    clock = SystemClock() if given.clock is None else FileClock(given.clock)
    try:
        if given.role == WORKER:
            _run_worker(folder, given.name, clock, given.fd, needs_token=given.needs_token)
        else:
            _run_background(folder, given.role, clock)
    except VolanoError as error:
        _say(f"{given.name}: {error}")
        return 1
    return 0


def _run_background(folder: Path, role: str, clock: SystemClock | FileClock) -> None:
    stop = Event()

    def ask(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, ask)
    _when_orphaned(stop.set)
    config: Config = read_config(folder)
    stores = Stores(folder, config)
    try:

        def open_session(applied: Applied) -> Session:
            return Session(stores, applied, clock, os.urandom, applies=role == APPLIER)

        session = open_session(get_applied(stores.catalog))
        if role == APPLIER:
            run_applier(session, open_session, stop, _ready, _say)
        else:
            run_committer(session, stop, _ready, _say)
    finally:
        stores.close()


def _run_worker(
    folder: Path, name: str, clock: SystemClock | FileClock, fd: int, *, needs_token: bool
) -> None:
    import uvicorn

    from volano.runtime.processes.worker import Worker
    from volano.runtime.tokens import Tokens, list_tokens
    from volano.server.app import App

    worker = Worker(folder, name, clock, os.urandom)
    config = worker.stores.config
    app = App(
        worker,
        tokens=lambda: Tokens(list_tokens(worker.stores.catalog)),
        needs_token=needs_token,
        most_body_bytes=config.max_body_mib << 20,
        most_batch_events=config.max_batch_events,
        most_behind_bytes=config.max_behind_mib << 20,
        say=lambda line: _say(f"{name}: {line}"),
    )

    class Server(uvicorn.Server):
        """Refuses for a moment what is new, then ends what is under way, then itself."""

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            if app.is_stopping:
                self.should_exit = True
                return
            app.stop()
            Timer(STOPPING_S, lambda: setattr(self, "should_exit", True)).start()

    server = Server(
        uvicorn.Config(
            app,
            http="httptools",
            loop="uvloop",
            interface="asgi3",
            lifespan="on",
            access_log=False,
            log_level="warning",
            server_header=False,
            backlog=2048,
            timeout_graceful_shutdown=20,
        )
    )
    _when_orphaned(lambda: server.handle_exit(signal.SIGTERM, None))
    announced = Thread(target=_announce, args=(server,), daemon=True)
    announced.start()
    try:
        server.run(sockets=[socket.socket(fileno=fd)])
    finally:
        worker.close()


def _announce(server: object) -> None:
    """Say ready once the server takes connections."""
    pause = Event()
    while not getattr(server, "started", False):
        if getattr(server, "should_exit", False):
            return
        pause.wait(0.01)
    _ready()


def _when_orphaned(stop: Callable[[], None]) -> None:
    """Stop when the supervisor is gone: it holds the other end of standard input."""

    def wait() -> None:
        with contextlib.suppress(OSError):
            while os.read(0, 1):
                pass
        stop()

    Thread(target=wait, name="orphaned", daemon=True).start()


def _ready() -> None:
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()


def _say(line: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk ends no process
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="volano.server.role")
    parser.add_argument("role", choices=[APPLIER, COMMITTER, WORKER])
    parser.add_argument("--folder", required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--fd", type=int, default=-1)
    parser.add_argument("--needs-token", action="store_true")
    parser.add_argument("--clock", type=Path, help="a replay clock in place of the machine's")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
