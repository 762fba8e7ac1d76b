"""The idempotency index: what came under each id before, and where its row lies. Exact, in the online store.

One entry an event id, whatever its revisions; one a decision attempt; one a shadow score. Keys are hashes of 128 bits
behind a prefix of their own, which no state group has: a group's prefix is a digest. An event's is its row id, so that
one hash names it in the index and in the chunks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from volano.values.identities import short_hash
from volano.values.instants import Instant

INDEX_PREFIX: Final = b"\x00volidx\x00"
CURSOR_KEY: Final = b"\x00volcur\x00"
"""Holds how far the journal was applied, in the transaction that applied it."""
PROGRESS_PREFIX: Final = b"\x00volfil\x00"
"""In front of how far each part of a fill has come. Gone when the store is whole."""
TABLE_REVISION: Final = -1
"""The revision of a row that came from a table: every pushed row of its id replaces it, which is no conflict."""
NOTHING_STANDS: Final = -2


class Known(msgspec.Struct, array_like=True, gc=False):
    """What is known of one id.

    Args:
        hashes: revision -> payload hash, of every revision that was stored.
        standing: the highest revision that counts for features; one that came too late does not count.
        event_time: of the standing row; None when it has none.
        places: what the keys of the chunks that hold the standing row begin with (`plan.state.key_head`).
    """

    hashes: dict[int, bytes] = {}
    standing: int = NOTHING_STANDS
    event_time: Instant | None = None
    places: list[bytes] = []


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Known]] = msgspec.msgpack.Decoder(Known)


def encode_known(known: Known) -> bytes:
    """The stored form of an entry."""
    return _ENCODER.encode(known)


def decode_known(data: bytes) -> Known:
    """The entry of a stored form.

    >>> decode_known(encode_known(Known({0: b"h"}, 0, 7, [b"head"]))).places
    [b'head']
    """
    return _DECODER.decode(data)


def event_prefix(namespace: str, source: str) -> bytes:
    """What the index keys of a source's events begin with."""
    return INDEX_PREFIX + short_hash(b"event\x00" + namespace.encode() + b"\x00" + source.encode())[:8]


def event_key(prefix: bytes, row_id: bytes) -> bytes:
    """The index key of an event id, by its `values.event_ids.row_id`; `prefix` is its source's `event_prefix`."""
    return prefix + row_id


def decision_key(namespace: str, decision: str, decision_id: str, attempt: int) -> bytes:
    """The index key of a decision's record; two decisions may be asked with one caller's id."""
    return INDEX_PREFIX + short_hash(
        f"decision\x00{namespace}\x00{decision}\x00{decision_id}\x00{attempt}".encode()
    )


def shadow_key(namespace: str, decision: str, decision_id: str, attempt: int, model_version: str) -> bytes:
    """The index key of a shadow score."""
    return INDEX_PREFIX + short_hash(
        f"shadow\x00{namespace}\x00{decision}\x00{decision_id}\x00{attempt}\x00{model_version}".encode()
    )
