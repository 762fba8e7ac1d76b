"""How records ended, as the applier decides it: the apply log, followed from a moment on.

The log is written before online state. A fate is told when decisions see it, so that whoever waited may decide on it.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Final

from volano.collect.applied import applied_entries
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.journal import JournalReader
from volano.records.journal import DecisionMade, EventReceived, decode_record
from volano.records.receipt import Applied

_BATCHES: Final = 64


class Fates:
    """Follows the apply log. For one thread at a time, with readers of its own.

    Args:
        journal, apply_log: where records and what became of them are read.
        visible: the newest sequence of the apply log that online state holds.
    """

    def __init__(self, journal: JournalReader, apply_log: ApplyLogReader, visible: Callable[[], int]) -> None:
        self._journal = journal
        self._apply_log = apply_log
        self._visible = visible
        self._after = 0

    def skip(self) -> None:
        """Go to the end: what was applied before interests nobody."""
        last = self._apply_log.last()
        self._after = 0 if last is None else last.sequence

    def look(self, wanted: Container[str]) -> dict[str, Applied]:
        """The fates of events, by receipt id, and of decisions, by decision id, that are visible since the last look.

        Args:
            wanted: the ids that are asked for.
        """
        found: dict[str, Applied] = {}
        until = self._visible()
        while batches := [
            batch for batch in self._apply_log.read(self._after, limit=_BATCHES) if batch.sequence <= until
        ]:
            for _, entry, applied in applied_entries(self._journal, batches):
                record = decode_record(entry.record)
                match record:
                    case EventReceived():
                        name = record.receipt_id
                    case DecisionMade():
                        name = record.decision_id
                    case _:
                        continue
                if name in wanted:
                    found.setdefault(name, applied)
            self._after = batches[-1].sequence
        return found
