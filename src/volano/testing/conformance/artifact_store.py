"""What every artifact store must do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from volano.errors import CorruptionError, UnknownNameError
from volano.protocols.artifact_store import ArtifactWriter
from volano.testing.conformance.processes import resolve, run
from volano.values.identities import digest


class ArtifactStoreConformance:
    """Subclass it and name `artifacts`, called with a folder."""

    artifacts: ClassVar[str]

    def open(self, folder: Path) -> ArtifactWriter:
        opened: ArtifactWriter = resolve(self.artifacts)(folder)
        return opened

    def test_bytes_come_back_by_their_digest(self, tmp_path: Path) -> None:
        """The digest is the SHA-256 of the bytes, also of none; reopening changes nothing."""
        store = self.open(tmp_path / "new")
        for data in (b"", b"\x00\xff" * 1000, b"model"):
            assert store.put(data) == digest(data)
            for each in (store, self.open(tmp_path / "new")):
                assert each.get(digest(data)) == data
                assert Path(each.path(digest(data))).read_bytes() == data

    def test_twice_is_the_same_as_once(self, tmp_path: Path) -> None:
        """Storing the same bytes again changes nothing on the disk."""
        store = self.open(tmp_path)
        path = Path(store.path(store.put(b"model")))
        before = path.stat()
        assert store.put(b"model") == digest(b"model")
        assert path.stat().st_mtime_ns == before.st_mtime_ns

    def test_what_was_never_stored_is_unknown(self, tmp_path: Path) -> None:
        """An absent digest, and what is no digest at all, is an error with its mend."""
        store = self.open(tmp_path)
        for name in (digest(b"other"), "", "../../etc/passwd", "AB" * 32):
            for ask in (store.get, store.path):
                with pytest.raises(UnknownNameError) as found:
                    ask(name)
                assert found.value.mend

    def test_damage_is_found(self, tmp_path: Path) -> None:
        """Changed or missing bytes are never returned; storing the right ones again mends it."""
        store = self.open(tmp_path)
        name = store.put(b"model")
        path = Path(store.path(name))
        for broken in (b"modem", b"mode", b""):
            path.write_bytes(broken)
            with pytest.raises(CorruptionError):
                store.get(name)
            with pytest.raises(CorruptionError):
                self.open(tmp_path).path(name)
        store.put(b"model")
        assert store.get(name) == b"model"

    def test_a_kill_keeps_what_was_stored(self, tmp_path: Path) -> None:
        """What `put` returned for survives kill -9."""
        _, said = run(
            f'print(resolve({self.artifacts!r})(folder).put(b"model"), flush=True); die()', tmp_path
        )
        assert self.open(tmp_path).get(said.strip()) == b"model"
