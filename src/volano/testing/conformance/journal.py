"""What every journal must do."""

from __future__ import annotations

import signal
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import pytest

from volano.errors import CorruptionError, StoreBusyError
from volano.protocols.journal import Cursor, JournalEntry, JournalReader, JournalWriter
from volano.testing.conformance.processes import resolve, run, start

EVERYTHING = 1_000_000


class JournalConformance:
    """Subclass it, name `writer` (called with a folder and a name) and `reader` (called with a folder)."""

    writer: ClassVar[str]
    reader: ClassVar[str]

    def open_writer(self, folder: Path, name: str = "w0") -> JournalWriter:
        opened: JournalWriter = resolve(self.writer)(folder, name)
        return opened

    def open_reader(self, folder: Path) -> JournalReader:
        opened: JournalReader = resolve(self.reader)(folder)
        return opened

    def segment_files(self, folder: Path) -> list[Path]:
        """The files that hold segments, in name order; override when they are named otherwise."""
        return sorted(folder.glob("*.journal"))

    def test_an_empty_folder_reads_as_nothing(self, tmp_path: Path) -> None:
        """A journal that nobody has written to is empty, also when its folder does not exist."""
        assert self.open_reader(tmp_path / "none").read({}, limit=10) == []

    def test_records_come_back_in_order(self, tmp_path: Path) -> None:
        """Records of one writer are read in the order of acceptance, byte for byte."""
        records = [b"", b"\x00\xff", b"\xc1vj\x01" * 9, *(str(n).encode() * n for n in range(200))]
        with_sync, without = records[:50], records[50:]
        journal = self.open_writer(tmp_path)
        journal.append(with_sync, sync=True)
        journal.append(without, sync=False)
        assert _records(self.open_reader(tmp_path).read({}, limit=EVERYTHING)) == records
        journal.close()
        assert _records(self.open_reader(tmp_path).read({}, limit=EVERYTHING)) == records

    def test_an_empty_append_adds_nothing(self, tmp_path: Path) -> None:
        """An empty sequence adds no record, with sync or without, also before the first one."""
        journal = self.open_writer(tmp_path)
        journal.append([], sync=True)
        journal.append([], sync=False)
        journal.append([b"one"], sync=False)
        journal.append([], sync=True)
        journal.close()
        assert _records(self.open_reader(tmp_path).read({}, limit=10)) == [b"one"]

    def test_a_cursor_resumes_anywhere(self, tmp_path: Path) -> None:
        """Reading with small limits, each time after the last entry, gives what one large read gives."""
        journal = self.open_writer(tmp_path)
        for n in range(40):
            journal.append([f"{n}/{m}".encode() for m in range(n % 5)], sync=False)
        journal.close()
        whole = self.open_reader(tmp_path).read({}, limit=EVERYTHING)
        for limit in (1, 3, 7):
            reader, cursor, found = self.open_reader(tmp_path), dict[str, int](), list[JournalEntry]()
            while entries := reader.read(cursor, limit=limit):
                assert len(entries) <= limit
                cursor.update({entry.segment: entry.end for entry in entries})
                found += entries
            assert found == whole

    def test_entries_fill_the_bytes_that_they_name(self, tmp_path: Path) -> None:
        """Within one append, each entry starts where the one before ends; a range gives exactly its records."""
        journal = self.open_writer(tmp_path)
        journal.append([b"a", b"bb", b"", b"dddd"], sync=True)
        reader = self.open_reader(tmp_path)
        entries = reader.read({}, limit=10)
        assert all(left.end == right.start for left, right in pairwise(entries))
        for low in range(4):
            for high in range(low, 4):
                found = reader.read_range(entries[0].segment, entries[low].start, entries[high].end)
                assert found == entries[low : high + 1]

    def test_a_range_that_is_not_there_is_corruption(self, tmp_path: Path) -> None:
        """A range of a missing segment, or past the end of one, is an error and never a shorter answer."""
        journal = self.open_writer(tmp_path)
        journal.append([b"a", b"b"], sync=True)
        reader = self.open_reader(tmp_path)
        first, last = reader.read({}, limit=2)
        with pytest.raises(CorruptionError):
            reader.read_range(first.segment, first.start, last.end + 40)
        with pytest.raises(CorruptionError):
            reader.read_range("w0-99999999", 32, 64)

    def test_a_reader_follows_a_growing_journal(self, tmp_path: Path) -> None:
        """A reader sees what was appended after it was opened, and nothing twice."""
        journal, reader = self.open_writer(tmp_path), self.open_reader(tmp_path)
        cursor: dict[str, int] = {}
        for n in range(20):
            journal.append([str(n).encode()], sync=False)
            entries = reader.read(cursor, limit=EVERYTHING)
            assert _records(entries) == [str(n).encode()]
            cursor[entries[0].segment] = entries[0].end
        assert reader.read(cursor, limit=EVERYTHING) == []

    def test_a_reader_comes_to_an_end_beside_a_writer(self, tmp_path: Path) -> None:
        """Up to the ends of one moment a reader sees all that was there then, and nothing of what came later."""
        journal, reader = self.open_writer(tmp_path), self.open_reader(tmp_path)
        assert reader.read({}, limit=10, until=reader.ends()) == []
        journal.append([b"a", b"b"], sync=False)
        end = reader.ends()
        journal.append([b"c"], sync=False)
        self.open_writer(tmp_path, "w1").append([b"d"], sync=False)
        found = reader.read({}, limit=EVERYTHING, until=end)
        assert _records(found) == [b"a", b"b"]
        assert reader.read({found[-1].segment: found[-1].end}, limit=EVERYTHING, until=end) == []

    def test_reopening_goes_on_behind_the_last_record(self, tmp_path: Path) -> None:
        """A cursor taken before a writer was closed is good after it was opened again."""
        cursor: dict[str, int] = {}
        for n in range(5):
            journal = self.open_writer(tmp_path)
            journal.append([str(n).encode()], sync=n % 2 == 0)
            journal.close()
            entries = self.open_reader(tmp_path).read(cursor, limit=EVERYTHING)
            assert _records(entries) == [str(n).encode()]
            cursor[entries[-1].segment] = entries[-1].end

    def test_writers_do_not_mix(self, tmp_path: Path) -> None:
        """Several writers share a folder; segments come in name order, and each keeps its own order."""
        first, second = self.open_writer(tmp_path, "w0"), self.open_writer(tmp_path, "w1")
        for n in range(10):
            second.append([b"w1:%d" % n], sync=False)
            first.append([b"w0:%d" % n], sync=False)
        expected = [b"%s:%d" % (name, n) for name in (b"w0", b"w1") for n in range(10)]
        assert _records(self.open_reader(tmp_path).read({}, limit=EVERYTHING)) == expected

    def test_a_writer_forgets_what_its_reader_has_passed(self, tmp_path: Path) -> None:
        """Segments that a cursor has passed are deleted, but for the newest; what is left is read as before."""
        for n in range(3):  # whoever opens again may go on with the last segment, or begin another one
            writer = self.open_writer(tmp_path)
            writer.append([b"%d" % n, b"%d again" % n], sync=True)
            assert writer.forget({}) == []
            writer.close()
        reader, writer = self.open_reader(tmp_path), self.open_writer(tmp_path)
        entries = reader.read({}, limit=EVERYTHING)
        cursor = {entry.segment: entry.end for entry in entries[:-1]}
        writer.forget(cursor)
        assert reader.read(cursor, limit=EVERYTHING) == entries[-1:]
        writer.append([b"new"], sync=True)
        writer.close()
        found = self.open_reader(tmp_path).read(cursor, limit=EVERYTHING)
        assert _records(found) == [b"2 again", b"new"]

    def test_a_second_owner_is_refused(self, tmp_path: Path) -> None:
        """One writer name has one owner at a time, in this process or in another one."""
        journal = self.open_writer(tmp_path)
        with pytest.raises(StoreBusyError) as refused:
            self.open_writer(tmp_path)
        assert refused.value.mend and refused.value.retryable
        _, said = run(
            f"""
            from volano.errors import StoreBusyError
            try:
                resolve({self.writer!r})(folder, "w0")
            except StoreBusyError:
                print("busy")
            """,
            tmp_path,
        )
        assert said.strip() == "busy"
        journal.close()
        self.open_writer(tmp_path).close()

    def test_a_kill_loses_nothing_that_was_appended(self, tmp_path: Path) -> None:
        """What `append` returned for survives kill -9, also without sync."""
        code, _ = run(
            f"""
            journal = resolve({self.writer!r})(folder, "w0")
            journal.append([b"synced"], sync=True)
            journal.append([b"a", b"b"], sync=False)
            die()
            """,
            tmp_path,
        )
        assert code == -signal.SIGKILL
        journal = self.open_writer(tmp_path)
        journal.append([b"after"], sync=True)
        assert _records(self.open_reader(tmp_path).read({}, limit=10)) == [b"synced", b"a", b"b", b"after"]

    def test_a_kill_at_any_instant_loses_nothing(self, tmp_path: Path) -> None:
        """Under load: what was acknowledged before a kill -9 is there, in order, and nothing is half there."""
        child = start(
            f"""
            journal = resolve({self.writer!r})(folder, "w0")
            for n in range(10**9):
                journal.append([b"%d:%d" % (n, m) * 50 for m in range(3)], sync=n % 8 == 0)
                if n % 16 == 0:
                    print(n, flush=True)
            """,
            tmp_path,
        )
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(20)]
        child.kill()
        seen += [int(line) for line in child.communicate()[0].splitlines()]
        self.open_writer(tmp_path).close()
        records = _records(self.open_reader(tmp_path).read({}, limit=EVERYTHING))
        assert records == [b"%d:%d" % (n, m) * 50 for n in range(len(records) // 3) for m in range(3)]
        assert len(records) // 3 > seen[-1]

    def test_a_torn_tail_is_not_read_and_is_cut_off(self, tmp_path: Path) -> None:
        """However many bytes of the last append are missing, readers see whole appends and the owner goes on."""
        journal = self.open_writer(tmp_path)
        journal.append([b"kept"], sync=True)
        size = self.segment_files(tmp_path)[-1].stat().st_size
        journal.append([b"torn", b"torn too"], sync=False)
        journal.close()
        path = self.segment_files(tmp_path)[-1]
        whole = path.read_bytes()
        for end in range(size, len(whole)):
            path.write_bytes(whole[:end])
            assert _records(self.open_reader(tmp_path).read({}, limit=10)) == [b"kept"]
        for end in range(size, len(whole), 5):
            path.write_bytes(whole[:end])
            journal = self.open_writer(tmp_path)
            journal.append([b"next"], sync=True)
            journal.close()
            assert _records(self.open_reader(tmp_path).read({}, limit=10)) == [b"kept", b"next"]

    def test_a_damaged_middle_is_corruption(self, tmp_path: Path) -> None:
        """A flipped bit in a synced record that whole ones follow is reported, never skipped."""
        journal = self.open_writer(tmp_path)
        for n in range(6):
            journal.append([b"record %d" % n], sync=True)
        entries = self.open_reader(tmp_path).read({}, limit=10)
        journal.close()
        path = self.segment_files(tmp_path)[0]
        whole = path.read_bytes()
        for at in range(entries[2].start, entries[2].end):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
            reader = self.open_reader(tmp_path)
            cursor: Cursor = {entries[1].segment: entries[1].end}
            with pytest.raises(CorruptionError) as found:
                reader.read(cursor, limit=10)
            assert found.value.mend
            with pytest.raises(CorruptionError):
                reader.read_range(entries[2].segment, entries[2].start, entries[2].end)
            assert _records(reader.read({}, limit=2)) == [b"record 0", b"record 1"]

    def test_damage_is_never_overwritten(self, tmp_path: Path) -> None:
        """An owner that finds damage leaves it for repair; what it appends goes elsewhere."""
        journal = self.open_writer(tmp_path)
        for n in range(3):
            journal.append([b"record %d" % n], sync=True)
        middle = self.open_reader(tmp_path).read({}, limit=10)[1]
        journal.close()
        path = self.segment_files(tmp_path)[0]
        whole = path.read_bytes()
        broken = whole[: middle.end - 1] + b"?" + whole[middle.end :]
        path.write_bytes(broken)
        journal = self.open_writer(tmp_path)
        journal.append([b"accepted"], sync=True)
        journal.close()
        assert path.read_bytes() == broken
        path.write_bytes(whole)
        expected = [b"record 0", b"record 1", b"record 2", b"accepted"]
        assert _records(self.open_reader(tmp_path).read({}, limit=10)) == expected

    def test_syncing_for_others_is_allowed_at_any_time(self, tmp_path: Path) -> None:
        """A reader may make the segments that it read durable, while their owner writes."""
        journal, reader = self.open_writer(tmp_path), self.open_reader(tmp_path)
        journal.append([b"one"], sync=False)
        reader.sync({entry.segment for entry in reader.read({}, limit=10)})
        journal.append([b"two"], sync=False)
        assert _records(reader.read({}, limit=10)) == [b"one", b"two"]


def _records(entries: list[JournalEntry]) -> list[bytes]:
    return [entry.record for entry in entries]
