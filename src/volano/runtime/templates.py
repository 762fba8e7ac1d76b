"""Templates: the projects that ship with the package, and their writing into a new folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from volano.errors import ConfigError, StoreReadOnlyError, UnknownNameError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


def template_names() -> list[str]:
    """The templates that ship with the package, sorted."""
    return sorted(
        entry.name for entry in _templates().iterdir() if entry.is_dir() and entry.name[0] not in "._"
    )


def write_template(name: str, folder: Path) -> list[Path]:
    """Copy a template; returns the files written, sorted.

    Raises:
        UnknownNameError: there is no such template.
        ConfigError: the folder is not empty; nothing was written.
        StoreReadOnlyError: the folder cannot be written.
    """
    if name not in template_names():
        raise UnknownNameError(
            f"There is no template named {name!r}.",
            where="--template",
            mend=f"known names: {', '.join(template_names())}",
        )
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} exists and is not an empty folder.", where=str(folder), mend="name a new folder"
            )
        written = []
        for below, file in _files(_templates() / name):
            target = folder / below
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
            written.append(target)
    except OSError as error:
        raise StoreReadOnlyError(
            f"The project cannot be written: {error.strerror}.",
            where=str(folder),
            mend="choose a writable folder",
        ) from error
    return written


def _templates() -> Traversable:
    return files("volano") / "templates"


def _files(folder: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name == "__pycache__":
            continue
        if entry.is_dir():
            yield from _files(entry, f"{below}{entry.name}/")
        else:
            yield below + entry.name, entry
