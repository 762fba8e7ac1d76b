"""Errors as RFC 9457 problem details. The status follows from the kind of error, the text from the error itself."""

from __future__ import annotations

from typing import Final

import msgspec

from volano.errors import (
    AuthorCodeError,
    CorruptionError,
    IdReusedError,
    NotReadyError,
    RequestError,
    StoreError,
    StoreFullError,
    UnknownNameError,
    VolanoError,
)

CONTENT_TYPE: Final = b"application/problem+json"
_STATUS: Final[tuple[tuple[type[VolanoError], int], ...]] = (
    (IdReusedError, 409),
    (RequestError, 400),
    (UnknownNameError, 404),
    (NotReadyError, 503),
    (StoreFullError, 507),
    (CorruptionError, 500),
    (AuthorCodeError, 500),
    (StoreError, 503),
)
_TITLES: Final = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    415: "Unsupported media type",
    429: "Too many requests",
    500: "Internal error",
    503: "Not available",
    507: "No space left",
}


class HttpError(VolanoError):
    """An error that only HTTP knows: its status is its own.

    Args:
        retry_after_s: when the same request may succeed.
    """

    code = "http"

    def __init__(
        self, status: int, code: str, what: str, *, mend: str = "", retry_after_s: int | None = None
    ) -> None:
        super().__init__(what, mend=mend)
        self.status = status
        self.problem_code = code
        self.retry_after_s = retry_after_s


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """The body of an answer that tells of an error (RFC 9457).

    Args:
        type: `urn:volano:error:` and the error's code, stable for ever.
        detail: what is wrong.
        where, mend: where it is, and what to do about it.
        retryable: whether the same request may succeed later.
    """

    type: str
    title: str
    status: int
    detail: str
    where: str = ""
    mend: str = ""
    retryable: bool = False


def status_of(error: VolanoError) -> int:
    """The HTTP status of an error."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem_of(error: VolanoError) -> Problem:
    """The problem details of an error.

    >>> problem_of(UnknownNameError("There is no source named 'x'.", mend="known names: y")).status
    404
    """
    status = status_of(error)
    code = error.problem_code if isinstance(error, HttpError) else error.code
    retryable = error.retryable or (isinstance(error, HttpError) and error.retry_after_s is not None)
    return Problem(
        f"urn:volano:error:{code}",
        _TITLES.get(status, "Error"),
        status,
        error.what,
        error.where,
        error.mend,
        retryable,
    )
