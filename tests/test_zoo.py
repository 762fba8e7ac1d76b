"""A zoo of wrong projects: what an author reads for each mistake. `make golden` rewrites the texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from volano.compile.project import compile_project
from volano.errors import ProjectError
from volano.runtime.loader import load_project

ZOO = Path(__file__).parent / "zoo"
ANIMALS = sorted(path.stem for path in ZOO.glob("*.py") if path.stem not in ("conftest", "healthy"))


@pytest.mark.parametrize("animal", ANIMALS)
def test_a_wrong_project_is_told_where_and_how_to_mend(
    animal: str, golden: Callable[[str, str], None]
) -> None:
    with pytest.raises(ProjectError) as caught:
        compile_project(load_project(ZOO / f"{animal}.py"))
    assert all(mistake.mend and mistake.where for mistake in caught.value.mistakes)
    golden(f"zoo/{animal}.txt", f"{caught.value}\n")


def test_the_healthy_project_compiles() -> None:
    assert compile_project(load_project(ZOO / "healthy.py")).warnings == ()


def test_the_zoo_is_large_enough() -> None:
    assert len(ANIMALS) >= 30


def test_every_text_has_its_animal() -> None:
    assert sorted(path.stem for path in (ZOO.parent / "golden" / "zoo").glob("*.txt")) == ANIMALS
