"""Templates: the projects that ship with the package, and their writing into a new folder."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

from volano.errors import ConfigError, StoreReadOnlyError, UnknownNameError
from volano.runtime.config import CONFIG_FILE
from volano.values.identities import is_namespace, namespace_of

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

_PLACE: Final = b"{namespace}"
"""What stands for the namespace in a template's configuration."""


def template_names() -> list[str]:
    """The templates that ship with the package, sorted."""
    return sorted(
        entry.name for entry in _templates().iterdir() if entry.is_dir() and entry.name[0] not in "._"
    )


def write_template(name: str, folder: Path, *, namespace: str | None = None) -> list[Path]:
    """Copy a template; returns the files written, sorted.

    Args:
        namespace: of the project; derived from the folder's name when None.

    Raises:
        UnknownNameError: there is no such template.
        ConfigError: the folder is not empty, or there is no valid namespace; nothing was written.
        StoreReadOnlyError: the folder cannot be written.
    """
    if name not in template_names():
        raise UnknownNameError(
            f"There is no template named {name!r}.",
            where="--template",
            mend=f"known names: {', '.join(template_names())}",
        )
    chosen = _namespace(folder, namespace)
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ConfigError(
                f"{folder} exists and is not an empty folder.", where=str(folder), mend="name a new folder"
            )
        written = []
        for below, file in _files(_templates() / name):
            target = folder / below
            target.parent.mkdir(parents=True, exist_ok=True)
            data = file.read_bytes()
            target.write_bytes(data.replace(_PLACE, chosen.encode()) if target.name == CONFIG_FILE else data)
            written.append(target)
    except OSError as error:
        raise StoreReadOnlyError(
            f"The project cannot be written: {error.strerror}.",
            where=str(folder),
            mend="choose a writable folder",
        ) from error
    return written


def _namespace(folder: Path, given: str | None) -> str:
    found = namespace_of(folder.resolve().name) if given is None else given
    if not is_namespace(found):
        what = f"{folder.resolve().name!r} suggests" if given is None else "That is"
        raise ConfigError(
            f"{what} no namespace: {found!r}.",
            where=str(folder),
            mend="pass --namespace: a letter, then letters, digits, `_` and `-`, such as 'shop'",
        )
    return found


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
