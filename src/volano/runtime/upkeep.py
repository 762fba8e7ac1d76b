"""Upkeep of the lake: small files merged, what nobody needs removed. Works beside every other process.

Each table's rows are kept in the order of the instant that people ask for ranges of. What a training set was built
from stays readable: the versions that manifests name are pinned.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from volano.errors import RequestError, UnknownNameError
from volano.protocols.lake import Compacted, Vacuumed
from volano.runtime.freezing import manifests
from volano.runtime.stores import Stores
from volano.values.instants import HOUR_US, format_duration

LEAST_RETAINED_US: Final = HOUR_US
"""Less would remove files from under readers, and those of commits that are under way."""
_ORDER: Final = ("event_time", "decided_at", "scored_at", "applied_at")


class TableUpkeep(msgspec.Struct, frozen=True):
    """What was done to one table.

    Args:
        table: its name.
        n_merged: files that were merged, into `n_made`.
        n_removed: data files that were removed, of `n_bytes` together; `n_log_files` those of its log.
    """

    table: str
    n_merged: int = 0
    n_made: int = 0
    n_removed: int = 0
    n_log_files: int = 0
    n_bytes: int = 0


def compact_lake(
    stores: Stores,
    tables: Sequence[str] = (),
    *,
    eager: bool,
    hear: Callable[[str], None] = lambda table: None,
) -> list[TableUpkeep]:
    """Merge small files of tables, all when none is named.

    Args:
        eager: merge every small file; otherwise only where enough of one size have gathered.
        hear: is told which table is next.

    Raises:
        UnknownNameError: there is no such table; nothing was done.
    """
    found = []
    for table in _chosen(stores, tables):
        hear(table)
        done: Compacted = stores.lake.compact(table, cluster_by=order_of(stores, table), eager=eager)
        found.append(
            TableUpkeep(table=table, n_merged=done.n_before, n_made=done.n_after, n_bytes=done.n_bytes)
        )
    return found


def vacuum_lake(
    stores: Stores,
    tables: Sequence[str] = (),
    *,
    retain_us: int,
    dry_run: bool = False,
    hear: Callable[[str], None] = lambda table: None,
) -> list[TableUpkeep]:
    """Remove from tables, all when none is named, what no version needs that counts; see `LakeWriter.vacuum`.

    Raises:
        UnknownNameError: there is no such table; nothing was done.
        RequestError: less is to be kept than readers and commits need.
    """
    if retain_us < LEAST_RETAINED_US:
        raise RequestError(
            f"{format_duration(retain_us)} is less than {format_duration(LEAST_RETAINED_US)}.",
            where="retention of the lake's files",
            mend="keep what was replaced for as long as the longest query takes, and an hour at least",
        )
    chosen = _chosen(stores, tables)
    pinned = pinned_versions(stores)
    found = []
    for table in chosen:
        hear(table)
        done: Vacuumed = stores.lake.vacuum(
            table, pinned=sorted(pinned[table]), retain_us=retain_us, dry_run=dry_run
        )
        found.append(
            TableUpkeep(
                table=table, n_removed=done.n_files, n_log_files=done.n_log_files, n_bytes=done.n_bytes
            )
        )
    return found


def pinned_versions(stores: Stores) -> defaultdict[str, set[int]]:
    """The versions that manifests of training and evaluation sets name, by table."""
    pinned: defaultdict[str, set[int]] = defaultdict(set)
    for manifest in manifests(stores.catalog):
        for table, version in manifest.tables.items():
            pinned[table].add(version)
    return pinned


def order_of(stores: Stores, table: str) -> str | None:
    """The column whose order the rows of a table's merged files have: the first that it has of the usual instants."""
    names = stores.lake.dataset(table).schema.names
    return next((name for name in _ORDER if name in names), None)


def _chosen(stores: Stores, tables: Sequence[str]) -> list[str]:
    known = stores.lake.tables()
    for table in tables:
        if table not in known:
            raise UnknownNameError(
                f"There is no table named {table!r} in the lake.",
                where=str(stores.data / "lake"),
                mend=f"known tables: {', '.join(known) or 'none'}",
            )
    return list(tables) or known
