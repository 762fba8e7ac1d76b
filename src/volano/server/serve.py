"""`volano serve`, the whole of it: one socket, an applier, a committer and workers under a supervisor."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event

from volano.errors import ConfigError, MissingExtraError, StoreBusyError
from volano.runtime.applied import get_applied
from volano.runtime.clock import SystemClock
from volano.runtime.config import read_config
from volano.runtime.locks import FolderLock, serving_lock
from volano.runtime.processes.beats import Beat, Beats
from volano.runtime.processes.supervisor import Command, Supervisor
from volano.runtime.stores import Stores
from volano.runtime.tokens import Tokens, list_tokens
from volano.server.role import APPLIER, COMMITTER, WORKER


def serve(
    folder: Path,
    host: str,
    port: int,
    *,
    workers: int,
    stop: Event,
    say: Callable[[str], None],
    replay: Path | None = None,
) -> None:
    """Serve a project until `stop` is set, then drain: no request is cut off, everything accepted is committed.

    Args:
        port: 0 takes a free one; `say` hears which.
        workers: how many HTTP workers.
        replay: the file of a `FileClock` that every process goes by, for a rehearsal; `say` hears of it.

    Raises:
        ConfigError: the address lies beyond loopback and the project has no token; or it is taken.
        NotReadyError: nothing is applied yet, or a process did not start.
        MissingExtraError: the extra `serve` is not installed.
    """
    _require_extra()
    folder, say = folder.resolve(), _tolerant(say)
    beats = Beats((folder / read_config(folder).data).resolve())
    with _alone(beats), _listen(host, port) as listener:
        _check(folder, host)
        beats.clear()
        address = _address(listener)
        options = () if replay is None else ("--clock", str(replay.resolve()))
        commands = _commands(folder, listener, workers, options, needs_token=not _is_loopback(host))
        supervisor = Supervisor(commands, say)
        try:
            supervisor.start(stop)
            beats.write(Beat("supervisor", os.getpid(), SystemClock().now(), address=address))
            if replay is not None:
                say(f"a rehearsal: time stands in {replay}")
            say(f"serving at {address}")
            supervisor.watch(stop)
            say("stopping: requests under way end, then everything accepted is applied and committed")
        finally:
            listener.close()
            supervisor.stop()
            beats.clear()


def _commands(
    folder: Path, listener: socket.socket, workers: int, options: tuple[str, ...], *, needs_token: bool
) -> list[Command]:
    def argv(role: str, name: str, *more: str) -> tuple[str, ...]:
        return (
            sys.executable,
            "-m",
            "volano.server.role",
            role,
            "--folder",
            str(folder),
            "--name",
            name,
            *options,
            *more,
        )

    listening = ("--fd", str(listener.fileno()), *(("--needs-token",) if needs_token else ()))
    return [
        Command(APPLIER, argv(APPLIER, APPLIER), stage=0),
        Command(COMMITTER, argv(COMMITTER, COMMITTER), stage=-1),
        *(
            Command(
                f"{WORKER}_{n}",
                argv(WORKER, f"{WORKER}_{n}", *listening),
                pass_fds=(listener.fileno(),),
                stage=1,
                patience_s=30.0,
            )
            for n in range(workers)
        ),
    ]


def _tolerant(say: Callable[[str], None]) -> Callable[[str], None]:
    """Says what can be said: a log on a full disk ends no server."""

    def tolerant(line: str) -> None:
        with suppress(OSError):
            say(line)

    return tolerant


def _alone(beats: Beats) -> FolderLock:
    """The lock that says that the project is served, for as long as it is."""
    try:
        return serving_lock(beats.data).take("serves this project")
    except StoreBusyError as error:
        running = beats.read("supervisor")
        at = "" if running is None else f", at {running.address} (process {running.pid})"
        raise StoreBusyError(
            f"This project is served already{at}.", where=str(beats.data), mend="stop that one first"
        ) from error


def _check(folder: Path, host: str) -> None:
    """What must hold before anything starts."""
    stores = Stores(folder, read_config(folder))
    try:
        get_applied(stores.catalog)
        if not _is_loopback(host) and not len(Tokens(list_tokens(stores.catalog))):
            raise ConfigError(
                f"{host} can be reached from other machines, and this project has no token.",
                where="--host",
                mend="run `volano token create NAME --role ...` first, or listen on 127.0.0.1",
            )
    finally:
        stores.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"Cannot listen at {host} port {port}: {error.strerror}.",
            where="--host, --port",
            mend="stop what listens there, or choose another port (0 takes a free one)",
        ) from error
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _require_extra() -> None:
    try:
        import httptools
        import uvicorn
        import uvloop
    except ImportError as error:
        raise MissingExtraError(
            f"`volano serve` needs {error.name}, which is not installed.", mend="pip install 'volano[serve]'"
        ) from error
    del httptools, uvicorn, uvloop
