"""On-demand features: computed inside the request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, eq=False)
class OnDemand:
    """A feature computed by an author's function. Calling it calls the function. Made by `on_demand`."""

    function: Callable[..., Any]

    @property
    def name(self) -> str:
        """The function's own name."""
        return self.function.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def on_demand(function: Callable[..., Any]) -> OnDemand:
    """Declare a feature that is computed inside the request, from request fields and other features.

    Each parameter's default says what it reads; its annotation and the return annotation are the types. The
    function depends on its arguments alone: it never reads the clock, chance or state.

    >>> from volano.spec.request import Request
    >>> class Departure(Request):
    ...     distance: int
    >>> @on_demand
    ... def long_haul(distance: int = Departure.distance) -> bool:
    ...     return distance > 1500
    >>> long_haul(2000)
    True
    """
    return OnDemand(function)
