"""The layout of online state."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.compile.projects import AIRPORTS, compiled
from volano.compile.state import state_groups
from volano.kernels.chunk_grid import LIFETIME_US, MAX_CHUNKS, chunk_span_us
from volano.plan.state import stored_column
from volano.values.instants import DAY_US, HOUR_US


@given(reach=st.integers(1, 36_400 * DAY_US), at=st.integers(-(10**17), 10**17))
def test_a_read_needs_a_bounded_number_of_chunks(reach, at):
    span = chunk_span_us(reach)
    assert at // span - (at - reach) // span + 1 <= MAX_CHUNKS


def test_views_of_one_entity_source_and_key_share_a_group():
    groups = state_groups(compiled(AIRPORTS).project)
    assert [[view.name for view in group.views] for group in groups] == [
        ["AirportDelays"], ["RouteWeights"], ["Reported"],
    ]  # fmt: skip


def test_raw_rows_are_kept_for_the_longest_window_and_lateness():
    airports, routes, reported = state_groups(compiled(AIRPORTS).project)
    assert airports.raw_us == 7 * DAY_US + HOUR_US
    assert routes.raw_us == 28 * DAY_US + DAY_US + HOUR_US + HOUR_US
    assert reported.raw_us is None and reported.span_us == LIFETIME_US


def test_rows_carry_what_features_read_and_nothing_else():
    airports, _, reported = state_groups(compiled(AIRPORTS).project)
    view = airports.views[0]
    read = {stored_column(view, name) for f in view.features for name in (f.column, f.where) if name}
    assert set(airports.columns.names) == read
    assert "AirportDelays.late" in read
    assert reported.columns.names == ()


def test_the_hash_depends_on_values_and_namespace_not_on_owners():
    project = compiled(AIRPORTS).project
    renamed = msgspec.structs.replace(
        project, views={n: msgspec.structs.replace(v, owner="other") for n, v in project.views.items()}
    )
    elsewhere = msgspec.structs.replace(project, namespace="other")
    hashes = [[group.hash for group in state_groups(each)] for each in (project, renamed, elsewhere)]
    assert hashes[0] == hashes[1] != hashes[2]
