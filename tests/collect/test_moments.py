"""Columns of datetimes become the same instants as one by one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from volano.collect.moments import instant_of, instants_of

ZONES = st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=30)), timezone(timedelta(hours=-11))])
ANY = st.datetimes(timezones=ZONES)
WHOLE = st.datetimes(datetime(1969, 12, 31), datetime(2600, 1, 1), timezones=ZONES).map(
    lambda moment: moment.replace(microsecond=0)
)
FRACTION = st.integers(0, 1 << 34).map(
    lambda second: datetime(1970, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC) + timedelta(seconds=second)
)


@given(
    st.one_of(
        st.lists(ANY),
        st.lists(WHOLE, max_size=40),
        st.lists(FRACTION, max_size=40),
        st.lists(st.one_of(ANY, WHOLE, st.none())),
    )
)
def test_a_column_and_its_cells_are_the_same_instants(moments: list[datetime | None]) -> None:
    assert instants_of(moments) == [None if moment is None else instant_of(moment) for moment in moments]


def test_every_length_of_the_head_of_a_column(moments: int = 70_000) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    column = [start + timedelta(microseconds=n) for n in range(moments)]
    for n in (0, 1, 15, 16, 65_535, 65_536, moments):
        assert instants_of(column[:n]) == list(range(1_767_225_600_000_000, 1_767_225_600_000_000 + n))
