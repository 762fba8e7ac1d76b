"""Which versions serve: from the ledger's newest release event to a `Serving` with loaded, verified predictors."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from volano.decide.newer_requests import NewerRequests, lacking_fields
from volano.decide.request import RequestReader
from volano.decide.serving import LoadedModel, Serving, fall_back, prepare_serving
from volano.errors import NotReadyError, VolanoError, problem_of
from volano.learn.train import get_version, load_version
from volano.protocols.catalog import CatalogReader
from volano.protocols.online_store import OnlineReader, OnlineSnapshot
from volano.records.learning import ReleaseEvent
from volano.runtime.applied import Applied, find_definitions
from volano.runtime.bundle_shelf import BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.trainers import make_trainer

if TYPE_CHECKING:
    from volano.runtime.stores import Stores


def find_release(catalog: CatalogReader, decision: str) -> ReleaseEvent | None:
    """The newest release event of a decision, or None before the first."""
    entry = catalog.last_entry(f"release/{decision}")
    return None if entry is None else msgspec.json.decode(entry.body, type=ReleaseEvent)


class _Closed:
    """Stands in for a store that is not to be opened."""

    def snapshot(self) -> AbstractContextManager[OnlineSnapshot]:
        raise NotReadyError("The online store is not open.", mend="load the decision to serve it")


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

    def take_models(self, other: ServingLoader) -> None:
        """Do not load again what another one has loaded."""
        self._models |= other._models

    def load(self, decision: str) -> Serving:
        """What serves a decision now; its fallback, which says why, where that cannot be loaded."""
        release = find_release(self._stores.catalog, decision)
        try:
            return self.prepare(decision, release)
        except Exception as error:  # one decision that cannot be served must not take the others down
            return self.fall_back(decision, release, problem_of(error))

    def find_problem(self, decision: str) -> str:
        """Why a decision cannot be served, in one line; empty when it can. Opens no online store, so takes no lock."""
        release = find_release(self._stores.catalog, decision)
        try:
            serving = self.prepare(decision, release, online=_Closed())
        except Exception as error:  # whatever it is, it is the answer
            mend = error.mend if isinstance(error, VolanoError) else ""
            return f"{problem_of(error)} Mend: {mend}" if mend else problem_of(error)
        return serving.shadow_problem

    def fall_back(self, decision: str, release: ReleaseEvent | None, problem: str) -> Serving:
        """A decision's fallback, by the definitions of the release where they have it, else the applied ones."""
        bundle, project = self._applied.bundle, self._applied.project
        if release is not None:
            released = find_definitions(self._stores.catalog, release.bundle)
            if released is not None and decision in released.decisions:
                bundle, project = release.bundle, released
        return fall_back(project, decision, bundle=bundle, release=release, problem=problem)

    def _shadows(self, decision: str, release: ReleaseEvent | None) -> tuple[list[LoadedModel], str]:
        """The versions that score along, and why one is missing."""
        declared = self._applied.project.release_of(decision)
        if release is None or declared is None or not declared.keep_first:
            return [], ""
        try:
            return [self.model(release.first)], ""
        except Exception as error:  # a shadow is off the critical path
            return [], f"shadow {release.first}: {problem_of(error)}"

    def prepare(
        self, decision: str, release: ReleaseEvent | None, *, online: OnlineReader | None = None
    ) -> Serving:
        """What serves a decision under a release: its champion, and the first version as a shadow.

        Also asked before a release is written: what cannot be loaded must not become the head of the ledger.

        Args:
            online: in place of the store in force.

        Raises:
            StateMismatchError: online state that its bundle reads is not kept any more.
        """
        shadows, shadow_problem = self._shadows(decision, release)
        bundle = self._applied.bundle if release is None else release.bundle
        serving = prepare_serving(
            self._definitions.get(bundle),
            decision,
            bundle=bundle,
            groups=self._applied.groups,
            online=self._stores.online(self._applied.state) if online is None else online,
            functions=self._bundles.get(bundle),
            release=release,
            champion=None if release is None else self.model(release.champion),
            shadows=shadows,
            shadow_problem=shadow_problem,
        )
        return serving if bundle == self._applied.bundle else self._with_newer(serving, release)

    def _with_newer(self, serving: Serving, release: ReleaseEvent | None) -> Serving:
        """What serves also the requests of the definitions in force, as far as the release can answer them."""
        project, name = self._applied.project, serving.decision.name
        if name not in project.decisions:
            return serving
        newer, served = project.requests[project.decisions[name].request], serving.reader.request
        if newer.schema == served.schema:
            return serving
        lacking = ", ".join(repr(field) for field in lacking_fields(served, newer))
        problem = (
            f"{serving.release_id} asks for {lacking}, which a request of the definitions in force may lack"
        )
        return replace(
            serving,
            newer=NewerRequests(
                RequestReader(newer, decision=name, keys=project.key_fields(newer.name)), served
            ),
            without=fall_back(project, name, bundle=self._applied.bundle, release=release, problem=problem),
        )
