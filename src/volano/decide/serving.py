"""What serves one decision at a moment: definition, release, code and features, prepared once and never changed.

A request takes one `Serving` at its beginning and keeps it to its end, so a release that arrives in between is never
seen half. Two of them, with the code of two bundles, may exist side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from volano.decide.features import OnlineFeatures
from volano.decide.newer_requests import NewerRequests
from volano.decide.request import RequestReader
from volano.errors import StateMismatchError
from volano.kernels.policies import Policy, make_policy
from volano.plan.definitions import CompiledDecision, CompiledProject, CompiledService
from volano.plan.state import StateGroup
from volano.protocols.functions import Functions
from volano.protocols.online_store import OnlineReader
from volano.protocols.trainer import Predictor
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.values.event_ids import event_id
from volano.values.schema import Scalar


class LoadedModel(NamedTuple):
    """A model version and what scores with it."""

    version: ModelVersion
    predictor: Predictor


@dataclass(frozen=True, slots=True)
class Serving:
    """Everything that a request of one decision needs.

    Args:
        namespace: of the project.
        bundle: digest of the bundle whose definitions and code these are.
        decision: the definition.
        service: the ordered features of its model.
        service_version: the hash of `service`.
        release_id: of the newest release event; empty before the first.
        champion: None before the first release: the fallback answers.
        shadows: scored off the critical path, from the features as served.
        problem: why nothing but the fallback can answer; `features` and `policy` are None then.
        shadow_problem: why a shadow is missing; no request is affected.
        newer: reads the requests of newer definitions, where these are in force and ask for other fields.
        without: what answers those of them that lack a field: the fallback, by the definitions in force.
    """

    namespace: str
    bundle: str
    decision: CompiledDecision
    service: CompiledService
    service_version: str
    reader: RequestReader
    features: OnlineFeatures | None
    policy: Policy | None
    release_id: str = ""
    champion: LoadedModel | None = None
    shadows: tuple[LoadedModel, ...] = ()
    problem: str = ""
    shadow_problem: str = ""
    newer: NewerRequests | None = None
    without: Serving | None = None

    def unit_of(self, request: Mapping[str, Scalar]) -> str:
        """What is randomised together: the unit's fields joined; empty when each decision is a unit of its own."""
        fields = self.decision.unit
        return event_id([request[field] for field in fields]) if fields else ""

    def source_event_id_of(self, request: Mapping[str, Scalar]) -> str | None:
        """The id of the event that the request is; None when it is none."""
        columns = self.reader.request.id_columns
        return event_id([request[column] for column in columns]) if columns else None


def prepare_serving(
    project: CompiledProject,
    decision: str,
    *,
    bundle: str,
    groups: Sequence[StateGroup],
    online: OnlineReader,
    functions: Functions,
    release: ReleaseEvent | None = None,
    champion: LoadedModel | None = None,
    shadows: Sequence[LoadedModel] = (),
    shadow_problem: str = "",
) -> Serving:
    """Prepare what serves a decision; all planning and checking happens here, none in a request.

    Args:
        project: the definitions of `bundle`.
        bundle: digest of the bundle that the release names.
        groups: the state that receives events; those of the decision's views are picked out.
        online: the store that holds that state.
        functions: the author's code of the bundle.
        release: the newest release event of the decision, or None.
        champion: the version that the release says serves.

    Raises:
        UnknownNameError: the project has no such decision.
        StateMismatchError: a view has no state in `groups`, or a model was trained on other inputs.
        DefinitionError: the policy cannot be made.
    """
    definition = project.decision(decision)
    request = project.requests[definition.request]
    service = project.model(definition.model).service
    if champion is not None and champion.version.service_version != service.version:
        raise StateMismatchError(
            f"Model version {champion.version.version!r} reads other inputs than {definition.model!r} declares.",
            where=f"decision {decision}, bundle {bundle[:12]}",
            mend="serve it with the bundle it was trained with, or train again",
        )
    return Serving(
        namespace=project.namespace,
        bundle=bundle,
        decision=definition,
        service=service,
        service_version=service.version,
        reader=RequestReader(request, decision=decision, keys=project.key_fields(request.name)),
        features=OnlineFeatures(
            project, service, request=request, groups=groups, online=online, functions=functions
        ),
        policy=make_policy(definition.policy.kind, definition.policy.params, definition.actions),
        release_id="" if release is None else release.release_id,
        champion=champion,
        shadows=tuple(shadows),
        shadow_problem=shadow_problem,
    )


def fall_back(
    project: CompiledProject, decision: str, *, bundle: str, release: ReleaseEvent | None, problem: str
) -> Serving:
    """What serves a decision that cannot be prepared: its requests are read, its fallback answers and says why.

    Args:
        project: the definitions of `bundle`, which need no code to be loaded.
        problem: what stands in the way.
    """
    definition = project.decision(decision)
    service = project.model(definition.model).service
    request = project.requests[definition.request]
    return Serving(
        namespace=project.namespace,
        bundle=bundle,
        decision=definition,
        service=service,
        service_version=service.version,
        reader=RequestReader(request, decision=decision, keys=project.key_fields(request.name)),
        features=None,
        policy=None,
        release_id="" if release is None else release.release_id,
        problem=problem,
    )
