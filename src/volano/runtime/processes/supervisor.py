"""The supervisor: starts the processes of `volano serve`, restarts whichever dies, stops them in order.

Knows commands, not what they do. A process says `ready` on its standard output when it is; nothing is started before
what it needs is ready. A process sees its standard input end when the supervisor is gone, however that happened, and
stops.
"""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Event
from typing import Final

from volano.errors import NotReadyError

READY: Final = b"ready\n"
_LOOK_EVERY_S: Final = 0.1
_FIRST_WAIT_S: Final = 0.1
_LONGEST_WAIT_S: Final = 10.0
_STEADY_S: Final = 20.0
"""A process that lived as long is restarted at once when it dies."""


@dataclass(frozen=True)
class Command:
    """One process to keep alive.

    Args:
        role: its name, in messages and beats.
        argv: what to run.
        pass_fds: file descriptors that it inherits.
        stage: processes of a stage start together, after those of lower ones are ready, and stop before them.
        patience_s: how long it may take to become ready, or to stop before it is killed.
    """

    role: str
    argv: tuple[str, ...]
    pass_fds: tuple[int, ...] = ()
    stage: int = 0
    patience_s: float = 120.0


@dataclass
class _Child:
    command: Command
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    wait_s: float = 0.0
    restart_at: float = 0.0
    restarts: int = field(default=0)


class Supervisor:
    """Keeps processes alive until told to stop.

    Args:
        commands: what to run.
        say: hears one line an occurrence.
    """

    def __init__(self, commands: Sequence[Command], say: Callable[[str], None]) -> None:
        self._children = [_Child(command) for command in sorted(commands, key=lambda one: one.stage)]
        self._say = say

    @property
    def restarts(self) -> int:
        """How often any process had to be started again."""
        return sum(child.restarts for child in self._children)

    def pid(self, role: str) -> int | None:
        """The process id of a role; None while it is down."""
        for child in self._children:
            if child.command.role == role and child.process is not None:
                return child.process.pid
        return None

    def start(self, stop: Event) -> None:
        """Start everything, stage by stage.

        Raises:
            NotReadyError: a process ended, or was not ready in time; those already started are stopped.
        """
        try:
            for stage in sorted({child.command.stage for child in self._children}):
                together = [child for child in self._children if child.command.stage == stage]
                if stop.is_set():
                    return
                for child in together:
                    self._start(child)
                for child in together:
                    self._await_ready(child, stop)
        except BaseException:
            self.stop()
            raise

    def watch(self, stop: Event) -> None:
        """Restart what dies until `stop` is set."""
        while not stop.wait(_LOOK_EVERY_S):
            for child in self._children:
                self._look(child)

    def stop(self) -> None:
        """Ask the processes to end, the highest stage first, and wait; kill those that do not."""
        for stage in sorted({child.command.stage for child in self._children}, reverse=True):
            standing = [child for child in self._children if child.command.stage == stage]
            for child in standing:
                if child.process is not None and child.process.poll() is None:
                    child.process.terminate()
            for child in standing:
                self._await_end(child)

    def _start(self, child: _Child) -> None:
        command = child.command
        child.process = subprocess.Popen(
            command.argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=command.pass_fds,
            start_new_session=True,
        )
        child.started_at = time.monotonic()

    def _await_ready(self, child: _Child, stop: Event) -> None:
        process, role, patience_s = child.process, child.command.role, child.command.patience_s
        assert process is not None and process.stdout is not None
        deadline = time.monotonic() + patience_s
        said = b""
        while not said.endswith(b"\n"):
            if stop.is_set():
                return
            if time.monotonic() > deadline:
                raise NotReadyError(
                    f"The {role} was not ready within {patience_s:.0f} s.",
                    where=role,
                    mend="see what it wrote above; a machine that is merely slow needs another try",
                )
            if select.select([process.stdout], [], [], _LOOK_EVERY_S)[0]:
                part = os.read(process.stdout.fileno(), len(READY))
                if not part:  # a process that ends closes its output
                    break
                said += part
        if said != READY:
            raise NotReadyError(
                f"The {role} ended before it was ready.",
                where=role,
                mend="see what it wrote above; mend that, start again",
            )

    def _look(self, child: _Child) -> None:
        now = time.monotonic()
        if child.process is not None:
            code = child.process.poll()
            if code is None:
                return
            self._close(child)
            steady = now - child.started_at >= _STEADY_S
            child.wait_s = 0.0 if steady else min(max(child.wait_s * 2, _FIRST_WAIT_S), _LONGEST_WAIT_S)
            child.restart_at = now + child.wait_s
            how = f"signal {-code}" if code < 0 else f"exit {code}"
            self._say(f"{child.command.role} ended ({how}); it starts again in {child.wait_s:.1f} s")
        if now >= child.restart_at:
            child.restarts += 1
            self._start(child)

    def _await_end(self, child: _Child) -> None:
        process = child.process
        if process is None:
            return
        try:
            process.wait(child.command.patience_s)
        except subprocess.TimeoutExpired:
            self._say(f"{child.command.role} did not end in time and is killed; nothing accepted is lost")
            process.kill()
            process.wait()
        self._close(child)

    def _close(self, child: _Child) -> None:
        process = child.process
        if process is not None:
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()
        child.process = None
