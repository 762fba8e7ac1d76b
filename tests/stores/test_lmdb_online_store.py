"""The LMDB store keeps the online store's contract."""

from __future__ import annotations

import pytest

from volano.errors import CorruptionError, NotReadyError, StoreError, StoreFullError
from volano.stores import lmdb_online_store
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.testing.conformance.online_store import OnlineStoreConformance
from volano.testing.conformance.processes import run


class TestLmdbOnlineStore(OnlineStoreConformance):
    store = "volano.stores.lmdb_online_store:LmdbOnlineStore"


FULL_DISK = """
import resource
store = resolve("volano.stores.lmdb_online_store:LmdbOnlineStore")(folder)
store.write({b"a": b"1"}, (), stamp=1, sequence=1)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
from volano.errors import StoreError
try:
    store.write({b"%d" % n: bytes(2000) for n in range(5000)}, (), stamp=2, sequence=2)
except StoreError as error:
    assert "space" in error.mend
    store.write({b"b": b"2"}, (), stamp=3, sequence=2)
    with store.snapshot() as snapshot:
        print(snapshot.get_many([b"a", b"b", b"0"]), snapshot.sequence)
"""


def test_a_full_disk_leaves_the_store_as_it_was(tmp_path):
    """What cannot be written is an error that names space; nothing of the write is seen, and a smaller one goes in."""
    _, said = run(FULL_DISK, tmp_path)
    assert said.strip() == "[b'1', b'2', None] 2"


def test_a_full_map_leaves_the_store_as_it_was(tmp_path):
    """Beyond map_size StoreFullError, whose mend is a larger one."""
    store = LmdbOnlineStore(tmp_path, map_size=1 << 20)
    with pytest.raises(StoreFullError, match="full"):
        store.write({b"%d" % n: bytes(2000) for n in range(5000)}, (), stamp=2, sequence=1)
    with store.snapshot() as snapshot:
        assert snapshot.sequence == 0
    store.close()
    larger = LmdbOnlineStore(tmp_path, map_size=1 << 26)
    larger.write({b"%d" % n: bytes(2000) for n in range(5000)}, (), stamp=2, sequence=1)


def test_unsynced_writes_of_another_boot_are_thrown_away(tmp_path, monkeypatch):
    """After a loss of power with unsynced writes the store is empty and says so until it was rebuilt."""
    run(
        """
        store = resolve("volano.stores.lmdb_online_store:LmdbOnlineStore")(folder)
        store.write({b"a": b"1"}, (), stamp=1, sequence=1)
        die()
        """,
        tmp_path,
    )
    monkeypatch.setattr(lmdb_online_store, "boot_id", lambda: "the next boot")
    with pytest.raises(NotReadyError) as refused:
        LmdbOnlineStore(tmp_path, readonly=True)
    assert refused.value.mend
    for _ in range(2):  # also when the rebuild is interrupted
        store = LmdbOnlineStore(tmp_path)
        assert store.needs_rebuild
        with store.snapshot() as snapshot:
            assert (snapshot.get_many([b"a"]), snapshot.sequence) == ([None], 0)
        store.close()
    store = LmdbOnlineStore(tmp_path)
    store.write({b"a": b"rebuilt"}, (), stamp=1, sequence=1)
    store.rebuilt()
    assert not store.needs_rebuild
    store.close()
    monkeypatch.undo()
    assert not LmdbOnlineStore(tmp_path).needs_rebuild


def test_synced_writes_survive_another_boot(tmp_path, monkeypatch):
    """What was synced needs no rebuild, and neither does what was closed."""
    run(
        """
        store = resolve("volano.stores.lmdb_online_store:LmdbOnlineStore")(folder)
        store.write({b"a": b"1"}, (), stamp=1, sequence=1)
        store.sync()
        die()
        """,
        tmp_path,
    )
    monkeypatch.setattr(lmdb_online_store, "boot_id", lambda: "the next boot")
    for expected in (b"1", b"2"):
        store = LmdbOnlineStore(tmp_path)
        assert not store.needs_rebuild
        with store.snapshot() as snapshot:
            assert snapshot.get_many([b"a"]) == [expected]
        store.write({b"a": b"2"}, (), stamp=2, sequence=2)
        store.close()


def test_a_damaged_file_is_corruption(tmp_path):
    """A file that is no LMDB file is reported with its mend."""
    (tmp_path / "data.mdb").write_bytes(b"no database" * 1000)
    with pytest.raises(CorruptionError) as found:
        LmdbOnlineStore(tmp_path)
    assert found.value.mend
    LmdbOnlineStore(tmp_path / "other").close()


def test_a_store_is_not_for_use_after_close(tmp_path):
    """A closed store says so; the environment of the others in the process stays open."""
    store, reader = LmdbOnlineStore(tmp_path), LmdbOnlineStore(tmp_path, readonly=True)
    store.write({b"a": b"1"}, (), stamp=1, sequence=1)
    store.close()
    store.close()
    with pytest.raises(StoreError):
        store.snapshot()
    with pytest.raises(StoreError):
        store.write({}, (), stamp=2, sequence=2)
    with reader.snapshot() as snapshot:
        assert snapshot.get_many([b"a"]) == [b"1"]
    reader.close()
    LmdbOnlineStore(tmp_path).close()
