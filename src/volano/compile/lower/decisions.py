"""Decisions and releases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from volano.compile.context import Context, column_names
from volano.compile.report import nearest
from volano.compile.resolve import Definition
from volano.plan.definitions import CompiledDecision, CompiledGate, CompiledPolicy, CompiledRelease
from volano.spec.policy import EpsilonGreedy, Greedy, Policy, Softmax, Threshold

METRICS: Final = (
    "roc_auc",
    "average_precision",
    "log_loss",
    "brier",
    "accuracy",
    "mae",
    "rmse",
    "calibration_error",
)
"""Those of `kernels.metrics`; a test holds the two together."""


def lower_decisions(ctx: Context) -> dict[str, CompiledDecision]:
    """Every decision by name."""
    decisions = {}
    for at in ctx.of_kind("decision"):
        ctx.name_is_valid(at, table=True)
        owner = ctx.owner(at)
        request = ctx.refer(at, at.value.request, "request", "request")
        model = ctx.refer(at, at.value.model, "model", "model")
        actions = _actions(at, ctx)
        policy = _policy(at, actions, ctx)
        fallback = _fallback(at, actions, ctx)
        mend = 'say how long an answer may take: deadline="20ms"'
        deadline_us = ctx.required_duration(at, at.value.deadline, mend, "deadline")
        max_staleness_us = ctx.duration(at, at.value.max_staleness, "max_staleness")
        unit = _unit(at, ctx)
        compiled_model = ctx.models.get(id(at.value.model))
        if request and model and compiled_model and compiled_model.service.request != request.name:
            answered = compiled_model.service.request
            what = f"{ctx.title(at)} is asked with {request.name}, its model answers {answered}."
            ctx.mistake(at, what, "give both the same request", "request")
        if request is None or model is None or policy is None or deadline_us is None:
            continue
        decisions[at.name] = CompiledDecision(
            name=at.name,
            request=request.name,
            model=model.name,
            actions=actions,
            policy=policy,
            deadline_us=deadline_us,
            fallback=fallback,
            owner=owner,
            unit=unit,
            max_staleness_us=max_staleness_us,
        )
    return decisions


def _actions(at: Definition, ctx: Context) -> tuple[str, ...]:
    written: Any = at.value.actions
    is_list = isinstance(written, Sequence) and not isinstance(written, str)
    actions = tuple(written) if is_list else ()
    if not is_list or not all(isinstance(action, str) and action for action in actions):
        ctx.mistake(
            at,
            f"{ctx.title(at)}: actions={written!r} is not a list of names.",
            'give ["warn", "ok"]',
            "actions",
        )
        return ()
    if len(set(actions)) != len(actions):
        ctx.mistake(at, f"{ctx.title(at)} names an action twice.", "name each action once", "actions")
    if len(actions) < 2:
        mend = 'give at least two: actions=["warn", "ok"]'
        ctx.mistake(
            at,
            f"{ctx.title(at)} has {'one action' if actions else 'no actions'}: there is nothing to decide.",
            mend,
            "actions",
        )
    return actions


def _fallback(at: Definition, actions: tuple[str, ...], ctx: Context) -> str:
    fallback = at.value.fallback
    if fallback is None:
        mend = f"give the action that is safe without a model: fallback={(*actions, 'ok')[-1]!r}"
        ctx.mistake(at, f"{ctx.title(at)} has no fallback.", mend)
    elif actions and fallback not in actions:
        ctx.mistake(
            at,
            f"{ctx.title(at)}: fallback={fallback!r} is not one of its actions.",
            nearest(fallback, actions),
            "fallback",
        )
    return str(fallback)


def _policy(at: Definition, actions: tuple[str, ...], ctx: Context) -> CompiledPolicy | None:
    policy: Policy | Any = at.value.policy
    match policy:
        case Threshold():
            return _threshold(at, policy, actions, ctx)
        case Greedy():
            return _one_score(at, actions, CompiledPolicy("greedy"), ctx)
        case EpsilonGreedy(epsilon=epsilon):
            if not isinstance(epsilon, int | float) or not 0 <= epsilon <= 1:
                _policy_mistake(
                    at, f"epsilon={epsilon!r}", "give a probability, such as EpsilonGreedy(0.05)", ctx
                )
                return None
            return _one_score(at, actions, CompiledPolicy("epsilon_greedy", {"epsilon": float(epsilon)}), ctx)
        case Softmax(temperature=temperature):
            if not isinstance(temperature, int | float) or temperature <= 0:
                _policy_mistake(
                    at, f"temperature={temperature!r}", "give a positive number, such as 0.1", ctx
                )
                return None
            return _one_score(
                at, actions, CompiledPolicy("softmax", {"temperature": float(temperature)}), ctx
            )
        case None:
            mend = 'say how scores become actions: policy=vo.Threshold("warn", at=0.5)'
            ctx.mistake(at, f"{ctx.title(at)} has no policy.", mend)
        case _:
            mend = "give vo.Threshold, vo.Greedy, vo.EpsilonGreedy or vo.Softmax"
            ctx.mistake(at, f"{ctx.title(at)}: {policy!r} is not a policy.", mend, "policy")
    return None


def _one_score(
    at: Definition, actions: tuple[str, ...], policy: CompiledPolicy, ctx: Context
) -> CompiledPolicy | None:
    """A model gives one score: that of the first of two actions, the other's being 1 minus it."""
    if len(actions) <= 2:
        return policy
    what = f"one score for {len(actions)} actions"
    _policy_mistake(at, what, "use two actions (the score is the first one's), or vo.Threshold", ctx)
    return None


