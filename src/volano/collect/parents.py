"""What became of an exposure or an action taken: whether the decision that it names has come.

Deliberately looks only when asked: nothing waits in memory, nothing has to be moved when a decision comes.
"""

from __future__ import annotations

from typing import Final, NamedTuple, assert_never

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.applied import applied_entries
from volano.collect.committer import WRITER
from volano.collect.tables import RECEIPTS, decision_table
from volano.kernels.parents import STATES, ParentState, parent_states
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.clock import Clock
from volano.protocols.journal import JournalReader
from volano.protocols.lake import LakeWriter
from volano.records.journal import DecisionMade, decode_record
from volano.records.receipt import ReceiptProblem, ReceiptStatus
from volano.values.instants import NEVER, Instant, format_duration

_BATCHES: Final = 1_024


class Named(msgspec.Struct):
    """The decision that an event of a built-in source names; a retraction may name none."""

    decision: str | None = None
    decision_id: str | None = None


class Standing(NamedTuple):
    """How a stored child stands, and why it will never be attached."""

    status: ReceiptStatus
    problem: ReceiptProblem | None


class Parents:
    """Finds the decisions that children name.

    Args:
        within_us: how long a child waits for its decision.
        clock: says as of when.
    """

    def __init__(
        self,
        journal: JournalReader,
        apply_log: ApplyLogReader,
        lake: LakeWriter,
        clock: Clock,
        within_us: int,
    ) -> None:
        self._journal = journal
        self._apply_log = apply_log
        self._lake = lake
        self._clock = clock
        self._within_us = within_us

    def standing(self, named: Named, applied_at: Instant) -> Standing:
        """How a stored child stands now."""
        if named.decision is None or named.decision_id is None:
            return Standing(ReceiptStatus.STORED, None)
        came = self._applied_at(named.decision, named.decision_id)
        (code,) = parent_states(
            np.array([applied_at]),
            np.array([NEVER if came is None else came]),
            as_of=self._clock.now() if came is None else max(self._clock.now(), came),
            within_us=self._within_us,
        )
        state = STATES[code]
        wanted = f"decision {named.decision_id!r} of {named.decision!r}"
        match state:
            case ParentState.ATTACHED:
                return Standing(ReceiptStatus.STORED, None)
            case ParentState.PENDING:
                problem = ("pending_parent", "decision_id", f"{wanted} has not come yet")
                return Standing(ReceiptStatus.PENDING_PARENT, problem)
            case ParentState.EXPIRED:
                why = f"{wanted} did not come within {format_duration(self._within_us)}"
                return Standing(ReceiptStatus.STORED, ("parent_expired", "decision_id", why))
        assert_never(state)

    def _applied_at(self, decision: str, decision_id: str) -> Instant | None:
        """When the first answer to an id was applied; None when none was."""
        table = decision_table(decision)
        # Receipts are written last: every table holds at least what they do.
        committed = max(self._committed(RECEIPTS), self._committed(table))
        if self._lake.version(table) is not None:
            only = {"decision_id": (decision_id, decision_id + "\x00")}
            rows = self._lake.read(table, columns=["applied_at"], where=only)
            if rows.num_rows:
                first: Instant = pc.min(rows["applied_at"].cast(pa.int64())).as_py()
                return first
        while batches := self._apply_log.read(committed, limit=_BATCHES):
            committed = batches[-1].sequence
            for _, entry, applied in applied_entries(self._journal, batches):
                if applied.status != ReceiptStatus.STORED:
                    continue
                record = decode_record(entry.record)
                if (
                    isinstance(record, DecisionMade)
                    and record.decision == decision
                    and record.decision_id == decision_id
                ):
                    return applied.applied_at
        return None

    def _committed(self, table: str) -> int:
        return 0 if self._lake.version(table) is None else self._lake.committed(table, WRITER)
