"""What one windowed feature is. Holds the declaration that kernels take; knows no entity, source or clock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from volano.errors import DefinitionError
from volano.kernels.aggregates import AGGREGATES, EVERY_TYPE, LISTABLE, Aggregate
from volano.kernels.arrays import FARTHEST

MOST_VALUES = 1000
"""The largest `n`."""


@dataclass(frozen=True, slots=True)
class WindowFeature:
    """One aggregate over one window of one entity's rows.

    At the instant q the window is [q − offset − window, q − offset) over `event_time`; without a window it is
    everything before q − offset. With `every`, q is first floored: ⌊(q − publish_delay) / every⌋ · every.

    Args:
        name: the feature's name, unique among those computed together.
        aggregate: a name in `kernels.aggregates.AGGREGATES`.
        column: the column it reads; None for `count` and `time_since_last` over rows.
        window_us: W in microseconds; None is the whole past.
        offset_us: how far back the window's end lies.
        where: a bool column; rows where it is false or null are left out.
        every_us: the grid of the cheap contract; None is exact.
        publish_delay_us: how long after a grid point the value is published; only with `every_us`.
        n: how many values, for `first_n` and `last_n`.
        params: the aggregate's parameters, (prior, weight) for `rate`.
        include_request: whether the request's own event is appended at q.
        over: the second column, `ratio`'s denominator.

    >>> WindowFeature("spend_1h", "sum", "amount", window_us=3_600_000_000).output_type({"amount": "float64"})
    'float64'
    """

    name: str
    aggregate: str
    column: str | None = None
    window_us: int | None = None
    offset_us: int = 0
    where: str | None = None
    every_us: int | None = None
    publish_delay_us: int = 0
    n: int | None = None
    params: tuple[float, ...] = ()
    include_request: bool = False
    over: str | None = None

    @property
    def spec(self) -> Aggregate:
        """The aggregate; raises DefinitionError for an unknown name."""
        found = AGGREGATES.get(self.aggregate)
        if found is None:
            raise DefinitionError(
                f"Feature {self.name!r} uses the unknown aggregate {self.aggregate!r}.",
                mend=f"use one of: {', '.join(AGGREGATES)}",
            )
        return found

    @property
    def grid_us(self) -> int:
        """The cell within which rows associate first: 1 when exact, else what divides every, window and offset."""
        if self.every_us is None:
            return 1
        return math.gcd(self.every_us, self.window_us or 0, self.offset_us)

    def output_type(self, column_types: Mapping[str, str]) -> str:
        """Check the feature against the columns' types and return the type of its value.

        Args:
            column_types: column name to "float64", "int64", "bool", "timestamp" or "string".

        Returns:
            One of the same names, or `list<...>` of one.

        Raises:
            DefinitionError: an unknown aggregate or column, a type it cannot take, or a wrong window; `mend`
            says what to write.
        """
        spec = self.spec
        self._check_window()
        self._check_columns(spec, column_types)
        if (spec.output == "list") != (self.n is not None) or (
            self.n is not None and not 0 < self.n <= MOST_VALUES
        ):
            mend = f"give n from 1 to {MOST_VALUES}" if spec.output == "list" else "leave n out"
            raise self._fail(f"{self.aggregate} with n={self.n}", mend)
        if spec.kind == "fold":
            assert self.column is not None
            fold = spec.folds[column_types[self.column]]
            return column_types[self.column] if fold.output == "same" else fold.output
        if spec.output in ("same", "list"):
            assert self.column is not None
            kind = column_types[self.column]
            if spec.output == "list" and kind not in LISTABLE:
                raise self._fail(
                    f"{self.aggregate} of {self.column!r}, which is {kind}", f"give {' or '.join(LISTABLE)}"
                )
            return f"list<{kind}>" if spec.output == "list" else kind
        return spec.output

    def _fail(self, what: str, mend: str) -> DefinitionError:
        return DefinitionError(f"Feature {self.name!r}: {what}.", mend=mend)

    def _check_window(self) -> None:
        if self.window_us is not None and not 0 < self.window_us < FARTHEST:
            raise self._fail(
                f"a window of {self.window_us} µs", "give a positive length, or None for the whole past"
            )
        if not 0 <= self.offset_us < FARTHEST:
            raise self._fail(f"an offset of {self.offset_us} µs", "give a length of zero or more")
        if self.every_us is not None and not 0 < self.every_us < FARTHEST:
            raise self._fail(f"every {self.every_us} µs", "give a positive length")
        if (self.publish_delay_us and self.every_us is None) or self.publish_delay_us < 0:
            raise self._fail("publish_delay without every", "give every=, or drop the delay")
        if self.include_request and (self.every_us is not None or self.offset_us):
            raise self._fail(
                "include_request with every or offset: the window does not end at the request", "drop one"
            )

    def _check_columns(self, spec: Aggregate, types: Mapping[str, str]) -> None:
        given = tuple(c for c in (self.column, self.over) if c is not None)
        if len(given) not in spec.columns or (self.over is not None and self.column is None):
            raise self._fail(
                f"{self.aggregate} with {len(given)} columns", f"give {' or '.join(map(str, spec.columns))}"
            )
        for name in (*given, *((self.where,) if self.where else ())):
            if name not in types:
                raise self._fail(f"no column {name!r}", f"use one of: {', '.join(types)}")
            if types[name] not in EVERY_TYPE:
                raise self._fail(
                    f"column {name!r} has the unknown type {types[name]!r}",
                    f"use one of: {', '.join(EVERY_TYPE)}",
                )
        if self.where is not None and types[self.where] != "bool":
            raise self._fail(f"where={self.where!r} is {types[self.where]}, not bool", "give a bool column")
        if spec.kind == "fold":
            for name in given:
                if types[name] not in spec.folds:
                    raise self._fail(
                        f"{self.aggregate} of {name!r}, which is {types[name]}",
                        f"give {' or '.join(spec.folds)}",
                    )
        if (self.params and len(self.params) != len(spec.params)) or (
            spec.params and not self.params and not spec.optional_params
        ):
            raise self._fail(f"{len(self.params)} parameters", f"give {', '.join(spec.params) or 'none'}")
