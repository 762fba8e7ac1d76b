"""A reporter that tells nobody."""

from __future__ import annotations


class Silence:
    """Implements `protocols.reporter.Reporter` and says nothing; the default of every verb."""

    def started(self, what: str, total: int | None = None) -> None: ...

    def advanced(self, done: int, note: str = "") -> None: ...

    def finished(self, note: str = "") -> None: ...
