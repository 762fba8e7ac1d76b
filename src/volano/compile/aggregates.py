"""The types that aggregates take and give. The arithmetic is in `kernels`; a test holds the two together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from volano.values.schema import DType

NUMBERS: Final = frozenset({DType.FLOAT64, DType.INT64, DType.BOOL})
ORDERED: Final = NUMBERS | {DType.TIMESTAMP}
ANY: Final = ORDERED | {DType.STRING}
LISTABLE: Final = {
    DType.FLOAT64: DType.LIST_FLOAT64,
    DType.INT64: DType.LIST_INT64,
    DType.STRING: DType.LIST_STRING,
}


@dataclass(frozen=True)
class Rule:
    """What an aggregate takes and gives.

    Args:
        takes: the column types it accepts.
        gives: its type, or None for the column's own.
        integers_stay: whether it gives int64 for integers and bools, rather than `gives`.
        lists: whether it gives a list of the column's type.
        nullable: whether an empty window gives null.
    """

    takes: frozenset[DType]
    gives: DType | None = None
    integers_stay: bool = False
    lists: bool = False
    nullable: bool = True

    def output(self, column: DType | None) -> DType | None:
        """The type for a column of this type; None when it does not accept it."""
        if column is None:
            return self.gives
        if column not in self.takes:
            return None
        if self.lists:
            return LISTABLE[column]
        if self.integers_stay and column is not DType.FLOAT64:
            return DType.INT64
        return self.gives or column


RULES: Final[dict[str, Rule]] = {
    "count": Rule(ANY, DType.INT64, nullable=False),
    "sum": Rule(NUMBERS, DType.FLOAT64, integers_stay=True),
    "mean": Rule(NUMBERS, DType.FLOAT64),
    "min": Rule(ORDERED),
    "max": Rule(ORDERED),
    "var": Rule(NUMBERS, DType.FLOAT64),
    "std": Rule(NUMBERS, DType.FLOAT64),
    "var_pop": Rule(NUMBERS, DType.FLOAT64),
    "std_pop": Rule(NUMBERS, DType.FLOAT64),
    "first": Rule(ANY),
    "last": Rule(ANY),
    "last_non_null": Rule(ANY),
    "first_n": Rule(frozenset(LISTABLE), lists=True),
    "last_n": Rule(frozenset(LISTABLE), lists=True),
    "count_distinct": Rule(ANY, DType.INT64, nullable=False),
    "ratio": Rule(NUMBERS, DType.FLOAT64),
    "rate": Rule(NUMBERS, DType.FLOAT64),
    "time_since_last": Rule(ANY, DType.FLOAT64),
}
