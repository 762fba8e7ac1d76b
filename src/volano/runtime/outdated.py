"""Models that learnt from, or were judged on, labels that have changed: noted in the ledger, shown to their owners.

A late outcome, a correction or a retraction after maturity appends a label row. What was trained before keeps its
cut-off and its hash, but its owner should know.
Requests of the past have no label rows: what changes theirs is not seen here.
"""

from __future__ import annotations

from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from volano.learn.outdated import changed_members
from volano.learn.train import KIND as VERSIONS
from volano.learn.training_set import find_manifest
from volano.protocols.catalog import CatalogReader
from volano.records.learning import ModelVersion, TrainingSetManifest
from volano.runtime.labelling import LABELS
from volano.runtime.session import Session
from volano.values.instants import BEGINNING, Instant

STREAM: Final = "outdated_models"
_COLUMNS: Final = (
    "decision",
    "decision_id",
    "label",
    "state",
    "value",
    "value_text",
    "decided_at",
    "computed_at",
)


class OutdatedModel(msgspec.Struct, frozen=True):
    """A version, and one of its two parts, some of whose labels have changed since.

    Args:
        part: `training`: it learnt from them; `evaluation`: it was judged on them.
        n_changed: members of the part, of `n_members`, whose label is another one now, or none any more.
        first: the id of the first of them, `<decision>/<decision id>`.
        owner: of the model: who decides whether it is trained again.
    """

    version: str
    part: str
    label: str
    n_changed: int
    n_members: int
    first: str
    owner: str
    mend: str


class _Flags(msgspec.Struct, frozen=True):
    """An entry of the ledger: labels computed by an instant were held against these versions."""

    checked_until: Instant
    versions: tuple[str, ...]
    outdated: tuple[OutdatedModel, ...] = ()


def read_outdated(catalog: CatalogReader) -> tuple[OutdatedModel, ...]:
    """The versions that are known to have learnt from labels that changed; by version."""
    return _last(catalog).outdated


def flag_outdated(session: Session, *, as_of: Instant) -> tuple[OutdatedModel, ...]:
    """Hold the label rows that are new against every version's training set, and note in the ledger what differs.

    A version is looked at when labels of its span are new since the last time, or when it is new itself, so nothing is
    missed when a run was interrupted.

    Returns:
        All versions that are flagged now.
    """
    catalog, lake = session.stores.catalog, session.stores.lake
    before = _last(catalog)
    new = lake.read(
        LABELS, columns=["label", "decided_at"], where={"computed_at": (before.checked_until + 1, as_of + 1)}
    )
    documents = catalog.documents(VERSIONS)
    if not new.num_rows and len(documents) == len(before.versions):
        return before.outdated
    found: list[OutdatedModel] = []
    for document in documents:
        version = msgspec.json.decode(document.body, type=ModelVersion)
        label = session.definitions.get(version.bundle).model(version.model).label
        for suffix in ("", "-evaluation"):
            manifest = find_manifest(f"{version.training_set}{suffix}", catalog)
            if manifest is None or not label:
                continue
            if version.version in before.versions and not _concerns(new, manifest, label):
                known = (each for each in before.outdated if each.version == version.version)
                found += [each for each in known if each.part == manifest.kind]
            else:
                found += _flags(session, version, manifest, label)
    names = tuple(document.name for document in documents)
    flags = _Flags(max(as_of, before.checked_until), names, tuple(found))
    catalog.append(STREAM, [msgspec.json.encode(flags)], at=as_of)
    return flags.outdated


def _last(catalog: CatalogReader) -> _Flags:
    entry = catalog.last_entry(STREAM)
    return _Flags(BEGINNING, ()) if entry is None else msgspec.json.decode(entry.body, type=_Flags)


def _concerns(new: pa.Table, manifest: TrainingSetManifest, label: str) -> bool:
    """Whether one of some label rows is of a decision that a set may hold."""
    decided = new["decided_at"].cast(pa.int64()).to_numpy(zero_copy_only=False)
    inside = (decided >= manifest.decided_from) & (decided < manifest.decided_until)
    return label in set(new["label"].filter(pa.array(inside)).to_pylist())


def _flags(
    session: Session, version: ModelVersion, manifest: TrainingSetManifest, label: str
) -> list[OutdatedModel]:
    """One flag where labels of a part have changed, none where not."""
    span = (manifest.decided_from, manifest.decided_until)
    rows = session.stores.lake.read(
        LABELS,
        columns=_COLUMNS,
        where={"decided_at": span, "computed_at": (manifest.label_cutoff + 1, None)},
    )
    if not rows.num_rows:
        return []
    frozen = pq.read_table(
        pa.BufferReader(session.stores.artifacts.get(manifest.artifact)), columns=["id", "label"]
    )
    changed = changed_members(manifest, frozen, rows, label=label)
    if not len(changed):
        return []
    declared = session.applied.project.models.get(version.model)
    flag = OutdatedModel(
        version.version,
        manifest.kind,
        label,
        len(changed),
        manifest.n_rows,
        changed[0].as_py(),
        (declared or session.definitions.get(version.bundle).model(version.model)).owner,
        f"train again on what is known now: `volano train {version.model}`",
    )
    return [flag]
