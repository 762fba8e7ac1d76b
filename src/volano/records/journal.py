"""What goes into the journal: everything that was accepted, in the order of acceptance.

One tagged union, one codec. A record's wire form is MessagePack of a map (field names stay readable), tagged by
`type`; new fields are optional, so old journals decode for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final, NamedTuple, TypeAlias, assert_never

import msgspec

from volano.records.quarantine import Resolution
from volano.values.identities import short_hash
from volano.values.instants import Instant
from volano.values.schema import Scalar


class Operation(StrEnum):
    """What an event does to the row of its id: state it, replace it, or take it back.

    `end` states a row without values: what its id names is no more. It comes from snapshots only.
    """

    INSERT = "insert"
    CORRECT = "correct"
    RETRACT = "retract"
    END = "end"


class TableChange(NamedTuple):
    """A difference between a table and the facts of its source, on its way to the journal.

    Args:
        event: the columns of the row; of what is retracted or ends only its id.
        known_at: when it could be used; None: when it is applied.
    """

    event: dict[str, Any]
    operation: Operation
    revision: int
    known_at: Instant | None = None


class Mode(StrEnum):
    """Why a decision was made: for real, beside the real one, or again."""

    LIVE = "live"
    SHADOW = "shadow"
    REPLAY = "replay"


class EventReceived(msgspec.Struct, frozen=True, tag="event", tag_field="type", omit_defaults=True, gc=False):
    """One event as it came in at the door, valid or not.

    Args:
        receipt_id: what the caller was answered.
        source: name of the source it was sent to.
        event_id: the values of the source's id columns, joined; with `revision` the idempotency key.
        revision: 0 states the row; a correction or retraction carries a higher number; the highest stands.
        event_time: claimed by the event; 0 when it could not be read.
        received_at: when the door held it.
        payload: the event as JSON, as sent.
        payload_hash: 16 bytes; same key and other hash is a conflict.
        subject: the person it concerns, if the source names one.
        problem: why it goes to quarantine: (code, field, message); None for a valid event.
        known_at: of a row that a refreshed table brought, when it could be used; None: when it is applied.
        replays: receipt of the event that was set aside and is sent in again with this one.
    """

    receipt_id: str
    namespace: str
    source: str
    event_id: str
    event_time: Instant
    received_at: Instant
    payload: bytes
    payload_hash: bytes
    operation: Operation = Operation.INSERT
    revision: int = 0
    subject: str | None = None
    problem: tuple[str, str, str] | None = None
    known_at: Instant | None = None
    replays: str | None = None


class DecisionMade(
    msgspec.Struct, frozen=True, tag="decision", tag_field="type", omit_defaults=True, gc=False
):
    """One logged choice, with all that is needed to explain it, repeat it and learn from it.

    Args:
        decision_id: UUIDv7 made by us or given by the caller; with `attempt` the identity of the record.
        attempt: 0 for the first answer to the id; higher for one that was computed again. The applier counts: what
            stands here is what the decider knew.
        bundle: digest of the bundle whose code decided.
        request: every request field, by name.
        features: the model's inputs as served, in the order of the feature service (see `service_version`).
        decided_at: the end q of its windows.
        features_as_of: the newest applied stamp that was visible.
        action: what was chosen; `propensity` its probability given the context, `propensity_method` how it was got.
            None where something else decided and nobody knows it.
        fallback: why the fallback answered; empty when the policy did.
        latency_us: by part (features, model, policy, total); measured by the caller's stopwatch.
        origin: what made the decision; empty when we did. One made elsewhere names no feature service.
    """

    decision_id: str
    namespace: str
    decision: str
    bundle: str
    release_id: str
    model: str
    model_version: str
    service_version: str
    request: dict[str, Scalar]
    features: list[Scalar]
    decided_at: Instant
    features_as_of: Instant
    score: float | None
    action: str
    propensity: float | None
    propensity_method: str
    attempt: int = 0
    unit: str = ""
    role: str = "champion"
    mode: Mode = Mode.LIVE
    fallback: str = ""
    deadline_us: int = 0
    latency_us: dict[str, int] = {}
    log_keep_probability: float = 1.0
    cost: float | None = None
    subject: str | None = None
    purpose: str = ""
    source_event_id: str | None = None
    origin: str = ""


class ShadowScored(msgspec.Struct, frozen=True, tag="shadow", tag_field="type", omit_defaults=True):
    """What another model version would have scored for a logged decision, from the features as served."""

    decision_id: str
    decision: str
    model: str
    model_version: str
    score: float | None
    scored_at: Instant
    attempt: int = 0


JournalRecord: TypeAlias = EventReceived | DecisionMade | ShadowScored | Resolution

EVENT: Final = "event"
DECISION: Final = "decision"
SHADOW: Final = "shadow"
RESOLUTION: Final = "resolution"
"""The kinds of records, as the lake names them."""


def kind_of(record: JournalRecord) -> str:
    """`EVENT`, `DECISION`, `SHADOW` or `RESOLUTION`."""
    match record:
        case EventReceived():
            return EVENT
        case DecisionMade():
            return DECISION
        case ShadowScored():
            return SHADOW
        case Resolution():
            return RESOLUTION
    assert_never(record)


_ENCODER: Final = msgspec.msgpack.Encoder()
_CANONICAL: Final = msgspec.msgpack.Encoder(order="deterministic")
_DECODER: Final[msgspec.msgpack.Decoder[JournalRecord]] = msgspec.msgpack.Decoder(JournalRecord)


def request_hash(request: Mapping[str, Scalar]) -> bytes:
    """16 bytes that tell one request from another under one decision id.

    A field without a value counts as absent, so a field that the schema gained later makes no other request.

    >>> request_hash({"a": 1, "b": None}) == request_hash({"a": 1})
    True
    """
    return short_hash(
        _CANONICAL.encode({name: value for name, value in request.items() if value is not None})
    )


def answer_hash(decided_at: Instant, features_as_of: Instant, release_id: str, action: str) -> bytes:
    """8 bytes that tell one answer to a decision id from another; all that it is made of is in the lake, too."""
    return short_hash(_CANONICAL.encode((decided_at, features_as_of, release_id, action)))[:8]


def encode_record(record: JournalRecord) -> bytes:
    """The wire form of a journal record."""
    return _ENCODER.encode(record)


def decode_record(data: bytes) -> JournalRecord:
    """The record of a wire form, of this version or an older one.

    >>> shadow = ShadowScored("d", "get_risk", "risk", "v1", 0.5, 7)
    >>> decode_record(encode_record(shadow)) == shadow
    True
    """
    return _DECODER.decode(data)
