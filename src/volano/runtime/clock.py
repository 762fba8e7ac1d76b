"""Clocks. The only modules that read the system's time are here and in the ways in."""

from __future__ import annotations

import mmap
import struct
import time
from pathlib import Path
from typing import Final

from volano.values.instants import Instant, format_instant


class SystemClock:
    """The machine's clock, in microseconds."""

    def now(self) -> Instant:
        """The present instant; may step backwards."""
        return time.time_ns() // 1_000

    def elapsed_ns(self) -> int:
        """The machine's monotonic counter."""
        return time.perf_counter_ns()


class ReplayClock:
    """A clock that stands still until it is moved: it turns years into minutes through the same code.

    >>> clock = ReplayClock(10)
    >>> clock.advance_to(25); clock.now()
    25
    """

    def __init__(self, start: Instant) -> None:
        self._now = start

    def now(self) -> Instant:
        """The instant it was last moved to."""
        return self._now

    def elapsed_ns(self) -> int:
        """Stands still with the clock: in a replay a pause of the machine passes no deadline."""
        return self._now * 1_000

    def advance_to(self, instant: Instant) -> None:
        """Move forward.

        Raises:
            ValueError: the instant lies in the past; a replay goes one way.
        """
        if instant < self._now:
            raise ValueError(
                f"the replay clock stands at {format_instant(self._now)} and cannot go back to "
                f"{format_instant(instant)}"
            )
        self._now = instant


_CELL: Final = struct.Struct("<q")


class FileClock:
    """A replay clock for several processes: its instant stands in a file, and one of them moves it.

    A rehearsal serves a project under it (`volano.server.serve.serve(..., replay=path)`).

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     mine, theirs = FileClock(Path(folder) / "clock", 10), FileClock(Path(folder) / "clock")
    ...     mine.advance_to(25); theirs.now()
    25
    """

    def __init__(self, path: Path, start: Instant | None = None) -> None:
        """Open the clock at a path; with `start` it is made there, or set."""
        if start is not None:
            path.write_bytes(_CELL.pack(start))
        with path.open("r+b") as file:
            self._cell = mmap.mmap(file.fileno(), _CELL.size)

    def now(self) -> Instant:
        """The instant it was last moved to, by whichever process."""
        return int(_CELL.unpack_from(self._cell)[0])

    def elapsed_ns(self) -> int:
        """Stands still with the clock."""
        return self.now() * 1_000

    def advance_to(self, instant: Instant) -> None:
        """Move forward, for every process.

        Raises:
            ValueError: the instant lies in the past.
        """
        ReplayClock(self.now()).advance_to(instant)
        _CELL.pack_into(self._cell, 0, instant)
