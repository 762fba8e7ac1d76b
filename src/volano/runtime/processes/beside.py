"""Work beside `volano serve`: where a process would apply and commit itself, it waits until the server has.

The server owns the apply log, online state and the committer's tables. Everybody else reads them, and writes only what
has a writer of its own: journal segments, catalog, artifacts, the tables of labels and hand-overs.
"""

from __future__ import annotations

import time
from typing import Final, NamedTuple

import msgspec

from volano.errors import NotReadyError, StoreBusyError
from volano.plan.state_index import CURSOR_KEY
from volano.runtime.applied import get_applied
from volano.runtime.locks import serving_lock
from volano.runtime.processes.beats import Beats
from volano.runtime.stores import Stores
from volano.values.instants import BEGINNING, Instant

PATIENCE_S: Final = 120.0
"""How long the server may stand still, not how long all of it may take."""
_LOOK_EVERY_S: Final = 0.01
_ASK_EVERY_S: Final = 1.0
_BATCHES: Final = 1_024


class Settled(NamedTuple):
    """How far all is applied and committed: to this batch of the apply log; `stamp` is the newest one by then."""

    sequence: int
    stamp: Instant


class Beside:
    """The server, as whoever works beside it sees it.

    Args:
        stores: opened for reading online state.
        patience_s: how long to wait for a server that makes no progress.
    """

    def __init__(self, stores: Stores, *, patience_s: float = PATIENCE_S) -> None:
        self._stores = stores
        self._beats = Beats(stores.data)
        self._serving = serving_lock(stores.data)
        self._patience_s = patience_s
        self._cursor: dict[str, int] = {}
        self._sequence = 0

    def settle(self) -> Settled:
        """Return when everything that was accepted before the call is applied and in the lake.

        Raises:
            StoreBusyError: the server ended, or made no progress for too long; the call may be repeated.
        """
        end = self._stores.journal_reader.ends()
        if not self._sequence:
            self._begin()
        waiting = _Patience(self._patience_s)
        while self._stores.journal_reader.read(self._cursor, limit=1, until=end):
            if self._follow():
                waiting.made_progress()
            else:
                self._wait(waiting, "applier")
        self._await_commit(self._sequence)
        return self._settled()

    def await_stamp(self, stamp: Instant) -> None:
        """Return when every stamp that the server gives from now on is later than this one.

        Raises:
            StoreBusyError: see `settle`; also when the clock was put back, and the server's lies before the stamp.
        """
        waiting = _Patience(self._patience_s)
        while self._visible() < stamp:
            self._wait(waiting, "applier")

    def _visible(self) -> Instant:
        with (
            self._stores.online_reader(get_applied(self._stores.catalog).state) as online,
            online.snapshot() as snapshot,
        ):
            return snapshot.stamp

    def prune(self, at: Instant) -> int:
        """Have the applier drop the chunks that no window at an instant reaches; returns how many."""
        self._beats.ask_prune(at)
        waiting = _Patience(self._patience_s)
        while (done := self._beats.pruned(at)) is None:
            self._wait(waiting, "applier")
        return done

    def _begin(self) -> None:
        """Take the place in the journal from online state: the log may be long."""
        try:
            with (
                self._stores.online_reader(get_applied(self._stores.catalog).state) as online,
                online.snapshot() as snapshot,
            ):
                (stored,) = snapshot.get_many([CURSOR_KEY])
                if stored is not None:
                    self._cursor = msgspec.msgpack.decode(stored, type=dict[str, int])
                    self._sequence = snapshot.sequence
        except NotReadyError:
            return  # it is being built again: the log says the same

    def _follow(self) -> bool:
        """Read on in the apply log; whether there was anything."""
        batches = self._stores.apply_log_reader.read(self._sequence, limit=_BATCHES)
        for batch in batches:
            self._cursor.update({segment: end for segment, _, end in batch.ranges})
            self._sequence = batch.sequence
        return bool(batches)

    def _await_commit(self, sequence: int) -> None:
        waiting = _Patience(self._patience_s)
        asked_at = 0.0
        seen = -1
        while (committed := self._committed()) < sequence:
            if committed > seen:
                seen = committed
                waiting.made_progress()
            now = time.monotonic()
            if now - asked_at >= _ASK_EVERY_S:
                self._beats.ask_commit()
                asked_at = now
            self._wait(waiting, "committer")

    def _committed(self) -> int:
        beat = self._beats.read("committer")
        return -1 if beat is None else beat.sequence

    def _settled(self) -> Settled:
        if not self._sequence:
            return Settled(0, BEGINNING)
        (batch,) = self._stores.apply_log_reader.read(self._sequence - 1, limit=1)
        return Settled(batch.sequence, batch.last_stamp)

    def _wait(self, waiting: _Patience, role: str) -> None:
        if not self._serving.is_held():
            raise StoreBusyError(
                "`volano serve` ended while this waited for it.",
                where=str(self._stores.data),
                mend="run it again: without a server it applies and commits itself",
            )
        if waiting.is_over():
            raise StoreBusyError(
                f"The {role} of `volano serve` made no progress for {self._patience_s:.0f} s.",
                where=str(self._stores.data),
                mend=f"see what the {role} says in the server's log, then run it again",
            )
        time.sleep(_LOOK_EVERY_S)


class _Patience:
    """A time that begins anew with every progress."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since = time.monotonic()

    def made_progress(self) -> None:
        self._since = time.monotonic()

    def is_over(self) -> bool:
        return time.monotonic() - self._since > self._seconds
