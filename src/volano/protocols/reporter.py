"""Progress, told to whoever watches. The domain reports values; presentation is the caller's."""

from __future__ import annotations

from typing import Protocol


class Reporter(Protocol):
    """Receives progress; must return quickly and never raise."""

    def started(self, what: str, total: int | None = None) -> None:
        """A piece of work begins; `total` units if known."""
        ...

    def advanced(self, done: int, note: str = "") -> None:
        """`done` units so far, with a short note."""
        ...

    def finished(self, note: str = "") -> None:
        """The piece of work is done; lines of `note` behind its first are warnings, shown however short it was."""
        ...
