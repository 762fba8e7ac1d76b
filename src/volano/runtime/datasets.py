"""Training sets after they were built: shown, hashed again, rebuilt from their manifests. Writes nothing of them.

A rebuild reads the lake as it is now, with the manifest's definitions, as of its stamp and its cut-off: late facts,
corrections, backfills and later labels have later stamps (`docs/decisions/0033-rebuilding-training-sets.md`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from volano.errors import CorruptionError, UnknownNameError
from volano.kernels.merkle import merkle_root
from volano.learn.training_set import (
    KIND,
    TrainingSet,
    count_history,
    difference,
    find_manifest,
    load,
    members,
    verify,
)
from volano.records.learning import TrainingSetManifest
from volano.runtime.frames import Frames
from volano.runtime.session import Session

MOST_IDS: Final = 100
"""How many ids of each kind a verification names."""


class Verification(msgspec.Struct, frozen=True):
    """What became of a training set: its frozen rows hashed again, and rebuilt from the lake.

    Args:
        root_hash: that the manifest names.
        frozen: what is wrong with the frozen rows; empty when they have that hash.
        rebuilt_hash: of the rows that the manifest gives today.
        missing: ids that are frozen and that the lake does not give any more; at most `MOST_IDS`, as below.
        added: ids that the lake gives and that are not frozen.
        changed: ids whose rows differ.
    """

    name: str
    n_rows: int
    root_hash: str
    frozen: str
    rebuilt_hash: str
    missing: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()

    @property
    def is_sound(self) -> bool:
        """Whether both hashes are the manifest's."""
        return not self.frozen and self.rebuilt_hash == self.root_hash


def manifests(session: Session) -> list[TrainingSetManifest]:
    """Every training and evaluation set, by name."""
    documents = session.stores.catalog.documents(KIND)
    return [msgspec.json.decode(document.body, type=TrainingSetManifest) for document in documents]


def get_manifest(session: Session, name: str) -> TrainingSetManifest:
    """The manifest of a set.

    Raises:
        UnknownNameError: there is none of this name.
    """
    found = find_manifest(name, session.stores.catalog)
    if found is None:
        known = ", ".join(made.name for made in manifests(session)[-5:]) or "none"
        raise UnknownNameError(f"There is no training set {name!r}.", mend=f"some that exist: {known}")
    return found


def rebuild(session: Session, manifest: TrainingSetManifest) -> TrainingSet:
    """Build a set again from the lake; everything accepted must be committed.

    Returns:
        The rows, and the manifest with the hash and the counts that they give: the same as before.

    Raises:
        StateMismatchError: the table of a source is not the one that was pinned any more.
    """
    project = session.definitions.get(manifest.bundle)
    model = project.model(manifest.model)
    label = project.labels[model.label]
    frames = Frames(session, manifest.bundle)
    stamp, asked = manifest.stamp, manifest.asked
    table = members(
        model,
        label,
        frames.decided(model, manifest.decided_from, manifest.decided_until, stamp=stamp),
        frames.labels(model, label, manifest.label_cutoff, stamp=stamp, asked=asked),
        decided_from=manifest.decided_from,
        decided_until=manifest.decided_until,
        label_cutoff=manifest.label_cutoff,
        stamp=stamp,
        history=frames.history(model, stamp=stamp, asked=asked),
    )
    made = msgspec.structs.replace(
        manifest, root_hash=merkle_root(table), n_rows=table.num_rows, n_history=count_history(table)
    )
    return TrainingSet(made, table)


def verify_set(session: Session, manifest: TrainingSetManifest) -> Verification:
    """Hash the frozen rows of a set again, rebuild it, and name the members that differ."""
    artifacts = session.stores.artifacts
    again = rebuild(session, manifest)
    checked = Verification(manifest.name, manifest.n_rows, manifest.root_hash, "", again.manifest.root_hash)
    try:
        verify(manifest, artifacts)
    except (CorruptionError, UnknownNameError) as error:
        return msgspec.structs.replace(checked, frozen=str(error))
    if checked.is_sound:
        return checked
    found = difference(load(manifest, artifacts), again)
    return msgspec.structs.replace(
        checked,
        missing=found.only_before[:MOST_IDS],
        added=found.only_after[:MOST_IDS],
        changed=found.changed[:MOST_IDS],
    )
