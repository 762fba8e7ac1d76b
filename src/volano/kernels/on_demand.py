"""How author code of one row is called: values in as their Python types, the result checked. Holds no author code.

Both sides use it, the request path and the computation over history, so that they cannot differ. A timestamp reaches
the author as an aware UTC datetime and is an instant everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from volano.errors import AuthorCodeError
from volano.values.instants import from_datetime, to_datetime
from volano.values.schema import DType, Scalar


def call_on_demand(
    function: Callable[..., Any], arguments: Mapping[str, Scalar], *, timestamps: frozenset[str], dtype: DType
) -> Scalar:
    """The value of an on-demand feature for one row.

    Args:
        function: the author's; what it raises comes through.
        arguments: by parameter name; instants for timestamps.
        timestamps: the parameters that are timestamps.
        dtype: what it must return, or None.

    Raises:
        AuthorCodeError: the result is of another type.

    >>> call_on_demand(lambda distance: distance / 2, {"distance": 3}, timestamps=frozenset(), dtype=DType.FLOAT64)
    1.5
    """
    if timestamps:
        given: dict[str, Any] = dict(arguments)
        for name in timestamps:
            if given[name] is not None:
                given[name] = to_datetime(given[name])
        arguments = given
    return check_result(function(**arguments), dtype)


def check_result(result: Any, dtype: DType) -> Scalar:
    """A result as a plain value of its type; a whole number is also a float, None is null.

    Raises:
        AuthorCodeError: it is of another type.
    """
    if result is None:
        return None
    match dtype:
        case DType.BOOL if isinstance(result, bool):
            return result
        case DType.FLOAT64 if isinstance(result, int | float) and not isinstance(result, bool):
            return float(result)
        case DType.INT64 if (
            isinstance(result, int) and not isinstance(result, bool) and -(2**63) <= result < 2**63
        ):
            return int(result)
        case DType.STRING if isinstance(result, str):
            return str(result)
        case DType.TIMESTAMP if isinstance(result, datetime) and result.tzinfo is not None:
            return from_datetime(result)
        case _:
            raise AuthorCodeError(
                f"An on-demand feature returned {result!r} of type {type(result).__name__}, not {dtype}.",
                mend="return what the annotation says; numbers of NumPy as int(...), float(...) or bool(...)",
            )
