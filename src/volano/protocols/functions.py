"""Author code by reference: the stages ask for a function, the runtime has loaded the bundle it lives in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from volano.plan.definitions import CodeRef


class Functions(Protocol):
    """The functions of one bundle."""

    def get(self, code: CodeRef) -> Callable[..., Any]:
        """The function that a reference names, already wrapped: what it raises comes out as AuthorCodeError."""
        ...
