"""What became of a receipt, asked of a project's stores."""

from __future__ import annotations

from volano.collect.parents import Parents
from volano.collect.receipts import Receipts
from volano.protocols.apply_log import ApplyLogReader
from volano.protocols.clock import Clock
from volano.records.receipt import Receipt
from volano.runtime.stores import Stores


def find_receipt(stores: Stores, apply_log: ApplyLogReader, clock: Clock, receipt_id: str) -> Receipt:
    """How an accepted event ended, as far as it has.

    Raises:
        UnknownNameError: no accepted event has this receipt.
    """
    parents = Parents(stores.journal_reader, apply_log, stores.lake, clock, stores.config.parent_within_us)
    return Receipts(stores.journal_reader, apply_log, stores.lake, parents).status(receipt_id)
