"""Freezing: the rows of a model as of one cut-off, cut into sets that are stored for ever.

What is read is pinned when the work begins: a stamp, the past requests, the pinned evaluation sets. So all parts of one
freezing agree with each other, and each can be built again from its manifest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
import pyarrow as pa

from volano.errors import DefinitionError
from volano.learn.training_set import KIND, TrainingSet, build, load, store_manifest, verify
from volano.plan.definitions import CompiledLabel, CompiledModel, CompiledProject
from volano.protocols.artifact_store import ArtifactReader
from volano.protocols.catalog import CatalogReader
from volano.records.learning import TrainingSetManifest
from volano.runtime.frames import Frames
from volano.runtime.session import Session
from volano.values.instants import BEGINNING, Instant

PINNED: Final = "pinned"


def manifests(catalog: CatalogReader) -> list[TrainingSetManifest]:
    """Every training and evaluation set, by name."""
    documents = catalog.documents(KIND)
    return [msgspec.json.decode(document.body, type=TrainingSetManifest) for document in documents]


def pinned_sets(catalog: CatalogReader, artifacts: ArtifactReader, model: str) -> list[TrainingSet]:
    """The pinned evaluation sets of a model; each is hashed again.

    Raises:
        CorruptionError: one is not what its manifest says.
    """
    found = [made for made in manifests(catalog) if made.kind == PINNED and made.model == model]
    for made in found:
        verify(made, artifacts)
    return [load(made, artifacts) for made in found]


def label_of(project: CompiledProject, model: CompiledModel) -> CompiledLabel:
    """What a model learns.

    Raises:
        DefinitionError: it has no label.
    """
    if not model.label:
        raise DefinitionError(
            f"Model {model.name!r} has no label, so nothing can be learnt.",
            where=f"model {model.name}",
            mend="declare label= on the model",
        )
    return project.labels[model.label]


class Freezer:
    """The rows of one model as of a cut-off, read once.

    Everything that it reads must be committed, and labels computed as of the cut-off.

    Args:
        model: its name.
        cutoff: only labels mature by then, from evidence known by then.
        until: decisions before this instant are read.
    """

    def __init__(
        self, session: Session, frames: Frames, model: str, *, cutoff: Instant, until: Instant
    ) -> None:
        project = session.applied.project
        self.model: CompiledModel = project.model(model)
        self.label: CompiledLabel = label_of(project, self.model)
        self._session = session
        self._cutoff = cutoff
        self._stamp = frames.pin(cutoff)
        self._asked = frames.asked(self.model)
        self._tables = frames.tables(self.model)
        self._rows: pa.Table = frames.decided(self.model, BEGINNING, until, stamp=self._stamp)
        self._history = frames.history(self.model, stamp=self._stamp, asked=self._asked)
        self._labels: pa.Table = frames.labels(
            self.model, self.label, cutoff, stamp=self._stamp, asked=self._asked
        )

    def freeze(
        self,
        name: str,
        *,
        kind: str,
        since: Instant,
        until: Instant,
        split_rule: str = "",
        share: float = 1.0,
        held_out: Sequence[TrainingSet] = (),
    ) -> TrainingSet:
        """Store the rows decided in `[since, until)` as a set; a set of this name and these rows is itself.

        Args:
            kind, split_rule, share, held_out: see `learn.training_set.build`.

        Raises:
            StateMismatchError: a set of this name with other content exists.
        """
        stores = self._session.stores
        part = build(
            self.model, self.label, self._rows, self._labels,
            name=name,
            bundle=self._session.applied.bundle,
            decided_from=since,
            decided_until=until,
            label_cutoff=self._cutoff,
            stamp=self._stamp,
            built_at=self._cutoff,
            artifacts=stores.artifacts,
            kind=kind,
            history=self._history,
            tables=self._tables,
            snapshots=self._session.facts.snapshots(),
            asked=self._asked,
            split_rule=split_rule,
            share=share,
            held_out=held_out,
        )  # fmt: skip
        return TrainingSet(store_manifest(part.manifest, stores.catalog), part.table)
