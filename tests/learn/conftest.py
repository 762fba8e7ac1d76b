"""Real stores in a folder of their own, and one world for all tests that only read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.learn.world import Stores, World, make_world, open_stores


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return open_stores(tmp_path)


@pytest.fixture(scope="session")
def world() -> World:
    return make_world()
