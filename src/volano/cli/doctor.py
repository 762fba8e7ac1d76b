"""`volano doctor`: is this machine, this installation and this project's data folder in order? Changes nothing."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import typer

from volano.cli.failures import FAILED, failures_shown
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_table
from volano.errors import ConfigError, VolanoError

if TYPE_CHECKING:
    from volano.runtime.config import Config

LITTLE_SPACE: Final = 1 << 30
"""Less free disk than this, in bytes, is worth a warning."""

_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)[^;]*(?:;.*extra == ['\"]([a-z0-9_-]+)['\"])?")


class Symptom(NamedTuple):
    """One thing that was looked at: what, how it is, and details or the mend."""

    what: str
    state: Literal["ok", "note", "bad"]
    detail: str


def doctor(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """Look at versions, extras, adapters and the data folder; exit 1 when something is broken."""
    with failures_shown(debug):
        symptoms = [*installation(), *adapters(), *project(folder)]
        if json:
            print_json([symptom._asdict() for symptom in symptoms])
        else:
            print_table("doctor", ("what", "state", "detail"), symptoms)
        if any(symptom.state == "bad" for symptom in symptoms):
            raise typer.Exit(FAILED)


def installation() -> Iterator[Symptom]:
    """Python, the package, and what it requires; extras that are not installed are no fault."""
    yield Symptom("python", "ok", f"{sys.version.split()[0]} on {platform.platform()}")
    try:
        yield Symptom("volano", "ok", metadata.version("volano"))
        requirements = metadata.requires("volano") or []
    except metadata.PackageNotFoundError:
        yield Symptom("volano", "bad", "not installed, so no adapter can be found: pip install volano")
        return
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found is None or found[1] == "volano":
            continue
        name, extra = found.groups()
        try:
            yield Symptom(_named(name, extra), "ok", metadata.version(name))
        except metadata.PackageNotFoundError:
            mend = (
                f"not installed: pip install 'volano[{extra}]'" if extra else f"missing: pip install {name}"
            )
            yield Symptom(_named(name, extra), "note" if extra else "bad", mend)


def _named(name: str, extra: str | None) -> str:
    return f"{name} [{extra}]" if extra else name


def adapters() -> Iterator[Symptom]:
    """What is offered under each group of entry points."""
    from volano.runtime.plugins import GROUPS, names

    for group in GROUPS:
        offered = names(group)
        yield Symptom(
            group, "ok" if offered else "bad", ", ".join(offered) or "none found: install the package again"
        )


def project(folder: Path) -> Iterator[Symptom]:
    """The project of a folder: its configuration, its data folder, and whether it can be opened."""
    from volano.runtime.config import CONFIG_FILE, read_config

    if not (folder / CONFIG_FILE).exists():
        yield Symptom("project", "note", f"no {CONFIG_FILE} in {folder.resolve()}")
        return
    try:
        config = read_config(folder)
    except ConfigError as error:
        yield Symptom("project", "bad", str(error))
        return
    yield Symptom("project", "ok", f"namespace {config.namespace}")
    yield from _data_folder(folder, config)


def _data_folder(folder: Path, config: Config) -> Iterator[Symptom]:
    data = (folder / config.data).resolve()
    nearest = next(path for path in (data, *data.parents) if path.exists())
    if not os.access(nearest, os.W_OK):
        yield Symptom("data folder", "bad", f"{nearest} cannot be written: make it writable, or set `data`")
        return
    free = shutil.disk_usage(nearest).free
    yield Symptom("data folder", "ok", f"{data}{'' if data.exists() else ' (not made yet)'}")
    yield Symptom("free disk", "ok" if free >= LITTLE_SPACE else "note", f"{free / (1 << 30):.1f} GiB")
    if data.exists():
        yield _locks(data)
        yield from _opened(folder)


def _locks(data: Path) -> Symptom:
    """Whether another process works in the data folder: which lock files are held."""
    held = [str(path.relative_to(data)) for path in sorted(data.rglob("*.lock")) if _is_held(path)]
    if held:
        return Symptom("lock", "note", f"held by a running process: {', '.join(held)}")
    return Symptom("lock", "ok", "free")


def _is_held(path: Path) -> bool:
    import fcntl

    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _opened(folder: Path) -> Iterator[Symptom]:
    from volano.project import Project

    try:
        with Project.open(folder) as opened:
            state = opened.status()
            problems = opened.problems() if state.decisions else {}
    except VolanoError as error:
        yield Symptom("state", "bad", str(error))
        return
    yield Symptom("state", "ok", f"applied {state.applied_at}, newest fact {state.last_stamp}")
    for each in state.decisions:
        serves = f"{each.champion} serves" if each.since else each.champion
        problem = problems.get(each.decision, "")
        detail = f"the fallback answers: {problem}" if problem else serves
        yield Symptom(f"decision {each.decision}", "bad" if problem else "ok", detail)
    for model in state.outdated:
        which = "learnt from" if model.part == "training" else "was judged on"
        changed = f"{model.n_changed:,} of {model.n_members:,} labels that it {which} have changed"
        yield Symptom(f"model {model.version}", "note", f"{changed}, first {model.first}: {model.mend}")
