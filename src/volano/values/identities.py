"""Names, digests and time-ordered ids. Entropy and time are passed in; nothing here draws its own."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Final

import msgspec

from volano.values.instants import Instant

_NAMESPACE: Final = re.compile("[A-Za-z][A-Za-z0-9_-]*")
_VARIANT: Final = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}
_CANONICAL: Final = msgspec.json.Encoder(order="deterministic")


class Name(msgspec.Struct, frozen=True, order=True):
    """A definition's identity: namespace, kind and name. The namespace is part of it from the first day.

    >>> str(Name("flights", "source", "landings"))
    'flights/source/landings'
    """

    namespace: str
    kind: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.kind}/{self.name}"


def is_namespace(text: str) -> bool:
    """Whether a text may be a namespace: a letter, then letters, digits, `_` and `-`, without a double underscore.

    >>> is_namespace("flights"), is_namespace("2013"), is_namespace("a/b")
    (True, False, False)
    """
    return bool(_NAMESPACE.fullmatch(text)) and "__" not in text


def namespace_of(text: str) -> str:
    """The namespace that a folder's name suggests; it may be none, see `is_namespace`.

    >>> namespace_of("My Shop (new)"), namespace_of("card_risk"), namespace_of("2013")
    ('my-shop-new', 'card_risk', '2013')
    """
    return re.sub("_{2,}", "_", re.sub("[^a-z0-9_]+", "-", text.lower())).strip("-_")


def digest(data: bytes) -> str:
    """The content address of some bytes: 64 hex characters of SHA-256.

    >>> digest(b"")[:12]
    'e3b0c44298fc'
    """
    return hashlib.sha256(data).hexdigest()


def content_hash(value: Any) -> str:
    """The digest of a value's canonical JSON: keys sorted, no spaces. Equal values, equal hash, in every process.

    Args:
        value: whatever msgspec can write as JSON.

    >>> content_hash({"b": 1, "a": 2}) == content_hash({"a": 2, "b": 1})
    True
    """
    return digest(_CANONICAL.encode(value))


def short_hash(value: bytes) -> bytes:
    """16 bytes of BLAKE2b: the hash of payloads and idempotency keys in indexes."""
    return hashlib.blake2b(value, digest_size=16).digest()


def uuid7s(instant: Instant, entropy: bytes) -> list[str]:
    """As many ids of one instant as there are eight bytes of entropy; each as `uuid7` makes it.

    >>> uuid7s(1_700_000_000_000_123, bytes(range(16)))[1] == uuid7(1_700_000_000_000_123, bytes(range(8, 16)))
    True
    """
    if len(entropy) == 8:
        return [uuid7(instant, entropy)]
    head = uuid7(instant, bytes(8))[:19]
    drawn = entropy.hex()
    return [
        f"{head}{_VARIANT[drawn[at]]}{drawn[at + 1 : at + 4]}-{drawn[at + 4 : at + 16]}"
        for at in range(0, len(drawn) - 15, 16)
    ]


def uuid7(instant: Instant, entropy: bytes) -> str:
    """A UUIDv7 (RFC 9562) of an instant and ten bytes of entropy.

    Args:
        instant: its millisecond becomes the time-ordered prefix; the microseconds below it follow (method 3).
        entropy: at least 8 bytes.

    >>> uuid7(1_700_000_000_000_000, bytes(8))
    '018bcfe5-6800-7000-8000-000000000000'
    """
    milliseconds, rest_us = divmod(instant, 1_000)
    fraction = rest_us * 4096 // 1_000
    tail = int.from_bytes(entropy[:8], "big") & ((1 << 62) - 1)
    value = (milliseconds & ((1 << 48) - 1)) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | tail
    text = value.to_bytes(16, "big").hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
