"""Content-addressed bytes: bundles, models, training sets. Verified on every read."""

from __future__ import annotations

from typing import Protocol


class ArtifactReader(Protocol):
    """Reads artifacts."""

    def get(self, digest: str) -> bytes:
        """The bytes of a digest. Raises UnknownNameError when absent, CorruptionError when they do not match."""
        ...

    def path(self, digest: str) -> str:
        """A local path of the verified bytes, for libraries that want a file."""
        ...


class ArtifactWriter(ArtifactReader, Protocol):
    """Writes artifacts."""

    def put(self, data: bytes) -> str:
        """Store bytes, fsynced, and return their digest (SHA-256, hex). Storing twice is the same as once."""
        ...
