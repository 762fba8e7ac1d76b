"""The rows of some keys from the lake, as online state keeps them: for the applier, when a sealed row changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.kernels.chunks import ChunkLayout
from volano.organize.backfill import packed_rows, ready_rows
from volano.organize.enrichment import GroupRows
from volano.organize.facts import Facts, standing
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup
from volano.protocols.functions import Functions
from volano.protocols.sql_engine import SqlEngine
from volano.values.instants import Instant

_AT_ONCE: Final = 500_000


class LakeHistory:
    """A `protocols.key_history.KeyHistory` over facts.

    Args:
        groups: all that exist: some joins read others.
        commit: brings everything that was applied up to a sequence into the lake before it returns.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        facts: Facts,
        sql: SqlEngine,
        functions: Functions,
        commit: Callable[[int], object],
    ) -> None:
        self._facts = facts
        self._rows = GroupRows(project, groups, facts, sql, functions)
        self._commit = commit

    def rows(
        self,
        group: StateGroup,
        wanted: Mapping[bytes, tuple[Instant, Instant]],
        *,
        stamp: Instant,
        sequence: int,
    ) -> dict[bytes, bytes]:
        """See the protocol. Reads the facts of the source in the ranges asked for, some at once."""
        self._commit(sequence)
        rows_of = self._rows.map_of(group)
        columns = tuple((field.name, field.dtype.value) for field in group.columns.fields)
        layout = ChunkLayout(group.prefix, columns, order=len(rows_of.source.order_by))
        since, until = min(low for low, _ in wanted.values()), max(high for _, high in wanted.values())
        heads = pa.array(list(wanted), pa.binary())
        lows, highs = (np.array([each[n] for each in wanted.values()], np.int64) for n in (0, 1))
        chunks = [b""] * len(wanted)
        for span in self._facts.spans(group.source, _AT_ONCE, since=since, until=until):
            facts = standing(
                self._facts.rows(
                    group.source,
                    since=since if span.since is None else max(since, span.since),
                    until=until if span.until is None else min(until, span.until),
                    stamp=stamp,
                    columns=rows_of.needed,
                    for_features=True,
                )
            )
            ready = ready_rows(group, facts, self._rows.map(rows_of, facts, stamp=stamp))
            owners = pc.index_in(ready["head"].cast(pa.binary()), heads).fill_null(-1).to_numpy()
            times = ready["event_time"].cast(pa.int64()).to_numpy()
            kept = np.flatnonzero((owners >= 0) & (lows[owners] <= times) & (times < highs[owners]))
            if len(kept):
                packed = packed_rows(layout, ready.take(pa.array(kept)))
                chunks = layout.merge(chunks, packed, owners[kept])
        return dict(zip(wanted, chunks, strict=True))
