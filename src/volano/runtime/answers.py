"""What was answered before, by decision id: a retry with the same request gets the answer that was logged.

Looks in this process's newest answers, then in the online index, which leads to the record in the journal or the lake.
So the first answer is found as long as its record is kept: what another process answered and nobody applied yet is not
seen, and the applier counts the second answer as an attempt.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

import msgspec

from volano.decide.decider import Earlier
from volano.errors import CorruptionError, VolanoError
from volano.plan.state_index import CURSOR_KEY, decision_key, decode_known_decision
from volano.protocols.journal import JournalReader
from volano.protocols.online_store import OnlineReader
from volano.records.journal import DecisionMade, decode_record, encode_record, request_hash

REMEMBERED: Final = 20_000
"""How many of the newest answers a process holds in memory; older ones that wait to be applied are asked again."""
_AT_ONCE: Final = 10_000


class InLakeError(VolanoError):
    """An answer that only the lake has, where nobody waits for the lake: `fetch` it aside and ask again."""

    code = "in_lake"


class Answers:
    """Remembers answers and finds them again.

    Args:
        find_in_lake: the first logged record of (decision, decision id), or None.
        waits_for_lake: whether `find` may read the lake, which takes as long as a read of one row there.
    """

    def __init__(
        self,
        namespace: str,
        online: OnlineReader,
        journal: JournalReader,
        find_in_lake: Callable[[str, str], DecisionMade | None],
        *,
        waits_for_lake: bool = True,
    ) -> None:
        self._namespace = namespace
        self._online = online
        self._journal = journal
        self._find_in_lake = find_in_lake
        self._waits_for_lake = waits_for_lake
        # Encoded: the garbage collector does not walk through bytes.
        self._recent: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._recall()

    def remember(self, made: DecisionMade, record: bytes) -> None:
        """Hold an answer that was logged; the first of its id stays."""
        self._hold(made.decision, made.decision_id, record)

    def _hold(self, decision: str, decision_id: str, record: bytes) -> None:
        self._recent.setdefault((decision, decision_id), record)
        if len(self._recent) > REMEMBERED:
            self._recent.popitem(last=False)

    def read_from(
        self, online: OnlineReader, find_in_lake: Callable[[str, str], DecisionMade | None]
    ) -> None:
        """Look in another online store and by other definitions from now on."""
        self._online, self._find_in_lake = online, find_in_lake

    def fetch(self, decision: str, decision_id: str) -> None:
        """Read an answer from the lake, so that `find` has it at hand. For any thread."""
        made = self._find_in_lake(decision, decision_id)
        self._hold(decision, decision_id, b"" if made is None else encode_record(made))

    def find(self, decision: str, decision_id: str) -> Earlier | None:
        """What was answered to an id before, or None.

        Raises:
            StoreError: it cannot be known.
            InLakeError: only the lake knows it, and nobody is to wait for that here.
        """
        record = self._recent.get((decision, decision_id))
        if record:
            held = decode_record(record)
            assert isinstance(held, DecisionMade)
            return Earlier(request_hash(held.request), held, held.attempt + 1)
        key = decision_key(self._namespace, decision, decision_id)
        with self._online.snapshot() as snapshot:
            (found,) = snapshot.get_many([key])
        if found is None:
            return None
        known = decode_known_decision(found)
        # What was looked for in the lake and is not there is held as nothing: its record is kept nowhere.
        made = None if record == b"" else self._load(decision, decision_id, known.place)
        return Earlier(known.request, made, known.next_attempt)

    def _load(
        self, decision: str, decision_id: str, place: tuple[str, int, int] | None
    ) -> DecisionMade | None:
        if place is not None:
            try:
                (entry,) = self._journal.read_range(*place)
            except CorruptionError:  # this part of the journal is gone; what was committed is in the lake
                return self._load_from_lake(decision, decision_id)
            made = decode_record(entry.record)
            assert isinstance(made, DecisionMade)
            return made
        return self._load_from_lake(decision, decision_id)

    def _load_from_lake(self, decision: str, decision_id: str) -> DecisionMade | None:
        if not self._waits_for_lake:
            raise InLakeError(
                f"The answer to {decision_id!r} lies in the lake.",
                where=f"decision {decision}",
                mend="fetch it and ask again",
            )
        return self._find_in_lake(decision, decision_id)

    def _recall(self) -> None:
        """What the last process answered and nobody applied yet."""
        with self._online.snapshot() as snapshot:
            (stored,) = snapshot.get_many([CURSOR_KEY])
        cursor = {} if stored is None else msgspec.msgpack.decode(stored, type=dict[str, int])
        while entries := self._journal.read(cursor, limit=_AT_ONCE):
            for segment, _, end, data in entries:
                cursor[segment] = end
                made = decode_record(data)
                if isinstance(made, DecisionMade):
                    self.remember(made, data)
