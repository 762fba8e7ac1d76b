"""The decision path: what is logged, when the fallback answers, and that a release never changes half-way."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from scipy import stats

from tests.decide.projects import (
    CODE,
    NOON,
    REQUEST,
    Code,
    by_distance,
    hour_of,
    make_project,
    model,
    release,
)
from volano.decide.decider import Decider, Earlier, never_asked
from volano.decide.serving import LoadedModel, Serving, prepare_serving
from volano.errors import (
    AuthorCodeError,
    IdReusedError,
    RequestError,
    StateMismatchError,
    StoreError,
    UnknownNameError,
)
from volano.kernels.assignment import exploration_draw
from volano.plan.definitions import CompiledPolicy, CompiledProject
from volano.protocols.online_store import OnlineReader
from volano.records.journal import DecisionMade, decode_record, encode_record, request_hash
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.instants import BEGINNING, MINUTE_US, SECOND_US, Instant
from volano.values.schema import Scalar


class Now:
    def now(self) -> Instant:
        return NOON


@pytest.fixture
def online(tmp_path: Path) -> Iterator[LmdbOnlineStore]:
    store = LmdbOnlineStore(tmp_path / "online", map_size=1 << 24)
    store.write({}, (), stamp=NOON - SECOND_US, sequence=1)
    yield store
    store.close()


def serving_of(project: CompiledProject, online: OnlineReader, **changes: Any) -> Serving:
    given = {"release": release(), "champion": model(project), "functions": CODE, **changes}
    return prepare_serving(project, "get_risk", bundle="b" * 64, groups=(), online=online, **given)


class Bench:
    """A decider with its log, and a stopwatch that a test moves."""

    def __init__(self, serving: Serving, *, remembers: bool = False) -> None:
        self.logged: list[DecisionMade] = []
        self.earlier: dict[tuple[str, str], Earlier] = {}
        self.is_broken = False
        self.ns = 0
        self.step_ns = 1_000
        self.decider = Decider(
            [serving],
            clock=Now(),
            stopwatch=self.stopwatch,
            entropy=lambda: bytes(range(10)),
            log=self.log,
            find=self.find if remembers else never_asked,
        )

    def log(self, made: DecisionMade) -> None:
        self.logged.append(made)
        self.earlier[made.decision, made.decision_id] = Earlier(request_hash(made.request), made, 1)

    def find(self, decision: str, decision_id: str) -> Earlier | None:
        if self.is_broken:
            raise StoreError("the index cannot be read")
        return self.earlier.get((decision, decision_id))

    def stopwatch(self) -> int:
        self.ns += self.step_ns
        return self.ns

    def decide(self, **changes: Any) -> DecisionMade:
        return self.decider.decide("get_risk", REQUEST, **changes)


def test_a_decision_logs_all_that_is_needed_to_repeat_it(online: LmdbOnlineStore) -> None:
    project = make_project()
    bench = Bench(serving_of(project, online))
    made = bench.decide(decision_id="d-1")
    assert made == DecisionMade(
        decision_id="d-1",
        namespace="flights",
        decision="get_risk",
        bundle="b" * 64,
        release_id="release-1",
        model="risk",
        model_version="risk-0001",
        service_version=project.models["risk"].service.version,
        request={
            "flight_id": "UA1",
            "tailnum": "N1",
            "dest": "LAX",
            "sched_dep": NOON + 120 * MINUTE_US,
            "distance": 2475,
        },
        features=[2475, True, 14],
        decided_at=NOON,
        features_as_of=NOON - SECOND_US,
        score=2475 / 5_000,
        action="ok",
        propensity=1.0,
        propensity_method="deterministic",
        deadline_us=20_000,
        latency_us={"features": 1, "on_demand": 1, "model": 1, "policy": 1, "total": 5},
        source_event_id="UA1",
    )
    assert bench.logged == [made]
    assert decode_record(encode_record(made)) == made


def test_an_id_is_made_of_the_instant_when_none_is_given(online: LmdbOnlineStore) -> None:
    made = Bench(serving_of(make_project(), online)).decide()
    assert made.decision_id.startswith("013d25d2-ba00-7000-")


def test_the_caller_may_say_when(online: LmdbOnlineStore) -> None:
    assert Bench(serving_of(make_project(), online)).decide(at=NOON + 7).decided_at == NOON + 7


def test_features_are_logged_in_service_order(online: LmdbOnlineStore) -> None:
    from tests.decide.projects import DISTANCE, HOUR, LONG

    project = make_project(inputs=(HOUR, LONG, DISTANCE))
    made = Bench(serving_of(project, online, champion=None)).decide()
    assert made.features == [14, True, 2475]


def test_json_is_a_request_too(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online))
    assert bench.decider.decide("get_risk", msgspec.json.encode(REQUEST)).request == bench.decide().request


def test_the_unit_is_the_joined_fields(online: LmdbOnlineStore) -> None:
    assert Bench(serving_of(make_project(unit=("tailnum", "dest")), online)).decide().unit == "N1|LAX"


def test_an_unknown_decision_and_a_wrong_request_are_the_callers_errors(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online))
    with pytest.raises(UnknownNameError) as unknown:
        bench.decider.decide("get_rsk", REQUEST)
    assert unknown.value.mend == "known names: get_risk"
    with pytest.raises(RequestError):
        bench.decider.decide("get_risk", {})
    assert not bench.logged


# --- exploration ----------------------------------------------------------------------------------

SOFTMAX = CompiledPolicy("softmax", {"temperature": 0.5})


def test_a_retried_request_repeats_its_action(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(policy=SOFTMAX), online))
    first = [bench.decide(decision_id=f"d-{i}") for i in range(50)]
    again = [bench.decide(decision_id=f"d-{i}") for i in range(50)]
    assert [made.action for made in first] == [made.action for made in again]
    assert {made.action for made in first} == {"warn", "ok"}


def test_an_answer_that_is_known_is_given_again_and_not_logged_twice(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online), remembers=True)
    first = bench.decide(decision_id="d-1")
    assert bench.decide(decision_id="d-1", at=NOON + MINUTE_US) is first
    assert bench.logged == [first]
    assert bench.decide(decision_id="d-2").decision_id == "d-2"


def test_an_id_that_was_used_for_another_request_is_refused(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online), remembers=True)
    first = bench.decide(decision_id="d-1")
    with pytest.raises(IdReusedError) as refused:
        bench.decider.decide("get_risk", {**REQUEST, "distance": 1, "dest": "BOS"}, decision_id="d-1")
    assert (
        refused.value.where == "decision get_risk, asked at 2013-03-01T12:00:00Z; differs in dest, distance"
    )
    assert refused.value.mend and not refused.value.retryable
    assert bench.logged == [first]


def test_where_the_record_is_gone_or_nobody_can_know_the_decision_is_made_again(
    online: LmdbOnlineStore,
) -> None:
    bench = Bench(serving_of(make_project(), online), remembers=True)
    first = bench.decide(decision_id="d-1")
    bench.earlier["get_risk", "d-1"] = Earlier(request_hash(first.request), None, 3)
    assert bench.decide(decision_id="d-1").attempt == 3
    bench.is_broken = True
    assert bench.decide(decision_id="d-1").attempt == 0


def test_exploration_is_drawn_from_decision_and_release(online: LmdbOnlineStore) -> None:
    made = Bench(serving_of(make_project(policy=SOFTMAX), online)).decide(decision_id="d-1")
    p = 1 / (1 + math.exp((1 - 2 * 2475 / 5_000) / 0.5))
    expected = "warn" if exploration_draw("d-1", "release-1") < p else "ok"
    assert made.action == expected
    assert made.propensity == pytest.approx(p if expected == "warn" else 1 - p)
    assert made.propensity_method == "exact"


# --- fallbacks ------------------------------------------------------------------------------------


def fell_back(made: DecisionMade, because: str) -> bool:
    return (
        made.fallback.startswith(because)
        and made.action == "ok"
        and (made.propensity, made.propensity_method) == (1.0, "deterministic")
    )


def test_without_a_release_the_fallback_answers_and_features_are_logged(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online, release=None, champion=None))
    made = bench.decide()
    assert fell_back(made, "no_release:")
    assert (made.model_version, made.release_id, made.score) == ("", "", None)
    assert made.features == [2475, True, 14]
    assert bench.logged == [made]


def raising(distance: Scalar) -> float:
    raise RuntimeError("out of\ntrees")


@pytest.mark.parametrize(
    ("score", "because"),
    [
        (raising, "model: RuntimeError: out of trees"),
        (lambda _: math.nan, "model: the score is nan"),
        (lambda _: math.inf, "model: the score is inf"),
    ],
)
def test_a_model_that_fails_is_replaced_by_the_fallback(
    online: LmdbOnlineStore, score: Callable[[Scalar], float], because: str
) -> None:
    project = make_project()
    made = Bench(serving_of(project, online, champion=model(project, score))).decide()
    assert fell_back(made, because)
    assert (made.score, made.features) == (None, [2475, True, 14])
    assert decode_record(encode_record(made)) == made


def test_an_on_demand_function_that_raises_is_replaced_by_the_fallback(online: LmdbOnlineStore) -> None:
    def wrapped(distance: int) -> bool:
        raise AuthorCodeError("long_haul raised ValueError: no")

    functions = Code(long_haul=wrapped, hour=hour_of)
    made = Bench(serving_of(make_project(), online, functions=functions)).decide()
    assert fell_back(made, "on_demand: long_haul raised")
    assert (made.features, made.score) == ([], None)


def test_an_on_demand_function_of_another_type_is_replaced_by_the_fallback(online: LmdbOnlineStore) -> None:
    functions = Code(long_haul=lambda distance: "yes", hour=hour_of)
    made = Bench(serving_of(make_project(), online, functions=functions)).decide()
    assert fell_back(made, "on_demand: An on-demand feature returned 'yes'")


def test_a_store_that_cannot_be_read_is_replaced_by_the_fallback(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(), online))
    online.close()
    made = bench.decide()
    assert fell_back(made, "features:")
    assert made.features_as_of == BEGINNING


@pytest.mark.parametrize(("deadline_us", "after"), [(0, "features"), (1, "on_demand"), (2, "model")])
def test_past_the_deadline_the_fallback_answers(
    online: LmdbOnlineStore, deadline_us: int, after: str
) -> None:
    """Each stage takes one microsecond here."""
    made = Bench(serving_of(make_project(deadline_us=deadline_us), online)).decide()
    assert fell_back(made, "deadline: ")
    assert made.fallback.endswith(f"over after {after}")
    assert Bench(serving_of(make_project(deadline_us=3), online)).decide().fallback == ""


def test_features_older_than_declared_are_not_used(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(max_staleness_us=SECOND_US), online))
    assert bench.decide().fallback == ""
    stale = bench.decide(at=NOON + 1)
    assert fell_back(stale, "stale: features are as of 2013-03-01T11:59:59Z, older than 1s")
    assert stale.features == [2475, True, 14]


def test_a_record_that_cannot_be_logged_is_no_decision(online: LmdbOnlineStore) -> None:
    def full(made: DecisionMade) -> None:
        raise StoreError("No space.")

    decider = Decider(
        [serving_of(make_project(), online)],
        clock=Now(),
        stopwatch=lambda: 0,
        entropy=lambda: bytes(10),
        log=full,
    )
    with pytest.raises(StoreError):
        decider.decide("get_risk", REQUEST)


# --- releases -------------------------------------------------------------------------------------


def test_a_model_of_other_inputs_is_refused(online: LmdbOnlineStore) -> None:
    from tests.decide.projects import DISTANCE

    other = model(make_project(inputs=(DISTANCE,)))
    with pytest.raises(StateMismatchError, match="other inputs"):
        serving_of(make_project(), online, champion=other)


def test_a_release_never_changes_half_way(online: LmdbOnlineStore) -> None:
    """A release arrives inside the first request's model: that request ends with what it began with."""
    project = make_project()
    second = serving_of(
        project,
        online,
        champion=model(project, lambda _: 0.9, "risk-0002"),
        release=release("risk-0002", "release-2"),
    )

    def swapping(distance: Scalar) -> float:
        bench.decider.serve(second)
        return by_distance(distance)

    bench = Bench(serving_of(project, online, champion=model(project, swapping)))
    first, later = bench.decide(), bench.decide()
    assert (first.model_version, first.release_id, first.score) == ("risk-0001", "release-1", 2475 / 5_000)
    assert (later.model_version, later.release_id, later.score) == ("risk-0002", "release-2", 0.9)


