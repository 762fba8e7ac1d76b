"""What every online store must do."""

from __future__ import annotations

import random
import threading
from pathlib import Path
from typing import ClassVar

import pytest

from volano.errors import StoreBusyError, StoreReadOnlyError
from volano.protocols.online_store import OnlineReader, OnlineWriter
from volano.testing.conformance.processes import resolve, run, start
from volano.values.instants import BEGINNING

AFTER_ALL = b"\xff" * 600


class OnlineStoreConformance:
    """Subclass it and name `store`, called with (folder) to write and (folder, readonly=True) to read."""

    store: ClassVar[str]

    def open_writer(self, folder: Path) -> OnlineWriter:
        opened: OnlineWriter = resolve(self.store)(folder)
        return opened

    def open_reader(self, folder: Path) -> OnlineReader:
        opened: OnlineReader = resolve(self.store)(folder, readonly=True)
        return opened

    def test_an_empty_store_says_so(self, tmp_path: Path) -> None:
        """Without a write: stamp BEGINNING, sequence 0, no value, nothing to scan."""
        store = self.open_writer(tmp_path)
        with store.snapshot() as snapshot:
            assert (snapshot.stamp, snapshot.sequence) == (BEGINNING, 0)
            assert snapshot.get_many([b"a", b""]) == [None, None]
            assert snapshot.get_many([]) == []
            assert list(snapshot.scan(b"", AFTER_ALL)) == []

    def test_values_come_back_in_the_order_asked(self, tmp_path: Path) -> None:
        """`get_many` keeps order and repetitions; an empty value is a value."""
        store = self.open_writer(tmp_path)
        store.write({b"a": b"1", b"b": b"", b"c": b"3"}, (), stamp=7, sequence=1)
        with store.snapshot() as snapshot:
            assert snapshot.get_many([b"c", b"x", b"a", b"b", b"a"]) == [b"3", None, b"1", b"", b"1"]
            assert (snapshot.stamp, snapshot.sequence) == (7, 1)

    def test_keys_are_bytes_and_nothing_else(self, tmp_path: Path) -> None:
        """Any bytes are a key, empty and very long ones too; scans are in byte order and half-open."""
        chance = random.Random(1)
        long = b"entity" * 90
        keys = {b"", b"\x00", b"\x00\x00", b"\xff", b"a\x00b", "ü☂".encode(), long}
        keys |= {long[: 480 + n] for n in range(60)} | {long[:520] + bytes([n]) for n in range(0, 256, 5)}
        keys |= {chance.randbytes(chance.choice([1, 2, 8, 30, 494, 495, 511, 800])) for _ in range(100)}
        values = {key: b"v" + key for key in keys}
        store = self.open_writer(tmp_path)
        store.write(values, (), stamp=1, sequence=1)
        ordered = sorted(keys)
        with store.snapshot() as snapshot:
            assert snapshot.get_many(ordered) == [values[key] for key in ordered]
            assert snapshot.get_many([long + b"?", b"\x01"]) == [None, values.get(b"\x01")]
            assert [key for key, _ in snapshot.scan(b"", b"\xff" * 900)] == ordered
            for _ in range(300):
                start_key, stop_key = sorted(chance.choices([*ordered, long + b"\x80", b"e", b"f"], k=2))
                expected = [(key, values[key]) for key in ordered if start_key <= key < stop_key]
                assert list(snapshot.scan(start_key, stop_key)) == expected
        store.write({}, ordered[::2], stamp=2, sequence=2)
        with store.snapshot() as snapshot:
            assert [key for key, _ in snapshot.scan(b"", b"\xff" * 900)] == ordered[1::2]

    def test_a_write_is_one_step(self, tmp_path: Path) -> None:
        """Puts, deletes, stamp and sequence move together; deleting what is not there does nothing; a put wins."""
        store = self.open_writer(tmp_path)
        store.write({b"a": b"1", b"b": b"1"}, (), stamp=5, sequence=1)
        store.write({b"c": b"2", b"b": b"2"}, [b"a", b"none", b"b"], stamp=6, sequence=2)
        with store.snapshot() as snapshot:
            assert list(snapshot.scan(b"", AFTER_ALL)) == [(b"b", b"2"), (b"c", b"2")]
            assert (snapshot.stamp, snapshot.sequence) == (6, 2)

    def test_a_repeated_sequence_is_skipped_whole(self, tmp_path: Path) -> None:
        """Exactly once: a sequence that is not above the present one changes nothing."""
        store = self.open_writer(tmp_path)
        store.write({b"a": b"2"}, (), stamp=20, sequence=2)
        for sequence in (1, 2):
            store.write({b"a": b"old", b"z": b"old"}, [b"a"], stamp=99, sequence=sequence)
        with store.snapshot() as snapshot:
            assert snapshot.get_many([b"a", b"z"]) == [b"2", None]
            assert (snapshot.stamp, snapshot.sequence) == (20, 2)

    def test_sequence_zero_writes_beside_the_log(self, tmp_path: Path) -> None:
        """A backfill keeps the sequence and is never skipped; the stamp never moves back."""
        store = self.open_writer(tmp_path)
        store.write({b"a": b"1"}, (), stamp=10, sequence=3)
        store.write({b"b": b"2"}, (), stamp=20, sequence=0)
        store.write({b"c": b"3"}, (), stamp=15, sequence=0)
        with store.snapshot() as snapshot:
            assert snapshot.get_many([b"a", b"b", b"c"]) == [b"1", b"2", b"3"]
            assert (snapshot.stamp, snapshot.sequence) == (20, 3)

    def test_a_snapshot_stays_as_it_is(self, tmp_path: Path) -> None:
        """Writes after its beginning are not seen by a snapshot, also in another store of the process."""
        store, reader = self.open_writer(tmp_path), self.open_reader(tmp_path)
        store.write({b"a": b"1"}, (), stamp=1, sequence=1)
        with reader.snapshot() as before:
            store.write({b"a": b"2", b"b": b"2"}, (), stamp=2, sequence=2)
            with reader.snapshot() as after:
                assert after.get_many([b"a", b"b"]) == [b"2", b"2"]
            assert before.get_many([b"a", b"b"]) == [b"1", None]
            assert (before.stamp, before.sequence) == (1, 1)

    def test_snapshots_are_consistent_while_writing(self, tmp_path: Path) -> None:
        """Every snapshot shows one write whole: all keys of it, its stamp and its sequence."""
        store = self.open_writer(tmp_path)
        keys = [b"%d" % n for n in range(20)]
        done = threading.Event()
        broken: list[object] = []

        def watch() -> None:
            while not done.is_set():
                with store.snapshot() as snapshot:
                    seen = {*snapshot.get_many(keys)}
                    expected = b"%d" % snapshot.sequence if snapshot.sequence else None
                    if seen != {expected} or snapshot.stamp != (snapshot.sequence * 10 or BEGINNING):
                        broken.append((seen, snapshot.sequence, snapshot.stamp))

        watchers = [threading.Thread(target=watch) for _ in range(2)]
        for watcher in watchers:
            watcher.start()
        for n in range(1, 300):
            store.write(dict.fromkeys(keys, b"%d" % n), (), stamp=n * 10, sequence=n)
        done.set()
        for watcher in watchers:
            watcher.join()
        assert broken == []

    def test_a_second_writer_is_refused(self, tmp_path: Path) -> None:
        """One process at a time may write; readers are welcome."""
        store = self.open_writer(tmp_path)
        store.write({b"a": b"1"}, (), stamp=1, sequence=1)
        with pytest.raises(StoreBusyError) as refused:
            self.open_writer(tmp_path)
        assert refused.value.mend
        _, said = run(
            f"""
            from volano.errors import StoreBusyError
            try:
                resolve({self.store!r})(folder)
            except StoreBusyError:
                with resolve({self.store!r})(folder, readonly=True).snapshot() as snapshot:
                    print("busy", snapshot.get_many([b"a"]), snapshot.sequence)
            """,
            tmp_path,
        )
        assert said.strip() == "busy [b'1'] 1"

    def test_a_reader_cannot_write(self, tmp_path: Path) -> None:
        """A store opened for reading refuses to write."""
        reader = self.open_reader(tmp_path)
        with pytest.raises(StoreReadOnlyError):
            reader.write({b"a": b"1"}, (), stamp=1, sequence=1)  # type: ignore[attr-defined]

    def test_a_kill_keeps_every_write(self, tmp_path: Path) -> None:
        """What `write` returned for survives kill -9, without sync, and is still exactly once."""
        run(
            f"""
            store = resolve({self.store!r})(folder)
            store.write({{b"a": b"1"}}, (), stamp=1, sequence=1)
            store.sync()
            store.write({{b"b": b"2"}}, (), stamp=2, sequence=2)
            die()
            """,
            tmp_path,
        )
        store = self.open_writer(tmp_path)
        store.write({b"b": b"again"}, (), stamp=9, sequence=2)
        with store.snapshot() as snapshot:
            assert snapshot.get_many([b"a", b"b"]) == [b"1", b"2"]
            assert (snapshot.stamp, snapshot.sequence) == (2, 2)

    def test_a_kill_at_any_instant_leaves_one_whole_write(self, tmp_path: Path) -> None:
        """Under load: after a kill -9 the store shows one write whole, not older than the last acknowledged."""
        child = start(
            f"""
            store = resolve({self.store!r})(folder)
            for n in range(1, 10**9):
                store.write({{b"%d" % m: b"%d" % n * 100 for m in range(50)}}, (), stamp=n, sequence=n)
                if n % 16 == 0:
                    print(n, flush=True)
            """,
            tmp_path,
        )
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(10)]
        child.kill()
        seen += [int(line) for line in child.communicate()[0].splitlines()]
        with self.open_writer(tmp_path).snapshot() as snapshot:
            assert snapshot.sequence == snapshot.stamp >= seen[-1]
            values = snapshot.get_many([b"%d" % m for m in range(50)])
            assert {*values} == {b"%d" % snapshot.sequence * 100}
