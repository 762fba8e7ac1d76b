"""The project's adapters, found by entry point and opened on first use; closed together."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from volano.errors import StoreBusyError, StoreReadOnlyError
from volano.protocols.apply_log import ApplyLogReader, ApplyLogWriter
from volano.protocols.artifact_store import ArtifactWriter
from volano.protocols.catalog import CatalogWriter
from volano.protocols.journal import JournalReader, JournalWriter
from volano.protocols.lake import LakeWriter
from volano.protocols.online_store import OnlineReader, OnlineWriter
from volano.protocols.sql_engine import SqlEngine
from volano.runtime.config import Config
from volano.runtime.plugins import find, load

_CACHED: Final = (
    "journal",
    "journal_reader",
    "apply_log",
    "apply_log_reader",
    "lake",
    "catalog",
    "artifacts",
    "sql",
)
_MOST_WRITERS: Final = 8


class Stores:
    """Every store of one project.

    Args:
        folder: the project's folder; author's table addresses are relative to it.
        config: names the adapters and the data folder.
        writer: names the journal segments that this process appends to; no two processes share one.
        reads_online: open online state for reading only, beside the applier that writes it. The journal segments are
            then the first of `w0`, `w1`, ... that nobody has.

    Raises:
        UnknownNameError: there is no adapter of a name in the configuration.
        StoreReadOnlyError: on first use, when the data folder cannot be made or written.
    """

    def __init__(
        self, folder: Path, config: Config, *, writer: str = "w0", reads_online: bool = False
    ) -> None:
        self.folder = folder
        self.config = config
        self._writer = writer
        self.reads_online = reads_online
        self.data = (folder / config.data).resolve()
        self._online: dict[str, Any] = {}
        self._building: dict[str, Any] = {}
        self._opened: list[Any] = []
        for name in _adapters(config):
            find("volano.stores", name)

    def _open(self, name: str, below: str, *arguments: Any, **options: Any) -> Any:
        path = self.data / below
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreReadOnlyError(
                f"The data folder cannot be made: {error.strerror}.",
                where=str(self.data),
                mend="make the folder writable, or set `data` in volano.toml to one that is",
            ) from error
        opened = load("volano.stores", name)(path, *arguments, **options)
        self._opened.append(opened)
        return opened

    @cached_property
    def journal(self) -> JournalWriter:
        if not self.reads_online:
            return self.journal_writer(self._writer)
        # Beside a server others may be at work too, each for the length of a verb.
        for n in range(_MOST_WRITERS):
            try:
                return self.journal_writer(f"w{n}")
            except StoreBusyError:
                if n == _MOST_WRITERS - 1:
                    raise
        raise AssertionError("unreachable")

    def journal_writer(self, writer: str) -> JournalWriter:
        """Segments of a writer's own."""
        return self._open(f"journal_writer.{self.config.stores.journal}", "journal", writer)  # type: ignore[no-any-return]

    @cached_property
    def journal_reader(self) -> JournalReader:
        return self._open(f"journal_reader.{self.config.stores.journal}", "journal")  # type: ignore[no-any-return]

    @cached_property
    def apply_log(self) -> ApplyLogWriter:
        return self._open(f"apply_log.{self.config.stores.apply_log}", "apply_log")  # type: ignore[no-any-return]

    @cached_property
    def apply_log_reader(self) -> ApplyLogReader:
        """For whoever only looks: needs no lock, so it works beside a running process."""
        return self._open(f"apply_log_reader.{self.config.stores.apply_log}", "apply_log")  # type: ignore[no-any-return]

    def new_apply_log_reader(self) -> ApplyLogReader:
        """A reader for a thread of its own: each follows the log by itself."""
        return self._open(f"apply_log_reader.{self.config.stores.apply_log}", "apply_log")  # type: ignore[no-any-return]

    @cached_property
    def lake(self) -> LakeWriter:
        return self._open(f"lake.{self.config.stores.lake}", "lake")  # type: ignore[no-any-return]

    @cached_property
    def catalog(self) -> CatalogWriter:
        return self._open(f"catalog.{self.config.stores.catalog}", "catalog.sqlite")  # type: ignore[no-any-return]

    @cached_property
    def artifacts(self) -> ArtifactWriter:
        return self._open(f"artifacts.{self.config.stores.artifacts}", "artifacts")  # type: ignore[no-any-return]

    @cached_property
    def sql(self) -> SqlEngine:
        return load("volano.engines", "duckdb")(self.folder)  # type: ignore[no-any-return]

    def online(self, state: str) -> OnlineWriter:
        """The online store of one state name; opened once."""
        if state not in self._online:
            self._online[state] = self._open(
                f"online_store.{self.config.stores.online}",
                f"online/{state}",
                map_size=self.config.online_map_gib << 30,
                readonly=self.reads_online,
            )
        return self._online[state]  # type: ignore[no-any-return]

    def online_to_build(self, state: str) -> OnlineWriter:
        """An online store to be filled, for writing also where online state is only read; `built` lets it go."""
        if not self.reads_online:
            return self.online(state)
        if state not in self._building:
            adapter = f"online_store.{self.config.stores.online}"
            self._building[state] = self._open(
                adapter, f"online/{state}", map_size=self.config.online_map_gib << 30, readonly=False
            )
        return self._building[state]  # type: ignore[no-any-return]

    def built(self, state: str) -> None:
        """Sync a store that was filled and, where online state is only read, leave it to its applier."""
        if (store := self._building.pop(state, None)) is not None:
            self._opened.remove(store)
            store.close()

    @contextmanager
    def online_reader(self, state: str) -> Iterator[OnlineReader]:
        """The online store of a state name for whoever only looks; needs no lock.

        Raises:
            NotReadyError: a loss of power took it, and the applier has not built it again yet.
        """
        adapter = load("volano.stores", f"online_store.{self.config.stores.online}")
        reader = adapter(
            self.data / "online" / state, map_size=self.config.online_map_gib << 30, readonly=True
        )
        try:
            yield reader
        finally:
            reader.close()

    def take_online(self, state: str) -> OnlineWriter:
        """An open online store, now the caller's to close."""
        store = self._online.pop(state)
        self._opened.remove(store)
        return store  # type: ignore[no-any-return]

    def close_online(self, *, keep: str) -> None:
        """Close every online store but one."""
        for state in [state for state in self._online if state != keep]:
            self.take_online(state).close()

    def close(self) -> None:
        """Close everything that was opened, newest first."""
        self._close_all()

    def reopen(self, *, reads_online: bool) -> None:
        """Close everything and let every lock go; what is used next is opened anew."""
        self._close_all()
        self._online.clear()
        self._building.clear()
        for name in _CACHED:
            self.__dict__.pop(name, None)
        self.reads_online = reads_online

    def _close_all(self) -> None:
        while self._opened:
            close = getattr(self._opened.pop(), "close", None)
            if close is not None:
                close()


def _adapters(config: Config) -> list[str]:
    """The names of all adapters that a project uses."""
    stores = config.stores
    return [
        f"journal_writer.{stores.journal}",
        f"journal_reader.{stores.journal}",
        f"apply_log.{stores.apply_log}",
        f"apply_log_reader.{stores.apply_log}",
        f"online_store.{stores.online}",
        f"lake.{stores.lake}",
        f"catalog.{stores.catalog}",
        f"artifacts.{stores.artifacts}",
    ]
