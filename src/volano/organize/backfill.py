"""Online state from the lake: the chunks of a state group and the index of a source, part by part.

Gives the same answers as the applier that saw every event, because both store the rows that stand, by the same rules.
Everything that was applied must be committed before; while a backfill runs the applier rests. Writes nothing itself,
except `rebuild`, which is given the store.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import msgspec
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from volano.kernels.chunks import ChunkLayout
from volano.organize.facts import Facts, standing
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup, key_head, key_tail
from volano.plan.state_index import (
    CURSOR_KEY,
    NOTHING_STANDS,
    Known,
    decision_key,
    encode_known,
    event_key,
    event_prefix,
    shadow_key,
)
from volano.plan.state_rows import StateRowMap, StateRows
from volano.protocols.functions import Functions
from volano.protocols.lake import LakeReader
from volano.protocols.online_store import OnlineWriter
from volano.protocols.sql_engine import SqlEngine
from volano.values.event_ids import row_id
from volano.values.instants import Instant
from volano.values.keys import canonical_keys

_AT_ONCE: Final = 50_000

Micros = NDArray[np.int64]


class Part(NamedTuple):
    """A part of a backfill, ready to be written: `online.write(puts, (), stamp=stamp, sequence=0)`.

    Args:
        done: parts so far, this one included; go on from it with `after=done`.
        total: parts in all.
        n_rows: rows in this part.
    """

    puts: dict[bytes, bytes]
    done: int
    total: int
    n_rows: int


class Backfill:
    """Builds online state of a project's groups from facts.

    Args:
        groups: every group that receives events.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        facts: Facts,
        sql: SqlEngine,
        functions: Functions,
    ) -> None:
        self._project = project
        self._groups = tuple(groups)
        self._facts = facts
        self._sql = sql
        self._functions = functions

    def chunks(
        self,
        group: StateGroup,
        *,
        now: Instant | None = None,
        stamp: Instant | None = None,
        n_parts: int = 16,
        after: int = 0,
    ) -> Iterator[Part]:
        """The chunks of a group, by partitions of its keys.

        Args:
            now: rows that no window ending at or after it reaches are left out; None keeps all.
            stamp: only what was applied by then; None: everything.
            n_parts: in how many parts; the same at every resumption.
            after: parts that were written already.

        Raises:
            AuthorCodeError: a projection returned the wrong shape or fails on too many rows.
        """
        since = None if now is None or group.raw_us is None else now - group.raw_us
        rows_of = StateRowMap(self._project, group, self._sql.query, self._functions.get)
        facts = self._standing(group.source, rows_of.needed, stamp, since)
        mapped = rows_of.map(facts.select(rows_of.needed))
        keys = _canonical_keys(mapped)
        part_of = _parts(keys, n_parts)
        layout = ChunkLayout(
            group.prefix,
            tuple((field.name, field.dtype.value) for field in group.columns.fields),
            order=len(rows_of.source.order_by),
        )
        for part in range(after, n_parts):
            places = np.flatnonzero(part_of == part)
            puts = _pack(group, layout, facts, mapped, keys, places)
            yield Part(puts, part + 1, n_parts, len(places))

    def index(
        self, source: str, *, stamp: Instant | None = None, n_parts: int = 16, after: int = 0
    ) -> Iterator[Part]:
        """The index entries of every id of a source, with the places of its rows in all groups."""
        groups = [group for group in self._groups if group.source == source]
        maps = [StateRowMap(self._project, group, self._sql.query, self._functions.get) for group in groups]
        needed = {name for rows_of in maps for name in rows_of.needed}
        columns = [name for name in self._project.source(source).schema.names if name in needed]
        # Every stored revision has a payload hash; only those that count for features may stand.
        stored = self._facts.rows(source, columns=(), stamp=stamp)
        standing_rows = self._standing(source, columns, stamp, None)
        highest = self._highest(source, stamp)
        places = self._places(maps, standing_rows)
        prefix = event_prefix(self._project.namespace, source)
        ids = stored["event_id"].to_pylist()
        part_of = np.fromiter((crc32(each.encode()) % n_parts for each in ids), np.int64, len(ids))
        times = dict(
            zip(
                standing_rows["event_id"].to_pylist(),
                _micros(standing_rows["event_time"]).tolist(),
                strict=True,
            )
        )
        for part in range(after, n_parts):
            rows = stored.take(pa.array(np.flatnonzero(part_of == part)))
            puts: dict[bytes, bytes] = {}
            for event_id, hashes in _hashes(rows).items():
                known = Known(
                    hashes,
                    highest.get(event_id, NOTHING_STANDS),
                    times.get(event_id),
                    places.get(event_id, []),
                )
                puts[event_key(prefix, row_id(event_id))] = encode_known(known)
            yield Part(puts, part + 1, n_parts, rows.num_rows)

    def _standing(
        self, source: str, columns: Sequence[str], stamp: Instant | None, since: Instant | None
    ) -> pa.Table:
        rows = self._facts.rows(source, since=since, stamp=stamp, columns=columns, for_features=True)
        return standing(rows.filter(rows["event_time"].is_valid()))

    def _highest(self, source: str, stamp: Instant | None) -> dict[str, int]:
        """The highest revision of each id that counts for features, retractions included."""
        rows = self._facts.rows(source, columns=(), stamp=stamp, for_features=True)
        rows = rows.filter(rows["superseded_at"].is_null())
        return dict(zip(rows["event_id"].to_pylist(), rows["revision"].to_pylist(), strict=True))

    def _places(self, maps: Sequence[StateRowMap], rows: pa.Table) -> dict[str, list[bytes]]:
        places: dict[str, list[bytes]] = {}
        ids = rows["event_id"].to_pylist()
        for rows_of in maps:
            mapped = rows_of.map(rows.select(rows_of.needed))
            for event_id, key in zip(ids, _canonical_keys(mapped), strict=True):
                if key is not None:
                    places.setdefault(event_id, []).append(key_head(rows_of.group, key))
        return places


