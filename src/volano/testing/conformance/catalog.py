"""What every catalog must do."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import ClassVar

import pytest

from volano.errors import ConflictError
from volano.protocols.catalog import CatalogWriter, Document, LedgerEntry
from volano.testing.conformance.processes import resolve, run


class CatalogConformance:
    """Subclass it and name `catalog`, called with a folder."""

    catalog: ClassVar[str]

    def open(self, folder: Path) -> CatalogWriter:
        opened: CatalogWriter = resolve(self.catalog)(folder)
        return opened

    def test_an_empty_catalog_holds_nothing(self, tmp_path: Path) -> None:
        """No document is None or an empty list, and so is no entry."""
        catalog = self.open(tmp_path)
        assert catalog.find("project", "flights") is None
        assert catalog.documents("project") == []
        assert catalog.entries("release") == []
        assert catalog.last_entry("release") is None

    def test_documents_count_their_revisions(self, tmp_path: Path) -> None:
        """Each `put` replaces the body and counts from 1, by kind and name; reopening changes nothing."""
        catalog = self.open(tmp_path)
        assert catalog.put("model", "ü ☂/'%", b"\x00one\xff") == 1
        assert catalog.put("model", "ü ☂/'%", b"") == 2
        assert catalog.put("model", "Z", b"z") == 1
        assert catalog.put("model", "a", b"a") == 1
        assert catalog.put("release", "a", b"other") == 1
        for each in (catalog, self.open(tmp_path)):
            assert each.find("model", "ü ☂/'%") == Document("model", "ü ☂/'%", 2, b"")
            assert [document.name for document in each.documents("model")] == ["Z", "a", "ü ☂/'%"]

    def test_put_compares_and_sets(self, tmp_path: Path) -> None:
        """With `expected`, another present revision is a conflict and nothing changes; 0 means not there yet."""
        catalog = self.open(tmp_path)
        with pytest.raises(ConflictError):
            catalog.put("model", "a", b"?", expected=1)
        assert catalog.put("model", "a", b"1", expected=0) == 1
        for wrong in (0, 2):
            with pytest.raises(ConflictError) as refused:
                catalog.put("model", "a", b"?", expected=wrong)
            assert refused.value.retryable
        assert catalog.put("model", "a", b"2", expected=1) == 2
        assert catalog.find("model", "a") == Document("model", "a", 2, b"2")

    def test_a_ledger_keeps_order(self, tmp_path: Path) -> None:
        """Entries count from 1 in their stream; reading after a sequence gives the later ones."""
        catalog = self.open(tmp_path)
        assert catalog.append("release", [], at=5) == 0
        assert catalog.append("release", [b"1", b"2"], at=-5) == 2
        assert catalog.append("gate", [b"g"], at=7) == 1
        assert catalog.append("release", [b"3"], at=9, expected=2) == 3
        for each in (catalog, self.open(tmp_path)):
            assert each.entries("release") == [
                LedgerEntry("release", 1, -5, b"1"),
                LedgerEntry("release", 2, -5, b"2"),
                LedgerEntry("release", 3, 9, b"3"),
            ]
            assert [entry.sequence for entry in each.entries("release", after=2)] == [3]
            assert each.entries("release", after=3) == []
            assert each.last_entry("release") == LedgerEntry("release", 3, 9, b"3")

    def test_append_compares_and_sets(self, tmp_path: Path) -> None:
        """With `expected`, another last sequence is a conflict and appends nothing."""
        catalog = self.open(tmp_path)
        catalog.append("release", [b"1"], at=1, expected=0)
        for wrong in (0, 2):
            with pytest.raises(ConflictError):
                catalog.append("release", [b"?", b"?"], at=2, expected=wrong)
        assert catalog.entries("release") == [LedgerEntry("release", 1, 1, b"1")]

    def test_a_trimmed_stream_goes_on_where_it_was(self, tmp_path: Path) -> None:
        """Entries below a sequence are gone, the newest never; numbers go on, and other streams keep theirs."""
        catalog = self.open(tmp_path)
        for stream in ("job/a", "job/b"):
            catalog.append(stream, [b"1", b"2", b"3", b"4"], at=1)
        catalog.trim("job/a", before=3)
        assert [entry.sequence for entry in catalog.entries("job/a")] == [3, 4]
        catalog.trim("job/a", before=100)
        catalog.trim("job/none", before=100)
        assert [entry.sequence for entry in catalog.entries("job/a")] == [4]
        assert catalog.append("job/a", [b"5"], at=2, expected=4) == 5
        assert len(catalog.entries("job/b")) == 4

    def test_racing_writers_lose_nothing(self, tmp_path: Path) -> None:
        """Several threads and catalogs append and put at once: every call counts exactly once."""
        n_threads, n_calls = 4, 15
        failures: list[Exception] = []

        def work() -> None:
            try:
                catalog = self.open(tmp_path)
                for n in range(n_calls):
                    catalog.append("release", [b"%d" % n], at=n)
                    catalog.put("model", "a", b"%d" % n)
            except Exception as error:  # noqa: BLE001 - reported by the assertion below
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(n_threads)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        catalog = self.open(tmp_path)
        sequences = [entry.sequence for entry in catalog.entries("release")]
        assert sequences == list(range(1, n_threads * n_calls + 1))
        found = catalog.find("model", "a")
        assert found is not None
        assert found.revision == n_threads * n_calls

    def test_one_of_two_rivals_wins(self, tmp_path: Path) -> None:
        """Of many who expect the same revision exactly one succeeds; the others are told."""
        catalogs = [self.open(tmp_path) for _ in range(4)]
        won: list[int] = []
        lost: list[ConflictError] = []

        def claim(catalog: CatalogWriter) -> None:
            try:
                won.append(catalog.put("lease", "train", b"mine", expected=0))
            except ConflictError as error:
                lost.append(error)

        threads = [threading.Thread(target=claim, args=(catalog,)) for catalog in catalogs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (won, len(lost)) == ([1], 3)

    def test_a_kill_keeps_every_write(self, tmp_path: Path) -> None:
        """What a method returned for survives kill -9."""
        run(
            f"""
            catalog = resolve({self.catalog!r})(folder)
            catalog.put("model", "a", b"1")
            catalog.append("release", [b"1", b"2"], at=7)
            die()
            """,
            tmp_path,
        )
        catalog = self.open(tmp_path)
        assert catalog.find("model", "a") == Document("model", "a", 1, b"1")
        assert catalog.append("release", [b"3"], at=8) == 3

    def test_another_writer_is_seen_at_once(self, tmp_path: Path) -> None:
        """A reader sees what another catalog wrote, also after it has read before."""
        writer, reader = self.open(tmp_path), self.open(tmp_path)
        for n in range(1, 4):
            writer.put("model", "a", b"%d" % n)
            found = reader.find("model", "a")
            assert found is not None
            assert found.revision == n
