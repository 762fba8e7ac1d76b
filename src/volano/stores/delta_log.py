"""Commits to a Delta table's log: data files and the entry that names them, synced before they count.

delta-rs reads the log, creates tables, widens and checkpoints them. Blind appends and compactions are written here, in
the format of the Delta protocol (https://github.com/delta-io/delta/blob/master/PROTOCOL.md), for two reasons: delta-rs
syncs nothing, so a loss of power can leave an entry that names empty files; and it folds the whole file list into its
handle at every append (40 ms at 300 files of 18 columns), where an entry costs what it holds
(docs/decisions/0012-own-delta-commits.md).
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from volano.errors import UnsupportedError
from volano.values.instants import format_instant, parse_instant

INSTANT: Final = pa.timestamp("us", "UTC")

_WHOLE: Final = re.compile(r"\d{20}\.(json|checkpoint.*\.parquet)|_last_checkpoint")
_ROW_GROUP: Final = 1 << 17
"""Rows of a row group: of a file in the order of time, a range reads few of them."""
_YEAR_0: Final = parse_instant("0001-01-01")
_YEAR_9999: Final = parse_instant("9999-12-31")


class Part(NamedTuple):
    """A data file that is on the disk and in no commit yet."""

    path: str
    n_bytes: int
    partition: Mapping[str, str | None]
    stats: Mapping[str, Any]


def log_folder(table: Path) -> Path:
    """The folder of a table's log."""
    return table / "_delta_log"


def newest_version(table: Path, known: int | None) -> int | None:
    """The newest version in a table's log; None without one.

    Args:
        known: a version that exists; only later ones are looked for.
    """
    log = log_folder(table)
    if known is None or not _exists(_entry(log, known)):  # it may be so old that it was vacuumed
        try:
            names = os.listdir(log)
        except (FileNotFoundError, NotADirectoryError):
            return None
        versions = [int(name[:20]) for name in names if name.endswith(".json") and name[:20].isdigit()]
        whole = (version for version in sorted(versions, reverse=True) if _exists(_entry(log, version)))
        return next(whole, None)
    while _exists(_entry(log, known + 1)):
        known += 1
    return known


def mend(table: Path) -> None:
    """Remove empty log files, which only a loss of power leaves: what they would hold was never acknowledged.

    What another process is about to write has a name of its own until it is whole.
    """
    log = log_folder(table)
    if not log.exists():
        return
    for name in os.listdir(log):
        path = log / name
        if _WHOLE.fullmatch(name) and path.stat().st_size == 0:
            path.unlink()


def write_part(table: Path, rows: pa.Table, partition: Mapping[str, Any]) -> Part:
    """Write rows to a new data file and sync it."""
    name = f"part-{os.urandom(16).hex()}.parquet"
    path = table / name
    try:
        pq.write_table(rows, path, compression="zstd", compression_level=1, row_group_size=_ROW_GROUP)
        sync(path)
    except BaseException:  # removes the half file, then raises it again
        path.unlink(missing_ok=True)
        raise
    values = {column: _partition_value(value) for column, value in partition.items()}
    return Part(name, path.stat().st_size, values, _stats(rows))


def remove_parts(table: Path, parts: Sequence[Part]) -> None:
    """Remove data files that no commit names."""
    for part in parts:
        (table / part.path).unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Sync a file, or the names in a folder."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def add_action(part: Part, *, data_change: bool) -> dict[str, Any]:
    """The log action that makes a data file part of a table."""
    return {
        "add": {
            "path": part.path,
            "partitionValues": part.partition,
            "size": part.n_bytes,
            "modificationTime": _now_ms(),
            "dataChange": data_change,
            "stats": msgspec.json.encode(part.stats).decode(),
        }
    }


def remove_action(path: str, n_bytes: int, partition: Mapping[str, str | None]) -> dict[str, Any]:
    """The log action that takes a compacted file out of later versions; the file stays for earlier ones."""
    return {
        "remove": {
            "path": path,
            "deletionTimestamp": _now_ms(),
            "dataChange": False,
            "extendedFileMetadata": True,
            "partitionValues": partition,
            "size": n_bytes,
        }
    }


def schema_action(known: Mapping[str, Any], schema: str) -> dict[str, Any]:
    """The log action that gives a table another schema; everything else of it stays.

    Args:
        known: of the table: id, name, description, partitionColumns, configuration, createdTime.
        schema: as Delta's JSON.
    """
    return {"metaData": {**known, "format": {"provider": "parquet", "options": {}}, "schemaString": schema}}


def transaction_action(writer: str, sequence: int) -> dict[str, Any]:
    """The log action that remembers how far a writer has come."""
    return {"txn": {"appId": writer, "version": sequence, "lastUpdated": _now_ms()}}


def commit(table: Path, version: int, operation: str, mode: str, actions: Sequence[dict[str, Any]]) -> None:
    """Make actions the given version of a table, durably and in one atomic step.

    Raises:
        FileExistsError: somebody else has committed this version, or it is so far in the past that the version before
            it was vacuumed; nothing was done.
    """
    log = log_folder(table)
    parameters = {"mode": mode} if mode else {}
    info = {
        "commitInfo": {
            "timestamp": _now_ms(),
            "operation": operation,
            "operationParameters": parameters,
            "engineInfo": "volano",
        }
    }
    body = b"\n".join(msgspec.json.encode(action) for action in (info, *actions)) + b"\n"
    draft = log / f".{version:020d}.{os.urandom(8).hex()}.tmp"
    sync(table)
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            view = memoryview(body)
            while view:
                view = view[os.write(descriptor, view) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, _entry(log, version))  # a link, unlike a rename, never replaces
        if not _exists(_entry(log, version - 1)):  # a hole in the log, not its end: entries go oldest first
            _entry(log, version).unlink()
            raise FileExistsError(f"version {version} of {table.name} was vacuumed")
    finally:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
    sync(log)


def _entry(log: Path, version: int) -> Path:
    return log / f"{version:020d}.json"


def _exists(path: Path) -> bool:
    try:
        return os.stat(path).st_size > 0
    except FileNotFoundError:
        return False


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def _partition_value(value: Any) -> str | None:
    match value:
        case None | str():
            return value or None  # the protocol reads the empty string as null
        case bool():
            return "true" if value else "false"
        case int() | date():
            return str(value)
        case _:
            raise UnsupportedError(
                f"A lake cannot be partitioned by {type(value).__name__}.",
                mend="partition by text, whole numbers, booleans or dates",
            )


def _stats(rows: pa.Table) -> dict[str, Any]:
    """Row count, and bounds of the columns that ranges are asked for: instants and whole numbers."""
    low: dict[str, Any] = {}
    high: dict[str, Any] = {}
    n_null: dict[str, int] = {}
    for name, column in zip(rows.column_names, rows.columns, strict=True):
        is_instant = pa.types.is_timestamp(column.type)
        if not is_instant and not pa.types.is_integer(column.type):
            continue
        n_null[name] = column.null_count
        bounds = pc.min_max(column.cast(pa.int64()) if is_instant else column).as_py()
        if bounds["min"] is None:
            continue
        if is_instant:
            if bounds["min"] < _YEAR_0 or bounds["max"] >= _YEAR_9999:
                continue  # no bound is a wide one; a sentinel such as NEVER has no date
            low[name], high[name] = format_instant(bounds["min"]), format_instant(bounds["max"])
        else:
            low[name], high[name] = bounds["min"], bounds["max"]
    return {"numRecords": rows.num_rows, "minValues": low, "maxValues": high, "nullCount": n_null}
