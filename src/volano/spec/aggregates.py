"""Windowed aggregates: the features of a view.

All take the same keywords. A window W at q is [q − W, q) over event_time, half-open; rows of one instant are
ordered by the source's `order_by`, then id. An empty window gives 0 for `count` and `count_distinct`, the
prior for a `rate` with a prior, and null for the rest.

The functions are typed `Any`, because the name that they are bound to stands for a feature:
`PlaneHistory.last_delay` may be the default of a `float | None` parameter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, replace
from datetime import timedelta
from typing import Any, Final, TypeAlias, TypedDict, Unpack

from volano.spec.fields import FieldRef
from volano.spec.sql import Sql
from volano.values.instants import format_duration

Column: TypeAlias = str | FieldRef | Sql
Duration: TypeAlias = str | timedelta

_MICROSECOND: Final = timedelta(microseconds=1)


class Window(TypedDict, total=False):
    """What every aggregate takes.

    Args:
        within: the window's length, such as "7d"; without it the whole past. Several, `within=("1h", "7d")`, make a
            feature each: `spent = vo.sum("amount", within=("1h", "7d"))` declares `spent_1h` and `spent_7d`.
        offset: how far before the decision the window ends.
        where: only rows for which this holds: SQL over the view's columns, or the name of a bool column.
        every: the cheap contract: the window ends at the last multiple of this, not at the decision.
        publish_delay: with `every`: how long after a grid point its value is published.
        include_request: the request's own event is the last row of the window.
        staleness: how stale the value may be when a decision reads it; for sources without a stream.
    """

    within: Duration | Sequence[Duration] | None
    offset: Duration | None
    where: Column | None
    every: Duration | None
    publish_delay: Duration | None
    include_request: bool
    staleness: Duration | None


@dataclass(frozen=True, eq=False)
class Aggregate:
    """One aggregate over one window, as written. Its name is the attribute of the view that holds it."""

    kind: str
    column: Column | None = None
    over: Column | None = None
    _: KW_ONLY
    within: Duration | Sequence[Duration] | None = None
    offset: Duration | None = None
    where: Column | None = None
    every: Duration | None = None
    publish_delay: Duration | None = None
    include_request: bool = False
    staleness: Duration | None = None
    n: int | None = None
    params: tuple[float, ...] = ()

    def by_window(self, name: str) -> Iterator[tuple[str, Aggregate]]:
        """The features that an attribute of this name declares, each of one window.

        >>> [feature for feature, _ in count(within=("1h", "7d")).by_window("payments")]
        ['payments_1h', 'payments_7d']
        >>> [feature for feature, _ in count(within="1h").by_window("payments")]
        ['payments']
        """
        if not isinstance(self.within, list | tuple) or not self.within:
            yield name, self
            return
        for within in self.within:
            text = format_duration(within // _MICROSECOND) if isinstance(within, timedelta) else str(within)
            suffix = "".join(letter for letter in text if letter.isalnum())
            yield f"{name}_{suffix}", replace(self, within=within)


def count(column: Column | None = None, **window: Unpack[Window]) -> Any:
    """The number of rows; with a column, of rows where it is not null.

    >>> count(within="24h").within
    '24h'
    """
    return Aggregate("count", column, **window)


def sum(column: Column, **window: Unpack[Window]) -> Any:
    """The sum of the non-null values; null when there are none."""
    return Aggregate("sum", column, **window)


def mean(column: Column, **window: Unpack[Window]) -> Any:
    """The arithmetic mean of the non-null values."""
    return Aggregate("mean", column, **window)


def min(column: Column, **window: Unpack[Window]) -> Any:
    """The smallest non-null value."""
    return Aggregate("min", column, **window)


def max(column: Column, **window: Unpack[Window]) -> Any:
    """The largest non-null value."""
    return Aggregate("max", column, **window)


def var(column: Column, **window: Unpack[Window]) -> Any:
    """The sample variance; null below two values."""
    return Aggregate("var", column, **window)


def std(column: Column, **window: Unpack[Window]) -> Any:
    """The sample standard deviation; null below two values."""
    return Aggregate("std", column, **window)


def var_pop(column: Column, **window: Unpack[Window]) -> Any:
    """The population variance: divided by the number of values; null without one."""
    return Aggregate("var_pop", column, **window)


def std_pop(column: Column, **window: Unpack[Window]) -> Any:
    """The population standard deviation; null without a value."""
    return Aggregate("std_pop", column, **window)


def first(column: Column, **window: Unpack[Window]) -> Any:
    """The first row's value, even when it is null."""
    return Aggregate("first", column, **window)


def last(column: Column, **window: Unpack[Window]) -> Any:
    """The last row's value, even when it is null."""
    return Aggregate("last", column, **window)


def last_non_null(column: Column, **window: Unpack[Window]) -> Any:
    """The last value that is not null."""
    return Aggregate("last_non_null", column, **window)


def first_n(column: Column, n: int, **window: Unpack[Window]) -> Any:
    """The first `n` values, oldest first."""
    return Aggregate("first_n", column, n=n, **window)


def last_n(column: Column, n: int, **window: Unpack[Window]) -> Any:
    """The last `n` values, oldest first."""
    return Aggregate("last_n", column, n=n, **window)


def count_distinct(column: Column, **window: Unpack[Window]) -> Any:
    """The number of different non-null values, counted exactly."""
    return Aggregate("count_distinct", column, **window)


def ratio(numerator: Column, denominator: Column, **window: Unpack[Window]) -> Any:
    """One sum over another, over rows where both are non-null; null when the denominator is 0."""
    return Aggregate("ratio", numerator, denominator, **window)


def rate(
    column: Column, *, prior: float | None = None, weight: float | None = None, **window: Unpack[Window]
) -> Any:
    """The share of rows where a bool column holds, drawn towards a prior: (sum + prior · weight) / (n +
    weight).

    Args:
        column: a bool (or numeric) column, or SQL that gives one.
        prior: what is believed without data.
        weight: how many rows that belief is worth.

    >>> rate("late", prior=0.2, weight=10, within="28d").params
    (0.2, 10.0)
    """
    given = [float(value) for value in (prior, weight) if value is not None]
    return Aggregate("rate", column, params=tuple(given), **window)


def time_since_last(column: Column | None = None, **window: Unpack[Window]) -> Any:
    """Seconds since the last row's event_time; with a column, since its last non-null value."""
    return Aggregate("time_since_last", column, **window)
