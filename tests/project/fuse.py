"""A process that kills itself at a chosen write: real stores, a real SIGKILL, and a place that can be chosen again.

Every effect on a store has a label, `<phase>/<store>.<method>`. A first run writes down in which order they come; later
ones die before or after the one that a test names.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.project.world import DECISION, MODEL, Item, World
from volano.runtime.config import read_config
from volano.runtime.silence import Silence
from volano.runtime.stores import Stores

_EFFECTS = {
    "journal_writer": ("append",),
    "apply_log": ("append",),
    "online_store": ("write",),
    "lake": ("create", "append"),
    "catalog": ("put", "append"),
    "artifacts": ("put",),
}


class Phases(Silence):
    """Knows what the project is at; hears of jobs as their reporter."""

    def __init__(self) -> None:
        self.now = "open"

    def started(self, what: str, total: int | None = None) -> None:
        if " of " in what:
            self.now = what.partition(" of ")[0].partition("/")[0]


class Spot(NamedTuple):
    """Where to die: at the n-th effect of a label that this process has, before or after it is done."""

    label: str
    n: int
    after: bool


class Fuse:
    """Counts effects; kills the process at the first of its spots that it comes to, and notes which in a file.

    Attributes:
        trace: the labels of all effects so far, in order.
    """

    def __init__(self, phases: Phases, spots: Sequence[Spot] = (), note: Path | None = None) -> None:
        self.trace: list[str] = []
        self._phases = phases
        self._spots = spots
        self._note = note

    def burn(self, name: str, effect: Callable[[], Any]) -> Any:
        label = f"{self._phases.now}/{name}"
        self.trace.append(label)
        spot = next((each for each in self._spots if each.label == label), None)
        if spot is None or self.trace.count(label) != spot.n:
            return effect()
        if not spot.after:
            self._die(label)
        try:
            return effect()
        finally:  # also after one that was refused: a manifest that stands already is a conflict
            self._die(label)

    def _die(self, label: str) -> None:
        if self._note is not None:
            self._note.write_text(label)
        os.kill(os.getpid(), signal.SIGKILL)


class FusedStores(Stores):
    """A project's own stores, with a fuse in every effect."""

    def __init__(self, folder: Path, fuse: Fuse) -> None:
        super().__init__(folder, read_config(folder))
        self._fuse = fuse

    def _open(self, name: str, below: str, *arguments: Any, **options: Any) -> Any:
        store = super()._open(name, below, *arguments, **options)
        kind = name.partition(".")[0]
        for method in _EFFECTS.get(kind, ()):
            setattr(store, method, self._fused(f"{kind}.{method}", getattr(store, method)))
        return store

    def _fused(self, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments, **named: self._fuse.burn(name, lambda: method(*arguments, **named))


class FusedWorld(World):
    """A world that says what it is at."""

    def __init__(self, folder: Path, script: list[Item], phases: Phases, fuse: Fuse) -> None:
        super().__init__(folder, script, stores=lambda where: FusedStores(where, fuse), reporter=phases)
        self._phases = phases

    def begin(self) -> None:
        self._phases.now = "apply"
        self.project.apply()
        self._phases.now = "train"
        self.project.train(MODEL)
        self._phases.now = "release"
        self.project.release(DECISION)

    def push(self, number: int) -> None:
        self._phases.now = "decide" if self.script[number].target == DECISION else "observe"
        super().push(number)

    def settle(self, number: int) -> None:
        self._phases.now = "drain"
        super().settle(number)


def live(folder: Path, script: list[Item], spots: Sequence[Spot] = ()) -> list[str]:
    """Let the world happen from where it stands to its end; returns the labels of all effects.

    Args:
        spots: it dies at the first of them that it comes to, and notes its label in `died` beside the folder. Of some an
            earlier process may have done all, so one is not waited for.

    However often a job is killed, it begins anew at once: a pause would change when its result takes effect.
    """
    phases = Phases()
    fuse = Fuse(phases, spots, folder.parent / "died")
    with (
        pytest.MonkeyPatch.context() as patch,
        FusedWorld(folder, script, phases, fuse) as world,
    ):
        patch.setattr("volano.runtime.jobs.FORGIVEN_KILLS", 1_000_000)
        world.run()
        phases.now = "end"
        world.project.drain(commit=True)
    return fuse.trace
