"""Which versions serve: from the ledger's newest release event to a `Serving` with loaded, verified predictors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from volano.decide.serving import LoadedModel, Serving, prepare_serving
from volano.learn.train import get_version, load_version
from volano.protocols.catalog import CatalogReader
from volano.records.learning import ReleaseEvent
from volano.runtime.applied import Applied
from volano.runtime.bundle_shelf import BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.trainers import make_trainer

if TYPE_CHECKING:
    from volano.runtime.stores import Stores


def find_release(catalog: CatalogReader, decision: str) -> ReleaseEvent | None:
    """The newest release event of a decision, or None before the first."""
    entry = catalog.last_entry(f"release/{decision}")
    return None if entry is None else msgspec.json.decode(entry.body, type=ReleaseEvent)


class ServingLoader:
    """Loads what serves. Predictors are kept: a version never changes."""

    def __init__(
        self, stores: Stores, applied: Applied, bundles: BundleShelf, definitions: Definitions
    ) -> None:
        self._stores = stores
        self._applied = applied
        self._bundles = bundles
        self._definitions = definitions
        self._models: dict[str, LoadedModel] = {}

    def model(self, version: str) -> LoadedModel:
        """A model version, its artifact's digest and parity test verified, loaded once."""
        if version not in self._models:
            record = get_version(self._stores.catalog, version)
            declared = self._definitions.get(record.bundle).model(record.model).trainer
            trainer = make_trainer(declared, self._bundles.get(record.bundle))
            self._models[version] = LoadedModel(record, load_version(record, trainer, self._stores.artifacts))
        return self._models[version]

    def load(self, decision: str) -> Serving:
        """What serves a decision now."""
        return self.prepare(decision, find_release(self._stores.catalog, decision))

    def prepare(self, decision: str, release: ReleaseEvent | None) -> Serving:
        """What serves a decision under a release: its champion, and the first version as a shadow.

        Also asked before a release is written: what cannot be loaded must not become the head of the ledger.

        Raises:
            StateMismatchError: online state that its bundle reads is not kept any more.
        """
        declared = self._applied.project.release_of(decision)
        keeps_first = declared is not None and declared.keep_first
        shadows = [self.model(release.first)] if release is not None and keeps_first else []
        bundle = self._applied.bundle if release is None else release.bundle
        return prepare_serving(
            self._definitions.get(bundle),
            decision,
            bundle=bundle,
            groups=self._applied.groups,
            online=self._stores.online(self._applied.state),
            functions=self._bundles.get(bundle),
            release=release,
            champion=None if release is None else self.model(release.champion),
            shadows=shadows,
        )
