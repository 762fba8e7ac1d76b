"""The HTTP library, imported on first use."""

from __future__ import annotations

from typing import Any

from volano.errors import MissingExtraError


def import_httpx() -> Any:
    """httpx.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import httpx  # noqa: PLC0415 - an extra; this package is imported without it
    except ImportError as error:
        raise MissingExtraError(
            "The client needs httpx, which is not installed.", mend="pip install 'volano[client]'"
        ) from error
    return httpx
