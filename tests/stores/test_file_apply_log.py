"""The file apply log keeps the apply log's contract."""

from volano.testing.conformance.apply_log import ApplyLogConformance
from volano.testing.conformance.power_loss import ApplyLogPowerLossConformance


class TestFileApplyLog(ApplyLogConformance):
    writer = "volano.stores.file_apply_log:FileApplyLog"
    reader = "volano.stores.file_apply_log:FileApplyLogReader"


class TestFileApplyLogOnASimulatedDisk(ApplyLogPowerLossConformance):
    writer = TestFileApplyLog.writer
    reader = TestFileApplyLog.reader
