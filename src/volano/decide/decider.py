"""The decision path: one request in, one recorded choice out. Never raises for what the fallback covers.

An id that was answered before gets that answer again. Otherwise, in order: read the request, features from one
snapshot, on-demand features, the champion's score, the policy, the record. What is wrong with the request is the
caller's error. What goes wrong after that is ours: the declared fallback answers and the record says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import isfinite
from typing import Any, Final, NamedTuple

from volano.decide.features import OnlineFeatures
from volano.decide.serving import Serving
from volano.errors import (
    AuthorCodeError,
    IdReusedError,
    RequestError,
    StoreError,
    UnknownNameError,
    VolanoError,
    problem_of,
)
from volano.kernels.assignment import exploration_draw
from volano.kernels.policies import DETERMINISTIC, Choice
from volano.protocols.clock import Clock
from volano.records.journal import DecisionMade, request_hash
from volano.values.identities import uuid7
from volano.values.instants import BEGINNING, Instant, format_duration, format_instant
from volano.values.schema import Scalar

CHAMPION: Final = "champion"


class _Fallback(VolanoError):
    """Leaves the path; `what` is the reason that is recorded. Never leaves the decider."""

    code = "fallback"


class Earlier(NamedTuple):
    """What a decision id was answered before.

    Args:
        request: `request_hash` of what was asked.
        made: the first answer; None when its record is kept nowhere any more.
        next_attempt: what another answer is counted as.
    """

    request: bytes
    made: DecisionMade | None
    next_attempt: int


def never_asked(decision: str, decision_id: str) -> Earlier | None:
    """Knows of no earlier answer."""
    return None


class Decider:
    """Decides, for every decision of a project.

    Args:
        servings: what serves each decision at the beginning, also those without a release.
        clock: gives `decided_at` where the caller gives none.
        stopwatch: nanoseconds that only go forward, for deadlines and latencies.
        entropy: at least eight random bytes for a decision id, each time it is called.
        log: takes the record before the answer goes out; if it raises, so does `decide`, for what is not logged
            was not decided.
        find: what was answered to (decision, id of the caller) before. Where it cannot be known the decision is made,
            and whoever applies it counts it as an attempt.
    """

    def __init__(
        self,
        servings: Iterable[Serving],
        *,
        clock: Clock,
        stopwatch: Callable[[], int],
        entropy: Callable[[], bytes],
        log: Callable[[DecisionMade], None],
        find: Callable[[str, str], Earlier | None] = never_asked,
    ) -> None:
        self._servings = {serving.decision.name: serving for serving in servings}
        self._clock = clock
        self._stopwatch = stopwatch
        self._entropy = entropy
        self._log = log
        self._find = find

    def serve(self, serving: Serving) -> None:
        """Put a release in force. Requests under way end with what they began with."""
        self._servings = {**self._servings, serving.decision.name: serving}

    def serving(self, name: str) -> Serving:
        """What serves a decision now.

        Raises:
            UnknownNameError: no such decision; the mend lists those that exist.
        """
        found = self._servings.get(name)
        if found is None:
            names = ", ".join(sorted(self._servings)) or "none"
            raise UnknownNameError(
                f"There is no decision named {name!r}.",
                where="decisions of the definitions in force",
                mend=f"known names: {names}",
            )
        return found

    def decide(
        self,
        name: str,
        request: Mapping[str, Any] | bytes,
        *,
        decision_id: str | None = None,
        at: Instant | None = None,
    ) -> DecisionMade:
        """Choose an action for one request, and log it; or repeat the answer that its id was given before.

        Args:
            name: of the decision.
            request: field values by name, or JSON.
            decision_id: of the caller, so that a retry gets the same answer; a new one when None.
            at: the end q of the windows; now when None.

        Returns:
            The record that was logged, now or when the id was asked first.

        Raises:
            UnknownNameError: no such decision.
            RequestError: the request does not fit its schema.
            IdReusedError: the id was asked before with another request.
        """
        started = self._stopwatch()
        serving = self.serving(name)
        serving, values = _read(serving, request)
        q = self._clock.now() if at is None else at
        attempt = 0
        if decision_id is None:
            decision_id = uuid7(q, self._entropy())
        elif (earlier := self._earlier(name, decision_id)) is not None:
            _refuse_other_request(earlier, name, decision_id, values)
            if earlier.made is not None:
                return earlier.made
            attempt = earlier.next_attempt
        path = _Path(serving, self._stopwatch, started)
        fallback = ""
        try:
            choice = path.choose(values, q, decision_id)
        except _Fallback as left:
            fallback = left.what
            choice = Choice(serving.decision.fallback, 1.0, DETERMINISTIC)
        made = path.record(values, q, decision_id, attempt, choice, fallback)
        self._log(made)
        return made

    def _earlier(self, name: str, decision_id: str) -> Earlier | None:
        try:
            return self._find(name, decision_id)
        except StoreError:
            return None  # the applier will know


def _read(serving: Serving, request: Mapping[str, Any] | bytes) -> tuple[Serving, dict[str, Scalar]]:
    """A request, and what answers it: where it fits newer definitions only, what of them the release knows."""
    if serving.newer is None:
        return serving, serving.reader.read(request)
    try:
        return serving, serving.reader.read(request)
    except RequestError:
        values, served = serving.newer.read(request)
    if served is not None:
        return serving, served
    assert serving.without is not None
    return serving.without, values


class _Path:
    """One request on its way. Keeps what is known so far, so that a fallback logs as much as there is."""

    __slots__ = (
        "_deadline",
        "_lap",
        "_started",
        "_stopwatch",
        "features",
        "latency_us",
        "score",
        "serving",
        "stamp",
    )

    def __init__(self, serving: Serving, stopwatch: Callable[[], int], started: int) -> None:
        self.serving = serving
        self.features: list[Scalar] = []
        self.stamp: Instant = BEGINNING
        self.score: float | None = None
        self.latency_us: dict[str, int] = {}
        self._stopwatch = stopwatch
        self._started = self._lap = started
        self._deadline = started + serving.decision.deadline_us * 1_000

    def choose(self, values: Mapping[str, Scalar], q: Instant, decision_id: str) -> Choice:
        """The policy's choice, or `_Fallback` with the reason why there is none."""
        features = self.serving.features
        if features is None:
            raise _Fallback(f"unservable: {self.serving.problem}")
        slots = self._read(features, values, q)
        self._finished("features")
        if features.has_on_demand:
            self._compute(features, slots)
            self._finished("on_demand")
        self.features = features.served(slots)
        self._refuse_stale(q)
        self.score = self._predict()
        self._finished("model")
        choice = self._apply_policy(self.score, decision_id)
        self.latency_us["policy"] = (self._stopwatch() - self._lap) // 1_000
        return choice

    def record(
        self,
        values: dict[str, Scalar],
        q: Instant,
        decision_id: str,
        attempt: int,
        choice: Choice,
        fallback: str,
    ) -> DecisionMade:
        """What is logged of the request, however it went."""
        serving = self.serving
        champion = serving.champion
        self.latency_us["total"] = (self._stopwatch() - self._started) // 1_000
        return DecisionMade(
            decision_id=decision_id,
            namespace=serving.namespace,
            decision=serving.decision.name,
            bundle=serving.bundle,
            release_id=serving.release_id,
            model=serving.decision.model,
            model_version="" if champion is None else champion.version.version,
            service_version=serving.service_version,
            request=values,
            features=self.features,
            decided_at=q,
            features_as_of=self.stamp,
            score=self.score,
            action=choice.action,
            propensity=choice.propensity,
            propensity_method=choice.method,
            attempt=attempt,
            unit=serving.unit_of(values),
            role=CHAMPION,
            fallback=fallback,
            deadline_us=serving.decision.deadline_us,
            latency_us=self.latency_us,
            source_event_id=serving.source_event_id_of(values),
        )

    def _finished(self, stage: str) -> None:
        """Log how long a stage took; past the deadline, leave."""
        now = self._stopwatch()
        self.latency_us[stage] = (now - self._lap) // 1_000
        self._lap = now
        if now > self._deadline:
            raise _Fallback(
                f"deadline: {format_duration(self.serving.decision.deadline_us)} were over after {stage}"
            )

    def _read(self, features: OnlineFeatures, values: Mapping[str, Scalar], q: Instant) -> list[Scalar]:
        try:
            slots, self.stamp = features.read(values, q)
        except StoreError as error:
            raise _Fallback(f"features: {error.what}") from error
        return slots

    def _compute(self, features: OnlineFeatures, slots: list[Scalar]) -> None:
        try:
            features.compute_on_demand(slots)
        except AuthorCodeError as error:
            raise _Fallback(f"on_demand: {error.what}") from error

    def _refuse_stale(self, q: Instant) -> None:
        limit = self.serving.decision.max_staleness_us
        if limit is not None and q - self.stamp > limit:
            raise _Fallback(
                f"stale: features are as of {format_instant(self.stamp)}, older than {format_duration(limit)}"
            )

    def _predict(self) -> float:
        champion = self.serving.champion
        if champion is None:
            raise _Fallback("no_release: no model version is released for this decision")
        try:
            score = champion.predictor.predict_one(self.features)
        except Exception as error:  # whatever a model raises, the caller still gets an answer
            raise _Fallback(f"model: {problem_of(error)}") from error
        if not isfinite(score):
            raise _Fallback(f"model: the score is {score}")
        return score

    def _apply_policy(self, score: float, decision_id: str) -> Choice:
        policy = self.serving.policy
        assert policy is not None  # it comes with the features
        u = exploration_draw(decision_id, self.serving.release_id) if policy.explores else 0.0
        try:
            return policy.choose((score,), u)
        except ValueError as error:
            raise _Fallback(f"policy: {error}") from error


def _refuse_other_request(earlier: Earlier, name: str, decision_id: str, values: dict[str, Scalar]) -> None:
    if earlier.request == request_hash(values):
        return
    where = f"decision {name}"
    if earlier.made is not None:
        asked = earlier.made.request
        differing = sorted(key for key in {*asked, *values} if asked.get(key) != values.get(key))
        where += f", asked at {format_instant(earlier.made.decided_at)}; differs in {', '.join(differing)}"
    raise IdReusedError(
        f"The decision id {decision_id!r} was used for another request; its answer stands.",
        where=where,
        mend="give each request an id of its own; send the same request again to get its answer again",
    )
