"""What logs and artifacts in files must do on a disk that forgets what was not synced.

For adapters that take a `protocols.file_system.FileSystem`: their factories are called with `files=`.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest

from volano.errors import StoreBusyError, StoreError, StoreFullError, StoreReadOnlyError, UnknownNameError
from volano.protocols.apply_log import ApplyLogReader, ApplyLogWriter
from volano.protocols.artifact_store import ArtifactWriter
from volano.protocols.journal import JournalReader, JournalWriter
from volano.testing.conformance.apply_log import batch
from volano.testing.conformance.processes import resolve
from volano.testing.disk import PowerLoss, SimulatedDisk
from volano.values.identities import digest

FOLDER = Path("/data/log")
EVERYTHING = 1_000_000


def crash_everywhere(
    workload: Callable[[SimulatedDisk], None], check: Callable[[SimulatedDisk], None]
) -> int:
    """Run a workload once for each of its effects, with the power lost there; check several disks found after it.

    Returns how many effects the workload has.
    """
    for crash_at in range(1, 10_000):
        disk = SimulatedDisk(crash_at=crash_at)
        try:
            workload(disk)
        except PowerLoss:
            for seed in range(4):
                check(disk.power_loss(Random(crash_at * 100 + seed)))
            check(disk.kill())
        else:
            return crash_at - 1
    raise AssertionError("the workload has no end")


class JournalPowerLossConformance:
    """Subclass it and name `writer` and `reader` as for `JournalConformance`."""

    writer: ClassVar[str]
    reader: ClassVar[str]
    small_segments: ClassVar[dict[str, Any]] = {"segment_bytes": 700}
    """Arguments that make the writer start a segment every few records."""

    def open_writer(self, disk: SimulatedDisk, **more: Any) -> JournalWriter:
        opened: JournalWriter = resolve(self.writer)(FOLDER, "w0", files=disk, **more)
        return opened

    def records(self, disk: SimulatedDisk) -> list[bytes]:
        reader: JournalReader = resolve(self.reader)(FOLDER, files=disk)
        return [entry.record for entry in reader.read({}, limit=EVERYTHING)]

    @pytest.mark.parametrize("small", [False, True])
    def test_what_was_synced_survives_a_loss_of_power(self, small: bool) -> None:
        """At any instant: a prefix of whole appends is left, not shorter than the last synced one; writing goes on."""
        groups = [[b"%d/%d" % (n, m) * (1 + n * 7 % 40) for m in range(1 + n % 3)] for n in range(14)]
        state: dict[str, int] = {}
        more = self.small_segments if small else {}

        def workload(disk: SimulatedDisk) -> None:
            state.update(tried=0, synced=0)
            journal = self.open_writer(disk, **more)
            for n, group in enumerate(groups):
                state["tried"] = n + 1
                journal.append(group, sync=n % 3 == 2)
                if n % 3 == 2:
                    state["synced"] = n + 1
            journal.close()

        def check(disk: SimulatedDisk) -> None:
            journal = self.open_writer(disk, **more)
            n_whole = _n_whole(self.records(disk), groups)
            assert state["synced"] <= n_whole <= state["tried"]
            journal.append([b"after"], sync=True)
            again = disk.power_loss(Random(n_whole))
            self.open_writer(again, **more)
            assert _n_whole(self.records(again)[:-1], groups) == n_whole
            assert self.records(again)[-1] == b"after"

        assert crash_everywhere(workload, check) > 20

    def test_a_loss_of_power_while_recovering(self) -> None:
        """Recovery may itself be interrupted, at any instant, and loses nothing."""
        disk = SimulatedDisk()
        journal = self.open_writer(disk)
        journal.append([b"synced" * 100], sync=True)
        journal.append([b"unsynced" * 200, b"more" * 200], sync=False)
        for seed in range(20):
            for crash_at in range(1, 8):
                broken = disk.power_loss(Random(seed))
                broken.crash_at = crash_at
                try:
                    self.open_writer(broken).append([b"after"], sync=True)
                except PowerLoss:
                    rest = broken.power_loss(Random(crash_at))
                    self.open_writer(rest)
                    assert self.records(rest)[0] == b"synced" * 100

    def test_what_a_kill_left_is_synced_before_it_counts(self) -> None:
        """Records of a killed owner that were in memory only are on the disk once the next owner has synced."""
        disk = SimulatedDisk()
        self.open_writer(disk).append([b"written"], sync=False)
        after_kill = disk.kill()
        self.open_writer(after_kill).append([b"synced"], sync=True)
        for seed in range(10):
            after_loss = after_kill.power_loss(Random(seed))
            self.open_writer(after_loss)
            assert self.records(after_loss) == [b"written", b"synced"]

    def test_a_reader_can_sync_for_others(self) -> None:
        """After `sync` of a segment its records survive, though their owner never synced them."""
        disk = SimulatedDisk()
        journal = self.open_writer(disk)
        journal.append([b"written"], sync=False)
        reader: JournalReader = resolve(self.reader)(FOLDER, files=disk)
        reader.sync({entry.segment for entry in reader.read({}, limit=10)})
        for seed in range(10):
            assert self.records(disk.power_loss(Random(seed))) == [b"written"]

    def test_a_full_disk_keeps_what_was_accepted(self) -> None:
        """Without space StoreFullError, nothing of the call stays, no reader sees a part; with space it goes on."""
        groups = [[b"%d/%d" % (n, m) * 20 for m in range(3)] for n in range(10)]
        for capacity in range(0, 3000, 37):
            disk = SimulatedDisk(capacity=capacity)
            accepted: list[bytes] = []
            journal = self._open_with_room(disk)
            seen: list[list[bytes]] = []
            disk.watch = partial(self._look, disk, seen)
            for group in groups:
                try:
                    journal.append(group, sync=False)
                except StoreFullError as error:
                    assert error.mend and error.retryable
                    assert self.records(disk) == accepted
                    disk.capacity = 5000
                    journal.append(group, sync=True)
                accepted += group
            assert self.records(disk) == accepted
            assert all(accepted[: len(shown)] == shown and len(shown) % 3 == 0 for shown in seen)
            journal.close()

    def _open_with_room(self, disk: SimulatedDisk) -> JournalWriter:
        try:
            return self.open_writer(disk)
        except StoreFullError:
            disk.capacity = 500
            return self.open_writer(disk)

    def _look(self, disk: SimulatedDisk, seen: list[list[bytes]]) -> None:
        seen.append(self.records(disk))

    def test_a_failed_sync_is_told_and_never_trusted(self) -> None:
        """Whichever effect fails with EIO: the caller is told; what is acknowledged later survives a loss of power."""
        for failing in range(1, 40):
            disk = SimulatedDisk()
            disk.failures = {failing: errno.EIO}
            acknowledged: list[bytes] = []
            n_told = 0
            try:
                journal = self.open_writer(disk)
            except StoreError:
                n_told += 1
                journal = self.open_writer(disk)
            for n in range(8):
                try:
                    journal.append([b"record %d" % n], sync=True)
                    acknowledged.append(b"record %d" % n)
                except StoreError:
                    n_told += 1
            if disk.n_effects >= failing:
                assert n_told == 1
            for seed in range(3):
                after_loss = disk.power_loss(Random(seed))
                self.open_writer(after_loss)
                found = self.records(after_loss)
                assert [record for record in found if record in acknowledged] == acknowledged

    def test_a_read_only_folder_is_named(self) -> None:
        """Opening on a read-only disk is StoreReadOnlyError with its mend; reading still works."""
        disk = SimulatedDisk()
        self.open_writer(disk).append([b"one"], sync=True)
        rest = disk.kill()
        rest.read_only = True
        with pytest.raises(StoreReadOnlyError) as found:
            self.open_writer(rest)
        assert found.value.mend
        assert self.records(rest) == [b"one"]

    def test_a_lock_ends_with_its_process(self) -> None:
        """A second owner is refused until the first is gone."""
        disk = SimulatedDisk()
        self.open_writer(disk)
        with pytest.raises(StoreBusyError):
            self.open_writer(disk)
        self.open_writer(disk.kill())


class ApplyLogPowerLossConformance:
    """Subclass it and name `writer` and `reader` as for `ApplyLogConformance`."""

    writer: ClassVar[str]
    reader: ClassVar[str]
    small_segments: ClassVar[dict[str, Any]] = {"segment_bytes": 300}

    def open_writer(self, disk: SimulatedDisk, **more: Any) -> ApplyLogWriter:
        opened: ApplyLogWriter = resolve(self.writer)(FOLDER, files=disk, **more)
        return opened

    def open_reader(self, disk: SimulatedDisk) -> ApplyLogReader:
        opened: ApplyLogReader = resolve(self.reader)(FOLDER, files=disk)
        return opened

    @pytest.mark.parametrize("small", [False, True])
    def test_every_appended_batch_survives_a_loss_of_power(self, small: bool) -> None:
        """At any instant: the log holds every batch that `append` returned for, and at most the one under way."""
        state: dict[str, int] = {}
        more = self.small_segments if small else {}

        def workload(disk: SimulatedDisk) -> None:
            state.update(done=0)
            log = self.open_writer(disk, **more)
            for n in range(1, 9):
                log.append(batch(n))
                state["done"] = n

        def check(disk: SimulatedDisk) -> None:
            log = self.open_writer(disk, **more)
            last = log.last()
            n_found = 0 if last is None else last.sequence
            assert state["done"] <= n_found <= state["done"] + 1
            log.append(batch(n_found + 1))
            rest = disk.power_loss(Random(n_found))
            expected = [batch(n) for n in range(1, n_found + 2)]
            assert self.open_writer(rest, **more).read(0, limit=100) == expected
            assert self.open_reader(rest).read(0, limit=100) == expected

        assert crash_everywhere(workload, check) > 12

    def test_a_reader_can_sync_what_it_shows(self) -> None:
        """After `sync` of a reader, what it has shown survives, though the writer has not synced it yet."""
        disk = SimulatedDisk()
        log, reader = self.open_writer(disk, **self.small_segments), self.open_reader(disk)
        log.append(batch(1))
        seen: list[int] = []

        def look() -> None:
            last = reader.last()
            if not seen and last is not None and last.sequence == 2:
                seen.append(2)
                reader.sync()
                disk.crash_at = disk.n_effects + 1

        disk.watch = look
        with pytest.raises(PowerLoss):
            log.append(batch(2))
        for seed in range(10):
            left = self.open_reader(disk.power_loss(Random(seed))).last()
            assert left == batch(2)

    def test_a_failed_append_is_whole_or_nothing(self) -> None:
        """Whichever effect fails: after reopening, the log goes on from a batch that it holds, and keeps it."""
        for code in (errno.EIO, errno.ENOSPC):
            for failing in range(1, 30):
                disk = SimulatedDisk()
                disk.failures = {failing: code}
                n_done = 0
                try:
                    log = self.open_writer(disk)
                    for n in range(1, 6):
                        log.append(batch(n))
                        n_done = n
                except StoreError:
                    pass
                reopened = self.open_writer(disk.kill())
                last = reopened.last()
                n_found = 0 if last is None else last.sequence
                assert n_done <= n_found <= n_done + 1
                rest = disk.kill()
                self.open_writer(rest).append(batch(n_found + 1))
                after_loss = rest.power_loss(Random(failing))
                found = self.open_writer(after_loss).read(0, limit=100)
                assert found == [batch(n) for n in range(1, n_found + 2)]

    def test_a_batch_in_doubt_stops_the_log(self) -> None:
        """After a failed sync nothing is appended until the log was opened again: the batch may be there already."""
        disk = SimulatedDisk()
        log = self.open_writer(disk)
        log.append(batch(1))
        disk.failures = {disk.n_effects + 2: errno.EIO}
        with pytest.raises(StoreError):
            log.append(batch(2))
        with pytest.raises(StoreError) as refused:
            log.append(batch(2))
        assert refused.value.mend
        reopened = self.open_writer(disk.kill())
        last = reopened.last()
        assert last == batch(2)

    def test_a_full_disk_lets_the_same_batch_try_again(self) -> None:
        """StoreFullError leaves the log as it was; with space the same batch goes in."""
        disk = SimulatedDisk(capacity=150)
        log = self.open_writer(disk)
        with pytest.raises(StoreFullError):
            for n in range(1, 9):
                log.append(batch(n))
        last = log.last()
        n_found = 0 if last is None else last.sequence
        disk.capacity = 9000
        log.append(batch(n_found + 1))
        assert [each.sequence for each in log.read(0, limit=9)] == list(range(1, n_found + 2))


class ArtifactStorePowerLossConformance:
    """Subclass it and name `artifacts` as for `ArtifactStoreConformance`."""

    artifacts: ClassVar[str]

    def open(self, disk: SimulatedDisk) -> ArtifactWriter:
        opened: ArtifactWriter = resolve(self.artifacts)(FOLDER, files=disk)
        return opened

    def test_what_was_stored_survives_a_loss_of_power(self) -> None:
        """At any instant: what `put` returned for is there; anything else is whole or unknown, never damaged."""
        bodies = [b"%d" % n * 700 for n in range(4)]
        stored: list[bytes] = []

        def workload(disk: SimulatedDisk) -> None:
            stored.clear()
            store = self.open(disk)
            for body in bodies:
                store.put(body)
                stored.append(body)

        def check(disk: SimulatedDisk) -> None:
            store = self.open(disk)
            for body in bodies:
                try:
                    assert store.get(digest(body)) == body
                except UnknownNameError:
                    assert body not in stored
            for body in bodies:
                store.put(body)
            rest = self.open(disk.power_loss(Random(3)))
            assert [rest.get(digest(body)) for body in bodies] == bodies

        assert crash_everywhere(workload, check) > 16

    def test_a_full_or_read_only_disk_stores_nothing(self) -> None:
        """The error names the mend, and the name stays unknown."""
        for disk, kind in (
            (SimulatedDisk(capacity=10), StoreFullError),
            (SimulatedDisk(read_only=True), StoreReadOnlyError),
        ):
            store = self.open(disk)
            with pytest.raises(kind) as found:
                store.put(b"model" * 100)
            assert found.value.mend
            with pytest.raises(UnknownNameError):
                store.get(digest(b"model" * 100))


def _n_whole(records: list[bytes], groups: list[list[bytes]]) -> int:
    """How many groups the records are, exactly and in order."""
    at = 0
    for n, group in enumerate(groups):
        if at == len(records):
            return n
        assert records[at : at + len(group)] == group
        at += len(group)
    assert at == len(records)
    return len(groups)
