"""The file apply log keeps the apply log's contract."""

from volano.testing.conformance.apply_log import ApplyLogConformance


class TestFileApplyLog(ApplyLogConformance):
    writer = "volano.stores.file_apply_log:FileApplyLog"
    reader = "volano.stores.file_apply_log:FileApplyLogReader"
