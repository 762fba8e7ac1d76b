"""The idempotency index: what came under each id before, and where its row lies. Exact, in the online store.

One entry an event id, whatever its revisions; one a decision id, whatever its attempts; one a shadow score; one a row
that was set aside and resolved. Keys are hashes of 128 bits behind a prefix of their own, which no state group has: a
group's prefix is a digest. An event's is its row id, so that one hash names it in the index and in the chunks.
"""

from __future__ import annotations

from typing import Final

import msgspec

from volano.values.identities import short_hash
from volano.values.instants import Instant

INDEX_PREFIX: Final = b"\x00volidx\x00"
DECISION_PREFIX: Final = b"\x00volask\x00"
"""In front of the entries of decision ids."""
CURSOR_KEY: Final = b"\x00volcur\x02"
"""Holds how far the journal was applied, in the transaction that applied it. Its last byte counts the layouts of the
index: a store with an older one lacks this key, so it is filled anew."""
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


class KnownDecision(msgspec.Struct, array_like=True, gc=False):
    """What is known of one decision id.

    Args:
        request: `request_hash` of what was asked; the same id with another one is a conflict.
        answers: `answer_hash` of every answer that was stored.
        next_attempt: what the next answer is counted as.
        place: of the first answer in the journal; None when this entry was filled from the lake: it stands there.
    """

    request: bytes
    answers: list[bytes]
    next_attempt: int
    place: tuple[str, int, int] | None = None


_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Known]] = msgspec.msgpack.Decoder(Known)


_DECISION_DECODER: Final[msgspec.msgpack.Decoder[KnownDecision]] = msgspec.msgpack.Decoder(KnownDecision)


def encode_known(known: Known | KnownDecision) -> bytes:
    """The stored form of an entry."""
    return _ENCODER.encode(known)


def decode_known(data: bytes) -> Known:
    """The entry of a stored form.

    >>> decode_known(encode_known(Known({0: b"h"}, 0, 7, [b"head"]))).places
    [b'head']
    """
    return _DECODER.decode(data)


def decode_known_decision(data: bytes) -> KnownDecision:
    """The entry of a decision's stored form."""
    return _DECISION_DECODER.decode(data)


def event_prefix(namespace: str, source: str) -> bytes:
    """What the index keys of a source's events begin with."""
    return INDEX_PREFIX + short_hash(b"event\x00" + namespace.encode() + b"\x00" + source.encode())[:8]


def event_key(prefix: bytes, row_id: bytes) -> bytes:
    """The index key of an event id, by its `values.event_ids.row_id`; `prefix` is its source's `event_prefix`."""
    return prefix + row_id


def decision_key(namespace: str, decision: str, decision_id: str) -> bytes:
    """The index key of a decision id; two decisions may be asked with one caller's id."""
    return DECISION_PREFIX + short_hash(f"{namespace}\x00{decision}\x00{decision_id}".encode())


def resolution_key(namespace: str, receipt_id: str) -> bytes:
    """The index key of what was decided about a row that was set aside."""
    return INDEX_PREFIX + short_hash(f"resolution\x00{namespace}\x00{receipt_id}".encode())


def shadow_key(namespace: str, decision: str, decision_id: str, attempt: int, model_version: str) -> bytes:
    """The index key of a shadow score."""
    return INDEX_PREFIX + short_hash(
        f"shadow\x00{namespace}\x00{decision}\x00{decision_id}\x00{attempt}\x00{model_version}".encode()
    )
