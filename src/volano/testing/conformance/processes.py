"""Runs a piece of a test in a process of its own. Knows no store."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

_PRELUDE = """
import os, signal, sys
from pathlib import Path
from volano.testing.conformance.processes import resolve
folder = Path(sys.argv[1])
def die():
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def resolve(address: str) -> Any:
    """The object that `module:name` names.

    >>> resolve("math:pi") > 3
    True
    """
    module, _, name = address.partition(":")
    return getattr(importlib.import_module(module), name)


def run(code: str, folder: Path) -> tuple[int, str]:
    """Run Python code, which finds `folder`, `resolve(address)` and `die()`; returns exit code and output.

    `die()` is a kill -9 of itself: nothing is flushed, closed or released.
    """
    done = subprocess.run(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode, done.stdout


def start(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start Python code as `run` does, without waiting for it; the caller kills it."""
    return subprocess.Popen(
        [sys.executable, "-c", _PRELUDE + textwrap.dedent(code), str(folder)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
        text=True,
    )
