"""A logged decision in a form that a person reads: request, features, model, policy, timings, what happened after.

Pure: it is given the record, the definitions it was made with, and the labels; it looks nothing up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from volano.errors import StateMismatchError
from volano.plan.definitions import CompiledPolicy, CompiledProject, FeatureInput
from volano.records.journal import DecisionMade, Mode, ShadowScored
from volano.records.label import Label
from volano.values.instants import BEGINNING, Instant, from_datetime
from volano.values.schema import DType, Scalar

_REQUEST: Final = "request__"
_FEATURE: Final = "feature__"


class ExplainedFeature(msgspec.Struct, frozen=True):
    """One input of the model as served.

    Args:
        origin: `view`, `on_demand` or `request`.
        read: what was read: `PlaneHistory.last_delay of tailnum=N14228`, the function, or the request's field.
        owner: who answers for it; empty for request fields.
    """

    name: str
    value: Scalar
    dtype: DType
    origin: str
    read: str
    owner: str = ""


class ExplainedDecision(msgspec.Struct, frozen=True):
    """All that is known of one decision.

    Args:
        age_us: how much older than `decided_at` the newest visible fact was; None when nothing was visible.
        features: in the order of the service; empty when the fallback answered before they were read.
        policy: as it was declared in the bundle that decided.
        labels: what was said about it, oldest first; the last one stands.
        shadows: what other versions would have scored.
    """

    decision_id: str
    attempt: int
    decision: str
    owner: str
    mode: Mode
    role: str
    decided_at: Instant
    features_as_of: Instant
    age_us: int | None
    request: dict[str, Scalar]
    request_types: dict[str, DType]
    features: tuple[ExplainedFeature, ...]
    model: str
    model_version: str
    service_version: str
    release_id: str
    bundle: str
    policy: CompiledPolicy
    score: float | None
    action: str
    propensity: float | None
    propensity_method: str
    fallback: str
    deadline_us: int
    latency_us: dict[str, int]
    labels: tuple[Label, ...]
    shadows: tuple[ShadowScored, ...]
    origin: str = ""


def explain_decision(
    made: DecisionMade,
    project: CompiledProject,
    *,
    labels: Sequence[Label] = (),
    shadows: Sequence[ShadowScored] = (),
) -> ExplainedDecision:
    """Explain a decision.

    Args:
        made: the record.
        project: the definitions of `made.bundle`, not today's.
        labels: every state of the decision's label.
        shadows: every shadow score of it.

    Raises:
        UnknownNameError: the project has no such decision.
        StateMismatchError: the definitions are those of another bundle.
    """
    definition = project.decision(made.decision)
    service = project.model(made.model).service
    if not made.origin and service.version != made.service_version:
        raise StateMismatchError(
            f"Decision {made.decision_id} read the features of service {made.service_version}, not {service.version}.",
            where=f"decision {made.decision}",
            mend=f"explain it with the definitions of its bundle, {made.bundle[:12]}",
        )
    values = made.features or []
    return ExplainedDecision(
        decision_id=made.decision_id,
        attempt=made.attempt,
        decision=made.decision,
        owner=definition.owner,
        mode=made.mode,
        role=made.role,
        decided_at=made.decided_at,
        features_as_of=made.features_as_of,
        age_us=None if made.features_as_of <= 0 else made.decided_at - made.features_as_of,
        request=made.request,
        request_types={
            field.name: field.dtype for field in project.requests[definition.request].schema.fields
        },
        features=tuple(
            _explain_feature(feature, value, made.request, project)
            for feature, value in zip(service.inputs, values, strict=False)
        ),
        model=made.model,
        model_version=made.model_version,
        service_version=made.service_version,
        release_id=made.release_id,
        bundle=made.bundle,
        policy=definition.policy,
        score=made.score,
        action=made.action,
        propensity=made.propensity,
        propensity_method=made.propensity_method,
        fallback=made.fallback,
        deadline_us=made.deadline_us,
        latency_us=made.latency_us,
        labels=tuple(sorted(labels, key=lambda label: label.computed_at)),
        shadows=tuple(sorted(shadows, key=lambda shadow: shadow.model_version)),
        origin=made.origin,
    )


def _explain_feature(
    feature: FeatureInput, value: Scalar, request: Mapping[str, Scalar], project: CompiledProject
) -> ExplainedFeature:
    if feature.view is not None:
        keys = ", ".join(f"{key}={request.get(key)!r}" for key in feature.keys)
        read = f"{feature.view}.{feature.feature} of {keys}"
        owner = project.views[feature.view].owner
        return ExplainedFeature(feature.name, value, feature.dtype, "view", read, owner)
    if feature.on_demand is not None:
        arguments = ", ".join(argument.name for _, argument in project.on_demand[feature.on_demand].arguments)
        return ExplainedFeature(
            feature.name, value, feature.dtype, "on_demand", f"{feature.on_demand}({arguments})"
        )
    return ExplainedFeature(feature.name, value, feature.dtype, "request", str(feature.request_field))


def decision_of_row(row: Mapping[str, Any], *, namespace: str, decision: str) -> DecisionMade:
    """The record that a row of the lake table `decision_<name>` was written from.

    Args:
        row: by column name; times as aware datetimes or instants; feature columns in the order of the service.
        namespace: of the project.
        decision: the table's decision.
    """
    values = {name: _scalar(value) for name, value in row.items()}
    request = {
        name.removeprefix(_REQUEST): value for name, value in values.items() if name.startswith(_REQUEST)
    }
    features = [value for name, value in values.items() if name.startswith(_FEATURE)]
    if (values.get("fallback") or values.get("origin")) and not any(value is not None for value in features):
        features = []
    own = {
        field: values[field]
        for field in DecisionMade.__struct_fields__
        if field in values and field not in ("request", "features", "latency_us")
    }
    own["origin"] = own.get("origin") or ""  # rows from before there was the column
    if own.get("features_as_of") is None:  # nothing was visible, or the fallback answered before it was read
        own["features_as_of"] = BEGINNING
    latency_us = dict(row.get("latency_us") or ())
    return msgspec.convert(
        {
            **own,
            "type": "decision",
            "namespace": namespace,
            "decision": decision,
            "request": request,
            "features": features,
            "latency_us": latency_us,
        },
        DecisionMade,
    )


def _scalar(value: Any) -> Any:
    return from_datetime(value) if isinstance(value, datetime) else value
