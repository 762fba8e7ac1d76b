"""Two runs in two folders and two processes give the same sets, artifacts, releases and rows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project.world import World, differences, items, write_project

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_another_process_in_another_folder_learns_and_decides_the_same(finished, fresh):
    folder = write_project(fresh / "again")
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "PYTHONHASHSEED": "4711",
        "TZ": "Asia/Tokyo",
    }
    subprocess.run([sys.executable, "-m", "tests.project.world", str(folder)], env=environment, check=True)
    with World(finished, items()) as one, World(folder, items()) as other:
        assert differences(one, other) == []
