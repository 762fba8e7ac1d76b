"""NaN and infinities as JSON: the texts "NaN", "Infinity" and "-Infinity", as in the JSON form of protocol buffers.

JSON has no such numbers, and null means something else: that there is no value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import msgspec

_NUMBERS: Final = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def number_of(value: Any) -> Any:
    """The number that a text spells; any other value as it is. Of a list, each of its values.

    >>> number_of("-Infinity"), number_of("inf"), number_of([1.5, "NaN"])
    (-inf, 'inf', [1.5, nan])
    """
    if isinstance(value, str):
        return _NUMBERS.get(value, value)
    return [number_of(each) for each in value] if isinstance(value, list) else value


def is_finite(value: Any) -> bool:
    """Whether JSON can write a value: false for NaN and infinities, alone or in a list.

    >>> is_finite(1.5), is_finite(None), is_finite([1.0, math.inf])
    (True, True, False)
    """
    if isinstance(value, float):
        return math.isfinite(value)
    return not isinstance(value, list | tuple) or all(map(is_finite, value))


def encode(value: Any, *, unknown: Callable[[Any], Any] | None = None) -> bytes:
    """JSON of a value, its NaN and infinities spelled at any depth.

    Args:
        unknown: what stands for a value of a type that JSON has no form of.

    >>> encode({"a": [math.nan, -math.inf], "b": 1.5})
    b'{"a":["NaN","-Infinity"],"b":1.5}'
    """
    return msgspec.json.encode(_spelled(msgspec.to_builtins(value, enc_hook=unknown)))


def _spelled(value: Any) -> Any:
    match value:
        case float():
            return value if math.isfinite(value) else _text_of(value)
        case dict():
            return {key: _spelled(each) for key, each in value.items()}
        case list() | tuple():
            return [_spelled(each) for each in value]
    return value


def _text_of(value: float) -> str:
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"
