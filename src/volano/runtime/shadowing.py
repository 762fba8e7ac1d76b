"""Shadow scores for logged decisions, off the critical path: features as served, another version's score.

Works from the lake, so a crash loses nothing; scores are deduplicated by (decision, version), so a repetition adds
nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import SHADOWS, decision_table
from volano.decide.serving import LoadedModel
from volano.decide.shadow import score_shadow
from volano.protocols.lake import LakeReader
from volano.runtime.session import Session
from volano.values.instants import BEGINNING, Instant

_AT_ONCE: Final = 5_000


class Watermark(msgspec.Struct, frozen=True):
    """Decisions applied up to this stamp have their score."""

    stamp: Instant


def score_open_shadows(session: Session) -> int:
    """Score what was committed since the last run; returns how many scores were journaled."""
    n_scores = 0
    for decision in session.applied.project.decisions:
        for shadow in session.decider.serving(decision).shadows:
            n_scores += _score(session, decision, shadow)
    return n_scores


def _score(session: Session, decision: str, shadow: LoadedModel) -> int:
    lake, catalog = session.stores.lake, session.stores.catalog
    version = shadow.version
    stream = f"shadow/{decision}/{version.version}"
    entry = catalog.last_entry(stream)
    since = BEGINNING if entry is None else msgspec.json.decode(entry.body, type=Watermark).stamp
    features = [f"feature__{name}" for name in version.features]
    rows = lake.read(
        decision_table(decision),
        columns=["decision_id", "attempt", "service_version", "fallback", "applied_at", *features],
        where={"applied_at": (since + 1, None)},
    )
    if not rows.num_rows:
        return 0
    newest = pc.max(rows["applied_at"].cast(pa.int64())).as_py()
    rows = _unscored(lake, rows, decision, version.version, since)
    rows = rows.sort_by("applied_at")  # the lake has no order; the journal's gives the stamps
    n_scores = 0
    for start in range(0, rows.num_rows, _AT_ONCE):
        part = rows.slice(start, _AT_ONCE)
        scores = score_shadow(part, decision, shadow, scored_at=session.clock.now())
        session.door.log(scores)
        n_scores += len(scores)
    session.door.log([], sync=True)
    catalog.append(stream, [msgspec.json.encode(Watermark(newest))], at=session.clock.now())
    return n_scores


def _unscored(lake: LakeReader, rows: pa.Table, decision: str, version: str, since: Instant) -> pa.Table:
    """Decisions without a score: a run that was killed before its watermark may have scored some.

    Scoring them again would only add duplicates, but these take stamps, and a repeated run is to leave none.
    """
    if lake.version(SHADOWS) is None:
        return rows
    columns = ["decision_id", "attempt", "decision", "model_version"]
    scored = lake.read(SHADOWS, columns=columns, where={"applied_at": (since + 1, None)})
    scored = scored.filter(
        pc.and_(pc.equal(scored["decision"], decision), pc.equal(scored["model_version"], version))
    )
    return rows.filter(pc.invert(pc.is_in(_keys(rows), value_set=_keys(scored).combine_chunks())))


def _keys(rows: pa.Table) -> pa.ChunkedArray:
    return pc.binary_join_element_wise(rows["decision_id"], rows["attempt"].cast(pa.string()), "\x1f")
