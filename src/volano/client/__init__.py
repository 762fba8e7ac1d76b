"""The Python client of a served project: decide, observe, ask what became of a receipt.

>>> from volano.client import Client
>>> with Client("http://127.0.0.1:8066", token="vol_...") as volano:      # doctest: +SKIP
...     volano.decide("get_return_risk", {"order_id": "o9", "customer_id": "c1", "amount": 3.0}).action
'accept'
"""

from volano.client.answers import RefusedError, UnreachableError
from volano.client.asynchronous import AsyncClient
from volano.client.buffered import BufferedObserver
from volano.client.synchronous import Client
from volano.records.answers import Decided
from volano.records.answers import LoggedAnswer as LoggedDecision
from volano.records.answers import ReceiptAnswer as Receipt

__all__ = [
    "AsyncClient",
    "BufferedObserver",
    "Client",
    "Decided",
    "LoggedDecision",
    "Receipt",
    "RefusedError",
    "UnreachableError",
]
