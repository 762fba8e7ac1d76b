"""Projections: a stateless function that computes columns of a source before features aggregate them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True, eq=False)
class Projection:
    """An author's function from a batch of rows to the same rows with more columns. Made by `projection`."""

    function: Callable[..., Any]
    columns: Mapping[str, Any]
    frame: str

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.__name__

    def __call__(self, batch: Any) -> Any:
        return self.function(batch)


def projection(
    *, columns: Mapping[str, Any], frame: Literal["arrow", "pandas", "polars", "narwhals"] = "arrow"
) -> Callable[[Callable[..., Any]], Projection]:
    """Declare a function that computes columns: `class View(FeatureView, ..., select=function)`.

    The function takes a batch of rows of the source and returns one that holds the declared columns: as many
    rows, in the same order. It sees one row or a million at a time, so it keeps no state; it never reads the
    clock.

    Args:
        columns: the columns it computes, with their types: `{"late": bool, "minutes": float | None}`.
        frame: what it takes and returns: a pyarrow.Table, or a DataFrame of pandas, Polars or Narwhals.

    >>> @projection(columns={"late": bool}, frame="pandas")
    ... def lateness(landings):
    ...     return landings.assign(late=landings.arr_delay > 15)
    >>> lateness.name
    'lateness'
    """

    def declare(function: Callable[..., Any]) -> Projection:
        return Projection(function, columns, frame)

    return declare
