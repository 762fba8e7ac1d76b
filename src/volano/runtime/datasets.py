"""Training sets by name: built, shown, hashed again, rebuilt from their manifests, compared.

A rebuild reads the lake as it is now, with the manifest's definitions, as of its stamp and its cut-off: late facts,
corrections, backfills and later labels have later stamps (`docs/decisions/0033-rebuilding-training-sets.md`).
"""

from __future__ import annotations

from typing import Final

import msgspec

from volano.errors import CorruptionError, RequestError, UnknownNameError
from volano.kernels.merkle import merkle_root
from volano.learn.training_set import (
    Difference,
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
from volano.runtime.freezing import PINNED, Freezer, manifests, pinned_sets
from volano.runtime.session import Session
from volano.values.instants import Instant, format_instant

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


def get_manifest(session: Session, name: str) -> TrainingSetManifest:
    """The manifest of a set.

    Raises:
        UnknownNameError: there is none of this name.
    """
    found = find_manifest(name, session.stores.catalog)
    if found is None:
        known = ", ".join(made.name for made in manifests(session.stores.catalog)[-5:]) or "none"
        raise UnknownNameError(f"There is no training set {name!r}.", mend=f"some that exist: {known}")
    return found


def build_set(
    session: Session,
    model: str,
    name: str,
    *,
    since: Instant,
    until: Instant,
    cutoff: Instant,
    pinned: bool = False,
    share: float = 1.0,
) -> TrainingSetManifest:
    """Freeze a set of a model's decisions with mature labels; everything accepted must be committed, labels computed.

    Args:
        since: decisions in `[since, until)`.
        cutoff: only labels mature by then.
        pinned: an evaluation set that no later training touches, nor the units of its members.
        share: of the units, above 0 to 1, picked by a hash.

    Raises:
        UnknownNameError: no such model.
        RequestError: an empty span, a cut-off in the future, or a share out of range.
        StateMismatchError: a set of this name with other content exists.
    """
    _check_span(name, since, until, cutoff, session.clock.now(), share)
    stores = session.stores
    freezer = Freezer(session, Frames(session, session.applied.bundle), model, cutoff=cutoff, until=until)
    made = freezer.freeze(
        name,
        kind=PINNED if pinned else "training",
        since=since,
        until=until,
        split_rule=f"by hand: {share:.0%} of the units" if share < 1.0 else "by hand",
        share=share,
        held_out=() if pinned else pinned_sets(stores.catalog, stores.artifacts, model),
    )
    return made.manifest


def compare(session: Session, before: str, after: str) -> Difference:
    """By which members two frozen sets differ.

    Raises:
        RequestError: their columns differ; names them.
    """
    sets = [frozen(session, name) for name in (before, after)]
    old, new = (dict(zip(each.table.schema.names, each.table.schema.types, strict=True)) for each in sets)
    if old != new:
        differing = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        raise RequestError(
            f"{before} and {after} have other columns: {', '.join(differing)}.",
            where=f"training sets {before}, {after}",
            mend="compare sets of one feature service; `volano dataset show` names it",
        )
    return difference(*sets)


def frozen(session: Session, name: str) -> TrainingSet:
    """The frozen rows of a set, hashed again.

    Raises:
        CorruptionError: they are not those of its manifest.
    """
    manifest, artifacts = get_manifest(session, name), session.stores.artifacts
    verify(manifest, artifacts)
    return load(manifest, artifacts)


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
        sample=(manifest.name, manifest.share),
        held_out=[load(get_manifest(session, name), session.stores.artifacts) for name in manifest.held_out],
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


def _check_span(
    name: str, since: Instant, until: Instant, cutoff: Instant, now: Instant, share: float
) -> None:
    problem, mend = "", ""
    if since >= until:
        problem, mend = f"{format_instant(since)} is not before {format_instant(until)}", "widen the span"
    elif cutoff > now:
        problem = f"the cut-off {format_instant(cutoff)} is in the future"
        mend = "labels are known up to now; leave --cutoff out"
    elif not 0.0 < share <= 1.0:
        problem, mend = f"a share of {share} is not above 0 and at most 1", "0.1 takes a tenth of the units"
    elif "/" in name or not name.strip():
        problem, mend = f"{name!r} is no name of a set", "use letters, digits, - and ."
    if problem:
        raise RequestError(f"The set cannot be built: {problem}.", where=f"training set {name}", mend=mend)
