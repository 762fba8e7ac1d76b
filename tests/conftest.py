"""What all tests share: Hypothesis profiles and golden files. Holds no fixture of one subject only."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
from hypothesis import settings

settings.register_profile("dev", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "dev")

REWRITE = os.environ.get("VOLANO_GOLDEN") == "rewrite"


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare a text with the file `golden/<name>` beside the test; `make golden` rewrites the files.

    A test says `golden("plan_of_two_views.txt", text)`.
    """
    folder = request.path.parent / "golden"

    def check(name: str, text: str) -> None:
        file = folder / name
        if REWRITE:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"{file} does not exist: run `make golden` and read the diff"
        assert text == file.read_text(encoding="utf-8"), (
            f"{file} differs: run `make golden` and read the diff"
        )

    return check


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """While golden files are rewritten, run only the tests that hold one."""
    if not REWRITE:
        return
    keep = [item for item in items if "golden" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in keep])
    items[:] = keep
