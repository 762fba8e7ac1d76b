"""The file journal keeps the journal's contract."""

from volano.testing.conformance.journal import JournalConformance
from volano.testing.conformance.power_loss import JournalPowerLossConformance


class TestFileJournal(JournalConformance):
    writer = "volano.stores.file_journal:FileJournalWriter"
    reader = "volano.stores.file_journal:FileJournalReader"


class TestFileJournalOnASimulatedDisk(JournalPowerLossConformance):
    writer = TestFileJournal.writer
    reader = TestFileJournal.reader
