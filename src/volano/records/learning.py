"""What learning leaves behind: training-set manifests, model versions, evaluations, releases."""

from __future__ import annotations

from typing import Any

import msgspec

from volano.values.instants import Instant


class TrainingSetManifest(msgspec.Struct, frozen=True):
    """All that is needed to rebuild a training set to the same root hash.

    Args:
        label_cutoff: only labels mature by then, from evidence known by then.
        stamp: the newest applied stamp that counts; a later backfill changes nothing.
        root_hash: Merkle root over the canonical column bytes, rows sorted by id.
        tables: lake table -> version that was the newest when it was built; a rebuild reads by stamp, not by version.
        snapshots: source -> token of its table, as pinned at the hand-over.
        asked: digest of the past requests that were read, frozen as an artifact; empty without a history.
        share: of the units that were taken, by a hash of the unit and the set's name.
        held_out: the pinned evaluation sets whose members, and the units of these, were left out.
        artifact: digest of the frozen Parquet bytes.
    """

    name: str
    model: str
    bundle: str
    query_hash: str
    service_version: str
    decided_from: Instant
    decided_until: Instant
    label_cutoff: Instant
    stamp: Instant
    n_rows: int
    n_positive: int
    root_hash: str
    artifact: str
    built_at: Instant
    features: tuple[str, ...]
    tables: dict[str, int] = {}
    snapshots: dict[str, str] = {}
    asked: str = ""
    n_history: int = 0
    split_rule: str = ""
    purposes: tuple[str, ...] = ()
    share: float = 1.0
    held_out: tuple[str, ...] = ()
    kind: str = "training"
    """`training`; `evaluation`, the newest part that judges one challenger and may train a later one; or `pinned`, an
    evaluation set that no later training touches."""


class ModelVersion(msgspec.Struct, frozen=True):
    """An immutable trained artifact with its lineage.

    Args:
        version: `delay-0007`; unique in the namespace.
        artifact: digest of the bytes the trainer wrote.
        training_set: name and root hash of what it learnt from.
        parity: digest of the stored parity test (inputs and the scores they must give).
        environment: versions of the libraries that trained it.
    """

    version: str
    model: str
    bundle: str
    service_version: str
    trainer: str
    artifact: str
    training_set: str
    training_set_hash: str
    trained_at: Instant
    trained_until: Instant
    seed: int
    features: tuple[str, ...]
    parity: str = ""
    metrics: dict[str, float] = {}
    params: dict[str, Any] = {}
    environment: dict[str, str] = {}


class Evaluation(msgspec.Struct, frozen=True):
    """A metric of a challenger beside the champion on the same rows, with its interval.

    `difference` is challenger minus champion, signed so that more is better; `low` and `high` bound it at `confidence`.
    """

    metric: str
    n: int
    challenger: float
    champion: float | None
    difference: float | None
    low: float | None
    high: float | None
    confidence: float
    evaluation_set_hash: str
    decided_from: Instant
    decided_until: Instant


class ReleaseEvent(msgspec.Struct, frozen=True):
    """One transition of a release: an entry of the ledger, never changed.

    Args:
        outcome: released | refused | rolled_back | applied (the champion goes on with another bundle).
        champion: the version that serves after it; `previous` before it.
        first: the first version ever released, which `keep_first` keeps in shadow.
        reason: one sentence a person understands; `evidence` the numbers behind it.
        actor: who or what did it.
    """

    release_id: str
    decision: str
    outcome: str
    challenger: str
    champion: str
    previous: str | None
    first: str
    bundle: str
    at: Instant
    actor: str
    reason: str
    evidence: tuple[Evaluation, ...] = ()
