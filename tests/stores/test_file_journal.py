"""The file journal keeps the journal's contract."""

from __future__ import annotations

import struct
import zlib

import pytest

from volano.errors import CorruptionError, StateMismatchError
from volano.stores.file_journal import FileJournalReader, FileJournalWriter
from volano.testing.conformance.journal import JournalConformance
from volano.testing.conformance.power_loss import JournalPowerLossConformance


class TestFileJournal(JournalConformance):
    writer = "volano.stores.file_journal:FileJournalWriter"
    reader = "volano.stores.file_journal:FileJournalReader"


class TestFileJournalOnASimulatedDisk(JournalPowerLossConformance):
    writer = TestFileJournal.writer
    reader = TestFileJournal.reader


def test_a_record_may_be_larger_than_a_block_and_a_segment(tmp_path):
    """Records of several MiB come back whole, beside small ones, in segments smaller than they are."""
    records = [bytes([n]) * size for n, size in enumerate((10, 3 << 20, 1 << 20, (1 << 20) - 20, 0, 5))]
    journal = FileJournalWriter(tmp_path, segment_bytes=1 << 20)
    for record in records:
        journal.append([record], sync=False)
    journal.append(records, sync=True)
    journal.close()
    found = FileJournalReader(tmp_path).read({}, limit=100)
    assert [entry.record for entry in found] == records * 2
    assert len({entry.segment for entry in found}) > 3


def test_damage_to_the_last_record_of_a_sealed_segment_shows(tmp_path):
    """The seal of a full segment vouches for every record before it."""
    journal = FileJournalWriter(tmp_path, segment_bytes=200)
    for n in range(20):
        journal.append([b"record %02d" % n], sync=True)
    journal.close()
    path = sorted(tmp_path.glob("*.journal"))[0]
    entries = [
        entry for entry in FileJournalReader(tmp_path).read({}, limit=100) if entry.segment == path.stem
    ]
    whole = path.read_bytes()
    path.write_bytes(whole[: entries[-1].end - 1] + b"?" + whole[entries[-1].end :])
    with pytest.raises(CorruptionError, match="damaged"):
        FileJournalReader(tmp_path).read({}, limit=100)


def test_a_newer_format_is_refused(tmp_path):
    """A segment of a later version of Volano is neither read nor written."""
    head = struct.pack("<8sII", b"VOLANOSG", 99, 7)
    header = (head + struct.pack("<I", zlib.crc32(head))).ljust(32, b"\0")
    (tmp_path / "w0-00000001.journal").write_bytes(header + b"?" * 40)
    with pytest.raises(StateMismatchError) as found:
        FileJournalReader(tmp_path).read({}, limit=1)
    assert found.value.mend
    with pytest.raises(StateMismatchError):
        FileJournalWriter(tmp_path)


def test_a_frame_inside_a_record_is_no_frame(tmp_path):
    """A record that holds the bytes of another segment does not pass for damage when it is torn."""
    inner = FileJournalWriter(tmp_path / "inner")
    for n in range(5):
        inner.append([b"inner %d" % n], sync=True)
    inner.close()
    stolen = (tmp_path / "inner" / "w0-00000001.journal").read_bytes()
    journal = FileJournalWriter(tmp_path / "outer")
    journal.append([b"one"], sync=True)
    journal.append([stolen, b"two"], sync=False)
    journal.close()
    path = tmp_path / "outer" / "w0-00000001.journal"
    path.write_bytes(path.read_bytes()[:-30])
    FileJournalWriter(tmp_path / "outer").close()
    assert [entry.record for entry in FileJournalReader(tmp_path / "outer").read({}, limit=9)] == [b"one"]


def test_a_cursor_past_the_end_is_corruption(tmp_path):
    """A segment that has become shorter than what was read from it has lost records."""
    journal = FileJournalWriter(tmp_path)
    journal.append([b"one", b"two"], sync=True)
    last = FileJournalReader(tmp_path).read({}, limit=9)[-1]
    journal.close()
    path = tmp_path / "w0-00000001.journal"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CorruptionError):
        FileJournalReader(tmp_path).read({last.segment: last.end}, limit=9)


def test_half_an_append_is_cut_off_whole(tmp_path):
    """A loss of power may keep the first record of an unsynced append and not the second: neither is left."""
    journal = FileJournalWriter(tmp_path)
    journal.append([b"kept"], sync=True)
    journal.append([b"first", b"second"], sync=False)
    journal.close()
    path = tmp_path / "w0-00000001.journal"
    path.write_bytes(path.read_bytes()[:-6] + bytes(6))
    for n in range(2):
        journal = FileJournalWriter(tmp_path)
        journal.append([b"next %d" % n], sync=True)
        journal.close()
    found = FileJournalReader(tmp_path).read({}, limit=9)
    assert [entry.record for entry in found] == [b"kept", b"next 0", b"next 1"]
