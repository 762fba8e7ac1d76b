"""What a server answers, as the client hands it on; and the errors a call can end with."""

from __future__ import annotations

from typing import Any

import msgspec

from volano.errors import VolanoError
from volano.records.answers import Decided, LoggedAnswer
from volano.records.answers import ReceiptAnswer as Receipt
from volano.values import json_floats


class RefusedError(VolanoError):
    """The server refused the request; the same request would be refused again.

    Args:
        status: of HTTP.
        kind: the server's error code, such as `invalid_input`.
    """

    code = "refused"

    def __init__(self, status: int, kind: str, what: str, *, where: str = "", mend: str = "") -> None:
        super().__init__(what, where=where, mend=mend)
        self.status = status
        self.kind = kind


class UnreachableError(VolanoError):
    """No answer came in time, or only that the server is too busy. The same call may succeed later.

    An observation or decision that was sent may have been taken: sent again with its own id it counts once.
    """

    code = "unreachable"
    retryable = True


class _Problem(msgspec.Struct):
    type: str = ""
    detail: str = ""
    where: str = ""
    mend: str = ""


def refusal(status: int, body: bytes) -> RefusedError:
    """The error of an answer that tells of one."""
    try:
        told = msgspec.json.decode(body, type=_Problem)
    except msgspec.MsgspecError:
        told = _Problem(detail=f"The server answered {status}.")
    kind = told.type.rpartition(":")[2] or "unknown"
    return RefusedError(status, kind, told.detail, where=told.where, mend=told.mend)


def decode_decided(body: bytes) -> Decided:
    """A decision from an answer."""
    return msgspec.json.decode(body, type=Decided)


def decode_receipt(body: bytes) -> Receipt:
    """A receipt from an answer."""
    return msgspec.json.decode(body, type=Receipt)


def decode_receipts(body: bytes) -> list[Receipt]:
    """Receipts from an answer."""
    return msgspec.json.decode(body, type=list[Receipt])


def decode_logged(body: bytes) -> LoggedAnswer:
    """The answer to a decision made elsewhere."""
    return msgspec.json.decode(body, type=LoggedAnswer)


def encode(value: Any) -> bytes:
    """JSON as the server reads it: datetimes as ISO 8601 with their zone, NaN and infinities spelled."""
    return json_floats.encode(value)
