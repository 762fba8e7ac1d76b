"""The offline kernel equals the naive oracle."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.worlds import every_feature, history_of, plain, queries_of, same, worlds
from volano.kernels import oracle
from volano.kernels.oracle import Query, Row
from volano.kernels.windows import compute

FEATURES = every_feature()
relaxed = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


@relaxed
@given(worlds(wild=True), st.integers(0, 10))
def test_every_aggregate_over_every_window_equals_the_oracle(
    world: tuple[list[Row], list[Query]], part: int
) -> None:
    rows, queries = world
    features = FEATURES[part::11]
    results = compute(features, history_of(rows), queries_of(queries))
    for f in features:
        for query, ours in zip(queries, plain(results[f.name]), strict=True):
            wanted = oracle.compute(f, rows, query)
            assert same(f, ours, wanted, oracle.tolerance(f, rows, query)), (f, query, ours, wanted)
