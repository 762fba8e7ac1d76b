"""What each process says of itself, in small files of the data folder: so that others see it live, work and lag."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

from volano.values.instants import Instant

_FOLDER: Final = "run"


class Beat(msgspec.Struct, frozen=True):
    """One process at one moment.

    Args:
        role: `supervisor`, `applier`, `committer`, `worker-0`, ...
        at: when it was written.
        behind_bytes: how much of the journal waits, as an applier sees it.
        stamp: the newest stamp that is visible (applier).
        sequence: the newest batch applied (applier) or committed (committer).
        revision: which of the applied definitions it works with (applier, workers).
        problems: why a decision goes on with what it had, by decision (workers).
        address: where it listens (supervisor).
    """

    role: str
    pid: int
    at: Instant
    behind_bytes: int = 0
    stamp: Instant = 0
    sequence: int = 0
    address: str = ""
    revision: int = 0
    problems: dict[str, str] = {}


class Beats:
    """The folder of beats. Each role has one writer; a reader sees a whole beat or the one before.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as data:
    ...     beats = Beats(Path(data))
    ...     beats.write(Beat("applier", 7, at=1_000_000, sequence=3))
    ...     beats.read("applier").sequence, beats.read("committer")
    (3, None)
    """

    def __init__(self, data: Path) -> None:
        self.data = data
        self._folder = data / _FOLDER
        self._request = self._folder / "commit"
        self._prune = self._folder / "prune"
        self._pruned = self._folder / "pruned"

    def write(self, beat: Beat) -> None:
        """Replace the role's beat. One that the disk does not take is left out: the next one follows."""
        fresh = self._folder / f".{beat.role}.{os.getpid()}"
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(msgspec.json.encode(beat))
            fresh.replace(self._folder / f"{beat.role}.json")

    def read(self, role: str) -> Beat | None:
        """The newest beat of a role; None when it never ran, or was cleared."""
        try:
            return msgspec.json.decode((self._folder / f"{role}.json").read_bytes(), type=Beat)
        except (OSError, msgspec.MsgspecError):
            return None

    def all(self) -> list[Beat]:
        """Every beat, by role."""
        roles = sorted(path.stem for path in self._folder.glob("[!.]*.json"))
        return [beat for role in roles if (beat := self.read(role)) is not None]

    def clear(self) -> None:
        """Forget all beats: nobody runs."""
        for path in self._folder.glob("*.json"):
            path.unlink(missing_ok=True)
        for path in (self._request, self._prune, self._pruned):
            path.unlink(missing_ok=True)

    def ask_commit(self) -> None:
        """Ask the committer to commit now."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._request.touch()

    def take_commit_request(self) -> bool:
        """Whether somebody asked since the last call."""
        try:
            self._request.unlink()
        except OSError:  # nobody did; or the disk takes no change
            return False
        return True

    def ask_prune(self, at: Instant) -> None:
        """Ask the applier to drop what no window at an instant reaches."""
        self._put(self._prune, (at, 0))

    def take_prune_request(self) -> Instant | None:
        """The instant that somebody asked for, until it is answered."""
        asked = self._get(self._prune)
        return None if asked is None else asked[0]

    def answer_prune(self, at: Instant, n_chunks: int) -> None:
        """Say that it is done."""
        self._put(self._pruned, (at, n_chunks))
        self._prune.unlink(missing_ok=True)

    def pruned(self, at: Instant) -> int | None:
        """How many chunks the prune of an instant dropped; None before it is done."""
        answered = self._get(self._pruned)
        return answered[1] if answered is not None and answered[0] == at else None

    def _put(self, path: Path, value: tuple[int, int]) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(value))
        fresh.replace(path)

    def _get(self, path: Path) -> tuple[int, int] | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=tuple[int, int])
        except (OSError, msgspec.MsgspecError):
            return None
