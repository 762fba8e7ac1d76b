"""The file journal keeps the journal's contract."""

from volano.testing.conformance.journal import JournalConformance


class TestFileJournal(JournalConformance):
    writer = "volano.stores.file_journal:FileJournalWriter"
    reader = "volano.stores.file_journal:FileJournalReader"
