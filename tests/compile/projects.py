"""Projects for tests: texts that are loaded as an author's files are."""

from __future__ import annotations

from pathlib import Path

from volano.compile.project import Compiled, compile_project
from volano.runtime.loader import load_project

FLIGHTS = Path(__file__).parents[1] / "spec" / "projects" / "flights.py"
AIRPORTS = FLIGHTS.with_name("airports.py")


def compiled(path: Path = FLIGHTS) -> Compiled:
    """A project, compiled."""
    return compile_project(load_project(path), namespace="flights")


def edited(folder: Path, *edits: tuple[str, str], of: Path = FLIGHTS) -> Path:
    """A copy of a project with some texts replaced; each must occur."""
    text = of.read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text, old
        text = text.replace(old, new)
    copy = folder / of.name
    copy.write_text(text, encoding="utf-8")
    return copy
