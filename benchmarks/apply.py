"""Online state: filling it, and keeping it up to date. Two cases of features.py, and a script with a profile.

Case `publish`: rows/s of a backfill that publishes a table over existing keys, encoding included. Floor: one LMDB put
of the same bytes over existing keys, in transactions of the same size.

Case `apply-stream`: events/s of the applier over a filled store: 3 entities of 100,000 keys each, Zipf 1.1, 10 views,
windows to 30 days, with duplicates, corrections and late events. Journal read, fates, stamps, apply log and online
transactions are counted; the door is not. Floor: reading and decoding the same part of the journal, and an LMDB put of
the same bytes in the same batches over a copy of the store, without working out what to put. What is online afterwards
is compared, to the bit, with a store that a backfill fills from the same events.

Bias: the store lies in the page cache, one source, payloads of 150 bytes of JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import json
import platform
import pstats
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib import metadata
from pathlib import Path
from random import Random
from typing import Any

import lmdb
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from volano.collect.applier import Applier
from volano.collect.committer import Committer
from volano.collect.door import Door
from volano.compile.project import compile_project
from volano.compile.state import state_groups
from volano.engines.duckdb_engine import DuckDbEngine
from volano.organize.backfill import Backfill
from volano.organize.facts import Facts
from volano.plan.definitions import CodeRef
from volano.plan.state_index import CURSOR_KEY, INDEX_PREFIX, decode_known
from volano.records.handover import HandOver
from volano.records.journal import Operation, decode_record
from volano.runtime.clock import ReplayClock
from volano.runtime.loader import load_project
from volano.stores.delta_lake import DeltaLake
from volano.stores.file_apply_log import FileApplyLog
from volano.stores.file_journal import FileJournalReader, FileJournalWriter
from volano.stores.lmdb_online_store import LmdbOnlineStore
from volano.values.instants import DAY_US, parse_instant

HANDOVER = parse_instant("2025-06-01")
N_KEYS, ZIPF = 100_000, 1.1

PROJECT = """
from typing import Annotated
import volano as vo

risk = vo.Owner("risk", contact="risk@example.org")
card = vo.Entity("card", key=str, owner=risk)
shop = vo.Entity("shop", key=str, owner=risk)
device = vo.Entity("device", key=int, owner=risk)

class Payment(vo.Event, id="payment_id"):
    payment_id: str
    card_id: Annotated[str, card]
    shop_id: Annotated[str, shop]
    device_id: Annotated[int, device]
    amount: float
    pieces: int
    online: bool
    paid_at: vo.EventTime

payments = vo.Source("payments", Payment, table="payments.parquet", stream=True, available_after="5m",
                     accept_late="2d", owner=risk)

class CardShort(vo.FeatureView, entity=card, source=payments):
    n_1h = vo.count(within="1h")
    sum_1d = vo.sum("amount", within="1d")

class CardWeek(vo.FeatureView, entity=card, source=payments):
    mean_7d = vo.mean("amount", within="7d")
    max_7d = vo.max("amount", within="7d")

class CardMonth(vo.FeatureView, entity=card, source=payments):
    n_30d = vo.count(within="30d")
    mean_30d = vo.mean("amount", within="30d")

class CardOnline(vo.FeatureView, entity=card, source=payments):
    n_online_7d = vo.count(within="7d", where="online")
    last_amount = vo.last("amount", within="30d")

class ShopShort(vo.FeatureView, entity=shop, source=payments):
    n_1h = vo.count(within="1h")
    n_1d = vo.count(within="1d")

class ShopWeek(vo.FeatureView, entity=shop, source=payments):
    std_7d = vo.std("amount", within="7d")
    pieces_7d = vo.sum("pieces", within="7d")

class ShopMonth(vo.FeatureView, entity=shop, source=payments):
    mean_30d = vo.mean("amount", within="30d")
    max_30d = vo.max("amount", within="30d")

class DeviceShort(vo.FeatureView, entity=device, source=payments):
    n_1h = vo.count(within="1h")
    since = vo.time_since_last(within="1d")

class DeviceWeek(vo.FeatureView, entity=device, source=payments):
    sum_7d = vo.sum("amount", within="7d")

class DeviceMonth(vo.FeatureView, entity=device, source=payments):
    n_30d = vo.count(within="30d")
    min_30d = vo.min("amount", within="30d")
