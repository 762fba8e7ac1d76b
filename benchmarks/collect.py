"""The served system under observations: what it takes in, how soon that is visible, that nothing is lost. A script.

Real processes throughout: `volano serve` over the blank template (`volano init`: one source, one entity, two windows),
and a sender of its own process (`load.py`). After every case the server is stopped and its account checked: every event
that was acknowledged lies in the lake once, and accepted = stored + duplicate + conflict + quarantined.

observe-1      single events, 64 clients, closed loop; each is acknowledged after its fsync. Floor: the same server with
               a bare append under the same group commit (`bare_append.py`), before and after, in the same run.
observe-batch  JSON arrays of 500 events, 8 clients, closed loop. Floor: the same bodies through the same bare append.
commit         journal → lake: everything that `observe-batch` accepted, committed again into an empty lake. Floor: the
               same rows, ready as Arrow, appended to another.
visible        open loop at 2,000 events/s, each of a customer of its own; from the acknowledgement to the first read of
               features, by the code that a worker decides with and in another process, that counts the event.
attribute      1 M decisions × 1 M observations (`attribute.py`).
kill           workers, applier or committer are killed (SIGKILL) at random instants under load.

`lag_s` is the age of the oldest accepted event that no decision sees yet, 0 when there is none: looked at five times a
second, the last look before the sending ends; `most_lag_s` the worst of them. At most `BEHIND_MIB` of the journal may
wait: then the server answers 429, and the sender sends the same again 100 ms later. `cpu_us` is CPU time an event by
who used it, for machines that have more to do.

Bias: one machine, so sender and server share its cores, which speaks against us, except that the floor has no applier
and no committer beside it. Small events (160 bytes), one source, one view; the stores lie in the page cache. The lake
is committed every 5 s.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import duckdb
import msgspec
import numpy as np
from load import ACK

import volano
from volano.collect.committer import Committer
from volano.plan.state_index import CURSOR_KEY
from volano.project import Project
from volano.protocols.lake import LakeReader
from volano.records.journal import EventReceived, decode_record
from volano.runtime.clock import SystemClock
from volano.runtime.processes.collector import settle
from volano.runtime.processes.worker import Worker, random_bytes
from volano.runtime.templates import write_template
from volano.stores.delta_lake import DeltaLake
from volano.stores.local_files import LocalFiles
from volano.stores.segments import SegmentReader

HERE = Path(__file__).resolve().parent
FACTS, DECISION = "fact_orders", "get_return_risk"
BEHIND_MIB = 8
LOOK_S = 0.2
BATCH, BATCH_CLIENTS = 500, 8
ROUNDS = 20


# --- the server -----------------------------------------------------------------------------------------------------


class Served(NamedTuple):
    """A project under `volano serve`."""

    folder: Path
    port: int
    process: subprocess.Popen[str]


def make_shop(folder: Path, commit_every: str) -> Path:
    """The blank template, applied."""
    write_template("blank", folder)
    path = folder / "volano.toml"
    path.write_text(
        path.read_text()
        + f'online_map_gib = 16\ncommit_every = "{commit_every}"\nmax_behind_mib = {BEHIND_MIB}\n'
    )
    with Project.open(folder) as project:
        project.apply()
    return folder


def environment() -> dict[str, str]:
    source = Path(volano.__file__).resolve().parents[1]
    return {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(source)}


@contextmanager
def served(folder: Path, workers: int) -> Iterator[Served]:
    """Serve a project; at the end everything accepted is committed."""
    command = "from volano.cli.main import app; app()"
    process = subprocess.Popen(
        [sys.executable, "-c", command, "serve", "--port", "0", "--workers", str(workers)],
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if line.startswith("serving at "):
                break
        else:
            raise SystemExit(f"volano serve ended with {process.wait()}")
        yield Served(folder, int(line.rsplit(":", 1)[1]), process)
    finally:
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        process.wait(600)


@contextmanager
def bare(folder: Path, workers: int, batch: int) -> Iterator[int]:
    """The floor's server; its port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        listener.set_inheritable(True)
        options = ["--folder", str(folder), "--fd", str(listener.fileno()), "--batch", str(batch)]
        processes = [
            subprocess.Popen(
                [sys.executable, str(HERE / "bare_append.py"), "--name", f"b{n}", *options],
                pass_fds=(listener.fileno(),),
                env=environment(),
                stdout=subprocess.PIPE,
                text=True,
            )
            for n in range(workers)
        ]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            yield listener.getsockname()[1]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.communicate()


