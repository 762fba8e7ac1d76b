"""A sender of observations over HTTP, in a process of its own, so that it is not what is measured.

Raw connections under uvloop, one request at a time on each; an answer is read for its status, its length and the
receipts in it. Every event has an id of its own, `<run>-<client>-<n>`. What is refused for now (429), or broken off by
a server that dies, is sent again with the same ids until it is answered. Prints its account as one line of JSON; with
`--acks`, each acknowledged event goes to standard output at once (`ACK`), the account last.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from array import array
from datetime import UTC, datetime
from typing import Any

import uvloop

ACK = struct.Struct("<qqq")
"""Client, number and instant (monotonic ns) of an acknowledged event; a client of -1 ends them."""

EVENT = (
    b'{"order_id":"%s-%d-%d","customer_id":"customer-%06d","amount":%d.25,"returned":false,"closed_at":"%s"}'
)
PENDING = b'"status":"pending"'
N_CUSTOMERS = 100_000
RETRY_S = 0.1


class Client(asyncio.Protocol):
    """One connection that is opened again whenever it breaks."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.number = number
        self.n_made = 0
        self.transport: asyncio.Transport | None = None
        self.request = b""
        self.first = 0
        self.n_events = 0
        self.sent_at = 0
        self.intended_at = 0
        self.answer = b""
        self.is_idle = True

    def connect(self) -> None:
        self.load.loop.create_task(self._connect())

    async def _connect(self) -> None:
        while True:
            try:
                await self.load.loop.create_connection(lambda: self, "127.0.0.1", self.load.port)
            except OSError:
                await asyncio.sleep(RETRY_S)
            else:
                return

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.answer = b""
        if not self.is_idle:
            self._send()
        else:
            self.load.rest(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if not self.load.is_over or not self.is_idle:
            self.load.n_broken += not self.is_idle
            self.connect()

    def next(self, intended_at: int) -> None:
        """Make a request and send it."""
        load, n, first = self.load, self.load.batch, self.n_made
        run, number, at = load.run, self.number, load.at
        if load.own_customer:
            events = [
                EVENT % (run, number, i, number * 1_000_000 + i, i & 1023, at)
                for i in range(first, first + n)
            ]
        else:
            events = [
                EVENT % (run, number, i, (i * 7919 + number * 104_729) % N_CUSTOMERS, i & 1023, at)
                for i in range(first, first + n)
            ]
        body = b"[" + b",".join(events) + b"]" if load.is_batch else events[0]
        self.first, self.n_events, self.n_made = first, n, first + n
        self.request = load.head % len(body) + body
        self.intended_at = intended_at
        self.is_idle = False
        if self.transport is not None:
            self._send()

    def _send(self) -> None:
        if self.transport is not None and not self.is_idle:
            self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        if self.answer:
            data = self.answer + data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self.answer = data
            return
        at = data.find(b"content-length: ", 0, end)
        length = int(data[at + 16 : data.find(b"\r", at)])
        if len(data) < end + 4 + length:
            self.answer = data
            return
        self.answer = b""
        self._answered(data[9:12], data)

    def _answered(self, status: bytes, data: bytes) -> None:
        load = self.load
        if status in (b"429", b"503"):
            load.n_refused += 1
            load.loop.call_later(RETRY_S, self._send)
            return
        now = time.monotonic_ns()
        n_pending = 1 if not load.is_batch and PENDING in data else data.count(PENDING)
        if status != b"202" or n_pending != self.n_events:
            load.n_odd += 1
            load.odd = data[:400].decode("latin-1")
        else:
            load.n_acknowledged += n_pending
            load.latencies.append(now - self.intended_at)
            if load.acks:
                load.note(self.number, self.first, n_pending, now)
        self.is_idle = True
        load.rest(self)


class Load:
    """All clients of one run."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.loop = asyncio.get_running_loop()
        self.port: int = arguments.port
        self.run = arguments.run.encode()
        self.batch: int = max(arguments.batch, 1)
        self.is_batch: bool = arguments.batch > 0
        self.own_customer: bool = arguments.own_customer
        self.rate: float = arguments.rate
        self.acks: bool = arguments.acks
        self.at = datetime.now(UTC).isoformat().encode()
        path = b"/v1/observe/orders"
        self.head = (
            b"POST %s HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: %%d\r\n\r\n"
            % path
        )
        self.n_acknowledged = self.n_refused = self.n_broken = self.n_odd = 0
        self.odd = ""
        self.latencies = array("q")
        self.is_over = False
        self.idle: list[Client] = []
        self.clients = [Client(self, number) for number in range(arguments.clients)]
        self._noted: list[bytes] = []

    def rest(self, client: Client) -> None:
        """A client has nothing to do."""
        if not self.is_over and not self.rate:
            client.next(time.monotonic_ns())
        else:
            self.idle.append(client)

    def note(self, client: int, first: int, n: int, at: int) -> None:
        self._noted += [ACK.pack(client, i, at) for i in range(first, first + n)]
        if len(self._noted) == n:
            self.loop.call_soon(self._tell)

    def _tell(self) -> None:
        sys.stdout.buffer.write(b"".join(self._noted))
        sys.stdout.buffer.flush()
        self._noted.clear()

    async def send(self, seconds: float) -> dict[str, Any]:
        """Send for so long, wait for the last answers; the account."""
        began = time.monotonic_ns()
        for client in self.clients:
            client.connect()
        if self.rate:
            await self._send_at_rate(began, seconds)
        elif seconds:
            await asyncio.sleep(seconds)
        else:
            await self.loop.run_in_executor(None, sys.stdin.buffer.read)
        self.is_over = True
        took_s, n_acknowledged = (time.monotonic_ns() - began) / 1e9, self.n_acknowledged
        for _ in range(30_000):
            if all(client.is_idle for client in self.clients):
                break
            await asyncio.sleep(0.01)
        if self.acks:
            self._tell()
        ordered = sorted(self.latencies)

        def quantile(q: float) -> float:
            return ordered[min(int(len(ordered) * q), len(ordered) - 1)] / 1e6 if ordered else float("nan")

        return {
            "events_s": n_acknowledged / took_s,
            "acknowledged": self.n_acknowledged,
            "unanswered": sum(not client.is_idle for client in self.clients),
            "made": [client.n_made for client in self.clients],
            "refused": self.n_refused,
            "broken": self.n_broken,
            "odd": self.n_odd,
            "example": self.odd,
            "p50_ms": quantile(0.5),
            "p99_ms": quantile(0.99),
            "ended_at_ns": time.monotonic_ns(),
            "cpu_s": time.process_time(),
        }

    async def _send_at_rate(self, began: int, seconds: float) -> None:
        """Open loop: every event is due at an instant of its own, whether or not earlier ones are answered."""
        n_sent, step_ns = 0, 1e9 / self.rate
        while (elapsed := time.monotonic_ns() - began) < seconds * 1e9:
            while self.idle and n_sent * step_ns <= elapsed:
                self.idle.pop().next(began + int(n_sent * step_ns))
                n_sent += 1
            await asyncio.sleep(0.0005)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument(
        "--seconds", type=float, required=True, help="0 sends until standard input ends (closed loop)"
    )
    parser.add_argument("--batch", type=int, default=0, help="events a request; 0 sends single events")
    parser.add_argument("--rate", type=float, default=0, help="events/s, open loop; 0 is a closed loop")
    parser.add_argument("--acks", action="store_true")
    parser.add_argument("--own-customer", action="store_true", help="every event is of a customer of its own")
    arguments = parser.parse_args()

    async def work() -> dict[str, Any]:
        return await Load(arguments).send(arguments.seconds)

    account = uvloop.run(work())
    if arguments.acks:
        sys.stdout.buffer.write(ACK.pack(-1, 0, 0))
    sys.stdout.buffer.write(json.dumps(account).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
