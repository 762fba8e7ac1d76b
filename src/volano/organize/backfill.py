"""Online state from the lake: the chunks of a state group and the index of a source, part by part.

Gives the same answers as the applier that saw every event, because both store the rows that stand, by the same rules.
Everything that was applied must be committed before; while a backfill runs the applier rests. Rows that do not fit
memory are read by ranges of time and put aside by parts of their keys. Each part is written together with a note of how
far the fill has come, so that after a kill it goes on behind the last part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from volano.kernels.chunks import ChunkLayout, PackedRows
from volano.kernels.columns import combined
from volano.kernels.features import WindowFeature
from volano.kernels.tiles import Tiles
from volano.organize.enrichment import GroupRows
from volano.organize.facts import Facts, standing
from volano.organize.logged import logged_entries
from volano.organize.partitions import Span, in_parts, part_of
from volano.plan.built_in import collected_sources, source_of
from volano.plan.definitions import CompiledProject
from volano.plan.failed_rows import FailedRow, encode_failed, failed_key
from volano.plan.state import StateGroup, chunk_number, key_head, key_tail, window_arguments
from volano.plan.state_index import (
    CURSOR_KEY,
    PROGRESS_PREFIX,
    Known,
    encode_known,
    event_key,
    event_prefix,
)
from volano.plan.state_rows import StateRowMap, StateRows
from volano.plan.statelessness import made_up_rows, sample_places
from volano.protocols.functions import Functions
from volano.protocols.lake import LakeReader
from volano.protocols.online_store import OnlineWriter
from volano.protocols.scratch import Scratch
from volano.protocols.sql_engine import SqlEngine
from volano.values.event_ids import row_id
from volano.values.instants import Instant
from volano.values.keys import EntityKey, canonical_keys, encode_key
from volano.values.schema import DType

_AT_ONCE: Final = 50_000
_FEW: Final = 8
_ALL: Final = Span(None, None)
_BEHIND: Final = b"\xff" * 600
"""Behind every key with a given beginning."""

Micros = NDArray[np.int64]
_Mapped: TypeAlias = Callable[[StateRowMap, pa.Table], StateRows]


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
        scratch: where rows wait that do not fit memory; without it everything is read at once.
        rows_at_once: how many rows of a source are held in memory.
    """

    def __init__(
        self,
        project: CompiledProject,
        groups: Sequence[StateGroup],
        facts: Facts,
        sql: SqlEngine,
        functions: Functions,
        *,
        scratch: Scratch | None = None,
        rows_at_once: int = 500_000,
    ) -> None:
        self._project = project
        self._groups = tuple(groups)
        self._facts = facts
        self._rows = GroupRows(project, groups, facts, sql, functions)
        self._scratch = scratch
        self._rows_at_once = rows_at_once

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
            n_parts: in how many parts, at least; the same at every resumption.
            after: parts that were written already.
        """
        since = None if now is None or group.raw_us is None else now - group.raw_us
        rows_of = self._rows.map_of(group)
        layout = ChunkLayout(
            group.prefix,
            tuple((field.name, field.dtype.value) for field in group.columns.fields),
            order=len(rows_of.source.order_by),
        )

        features = [
            WindowFeature(**window_arguments(view, feature))
            for view in group.views
            for feature in view.features
        ]
        tiles = Tiles(features, layout, group.span_us, hot_rows=group.hot_rows)

        def ready(span: Span) -> pa.Table:
            low = span.since if since is None else max(since, span.since or since)
            facts = self._standing(group.source, rows_of.needed, stamp, low, span.until)
            mapped = self._rows.map(rows_of, facts, stamp=stamp)
            failed.update(_failed(group, facts, mapped))
            return ready_rows(group, facts, mapped)

        failed: dict[bytes, bytes] = {}
        parts = self._by_parts(group.source, group.hash, ready, "head", n_parts, after, stamp)
        for part, total, rows in parts:
            yield Part({**_pack(group, tiles, rows), **failed}, part, total, rows.num_rows)
            failed.clear()

    def refuse_stateful(self, group: StateGroup, *, stamp: Instant | None = None) -> frozenset[str]:
        """Refuse a group whose projections compute a row from the rows beside it, as far as a sample shows.

        The sample is of the newest rows that are read at once: of few keys, and spread. Where there are few rows, some
        are made up from the schema as well.

        Returns:
            The views that could not be checked: their projections take no two rows of the samples.

        Raises:
            AuthorCodeError: names function, view, column and the row.
        """
        rows_of = self._rows.map_of(group)
        if not rows_of.is_projected:
            return frozenset()
        span = self._facts.spans(group.source, self._rows_at_once, stamp=stamp)[-1]
        facts = self._standing(group.source, rows_of.needed, stamp, span.since, span.until)
        unchecked = frozenset(view.name for view in group.views if view.projection is not None)
        if facts.num_rows < _FEW:
            unchecked &= rows_of.refuse_stateful(made_up_rows(rows_of.fields, keys=group.key_columns))
        if facts.num_rows:
            # In their order in time, so that the rows of a key lie close together.
            order = pc.sort_indices(facts, sort_keys=[("event_time", "ascending"), ("event_id", "ascending")])
            groupings = _groupings(rows_of)
            keys = facts.select(list(dict.fromkeys(chain.from_iterable(groupings)))).take(order)
            sample = facts.take(order.take(pa.array(sample_places(keys, groupings), pa.int64())))
            unchecked &= rows_of.refuse_stateful(self._rows.joined(rows_of, sample, stamp=stamp))
        return unchecked

    def index(
        self, source: str, *, stamp: Instant | None = None, n_parts: int = 16, after: int = 0
    ) -> Iterator[Part]:
        """The index entries of every id of a source, with the places of its rows in all groups."""
        groups = [group for group in self._groups if group.source == source]
        maps = [self._rows.map_of(group) for group in groups]
        needed = {name for rows_of in maps for name in rows_of.needed}
        columns = [name for name in source_of(self._project, source).schema.names if name in needed]
        mapped = partial(self._rows.map, stamp=stamp)

        def ready(span: Span) -> pa.Table:
            # Every stored revision has a payload hash; only those that count for features may stand.
            stored = self._facts.rows(source, since=span.since, until=span.until, columns=(), stamp=stamp)
            highest, standing_rows = self._highest(source, columns, stamp, span)
            return _known_rows(stored, highest, standing_rows, maps, mapped)

        def timeless() -> pa.Table:
            stored = self._facts.rows(source, columns=(), stamp=stamp, timeless=True)
            counting = self._facts.rows(
                source, columns=columns, stamp=stamp, timeless=True, for_features=True
            )
            highest = counting.filter(counting["superseded_at"].is_null())
            return _known_rows(stored, highest, highest.slice(0, 0), maps, mapped)

        prefix = event_prefix(self._project.namespace, source)
        name = f"index-{source}"
        parts = self._by_parts(source, name, ready, "event_id", n_parts, after, stamp, timeless)
        for part, total, rows in parts:
            puts = {
                event_key(prefix, row_id(event_id)): encode_known(known)
                for event_id, known in _entries(rows).items()
            }
            yield Part(puts, part, total, rows.num_rows)

    def _by_parts(
        self,
        source: str,
        name: str,
        ready: Callable[[Span], pa.Table],
        key: str,
        n_parts: int,
        after: int,
        stamp: Instant | None,
        rest: Callable[[], pa.Table] | None = None,
    ) -> Iterator[tuple[int, int, pa.Table]]:
        """Rows by parts of a key column, each with its number, from 1, and the number of parts.

        Args:
            ready: the rows of a range of time; `rest` those of no time, asked for when there are several ranges.
            stamp: the ranges are those of what was applied by then: the same at every resumption.
        """
        scratch = self._scratch
        spans = [_ALL] if scratch is None else self._facts.spans(source, self._rows_at_once, stamp=stamp)
        if scratch is None or len(spans) == 1:
            rows = ready(_ALL)
            parts = part_of([rows[key]], n_parts)
            for part in range(after, n_parts):
                yield part + 1, n_parts, rows.take(pa.array(np.flatnonzero(parts == part)))
            return
        n_parts = max(n_parts, 2 * len(spans))
        readers = [partial(ready, span) for span in spans] + ([rest] if rest is not None else [])

        def find_parts(rows: pa.Table) -> Micros:
            return part_of([rows[key]], n_parts)

        for part, rows in in_parts(scratch, name, readers, find_parts, n_parts, after):
            yield part, n_parts, rows

    def _standing(
        self,
        source: str,
        columns: Sequence[str],
        stamp: Instant | None,
        since: Instant | None,
        until: Instant | None,
    ) -> pa.Table:
        rows = self._facts.rows(
            source, since=since, until=until, stamp=stamp, columns=columns, for_features=True
        )
        return standing(rows.filter(rows["event_time"].is_valid()))

    def _highest(
        self, source: str, columns: Sequence[str], stamp: Instant | None, span: Span
    ) -> tuple[pa.Table, pa.Table]:
        """The highest revision of each id that counts for features, retractions included; and those that stand."""
        rows = self._facts.rows(
            source, since=span.since, until=span.until, columns=columns, stamp=stamp, for_features=True
        )
        highest = rows.filter(rows["superseded_at"].is_null())
        return highest, standing(highest.filter(highest["event_time"].is_valid()))


def _groupings(rows_of: StateRowMap) -> list[list[str]]:
    """Columns by which rows of a source share a key: those of the entity; each that may be one where it is computed."""
    fields = rows_of.source.schema.fields
    keys = list(rows_of.group.key_columns)
    if {field.name for field in fields}.issuperset(keys):
        return [keys]
    of_keys = [field.name for field in fields if field.dtype in (DType.STRING, DType.INT64)]
    return [[name] for name in of_keys if (name,) != rows_of.source.id_columns]


def write_parts(
    online: OnlineWriter,
    name: str,
    parts: Callable[[int], Iterator[Part]],
    *,
    stamp: Instant,
    owned: bytes = b"",
    on_part: Callable[[Part], None] | None = None,
) -> int:
    """Write parts, each with a note of how far the fill has come; go on behind the last one that was written.

    Args:
        name: of the fill; a finished one is not repeated.
        parts: the parts behind so many.
        stamp: of what the parts hold. A fill of another stamp is started anew.
        owned: what the keys begin with that this fill alone writes; removed before it starts anew.

    Returns:
        Rows written by this call.
    """
    note = PROGRESS_PREFIX + name.encode()
    with online.snapshot() as snapshot:
        (found,) = snapshot.get_many([note])
    noted = (0, 0, stamp) if found is None else msgspec.msgpack.decode(found, type=tuple[int, int, int])
    done, total, of_stamp = noted
    if done and (done == total) and of_stamp == stamp:
        return 0
    if of_stamp != stamp:
        _clear(online, owned, stamp)
        done = 0
    n_rows = 0
    for part in parts(done):
        if done and part.total != total:
            online.write({}, [note], stamp=stamp, sequence=0)
            return write_parts(online, name, parts, stamp=stamp, owned=owned, on_part=on_part)
        progress = msgspec.msgpack.encode((part.done, part.total, stamp))
        online.write({**part.puts, note: progress}, (), stamp=stamp, sequence=0)
        n_rows += part.n_rows
        if on_part is not None:
            on_part(part)
    return n_rows


def _clear(online: OnlineWriter, prefix: bytes, stamp: Instant) -> None:
    """Remove every key that begins with a prefix, if there is one."""
    while prefix:
        with online.snapshot() as snapshot:
            doomed = [key for key, _ in islice(snapshot.scan(prefix, prefix + _BEHIND), _AT_ONCE)]
        if not doomed:
            return
        online.write({}, doomed, stamp=stamp, sequence=0)


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
    logged_until: Instant | None = None,
    now: Instant | None = None,
) -> int:
    """Fill an empty online store from the lake: chunks, index of events, decisions and shadow scores, position.

    Afterwards the applier goes on after `sequence` as if it had written the store itself. What is written already, as
    of the same stamp, is not written again.

    Args:
        stamp, sequence: of a batch that every table of the lake holds; of later ones nothing is seen.
        cursor: how far that batch had read the journal.
        logged_until: the stamp for decisions and shadow scores, where a hand-over's lies behind it.
        now: leaves out what no window can reach any more.

    Returns:
        How many keys were written.
    """
    n_keys = 0

    def count(part: Part) -> None:
        nonlocal n_keys
        n_keys += len(part.puts)

    for group in groups:
        parts = partial(_chunks_after, backfill, group, now, stamp)
        write_parts(online, group.hash, parts, stamp=stamp, owned=group.prefix, on_part=count)
    for source in collected_sources(project):
        parts = partial(_index_after, backfill, source, stamp)
        write_parts(online, f"index-{source}", parts, stamp=stamp, on_part=count)
    for puts in logged_entries(project, lake, stamp=stamp if logged_until is None else logged_until):
        online.write(puts, (), stamp=stamp, sequence=0)
        n_keys += len(puts)
    with online.snapshot() as snapshot:
        notes = [key for key, _ in snapshot.scan(PROGRESS_PREFIX, PROGRESS_PREFIX + _BEHIND)]
    # Last, and at once: the store is whole, and where the applier goes on.
    online.write({CURSOR_KEY: msgspec.msgpack.encode(cursor)}, notes, stamp=stamp, sequence=sequence)
    online.sync()
    return n_keys + 1


def _chunks_after(
    backfill: Backfill, group: StateGroup, now: Instant | None, stamp: Instant, after: int
) -> Iterator[Part]:
    return backfill.chunks(group, now=now, stamp=stamp, after=after)


def _index_after(backfill: Backfill, source: str, stamp: Instant, after: int) -> Iterator[Part]:
    return backfill.index(source, stamp=stamp, after=after)


def _coded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    one = combined(column)
    return one if pa.types.is_dictionary(one.type) else one.dictionary_encode()


def _failed(group: StateGroup, facts: pa.Table, mapped: StateRows) -> dict[bytes, bytes]:
    """The rows that projections could not take, as they stand beside online state."""
    if not mapped.failures:
        return {}
    at = pa.array([failure.row for failure in mapped.failures])
    ids, stamps = facts["event_id"].take(at).to_pylist(), _micros(facts["applied_at"].take(at)).tolist()
    views = {view.name: view for view in group.views}
    return {
        failed_key(views[view], row_id(event_id)): encode_failed(
            FailedRow(view, group.source, event_id, stamp, error.what)
        )
        for (view, _, error), event_id, stamp in zip(mapped.failures, ids, stamps, strict=True)
    }


def ready_rows(group: StateGroup, facts: pa.Table, mapped: StateRows) -> pa.Table:
    """Rows that have a key, with all that a chunk holds: `head` of the online key, id, instants, order and values."""
    # A dimension's rows count from the instant at which they were known.
    visible_from = "known_at" if group.is_dimension else "applied_at"
    heads, codes = _heads(group, mapped)
    table = pa.table(
        {
            "head": pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), heads),
            "event_id": facts["event_id"],
            "event_time": facts["event_time"],
            "visible_from": facts[visible_from],
            **{f"order {n}": values for n, values in enumerate(mapped.order)},
            **{f"value {name}": values for name, values in mapped.columns.items()},
        }
    )
    return table if (codes >= 0).all() else table.filter(pa.array(codes >= 0))


def _heads(group: StateGroup, mapped: StateRows) -> tuple[pa.Array, Micros]:
    """What online keys begin with, each once, and which it is for each row; -1 where a part of the key is null."""
    columns = [part.cast(pa.int64()) if pa.types.is_timestamp(part.type) else part for part in mapped.keys]

    def head(key: EntityKey) -> bytes | None:
        return key_head(group, encode_key(key))

    if len(columns) == 1:
        coded = columns[0].dictionary_encode()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
        return pa.array(canonical_keys([coded.dictionary.to_pylist()], encode=head), pa.binary()), codes
    found = canonical_keys([column.to_pylist() for column in columns], encode=head)
    code_of: dict[bytes | None, int] = {None: -1}
    for each in found:
        code_of.setdefault(each, len(code_of) - 1)
    codes = np.fromiter((code_of[each] for each in found), np.int64, len(found))
    return pa.array([each for each in code_of if each is not None], pa.binary()), codes


def packed_rows(layout: ChunkLayout, rows: pa.Table) -> PackedRows:
    """Rows of `ready_rows` in the words of a layout."""
    return layout.encode(
        _micros(rows["event_time"]),
        [row_id(each) for each in rows["event_id"].to_pylist()],
        _micros(rows["visible_from"]),
        {name: rows[f"value {name}"] for name, _ in layout.columns},
        order=[rows[f"order {n}"] for n in range(layout.order)],
    )


def _pack(group: StateGroup, tiles: Tiles, rows: pa.Table) -> dict[bytes, bytes]:
    """Rows as whole chunks."""
    if not rows.num_rows:
        return {}
    layout = tiles.layout
    times = _micros(rows["event_time"])
    packed = packed_rows(layout, rows)
    coded = _coded(rows["head"])
    heads = coded.dictionary.to_pylist()
    # A chunk is a key and a number: both in one integer.
    numbers = times // group.span_us
    first = int(numbers.min())
    width = int(numbers.max()) - first + 1
    codes = coded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    chunks, owners = np.unique(codes * width + (numbers - first), return_inverse=True)
    tails: dict[int, bytes] = {}
    keys = []
    for code, n in zip((chunks // width).tolist(), (chunks % width).tolist(), strict=True):
        if n not in tails:
            tails[n] = key_tail(first + n)
        keys.append(heads[code] + tails[n])
    puts = dict(zip(keys, layout.merge([b""] * len(keys), packed, owners), strict=True))
    for key in [key for key, chunk in puts.items() if tiles.is_hot(chunk)]:
        hot = tiles.split(puts[key], chunk_number(key))
        puts[key] = hot.head
        puts.update((key + suffix, block) for suffix, block in hot.blocks.items())
    return puts


_KNOWN_ROWS: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("revision", pa.int64()),
        ("payload_hash", pa.binary()),
        ("standing", pa.int64()),
        ("event_time", pa.int64()),
        ("places", pa.list_(pa.binary())),
    ]
)


def _known_rows(
    stored: pa.Table,
    highest: pa.Table,
    standing_rows: pa.Table,
    maps: Sequence[StateRowMap],
    mapped: _Mapped,
) -> pa.Table:
    """What is known of ids, in rows: of each stored revision the hash, of each id what stands and where it lies.

    Args:
        maps: of the groups of the source.
        mapped: facts as rows of a group.
    """
    hashes = {
        "event_id": stored["event_id"],
        "revision": stored["revision"],
        "payload_hash": stored["payload_hash"],
    }
    stands = {"event_id": highest["event_id"], "standing": highest["revision"]}
    lies: dict[str, Any] = {"event_id": standing_rows["event_id"]}
    lies["event_time"] = standing_rows["event_time"].cast(pa.int64())
    lies["places"] = _places(maps, mapped, standing_rows)
    tables = [pa.table(hashes), pa.table(stands), pa.table(lies)]
    return pa.concat_tables(
        [
            pa.table(
                [
                    table[field.name].cast(field.type)
                    if field.name in table.column_names
                    else pa.nulls(table.num_rows, field.type)
                    for field in _KNOWN_ROWS
                ],
                schema=_KNOWN_ROWS,
            )
            for table in tables
        ]
    )


def _places(maps: Sequence[StateRowMap], mapped: _Mapped, rows: pa.Table) -> pa.Array:
    """The heads of the online keys under which each row lies."""
    n = rows.num_rows
    found, owners = [pa.array([], pa.binary())], [np.zeros(0, np.int64)]
    for rows_of in maps:
        heads, codes = _heads(rows_of.group, mapped(rows_of, rows))
        held = np.flatnonzero(codes >= 0)
        found.append(heads.take(pa.array(codes[held])))
        owners.append(held)
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    offsets = np.searchsorted(owner[order], np.arange(n + 1)).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(found).take(pa.array(order)))


def _entries(rows: pa.Table) -> dict[str, Known]:
    """Entries by id; a row of the table has no hash."""
    entries: dict[str, Known] = {}
    for event_id, revision, payload_hash, stands, event_time, places in zip(
        *(rows[name].to_pylist() for name in _KNOWN_ROWS.names), strict=True
    ):
        known = entries.get(event_id)
        if known is None:
            known = entries[event_id] = Known({})
        if payload_hash is not None:
            known.hashes[revision] = payload_hash
        if stands is not None:
            known.standing = stands
        if event_time is not None:
            known.event_time, known.places = event_time, places
    return entries


def _micros(column: pa.ChunkedArray) -> Micros:
    values: Micros = column.cast(pa.int64()).combine_chunks().to_numpy(zero_copy_only=False)
    return values
