"""Worlds that tests share: built once, closed, and copied by whoever changes one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.project.world import World, copy_project, items, write_project

HALF = 600
"""How many items the unfinished world has seen."""

_MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def ground() -> Iterator[Path]:
    """A folder for worlds: in memory where there is such a place, for a kill, unlike a loss of power, forgets nothing."""
    in_memory = _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK)
    folder = Path(tempfile.mkdtemp(prefix="volano-", dir=_MEMORY if in_memory else None))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def finished(ground: Path) -> Path:
    """The project of a world that ran from the first item to the last, without disturbance."""
    folder = write_project(ground / "finished")
    with World(folder, items()) as world:
        world.begin()
        world.run(start=0)
        world.project.drain(commit=True)
    return folder


@pytest.fixture(scope="session")
def unfinished(ground: Path) -> Path:
    """The project of a world that stopped, in good order, after `HALF` items."""
    folder = write_project(ground / "unfinished")
    with World(folder, items()) as world:
        world.begin()
        world.run(HALF, start=0)
        world.project.drain(commit=True)
    return folder


@pytest.fixture
def copy(ground: Path) -> Iterator[Callable[[Path], Path]]:
    """Copies a project that nobody has open, for this test to change."""
    made: list[Path] = []

    def copied(source: Path) -> Path:
        made.append(Path(tempfile.mkdtemp(dir=ground)) / source.name)
        return copy_project(source, made[-1])

    yield copied
    for folder in made:
        shutil.rmtree(folder.parent)


@pytest.fixture
def fresh(ground: Path) -> Iterator[Path]:
    """An empty folder of this test's own."""
    folder = Path(tempfile.mkdtemp(dir=ground))
    yield folder
    shutil.rmtree(folder)
