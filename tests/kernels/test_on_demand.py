"""Author code of one row gets Python values and may return nothing but its declared type."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest

from volano.errors import AuthorCodeError
from volano.kernels.on_demand import call_on_demand, check_result
from volano.values.instants import parse_instant
from volano.values.schema import DType, Scalar

NOON = parse_instant("2013-03-01T12:00:00Z")


def test_a_timestamp_reaches_the_author_as_an_aware_datetime() -> None:
    seen: list[Any] = []
    call_on_demand(
        lambda at, n, none: seen.append((at, n, none)),
        {"at": NOON, "n": 3, "none": None},
        timestamps=frozenset({"at", "none"}),
        dtype=DType.BOOL,
    )
    assert seen == [(datetime(2013, 3, 1, 12, tzinfo=UTC), 3, None)]


@pytest.mark.parametrize(
    ("dtype", "result", "expected"),
    [
        (DType.BOOL, True, True),
        (DType.INT64, 3, 3),
        (DType.FLOAT64, 3, 3.0),
        (DType.FLOAT64, np.float64(0.5), 0.5),
        (DType.STRING, "a", "a"),
        (DType.TIMESTAMP, datetime(2013, 3, 1, 13, tzinfo=timezone(timedelta(hours=1))), NOON),
        (DType.BOOL, None, None),
    ],
)
def test_a_result_is_a_plain_value_of_its_type(dtype: DType, result: Any, expected: Scalar) -> None:
    checked = check_result(result, dtype)
    assert checked == expected
    assert type(checked) is type(expected)


@pytest.mark.parametrize(
    ("dtype", "result"),
    [
        (DType.BOOL, 1),
        (DType.BOOL, np.bool_(True)),
        (DType.INT64, True),
        (DType.INT64, 1.0),
        (DType.INT64, 2**63),
        (DType.FLOAT64, False),
        (DType.FLOAT64, "1"),
        (DType.STRING, 1),
        (DType.TIMESTAMP, datetime(2013, 3, 1)),
        (DType.TIMESTAMP, NOON),
    ],
)
def test_another_type_is_the_authors_mistake(dtype: DType, result: Any) -> None:
    with pytest.raises(AuthorCodeError, match="An on-demand feature returned"):
        check_result(result, dtype)
