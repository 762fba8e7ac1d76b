"""Entity keys and their canonical bytes (version 1). The bytes are what stores and hashes see.

Layout: one tag byte a part (`s` text, `i` integer), then the part: text as a 4-byte big-endian length and UTF-8;
an integer as 8 big-endian bytes with the sign bit flipped, so that byte order is number order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

KeyPart: TypeAlias = str | int
EntityKey: TypeAlias = tuple[KeyPart, ...]
MOST_KEY_TEXT: Final = 1_000
"""How many characters a text that comes from outside and is part of a key may have."""
MOST_KEY_BYTES: Final = 65_535
"""How many canonical bytes a key may have; a longer one, such as a projection may compute, counts as none (null)."""


def encode_key(key: EntityKey) -> bytes:
    """The canonical bytes of a key; two keys are equal exactly when their bytes are.

    Raises:
        TypeError: a part is neither text nor an integer (a bool is not an integer here).
        OverflowError: an integer does not fit 64 bits.

    >>> encode_key(("N14228",)).hex()
    '73000000064e3134323238'
    """
    if len(key) == 1 and type(key[0]) is str:
        raw = key[0].encode()
        return b"s" + len(raw).to_bytes(4, "big") + raw
    parts = []
    for part in key:
        if type(part) is str:
            raw = part.encode()
            parts.append(b"s" + len(raw).to_bytes(4, "big") + raw)
        elif type(part) is int:
            parts.append(b"i" + (part + 2**63).to_bytes(8, "big"))
        else:
            raise TypeError(f"a key part is text or an integer, not {type(part).__name__}: {part!r}")
    return b"".join(parts)


def canonical_keys(
    columns: Sequence[Sequence[Any]],
    *,
    encode: Callable[[EntityKey], bytes | None] = encode_key,
    known: dict[Any, bytes | None] | None = None,
) -> list[bytes | None]:
    """The canonical bytes of many keys; each different key is encoded once.

    Args:
        columns: one a key part, of one type each; not empty.
        encode: makes the bytes of one key; None where it counts as none.
        known: what earlier calls with the same `encode` and the same types made; gains what this one makes.

    Returns:
        One a row; None where a part is null, or `encode` gives none.

    >>> [key and key.hex() for key in canonical_keys([["N14228", None]])]
    ['73000000064e3134323238', None]
    """
    known = {} if known is None else known
    keys: list[bytes | None] = []
    if len(columns) == 1:
        known[None] = None
        for part in {*columns[0]}.difference(known):
            known[part] = encode((part,))
        return list(map(known.__getitem__, columns[0]))
    for key in zip(*columns, strict=True):
        if key not in known:
            known[key] = None if None in key else encode(key)
        keys.append(known[key])
    return keys


def decode_key(data: bytes) -> EntityKey:
    """The key of some canonical bytes.

    >>> decode_key(encode_key(("a", -5)))
    ('a', -5)
    """
    parts: list[KeyPart] = []
    at = 0
    while at < len(data):
        tag = data[at : at + 1]
        if tag == b"s":
            length = int.from_bytes(data[at + 1 : at + 5], "big")
            parts.append(data[at + 5 : at + 5 + length].decode())
            at += 5 + length
        elif tag == b"i":
            parts.append(int.from_bytes(data[at + 1 : at + 9], "big") - 2**63)
            at += 9
        else:
            raise ValueError(f"no key begins with byte {tag!r}")
    return tuple(parts)