def send(port: int, run: str, seconds: float, *options: str) -> subprocess.Popen[bytes]:
    """Start the sender."""
    return subprocess.Popen(
        [sys.executable, str(HERE / "load.py"), "--port", str(port), "--run", run, "--seconds", str(seconds), *options],
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )  # fmt: skip


def sent(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The sender's account, when it has ended."""
    said, _ = process.communicate()
    return account_of(said)


def account_of(said: bytes) -> dict[str, Any]:
    account: dict[str, Any] = json.loads(said.splitlines()[-1])
    if account["unanswered"] or account["odd"] or not account["acknowledged"]:
        raise SystemExit(f"the sender is not satisfied: {account}")
    return account


class Seen:
    """Reads, beside the processes, how far the applier has come and what a decision would see."""

    def __init__(self, folder: Path) -> None:
        self._worker = Worker(folder, "bench", SystemClock(), random_bytes)
        self._online = self._worker.stores.online(self._worker.applied.state)
        self._segments = SegmentReader(LocalFiles(), self._worker.stores.data / "journal")
        self._features: Any = self._worker.decider.serving(DECISION).features

    @property
    def stamp(self) -> int:
        with self._online.snapshot() as snapshot:
            return snapshot.stamp

    def lag_s(self) -> float:
        """The age of the oldest accepted event that no decision sees."""
        with self._online.snapshot() as snapshot:
            (stored,) = snapshot.get_many([CURSOR_KEY])
        now = SystemClock().now()
        cursor = {} if stored is None else msgspec.msgpack.decode(stored, type=dict[str, int])
        oldest = now
        for segment in self._segments.segments():
            for entry in self._segments.read(segment, cursor.get(segment, 0), 1):
                record = decode_record(entry.record)
                if isinstance(record, EventReceived):
                    oldest = min(oldest, record.received_at)
        return (now - oldest) / 1e6

    def catch_up_s(self) -> float:
        """How long until everything accepted is visible."""
        began = time.monotonic()
        while self.lag_s() > 0:
            time.sleep(0.005)
        return time.monotonic() - began

    def n_orders(self, customer: str) -> int:
        """The feature, as a decision of now would read it."""
        request = {"order_id": "", "customer_id": customer, "amount": 0.0}
        slots, _ = self._features.read(request, SystemClock().now() + 1)
        return int(slots[0])

    def close(self) -> None:
        self._worker.close()


# --- the account ----------------------------------------------------------------------------------------------------


def check_account(folder: Path, made: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """What was sent, and acknowledged, is in the lake, each event once; the account is exact.

    Args:
        made: by run, how many events each client has sent, every one of which was acknowledged in the end.
    """
    with Project.open(folder) as project:
        project.drain(commit=True)
        account = project.reconcile()
        assert account.is_exact and not account.total.pending, account
        events = account.events
        assert events.conflict == events.quarantined == 0, events
        lost, doubled = compare(project._work.stores.lake, made)
    assert events.stored == sum(map(sum, made.values())) - lost + doubled, events
    return {"accepted": events.accepted, "repeats": events.duplicate, "lost": lost, "duplicated": doubled}


def compare(lake: LakeReader, made: Mapping[str, Sequence[int]]) -> tuple[int, int]:
    """How many events are not in the lake, and how many rows are there again."""
    ids = lake.read(FACTS, columns=["order_id"])
    found = duckdb.sql(
        "SELECT split_part(order_id, '-', 1), split_part(order_id, '-', 2)::INT, count(*),"
        " count(DISTINCT order_id), max(split_part(order_id, '-', 3)::INT) FROM ids GROUP BY ALL"
    ).fetchall()
    del ids
    wanted = {(run, client): n for run, each in made.items() for client, n in enumerate(each) if n}
    lost, doubled = sum(wanted.values()), 0
    for run, client, n_rows, n_distinct, last in found:
        assert last < wanted[run, client], (run, client, last)
        lost -= n_distinct
        doubled += n_rows - n_distinct
    return lost, doubled


# --- cases ----------------------------------------------------------------------------------------------------------


class Plan(NamedTuple):
    """How much is done."""

    folder: Path
    seconds: float
    workers: int
    scale: float


class Floor(NamedTuple):
    """The bare append: events/s, and CPU time of its workers, in µs an event."""

    events_s: float
    cpu_us: float


def floor(plan: Plan, seconds: float, batch: int, clients: int) -> Floor:
    """Send to the bare append."""
    with (
        tempfile.TemporaryDirectory(dir=plan.folder) as folder,
        bare(Path(folder), plan.workers, batch) as port,
    ):
        before = cpu_s(os.getpid())
        account = sent(send(port, "floor", seconds, "--clients", str(clients), "--batch", str(batch)))
        used = sum(cpu_s(os.getpid()).values()) - sum(before.values())
    return Floor(account["events_s"], used / account["acknowledged"] * 1e6)


def observe(plan: Plan, case: str, batch: int, clients: int) -> tuple[dict[str, Any], Path]:
    """A closed loop; floor before and after."""
    options = ["--clients", str(clients), "--batch", str(batch)]
    beside = max(plan.seconds / 6, 2)
    before = floor(plan, beside, batch, clients)
    folder = make_shop(plan.folder / case, "5s")
    with served(folder, plan.workers) as server:
        seen = Seen(folder)
        warm = sent(send(server.port, "warm", max(plan.seconds / 20, 1), *options))
        seen.catch_up_s()
        before_s = cpu_s(server.process.pid)
        process = send(server.port, "run", plan.seconds, *options)
        lags = [0.0]
        while process.poll() is None:
            lags.append(seen.lag_s())
            time.sleep(LOOK_S)
        account, caught_up_s = sent(process), seen.catch_up_s()
        used = {role: each - before_s[role] for role, each in cpu_s(server.process.pid).items()}
        seen.close()
    after = floor(plan, beside, batch, clients)
    checked = check_account(folder, {"warm": warm["made"], "run": account["made"]})
    assert not checked["lost"] and not checked["duplicated"], checked
    floor_s = (before.events_s + after.events_s) / 2
    each_us = {role: each / account["acknowledged"] * 1e6 for role, each in used.items()}
    workers_us = sum(each for role, each in each_us.items() if role.startswith("worker"))
    return {
        "case": case,
        "events_s": round(account["events_s"]),
        "p50_ms": round(account["p50_ms"], 3),
        "p99_ms": round(account["p99_ms"], 3),
        "floor_events_s": round(floor_s),
        "ratio": round(account["events_s"] / floor_s, 3),
        "lag_s": round(lags[-1], 3),
        "most_lag_s": round(max(lags), 3),
        "caught_up_s": round(caught_up_s, 3),
        "refused": account["refused"],
        "cpu_us": {
            "sender": round(account["cpu_s"] / account["acknowledged"] * 1e6, 2),
            "workers": round(workers_us, 2),
            "applier": round(each_us["applier"], 2),
            "committer": round(each_us["committer"], 2),
            "floor": round((before.cpu_us + after.cpu_us) / 2, 2),
        },
        **checked,
    }, folder  # fmt: skip


def commit(plan: Plan, folder: Path) -> dict[str, Any]:
    """Everything that a folder's journal holds into an empty lake, and its rows, ready, into another."""
    with Project.open(folder) as project:
        session = project._work.session
        stores = session.stores
        fresh, ready = DeltaLake(plan.folder / "fresh"), DeltaLake(plan.folder / "ready")
        committer = Committer(
            session.definitions.of_state, stores.journal_reader, stores.apply_log_reader, fresh,
            definitions=session.definitions.get,
        )  # fmt: skip
        settle()  # as the committer's process does
        began, cpu = time.perf_counter(), time.process_time()
        n_rows = committer.step()
        ours_s, ours_cpu_s = time.perf_counter() - began, time.process_time() - cpu
        rows = {name: fresh.read(name) for name in fresh.tables()}
        floor_s = 0.0
        for name, table in rows.items():
            assert table.num_rows == stores.lake.read(name, columns=["receipt_id"]).num_rows
            ready.create(name, table.schema)
            n_commits = -(-table.num_rows // committer._rows_a_commit)
            for n in range(n_commits):
                part = table.slice(n * committer._rows_a_commit, committer._rows_a_commit)
                began = time.perf_counter()
                ready.append(name, part, writer="floor", sequence=n + 1)
                floor_s += time.perf_counter() - began
        n_events = rows["receipt"].num_rows
    return {
        "case": "commit",
        "events_s": round(n_events / ours_s),
        "p50_ms": None,
        "p99_ms": None,
        "floor_events_s": round(n_events / floor_s),
        "ratio": round(floor_s / ours_s, 3),
        "events": n_events,
        "rows": n_rows,
        "events_cpu_s": round(n_events / ours_cpu_s),
    }


def visible(plan: Plan, rate: float = 2_000.0) -> dict[str, Any]:
    """From the acknowledgement to the first read that sees the event."""
    folder = make_shop(plan.folder / "visible", "5s")
    with served(folder, plan.workers) as server:
        warm = sent(send(server.port, "warm", 2, "--batch", "0"))
        seen = Seen(folder)
        seen.catch_up_s()
        seen.n_orders("nobody")
        process = send(
            server.port, "run", plan.seconds, "--clients", "64", "--rate", str(rate), "--acks", "--own-customer"
        )  # fmt: skip
        took, account = watch(process, seen)
        lag_s = seen.lag_s()
        seen.close()
    checked = check_account(folder, {"warm": warm["made"], "run": account["made"]})
    assert not checked["lost"] and not checked["duplicated"], checked
    assert len(took) == account["acknowledged"], (len(took), account)
    return {
        "case": "visible",
        "events_s": round(account["events_s"]),
        "p50_ms": round(float(np.percentile(took, 50)) / 1e6, 2),
        "p99_ms": round(float(np.percentile(took, 99)) / 1e6, 2),
        "floor_events_s": None,
        "ratio": None,
        "most_ms": round(max(took) / 1e6, 2),
        "ack_p50_ms": round(account["p50_ms"], 2),
        "ack_p99_ms": round(account["p99_ms"], 2),
        "lag_s": round(lag_s, 3),
        **checked,
    }


def watch(process: subprocess.Popen[bytes], seen: Seen) -> tuple[list[int], dict[str, Any]]:
    """Look for every acknowledged event whenever online state has moved; ns from the acknowledgement to the sight."""
    assert process.stdout is not None
    stream = process.stdout.fileno()
    os.set_blocking(stream, False)
    waiting: deque[tuple[int, int, int]] = deque()
    took: list[int] = []
    held, stamp, is_over = b"", 0, False
    while not is_over or waiting:
        with contextlib.suppress(BlockingIOError):
            held += os.read(stream, 1 << 16)
        while not is_over and len(held) >= ACK.size:
            ack = ACK.unpack_from(held)
            held = held[ACK.size :]
            if ack[0] < 0:
                is_over = True
            else:
                waiting.append(ack)
        moved = seen.stamp
        if moved == stamp and took:
            time.sleep(0.0005)
            continue
        stamp = moved
        for _ in range(len(waiting)):
            client, n, acknowledged_at = waiting.popleft()
            if seen.n_orders(f"customer-{client * 1_000_000 + n:06d}"):
                took.append(time.monotonic_ns() - acknowledged_at)
            else:
                waiting.append((client, n, acknowledged_at))
    os.set_blocking(stream, True)
    return took, account_of(held + process.stdout.read())


def kill(plan: Plan) -> dict[str, Any]:
    """Processes die at random instants while single events and batches come in."""
    folder = make_shop(plan.folder / "kill", "1s")
    rounds = max(round(ROUNDS * plan.scale), 2)
    dice = random.Random(20)
    killed: list[str] = []
    with served(folder, plan.workers) as server:
        senders = {
            "single": send(server.port, "single", 0, "--clients", "32"),
            "batch": send(server.port, "batch", 0, "--clients", "2", "--batch", "50"),
        }
        for _ in range(rounds):
            roles = processes(server.process.pid)
            while len(roles) < plan.workers + 2:
                time.sleep(0.02)
                roles = processes(server.process.pid)
            time.sleep(dice.uniform(0.0, 0.8))
            for role in dice.sample(sorted(roles), k=dice.choice([1, 1, 2])):
                os.kill(roles[role], signal.SIGKILL)
                killed.append(role)
            time.sleep(0.15)
        accounts = {run: sent(process) for run, process in senders.items()}
    checked = check_account(folder, {run: account["made"] for run, account in accounts.items()})
    return {
        "case": "kill",
        "rounds": rounds,
        "acknowledged": sum(account["acknowledged"] for account in accounts.values()),
        "lost": checked["lost"],
        "duplicated": checked["duplicated"],
        "sent_again": checked["repeats"],
        "killed": {role: killed.count(role) for role in sorted(set(killed))},
        "broken_connections": sum(account["broken"] for account in accounts.values()),
    }


def processes(supervisor: int) -> dict[str, int]:
    """The living children of the supervisor, by role."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            state, parent = (path / "stat").read_text().rpartition(")")[2].split()[:2]
            argv = (path / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if int(parent) == supervisor and state != "Z" and "--name" in argv:
            found[argv[argv.index("--name") + 1]] = int(path.name)
    return found


def cpu_s(parent: int) -> dict[str, float]:
    """CPU time that the named children of a process have used, by role."""
    ticks = os.sysconf("SC_CLK_TCK")
    found = {}
    for role, pid in processes(parent).items():
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        found[role] = (int(fields[11]) + int(fields[12])) / ticks
    return found


def attribute(plan: Plan) -> dict[str, Any]:
    from attribute import attribute as measure

    measured: dict[str, Any] = measure(plan.scale)
    return {"case": "attribute", "p50_ms": None, "p99_ms": None, **measured}


CASES = ("observe-1", "observe-batch", "commit", "visible", "attribute", "kill")


def run(plan: Plan, wanted: Sequence[str]) -> Iterator[dict[str, Any]]:
    if "observe-1" in wanted:
        yield observe(plan, "observe-1", 0, 64)[0]
    if "observe-batch" in wanted or "commit" in wanted:
        case, folder = observe(plan, "observe-batch", BATCH, BATCH_CLIENTS)
        if "observe-batch" in wanted:
            yield case
        if "commit" in wanted:
            yield commit(plan, folder)
    if "visible" in wanted:
        yield visible(plan)
    if "attribute" in wanted and (HERE / "attribute.py").exists():
        yield attribute(plan)
    if "kill" in wanted:
        yield kill(plan)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seconds", type=float, default=60.0, help="how long a case sends")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of seconds, rounds and rows; 0.1 is quick")
    given = parser.parse_args()
    versions = {
        name: metadata.version(name)
        for name in ("uvicorn", "uvloop", "httptools", "msgspec", "lmdb", "pyarrow")
    }
    print(platform.platform(), platform.python_version(), f"{os.cpu_count()} cores", versions, flush=True)
    cases = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        plan = Plan(folder, given.seconds * given.scale, given.workers, given.scale)
        for case in run(plan, given.case):
            print(case, flush=True)
            cases.append(case)
    if given.json is not None:
        given.json.write_text(json.dumps(cases, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
