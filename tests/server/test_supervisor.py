"""The supervisor over processes of three lines."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import pytest

from volano.errors import NotReadyError
from volano.runtime.processes.supervisor import Command, Supervisor

STEADY = """
import signal, sys, threading
stop = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stop.set())
open(sys.argv[1], "a").write("start " + sys.argv[2] + "\\n")
sys.stdout.buffer.write(b"ready\\n"); sys.stdout.flush()
stop.wait(60)
open(sys.argv[1], "a").write("stop " + sys.argv[2] + "\\n")
"""


def _command(log: Path, role: str, stage: int, program: str = STEADY, patience: float = 20.0) -> Command:
    return Command(role, (sys.executable, "-c", program, str(log), role), stage=stage, patience_s=patience)


def _eventually(is_so: Callable[[], bool]) -> None:
    for _ in range(10_000):
        if is_so():
            return
        time.sleep(0.02)
    raise AssertionError("it never came about")


def test_stages_start_in_order_and_stop_the_other_way_round(tmp_path: Path) -> None:
    log = tmp_path / "log"
    supervisor = Supervisor([_command(log, "late", 2), _command(log, "early", 1)], lambda line: None)
    supervisor.start(Event())
    supervisor.stop()
    assert log.read_text().split("\n")[:-1] == ["start early", "start late", "stop late", "stop early"]


def test_what_dies_is_started_again_and_told(tmp_path: Path) -> None:
    log, said, stop = tmp_path / "log", [], Event()
    supervisor = Supervisor([_command(log, "one", 0)], said.append)
    supervisor.start(stop)
    watching = Thread(target=supervisor.watch, args=(stop,))
    watching.start()
    try:
        for n in range(2):
            pid = supervisor.pid("one")
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
            _eventually(lambda n=n: log.read_text().count("start one") == n + 2)
            _eventually(lambda pid=pid: supervisor.pid("one") not in (None, pid))
    finally:
        stop.set()
        watching.join()
        supervisor.stop()
    assert supervisor.restarts == 2
    assert len(said) == 2 and "signal 9" in said[0]


def test_what_never_gets_ready_ends_the_start_and_those_already_started(tmp_path: Path) -> None:
    log = tmp_path / "log"
    broken = _command(log, "broken", 1, "import sys; sys.exit(3)")
    supervisor = Supervisor([_command(log, "fine", 0), broken], lambda line: None)
    with pytest.raises(NotReadyError, match="broken"):
        supervisor.start(Event())
    assert log.read_text().split("\n")[:-1] == ["start fine", "stop fine"]


def test_what_does_not_end_is_killed_and_told(tmp_path: Path) -> None:
    # The shell is ready at once, so the patience with its end can be short.
    deaf = ("/bin/sh", "-c", "trap '' TERM; echo ready; exec sleep 60")
    said: list[str] = []
    supervisor = Supervisor([Command("deaf", deaf, stage=0, patience_s=2.0)], said.append)
    supervisor.start(Event())
    pid = supervisor.pid("deaf")
    supervisor.stop()
    assert pid is not None and "killed" in said[0]
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_what_takes_too_long_to_get_ready_ends_the_start(tmp_path: Path) -> None:
    silent = _command(tmp_path / "log", "silent", 0, "import time; time.sleep(60)", patience=0.3)
    supervisor = Supervisor([silent], lambda line: None)
    with pytest.raises(NotReadyError, match="was not ready within"):
        supervisor.start(Event())
    assert supervisor.pid("silent") is None