def test_two_bundles_lie_side_by_side(online: LmdbOnlineStore) -> None:
    """A rollback puts yesterday's code in force again, next to today's."""
    project = make_project()
    today = serving_of(project, online)
    older = prepare_serving(
        project,
        "get_risk",
        bundle="c" * 64,
        groups=(),
        online=online,
        functions=Code(long_haul=lambda distance: distance > 9_000, hour=hour_of),
        release=release(release_id="release-0"),
        champion=model(project),
    )
    bench = Bench(today)
    before = bench.decide()
    bench.decider.serve(older)
    rolled_back = bench.decide()
    bench.decider.serve(today)
    assert [each.features[1] for each in (before, rolled_back, bench.decide())] == [True, False, True]
    assert (before.bundle[0], rolled_back.bundle[0]) == ("b", "c")


def test_realised_frequencies_match_logged_propensities(online: LmdbOnlineStore) -> None:
    bench = Bench(serving_of(make_project(policy=SOFTMAX), online))
    made = [bench.decide(decision_id=f"d-{i}") for i in range(5_000)]
    warned = sum(each.action == "warn" for each in made)
    share = next(each.propensity for each in made if each.action == "warn")
    observed, wanted = [warned, 5_000 - warned], [5_000 * share, 5_000 * (1 - share)]
    assert stats.chisquare(observed, wanted).pvalue > 1e-3


def test_no_answer_mixes_two_releases_under_load(online: LmdbOnlineStore) -> None:
    project = make_project()

    def serving(n: int) -> Serving:
        champion: LoadedModel = model(project, lambda _: n / 10, f"risk-{n}")
        return serving_of(project, online, champion=champion, release=release(f"risk-{n}", f"release-{n}"))

    servings = [serving(n) for n in range(4)]
    bench = Bench(servings[0])
    bench.step_ns = 0
    stop = threading.Event()

    def swap() -> None:
        n = 0
        while not stop.is_set():
            n += 1
            bench.decider.serve(servings[n % 4])

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        made = [bench.decide() for _ in range(2_000)]
        while len(made) < 100_000 and len({each.release_id for each in made[-100:]}) == 1:
            made.append(bench.decide())  # a loaded machine lets the other thread wait
    finally:
        stop.set()
        swapper.join()
    assert len({each.release_id for each in made}) > 1
    for each in made:
        n = each.release_id.removeprefix("release-")
        assert (each.model_version, each.score) == (f"risk-{n}", int(n) / 10)
