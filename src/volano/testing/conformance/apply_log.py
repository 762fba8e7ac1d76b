"""What every apply log must do."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from volano.errors import InvariantError, StoreBusyError
from volano.protocols.apply_log import ApplyLogReader, ApplyLogWriter
from volano.records.receipt import Applied, ApplyBatch
from volano.testing.conformance.processes import resolve, run

EVERYTHING = 1_000_000


def batch(sequence: int) -> ApplyBatch:
    """A batch with something in every field."""
    applied = Applied("quarantined", sequence * 10, ("type", "delay", "not a number ☂"))
    return ApplyBatch(
        sequence, (("w0-00000001", 32, 99), ("w1-00000001", 0, 0)), (applied,) * (sequence % 4), sequence * 10
    )


class ApplyLogConformance:
    """Subclass it and name `writer` and `reader`, both called with a folder."""

    writer: ClassVar[str]
    reader: ClassVar[str]

    def open_writer(self, folder: Path) -> ApplyLogWriter:
        opened: ApplyLogWriter = resolve(self.writer)(folder)
        return opened

    def open_reader(self, folder: Path) -> ApplyLogReader:
        opened: ApplyLogReader = resolve(self.reader)(folder)
        return opened

    def test_an_empty_log_has_no_last_batch(self, tmp_path: Path) -> None:
        """Before the first batch `last` is None and reading gives nothing."""
        for log in (self.open_reader(tmp_path / "none"), self.open_writer(tmp_path)):
            assert log.last() is None
            assert log.read(0, limit=10) == []

    def test_batches_come_back_whole_and_in_order(self, tmp_path: Path) -> None:
        """Reading after a sequence gives the next ones, at most as many as asked."""
        log, reader = self.open_writer(tmp_path), self.open_reader(tmp_path)
        batches = [batch(n) for n in range(1, 301)]
        for n, each in enumerate(batches, 1):
            log.append(each)
            if n in (1, 63, 64, 65, 200):
                assert reader.last() == log.last() == each
                assert reader.read(n - 1, limit=5) == [each]
        for side in (log, reader, self.open_reader(tmp_path)):
            assert side.read(0, limit=EVERYTHING) == batches
            for after in (0, 1, 62, 63, 64, 65, 127, 128, 250, 299, 300, 301):
                assert side.read(after, limit=7) == batches[after : after + 7]

    def test_a_gap_or_a_repetition_is_refused(self, tmp_path: Path) -> None:
        """A sequence that is not one more than the last is refused, and nothing is written."""
        log = self.open_writer(tmp_path)
        for wrong in (0, 2):
            with pytest.raises(InvariantError):
                log.append(batch(wrong))
        log.append(batch(1))
        for wrong in (1, 3):
            with pytest.raises(InvariantError):
                log.append(batch(wrong))
        log.append(batch(2))
        assert self.open_reader(tmp_path).read(0, limit=10) == [batch(1), batch(2)]

    def test_a_kill_keeps_every_batch(self, tmp_path: Path) -> None:
        """What `append` returned for survives kill -9, and the next owner goes on from there."""
        run(
            f"""
            from volano.testing.conformance.apply_log import batch
            log = resolve({self.writer!r})(folder)
            for n in range(1, 6):
                log.append(batch(n))
            die()
            """,
            tmp_path,
        )
        log = self.open_writer(tmp_path)
        assert log.last() == batch(5)
        log.append(batch(6))
        assert self.open_reader(tmp_path).read(3, limit=10) == [batch(4), batch(5), batch(6)]

    def test_a_second_applier_is_refused(self, tmp_path: Path) -> None:
        """There is one writer."""
        log = self.open_writer(tmp_path)
        with pytest.raises(StoreBusyError):
            self.open_writer(tmp_path)
        log.append(batch(1))
