"""The id of an event: its id columns' values as one text. Equal text, same event of its source."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from volano.values.identities import short_hash
from volano.values.schema import Scalar

ROW_ID_BYTES: Final = 16


def event_id(values: Sequence[Scalar]) -> str:
    """Join the values of a source's id columns.

    One value stands for itself. Several are joined by `|`, with `|` and `\\` inside them escaped, so that no
    two lists of the same length give the same text.

    Args:
        values: one a column, in the source's order; instants as integers.

    >>> event_id(("AA1",)), event_id(("AA1", 7, True)), event_id(("a|b", "c"))
    ('AA1', 'AA1|7|true', 'a\\\\|b|c')
    """
    if len(values) == 1:
        return _text(values[0])
    return "|".join(_text(value).replace("\\", "\\\\").replace("|", "\\|") for value in values)


def row_id(event: str) -> bytes:
    """The 16 bytes by which windows know a row: they break ties of time and exclude the request's own event.

    >>> row_id("AA1").hex()[:8]
    '9ea9dea8'
    """
    return short_hash(event.encode())


def _text(value: Scalar) -> str:
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case _:
            return repr(value)