def rebuild(
    online: OnlineWriter,
    backfill: Backfill,
    project: CompiledProject,
    groups: Sequence[StateGroup],
    lake: LakeReader,
    *,
    stamp: Instant,
    sequence: int,
    cursor: dict[str, int],
    now: Instant | None = None,
    built: Collection[str] = (),
) -> int:
    """Fill an empty online store from the lake: chunks, index of events, decisions and shadow scores, position.

    Afterwards the applier goes on after `sequence` as if it had written the store itself.

    Args:
        stamp, sequence: of the newest batch that every table of the lake holds.
        cursor: how far that batch had read the journal.
        now: leaves out what no window can reach any more.
        built: hashes of the groups whose chunks, as of `stamp`, are there already.

    Returns:
        How many keys were written.
    """
    n_keys = 0

    def write(puts: dict[bytes, bytes]) -> None:
        nonlocal n_keys
        online.write(puts, (), stamp=stamp, sequence=0)
        n_keys += len(puts)

    for group in groups:
        if group.hash in built:
            continue
        for part in backfill.chunks(group, now=now, stamp=stamp):
            write(part.puts)
    for source in project.sources:
        for part in backfill.index(source, stamp=stamp):
            write(part.puts)
    for puts in _logged(project, lake):
        write(puts)
    online.write({CURSOR_KEY: msgspec.msgpack.encode(cursor)}, (), stamp=stamp, sequence=sequence)
    online.sync()
    return n_keys + 1


def _logged(project: CompiledProject, lake: LakeReader) -> Iterator[dict[bytes, bytes]]:
    """Index entries of decisions and shadow scores."""
    known = encode_known(Known())
    namespace = project.namespace
    for decision in project.decisions:
        table = f"decision_{decision}"
        if lake.version(table) is not None:
            rows = lake.read(table, columns=["decision_id", "attempt"])
            for batch in rows.to_batches(max_chunksize=_AT_ONCE):
                ids = zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True)
                yield {decision_key(namespace, decision, one, attempt): known for one, attempt in ids}
    if lake.version("shadow_score") is not None:
        rows = lake.read("shadow_score", columns=["decision", "decision_id", "attempt", "model_version"])
        for batch in rows.to_batches(max_chunksize=_AT_ONCE):
            scored = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            yield {shadow_key(namespace, *one): known for one in scored}


def _canonical_keys(mapped: StateRows) -> list[bytes | None]:
    """Canonical key bytes of each row; None where a part is null. Each different key is encoded once."""
    columns = [
        (part.cast(pa.int64()) if pa.types.is_timestamp(part.type) else part).to_pylist()
        for part in mapped.keys
    ]
    return canonical_keys(columns)


def _parts(keys: Sequence[bytes | None], n_parts: int) -> Micros:
    """The part of each key: the same on every run; -1 for a row without a key."""
    return np.fromiter((-1 if key is None else crc32(key) % n_parts for key in keys), np.int64, len(keys))


def _pack(
    group: StateGroup,
    layout: ChunkLayout,
    facts: pa.Table,
    mapped: StateRows,
    keys: Sequence[bytes | None],
    places: Micros,
) -> dict[bytes, bytes]:
    """Some rows as whole chunks."""
    if not len(places):
        return {}
    at = pa.array(places)
    rows = facts.select(["event_id", "event_time", "applied_at"]).take(at)
    times = _micros(rows["event_time"])
    packed = layout.encode(
        times,
        [row_id(each) for each in rows["event_id"].to_pylist()],
        _micros(rows["applied_at"]),
        {name: column.take(at) for name, column in mapped.columns.items()},
        order=[values.take(at) for values in mapped.order],
    )
    numbers = times // group.span_us
    place_of: dict[bytes, int] = {}
    owners = np.empty(len(places), np.int64)
    for n, (place, number) in enumerate(zip(places.tolist(), numbers.tolist(), strict=True)):
        key = keys[place]
        assert key is not None
        chunk = key_head(group, key) + key_tail(number)
        owners[n] = place_of.setdefault(chunk, len(place_of))
    chunks = layout.merge([b""] * len(place_of), packed, owners)
    return dict(zip(place_of, chunks, strict=True))


def _hashes(rows: pa.Table) -> dict[str, dict[int, bytes]]:
    """Payload hashes by id and revision; a row of the table has none."""
    found: dict[str, dict[int, bytes]] = {}
    columns = (rows[name].to_pylist() for name in ("event_id", "revision", "payload_hash"))
    for event_id, revision, payload_hash in zip(*columns, strict=True):
        hashes = found.setdefault(event_id, {})
        if payload_hash is not None:
            hashes[revision] = payload_hash
    return found


def _micros(column: pa.ChunkedArray) -> Micros:
    values: Micros = column.cast(pa.int64()).combine_chunks().to_numpy(zero_copy_only=False)
    return values
