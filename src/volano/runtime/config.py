"""`volano.toml` and the environment, read once into one frozen `Config`. The only reader of the environment."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from volano.errors import ConfigError
from volano.values.identities import is_namespace
from volano.values.instants import parse_duration

CONFIG_FILE = "volano.toml"
_ENVIRONMENT_PREFIX = "VOLANO_"


class StoreNames(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which adapter serves each protocol: the part after the dot of an entry point in the group `volano.stores`."""

    journal: str = "file"
    apply_log: str = "file"
    online: str = "lmdb"
    lake: str = "delta"
    catalog: str = "sqlite"
    artifacts: str = "file"


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that can be set without touching the definitions.

    Args:
        namespace: the team or project that every name belongs to.
        data: the data folder, relative to the folder or absolute.
        commit_every: how often the committer writes the lake; larger batches are cheaper.
        label_every: how often labels are brought up to date.
        future_tolerance: how far in the future an event's own time may lie at the door.
        parent_within: how long an exposure, action taken or observation waits for the decision that it names.
        keep_replaced: how long the lake keeps files that newer ones replaced, for readers that are at them.
        max_body_mib: most that the body of one HTTP request may have.
        max_batch_events: most events that one HTTP request may bring.
        max_behind_mib: observations are refused (429) while more of the journal than this waits for the applier.
        online_map_gib: address space of the embedded online store (sparse; not disk).
        stores: the adapters.
    """

    namespace: str = "default"
    data: str = ".volano"
    commit_every: str = "1m"
    label_every: str = "1d"
    future_tolerance: str = "5m"
    parent_within: str = "7d"
    keep_replaced: str = "7d"
    max_body_mib: int = 16
    max_batch_events: int = 10_000
    max_behind_mib: int = 256
    online_map_gib: int = 64
    stores: StoreNames = StoreNames()

    @property
    def commit_every_us(self) -> int:
        return parse_duration(self.commit_every)

    @property
    def label_every_us(self) -> int:
        return parse_duration(self.label_every)

    @property
    def parent_within_us(self) -> int:
        return parse_duration(self.parent_within)

    @property
    def keep_replaced_us(self) -> int:
        return parse_duration(self.keep_replaced)

    @property
    def future_tolerance_us(self) -> int:
        return parse_duration(self.future_tolerance)


def read_config(folder: Path, environment: Mapping[str, str] | None = None) -> Config:
    """Read `volano.toml` of a folder; `VOLANO_DATA=...` and the like override single keys.

    Args:
        folder: the project's folder.
        environment: in place of the process's own, for tests.

    Raises:
        ConfigError: no such file, not TOML, an unknown key (the nearest is suggested) or a wrong value.
    """
    path = folder / CONFIG_FILE
    try:
        written: dict[str, Any] = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise ConfigError(
            f"There is no {CONFIG_FILE} in {folder}.",
            where=str(path),
            mend="run `volano init FOLDER` for a new project, or go to the project's folder",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mend = 'write one `key = value` a line, texts in quotes: namespace = "flights"'
        raise ConfigError(f"{CONFIG_FILE} is not valid TOML: {error}", where=str(path), mend=mend) from error
    _refuse_unknown(written, Config, str(path))
    _refuse_unknown(written.get("stores", {}), StoreNames, f"{path} [stores]")
    source = os.environ if environment is None else environment
    for field in msgspec.structs.fields(Config):
        override = source.get(_ENVIRONMENT_PREFIX + field.name.upper())
        if override is not None:
            written[field.name] = override
    try:
        config = msgspec.convert(written, Config, strict=False)
    except msgspec.ValidationError as error:
        mend = "give the key, named at the end, a value of the type it asks for"
        raise ConfigError(
            f"{CONFIG_FILE} holds a wrong value: {error}", where=str(path), mend=mend
        ) from error
    if not is_namespace(config.namespace):
        raise ConfigError(
            f"{config.namespace!r} is no namespace.",
            where=str(path),
            mend='write a letter, then letters, digits, `_` and `-`: namespace = "shop"',
        )
    for key in ("commit_every", "label_every", "future_tolerance", "keep_replaced", "parent_within"):
        try:
            parse_duration(getattr(config, key))
        except ValueError as error:
            mend = f'write a number and a unit: {key} = "90s"'
            raise ConfigError(f"{key}: {error}", where=str(path), mend=mend) from error
    return config


def _refuse_unknown(written: object, shape: type[msgspec.Struct], where: str) -> None:
    known = [field.name for field in msgspec.structs.fields(shape)]
    if not isinstance(written, dict):
        raise ConfigError(f"{where} must be a table of keys.", where=where, mend="write it as [stores]")
    for key in written:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            mend = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            raise ConfigError(f"Unknown key {key!r}.", where=where, mend=mend)
