"""The hand-over from a source's table to its stream, pinned in the ledger (stream `handover`)."""

from __future__ import annotations

import msgspec

from volano.values.instants import Instant


class HandOver(msgspec.Struct, frozen=True):
    """Rows with event_time before `at` come from the table's snapshot, later ones from the stream.

    Around `at` (plus and minus accept_late) the two are united by id and revision; the stream row wins, which is
    no conflict.

    Args:
        at: the hand-over instant H.
        snapshot: token of the table's content when it was pinned.
        stamp: applied_at of every row that came from the snapshot.
        table: the address as declared then; empty for a source that is only streamed.
        imported: the snapshot's rows stand in the lake's `fact_<source>`; the table is not read for them again.
        n_unfit: rows of the snapshot that do not fit the event: they are in quarantine, and no facts.
    """

    source: str
    at: Instant
    snapshot: str
    stamp: Instant
    table: str
    imported: bool = False
    n_unfit: int = 0
