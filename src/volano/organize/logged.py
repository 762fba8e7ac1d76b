"""Index entries of decisions, shadow scores and resolved rows, from the lake: as the applier wrote them, no places."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeAlias

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.plan.definitions import CompiledProject
from volano.plan.state_index import (
    Known,
    KnownDecision,
    decision_key,
    encode_known,
    resolution_key,
    shadow_key,
)
from volano.protocols.lake import LakeReader
from volano.records.journal import answer_hash, request_hash
from volano.values.instants import BEGINNING, Instant

_Where: TypeAlias = dict[str, tuple[object | None, object | None]]
_AT_ONCE: Final = 50_000
_REQUEST: Final = "request__"
_ANSWER: Final = ("decision_id", "attempt", "decided_at", "features_as_of", "release_id", "action")


def logged_entries(
    project: CompiledProject, lake: LakeReader, *, stamp: Instant
) -> Iterator[dict[bytes, bytes]]:
    """Entries of every decision id, resolved row and shadow score that was applied by a stamp, some at a time."""
    namespace = project.namespace
    by_then = {"applied_at": (None, stamp + 1)}
    for decision in project.decisions:
        table = f"decision_{decision}"
        if lake.version(table) is not None:
            for entries in _known_decisions(lake, table, by_then):
                yield {
                    decision_key(namespace, decision, decision_id): encode_known(known)
                    for decision_id, known in entries.items()
                }
    if lake.version("quarantine_resolution") is not None:
        known = encode_known(Known())
        rows = lake.read("quarantine_resolution", columns=["receipt_id"], where=by_then)
        for batch in rows.to_batches(max_chunksize=_AT_ONCE):
            yield {resolution_key(namespace, receipt_id): known for receipt_id in batch[0].to_pylist()}
    if lake.version("shadow_score") is not None:
        known = encode_known(Known())
        columns = ["decision", "decision_id", "attempt", "model_version"]
        rows = lake.read("shadow_score", columns=columns, where=by_then)
        for batch in rows.to_batches(max_chunksize=_AT_ONCE):
            scored = zip(*(column.to_pylist() for column in batch.columns), strict=True)
            yield {shadow_key(namespace, *one): known for one in scored}


def _known_decisions(
    lake: LakeReader, table: str, by_then: dict[str, tuple[None, Instant]]
) -> Iterator[dict[str, KnownDecision]]:
    """What is known of each id; those that were answered more than once come last, together."""
    asked = [name for name in _columns(lake, table) if name.startswith(_REQUEST)]
    rows = lake.read(table, columns=[*_ANSWER, *asked], where=by_then)
    again = pc.unique(rows.filter(pc.greater(rows["attempt"], 0))["decision_id"])
    is_again = pc.is_in(rows["decision_id"], value_set=again)
    for batch in rows.filter(pc.invert(is_again)).to_batches(max_chunksize=_AT_ONCE):
        yield _entries(batch, asked)
    yield _entries(rows.filter(is_again).sort_by("attempt").combine_chunks(), asked)


def _columns(lake: LakeReader, table: str) -> list[str]:
    return list(lake.read(table, where={"decided_at": (BEGINNING, BEGINNING)}).column_names)


def _entries(rows: pa.RecordBatch | pa.Table, asked: list[str]) -> dict[str, KnownDecision]:
    """Entries of some rows, by id; the rows of one id in the order of their attempts."""
    found: dict[str, KnownDecision] = {}
    answers = zip(*(_values(rows.column(name)) for name in _ANSWER), strict=True)
    requests = zip(*(_values(rows.column(name)) for name in asked), strict=True) if asked else iter(())
    names = [name.removeprefix(_REQUEST) for name in asked]
    for (decision_id, attempt, decided_at, as_of, release_id, action), values in zip(
        answers, requests if asked else ((),) * rows.num_rows, strict=True
    ):
        answer = answer_hash(decided_at, BEGINNING if as_of is None else as_of, release_id, action)
        known = found.get(decision_id)
        if known is None:
            request = request_hash(dict(zip(names, values, strict=True)))
            found[decision_id] = KnownDecision(request, [answer], attempt + 1)
        else:
            found[decision_id] = msgspec.structs.replace(
                known, answers=[*known.answers, answer], next_attempt=attempt + 1
            )
    return found


def _values(column: pa.Array | pa.ChunkedArray) -> list[object]:
    """A column as Python values; timestamps as instants."""
    values: list[object] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values
