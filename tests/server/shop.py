"""The blank template as a project that is applied and, if wanted, served by real processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import volano
from volano.project import Project
from volano.runtime.processes.beats import Beats
from volano.runtime.templates import write_template

SOURCE, DECISION = "orders", "get_return_risk"


def make_shop(folder: Path, **config: object) -> Path:
    """A project folder with the blank template in force."""
    write_template("blank", folder)
    lines = "".join(f"{key} = {value!r}\n".replace("'", '"') for key, value in config.items())
    path = folder / "volano.toml"
    path.write_text(path.read_text() + "online_map_gib = 1\n" + lines)
    with Project.open(folder) as project:
        project.apply()
    return folder


def order(n: int, *, customer: str = "c1", **changes: Any) -> dict[str, Any]:
    """One order that fits the schema."""
    event = {
        "order_id": f"o{n}",
        "customer_id": customer,
        "amount": float(n),
        "returned": n % 3 == 0,
        "closed_at": datetime.now(UTC).isoformat(),
    }
    return event | changes


def checkout(n: int, *, customer: str = "c1") -> dict[str, Any]:
    """One request that fits."""
    return {"order_id": f"o{n}", "customer_id": customer, "amount": 5.0}


def environment(*first: Path) -> dict[str, str]:
    """What a child needs to import the same Volano from any folder, and before it what lies in others."""
    source = Path(volano.__file__).resolve().parents[1]
    path = os.pathsep.join(map(str, (*first, source)))
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path}


class Served:
    """A project under `volano serve`."""

    def __init__(self, folder: Path, url: str, process: subprocess.Popen[str]) -> None:
        self.folder = folder
        self.url = url
        self.process = process
        self.beats = Beats(folder / ".volano")

    def stop(self) -> int:
        """Ask it to end; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(120)


@contextmanager
def served(folder: Path, *, workers: int = 1, first: tuple[Path, ...] = ()) -> Iterator[Served]:
    """Serve a project on a free port until the block ends.

    Args:
        first: folders that the processes import from before anything else.
    """
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from volano.cli.main import app; app()",
            "serve",
            "--port",
            "0",
            "--workers",
            str(workers),
        ],
        cwd=folder,
        env=environment(*first),
        stdout=subprocess.PIPE,
        stderr=None,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("serving at "):
                yield Served(folder, line.split()[-1], process)
                return
        raise AssertionError(f"volano serve ended with {process.wait()}")
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(120)
        if process.stdout is not None:
            process.stdout.close()
