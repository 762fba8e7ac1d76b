"""A table beside the facts of its source, part by part of their ids: what differs, however large the two are.

Holds the rows of one part, or of one read, at a time. Reads no clock and journals nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.kernels.columns import combined
from volano.organize.declared import Fitness, FittingRows, fitting_rows
from volano.organize.facts import Facts, event_ids, unfit_ids
from volano.organize.partitions import Span, in_parts, part_of
from volano.organize.refresh import Extent, changes_to, refuse_table, stands
from volano.plan.definitions import CompiledSource
from volano.protocols.scratch import Scratch
from volano.protocols.sql_engine import SqlEngine
from volano.records.journal import TableChange
from volano.values.instants import BEGINNING, Instant

ROWS_AT_ONCE: Final = 200_000

Micros = NDArray[np.int64]


class Comparison:
    """What a table says that the facts of its source do not.

    Args:
        since: rows and, of an appended table, facts before it are not looked at; None looks at all.
        until: nothing from then on is looked at either; of an appended table only.
        is_interval: somebody chose the range: whether the table goes back in time is not asked.
        scratch: where the rows of both wait, by parts of their ids.
        rows_at_once: how many rows are held, about; a table of snapshots is compared in one part.
    """

    def __init__(
        self,
        source: CompiledSource,
        address: str,
        facts: Facts,
        sql: SqlEngine,
        scratch: Scratch,
        *,
        since: Instant | None,
        until: Instant | None = None,
        is_interval: bool = False,
        rows_at_once: int = ROWS_AT_ONCE,
    ) -> None:
        self._source, self._address = source, address
        self._facts, self._sql, self._scratch = facts, sql, scratch
        self._since, self._until, self._is_interval = since, until, is_interval
        self._rows_at_once = rows_at_once
        self._n_rows = self._n_standing = 0
        self._newest_row = self._newest_standing = BEGINNING
        self._unfit: list[pa.Array] = [pa.array([], pa.string())]
        self.seen = Fitness(source, address)

    def changes(self) -> Iterator[list[TableChange]]:
        """The changes that bring the facts up to the table; of one part of the ids at a time, by their event times.

        Raises:
            RequestError: a column is missing, of another type, or fits in no row; the table goes back in time, or is
                empty where rows hold. It comes before the first changes.
        """
        source, n = self._source, self._rows_at_once
        since = None if source.change else self._since
        spans = self._facts.spans(source.name, n, since=since, until=self._until)
        n_parts = 1 if source.change == "snapshots" else self._n_parts(len(spans))
        rows = in_parts(
            self._scratch,
            "rows",
            (partial(_given, each) for each in self._rows()),
            lambda some: part_of([event_ids(some, source)], n_parts),
            n_parts,
        )
        readers = [partial(self._facts_in, span) for span in spans]
        if len(spans) > 1 and since is None:
            readers.append(partial(self._facts.rows, source.name, timeless=True))
        facts = in_parts(
            self._scratch, "facts", readers, lambda some: part_of([some["event_id"]], n_parts), n_parts
        )
        for (part, table), (_, present) in zip(rows, facts, strict=True):
            if part == 1:  # by now everything was read once
                self._refuse()
            unfit, elsewhere = pa.concat_arrays(self._unfit), self._elsewhere(table, present)
            yield changes_to(source, table, present, self._address, unfit=unfit, elsewhere=elsewhere)

    def misfits(self) -> Iterator[FittingRows]:
        """The rows that were looked at, where some do not fit; read again."""
        if self.seen.n_misfits:
            yield from (fitting for fitting in self._fitting(self._since, self._until) if fitting.n_misfits)

    def _n_parts(self, n_spans: int) -> int:
        n_rows = sum(
            part.num_rows
            for part in self._sql.scan_table(
                self._address,
                columns=[self._source.event_time],
                between=(self._source.event_time, self._since, self._until),
                rows_at_once=self._rows_at_once,
            )
        )
        n_reads = max(n_spans, -(-n_rows // self._rows_at_once))
        return 1 if n_reads == 1 else 2 * n_reads

    def _fitting(self, since: Instant | None, until: Instant | None = None) -> Iterator[FittingRows]:
        between = None if since is None and until is None else (self._source.event_time, since, until)
        for part in self._sql.scan_table(self._address, between=between, rows_at_once=self._rows_at_once):
            yield fitting_rows(self._source, part, self._address)

    def _rows(self) -> Iterator[pa.Table]:
        for fitting in self._fitting(self._since, self._until):
            self.seen.see(fitting)
            self._unfit.append(unfit_ids(fitting, self._source))
            rows = fitting.rows
            times = rows[self._source.event_time].cast(pa.int64())
            if self._since is not None:
                rows, times = (each.filter(pc.greater_equal(times, self._since)) for each in (rows, times))
            if self._until is not None:
                rows = rows.filter(pc.less(times, self._until))
            self._n_rows += rows.num_rows
            self._newest_row = max(self._newest_row, _newest(rows[self._source.event_time]))
            yield rows

    def _facts_in(self, span: Span) -> pa.Table:
        rows = self._facts.rows(self._source.name, since=span.since, until=span.until)
        standing = rows.filter(stands(rows))
        self._n_standing += standing.num_rows
        self._newest_standing = max(self._newest_standing, _newest(standing["event_time"]))
        return rows

    def _refuse(self) -> None:
        """What only all rows together can say."""
        if self._is_interval:
            return
        if self._since is not None and (not self._n_rows or self.seen.n_rows in self.seen.n_wrong.values()):
            # Of a few new rows none may fit, and the table be right; without new rows it may have gone back in time.
            whole = Fitness(self._source, self._address)
            for fitting in self._fitting(None):
                whole.see(fitting)
                self._n_rows += fitting.rows.num_rows
                self._newest_row = max(self._newest_row, _newest(fitting.rows[self._source.event_time]))
            whole.refuse_columns()
        elif self._since is None:
            self.seen.refuse_columns()
        extent = Extent(self._n_rows, self._newest_row, self._n_standing, self._newest_standing)
        refuse_table(self._source, extent, self._address)

    def _elsewhere(self, table: pa.Table, present: pa.Table) -> pa.Table | None:
        """What is known of rows whose facts lie outside the range: their event times were changed across its edge."""
        if self._source.change or (self._since is None and self._until is None):
            return None
        ids = event_ids(table, self._source)
        new = ids.filter(pc.invert(pc.is_in(ids, value_set=combined(present["event_id"]))))
        return self._facts.revisions(self._source.name, new)


def _given(rows: pa.Table) -> pa.Table:
    return rows


def _newest(times: pa.ChunkedArray) -> Instant:
    newest = pc.max(times.cast(pa.int64())).as_py()
    return BEGINNING if newest is None else newest