def _threshold(
    at: Definition, policy: Threshold, actions: tuple[str, ...], ctx: Context
) -> CompiledPolicy | None:
    others = [action for action in actions if action != policy.action]
    otherwise = (
        policy.otherwise if policy.otherwise is not None else (others[0] if len(others) == 1 else None)
    )
    for action in (policy.action, policy.otherwise):
        if action is not None and actions and action not in actions:
            ctx.mistake(
                at,
                f"{ctx.title(at)}: its policy chooses {action!r}, which is not one of its actions.",
                nearest(action, actions),
                "policy",
            )
            return None
    if not isinstance(policy.at, int | float) or isinstance(policy.at, bool):
        _policy_mistake(at, f"at={policy.at!r}", "give the score from which on it acts: at=0.5", ctx)
        return None
    if otherwise is None:
        if actions:
            _policy_mistake(at, "several other actions", "say which: Threshold(..., otherwise='ok')", ctx)
        return None
    params = {"action": policy.action, "at": float(policy.at), "otherwise": otherwise}
    return CompiledPolicy("threshold", params)


def _policy_mistake(at: Definition, what: str, mend: str, ctx: Context) -> None:
    kind = type(at.value.policy).__name__
    ctx.mistake(at, f"{ctx.title(at)}: its policy {kind} has {what}.", mend, "policy")


def _unit(at: Definition, ctx: Context) -> tuple[str, ...]:
    names = column_names(at.value.unit)
    shape = ctx.shapes.get(id(at.value.request))
    for name in names:
        if shape is not None and shape.schema.find(name) is None:
            ctx.mistake(
                at,
                f"{ctx.title(at)}: unit={name!r} is not a request field.",
                nearest(name, shape.schema.names),
                "unit",
            )
    return names


def lower_releases(ctx: Context) -> dict[str, CompiledRelease]:
    """Every release by name; at most one a decision."""
    releases: dict[str, CompiledRelease] = {}
    for at in ctx.of_kind("release"):
        decision = ctx.refer(at, at.value.decision, "decision", "decision")
        gate = _gate(at, ctx)
        if decision is None or gate is None:
            continue
        if any(release.decision == decision.name for release in releases.values()):
            mend = "keep one release a decision"
            ctx.mistake(at, f"Decision {decision.name!r} has two releases.", mend)
            continue
        releases[at.name] = CompiledRelease(at.name, decision.name, gate, bool(at.value.keep_first))
    return releases


def _gate(at: Definition, ctx: Context) -> CompiledGate | None:
    gate = at.value.gate
    mend = 'give gate=vo.Gate("roc_auc", margin=0.0, confidence=0.95, min_labels=1_000)'
    if gate is None:
        ctx.mistake(at, f"{ctx.title(at)} has no gate.", mend)
        return None
    wrong = []
    if gate.metric not in METRICS:
        wrong.append((f"unknown metric {gate.metric!r}", nearest(gate.metric, METRICS)))
    if not isinstance(gate.margin, int | float):
        wrong.append(("no margin", "say how much better a challenger must be: margin=0.0"))
    if not isinstance(gate.confidence, int | float) or not 0 < gate.confidence < 1:
        wrong.append((f"confidence={gate.confidence!r}", "give a number between 0 and 1: confidence=0.95"))
    if not isinstance(gate.min_labels, int) or gate.min_labels < 1:
        wrong.append(
            (f"min_labels={gate.min_labels!r}", "say how many mature labels it takes: min_labels=1_000")
        )
    for what, how in wrong:
        ctx.mistake(at, f"{ctx.title(at)}: its gate has {what}.", how, "gate")
    if wrong:
        return None
    return CompiledGate(gate.metric, float(gate.margin), float(gate.confidence), gate.min_labels)