"""


class NoFunctions:
    """The project has no author code."""

    def get(self, code: CodeRef) -> Callable[..., Any]:
        raise LookupError(code.qualname)


class Bench:
    """A project with its stores in a folder."""

    def __init__(self, folder: Path, n_table: int, random: np.random.Generator) -> None:
        self.folder = folder
        self.random = random
        weights = np.arange(1, N_KEYS + 1) ** -ZIPF
        self._cumulated = np.cumsum(weights / weights.sum())
        self._shuffled = {kind: random.permutation(N_KEYS) for kind in ("card", "shop", "device")}
        (folder / "project.py").write_text(PROJECT)
        times = np.sort(HANDOVER - random.integers(1, 30 * DAY_US, n_table))
        self.table = self.payments(times, 0)
        pq.write_table(self.table, folder / "payments.parquet")
        loaded = load_project(folder / "project.py")
        self.project = compile_project(loaded, namespace="bench").project
        self.groups = state_groups(self.project)
        self.sql = DuckDbEngine(folder)
        self.lake = DeltaLake(folder / "lake")
        address = "payments.parquet"
        self.handover = HandOver("payments", HANDOVER, self.sql.snapshot(address), HANDOVER, address)
        self.clock = ReplayClock(HANDOVER)
        self.journal = FileJournalWriter(folder / "journal")
        self.reader = FileJournalReader(folder / "journal")
        self.apply_log = FileApplyLog(folder / "apply_log")
        self.online = LmdbOnlineStore(folder / "online")
        self.door = Door(self.project, self.journal, self.clock, Random(1).randbytes)
        self.applier = Applier(
            self.project, self.groups, self.reader, self.apply_log, self.online, NoFunctions(), self.sql, self.clock
        )  # fmt: skip
        self.committer = Committer(self.project, self.reader, self.apply_log, self.lake)

    def payments(self, times: np.ndarray, first: int) -> pa.Table:
        """Payments at some instants, keys by Zipf."""
        n = len(times)
        keys = {
            kind: shuffled[np.searchsorted(self._cumulated, self.random.random(n)).clip(0, N_KEYS - 1)]
            for kind, shuffled in self._shuffled.items()
        }
        return pa.table(
            {
                "payment_id": [f"payment-{i:09d}" for i in range(first, first + n)],
                "card_id": [f"card-{key:06d}" for key in keys["card"].tolist()],
                "shop_id": [f"shop-{key:06d}" for key in keys["shop"].tolist()],
                "device_id": pa.array(keys["device"]),
                "amount": np.round(self.random.lognormal(3, 1, n), 2),
                "pieces": self.random.integers(1, 9, n),
                "online": self.random.random(n) < 0.3,
                "paid_at": pa.array(times, pa.timestamp("us", "UTC")),
            }
        )

    def backfill(self) -> Backfill:
        facts = Facts(self.project, self.lake, self.sql, {"payments": self.handover})
        return Backfill(self.project, self.groups, facts, self.sql, NoFunctions())

    def publish(self, online: LmdbOnlineStore, *, index: bool = True) -> int:
        """Every row that stands, and the index; returns rows × groups."""
        n_rows = 0
        work = self.backfill()
        for group in self.groups:
            for part in work.chunks(group):
                online.write(part.puts, (), stamp=HANDOVER, sequence=0)
                n_rows += part.n_rows
        if index:
            for part in work.index("payments"):
                online.write(part.puts, (), stamp=HANDOVER, sequence=0)
        return n_rows

    def close(self) -> None:
        for store in (self.journal, self.apply_log, self.online):
            store.close()


def publish(bench: Bench) -> dict[str, Any]:
    """The first case; leaves the store filled."""
    bench.publish(bench.online)
    before = state(bench.online)
    began, cpu = time.perf_counter(), time.process_time()
    n_rows = bench.publish(bench.online, index=False)
    ours_s, ours_cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = peak_mb()
    puts = [
        [(b"\x01" + key, value) for key, value in part.puts.items()]
        for group in bench.groups
        for part in bench.backfill().chunks(group)
    ]
    raw = lmdb.open(str(bench.folder / "raw"), map_size=1 << 36, sync=False, metasync=False)
    for _ in range(2):
        began, cpu = time.perf_counter(), time.process_time()
        for batch in puts:
            with raw.begin(write=True) as transaction:
                for key, value in batch:
                    transaction.put(key, value)
        raw_s, raw_cpu = time.perf_counter() - began, time.process_time() - cpu
    with raw.begin() as transaction:
        stored = {bytes(key)[1:]: bytes(value) for key, value in transaction.cursor()}
    assert stored == {key: value for key, value in before.items() if not key.startswith(INDEX_PREFIX)}
    raw.close()
    return {
        "case": "publish",
        "rows": n_rows,
        "ours_s": round(ours_s, 3),
        "baseline": "LMDB put of the same bytes over existing keys",
        "baseline_s": round(raw_s, 3),
        "ratio": round(raw_s / ours_s, 3),
        "ours_peak_mb": round(peak),
        "rows_s": round(n_rows / ours_s),
        "cpu_ratio": round(raw_cpu / ours_cpu, 3),
        "keys": len(stored),
        "mb": round(sum(map(len, stored.values())) / 1e6),
    }


def accept(bench: Bench, n_events: int) -> np.ndarray:
    """Journal the stream: in order, but 2 % late, 1 % sent twice, 1 % corrected. Returns the instants of arrival."""
    random = bench.random
    sent = HANDOVER + np.sort(random.integers(1, 3 * DAY_US, n_events))
    late = (random.random(n_events) < 0.02) * random.integers(0, DAY_US, n_events)
    rows = bench.payments(np.maximum(sent - late, HANDOVER), 10**8).to_pylist()
    encoder = msgspec.json.Encoder()
    events = [encoder.encode(row) for row in rows]
    repeats, corrected = random.random(n_events) < 0.01, random.random(n_events) < 0.01
    arrived: list[int] = []
    for start in range(0, n_events, 1_000):
        stop = min(start + 1_000, n_events)
        bench.clock.advance_to(int(sent[stop - 1]))
        inserts = events[start:stop] + [events[i] for i in np.flatnonzero(repeats[:start])[-10:]]
        bench.door.accept("payments", inserts, sync=False)
        again = [
            encoder.encode({**rows[i], "amount": 1.5}) for i in np.flatnonzero(corrected[start:stop]) + start
        ]
        bench.door.accept("payments", again, operation=Operation.CORRECT, revision=1, sync=False)
        arrived += [int(sent[stop - 1])] * (len(inserts) + len(again))
    bench.journal.append([], sync=True)
    return np.array(arrived)


def apply_stream(bench: Bench, n_events: int, batch: int) -> dict[str, Any]:
    """The second case; the store is filled."""
    bench.clock = ReplayClock(HANDOVER)
    bench.door._clock = bench.clock
    arrived = accept(bench, n_events)
    clock = ReplayClock(HANDOVER)
    bench.applier._clock = clock
    bench.applier.recover()
    gc.collect()
    gc.freeze()  # as a serving process does after its warm-up
    at, slowest = 0, 0.0
    bench.online.sync()
    floor = Floor(bench)
    warm = min(batch, 5_000)
    clock.advance_to(int(arrived[warm - 1]))
    at = bench.applier.step(warm)
    n_warm = at
    began, cpu = time.perf_counter(), time.process_time()
    while at < len(arrived):
        clock.advance_to(int(arrived[min(at + batch, len(arrived)) - 1]))
        each = time.perf_counter()
        at += bench.applier.step(batch)
        slowest = max(slowest, time.perf_counter() - each)
    ours_s, ours_cpu = time.perf_counter() - began, time.process_time() - cpu
    peak = peak_mb()
    n = at - n_warm
    floor_s, floor_cpu = floor.measure(warm, batch)
    return {
        "case": "apply-stream" if batch >= 1_000 else f"apply-stream-{batch}",
        "rows": n,
        "ours_s": round(ours_s, 3),
        "baseline": "journal decode and LMDB put of the same bytes",
        "baseline_s": round(floor_s, 3),
        "ratio": round(ours_s / floor_s, 3),
        "ours_peak_mb": round(peak),
        "events_s": round(n / ours_s),
        "cpu_s": round(ours_cpu, 3),
        "events_cpu_s": round(n / ours_cpu),
        "cpu_ratio": round(ours_cpu / floor_cpu, 3),
        "batch": batch,
        "slowest_batch_ms": round(slowest * 1e3, 1),
    }


class Floor:
    """What the stream costs at least: its bytes in and its bytes out. Made before the stream, measured after it."""

    def __init__(self, bench: Bench) -> None:
        self._reader = FileJournalReader(bench.folder / "journal")
        self._folder = bench.folder / "floor"
        self._folder.mkdir()
        shutil.copy(bench.folder / "online" / "data.mdb", self._folder / "data.mdb")
        self._cursor = dict(bench.applier._cursor)
        self._writes: list[tuple[dict[bytes, bytes], list[bytes]]] = []
        self._store = bench.online
        self._write = bench.online.write
        bench.online.write = self._noted  # type: ignore[method-assign]

    def _noted(self, puts: Any, deletes: Any, **state: Any) -> None:
        self._writes.append((puts, deletes))
        self._write(puts, deletes, **state)

    def measure(self, warm: int, batch: int) -> tuple[float, float]:
        """Seconds, and seconds of the processor, of all batches after the first."""
        self._store.write = self._write  # type: ignore[method-assign]
        raw = lmdb.open(str(self._folder), map_size=1 << 36, sync=False, metasync=False, readahead=False)
        for n, (puts, deletes) in enumerate(self._writes):
            if n == 1:
                began, cpu = time.perf_counter(), time.process_time()
            entries = self._reader.read(self._cursor, limit=batch if n else warm)
            for entry in entries:
                decode_record(entry.record)
            self._cursor |= {entry.segment: entry.end for entry in entries}
            with raw.begin(write=True) as transaction:
                for key in deletes:
                    transaction.delete(b"\x01" + key)
                transaction.cursor().putmulti([(b"\x01" + key, value) for key, value in puts.items()])
        took = time.perf_counter() - began, time.process_time() - cpu
        with raw.begin() as transaction:
            stored = {
                bytes(key)[1:]: bytes(value) for key, value in transaction.cursor() if key[:1] == b"\x01"
            }
        raw.close()
        assert {key: value for key, value in stored.items() if key != CURSOR_KEY} == state(self._store)
        return took


def check(bench: Bench) -> int:
    """What the applier wrote is what a backfill of the committed facts writes; returns the number of keys."""
    bench.committer.step()
    fresh = LmdbOnlineStore(bench.folder / "fresh")
    bench.publish(fresh)
    found, wanted = state(bench.online), state(fresh)
    assert found.keys() == wanted.keys(), (len(found), len(wanted))
    for key, value in wanted.items():
        if key.startswith(INDEX_PREFIX):
            assert meaning(found[key]) == meaning(value)
        else:
            assert found[key] == value
    fresh.close()
    return len(wanted)


def meaning(entry: bytes) -> tuple[Any, ...]:
    known = decode_known(entry)
    return known.hashes, known.standing, known.event_time, sorted(known.places)


def state(online: LmdbOnlineStore) -> dict[bytes, bytes]:
    with online.snapshot() as snapshot:
        return {
            key: value for key, value in snapshot.scan(b"", b"\xff" * 40) if not key.startswith(b"\x00volcur")
        }


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(n_table: int, n_events: int, *, batch: int = 10_000, profile: Any = None) -> list[dict[str, Any]]:
    """Both cases over one store; without events the first alone.

    Args:
        profile: a `cProfile.Profile` that sees the applier's steps.
    """
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), n_table, np.random.default_rng(7))
        cases = [publish(bench)]
        if n_events:
            if profile is not None:
                bench.applier.step = partial(profile.runcall, bench.applier.step)  # type: ignore[method-assign]
            cases.append(apply_stream(bench, n_events, batch))
            cases[-1]["compared_keys"] = check(bench)
        bench.close()
    return cases


def main() -> None:
    """For a closer look than features.py gives: other sizes, a profile."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--table", type=int, default=1_000_000)
    parser.add_argument("--events", type=int, default=100_000)
    parser.add_argument("--batch", type=int, default=10_000)
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    versions = {name: metadata.version(name) for name in ("lmdb", "msgspec", "numba", "numpy", "pyarrow")}
    print(platform.platform(), platform.python_version(), versions)
    profile = cProfile.Profile() if arguments.profile else None
    cases = measure(arguments.table, arguments.events, batch=arguments.batch, profile=profile)
    if profile is not None:
        pstats.Stats(profile).sort_stats("tottime").print_stats(35)
    for case in cases:
        print(case)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(cases, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
