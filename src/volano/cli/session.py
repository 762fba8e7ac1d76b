"""A project, open for the length of one verb."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from volano.cli.failures import failures_shown

if TYPE_CHECKING:
    from volano.project import Project


@contextmanager
def open_project(folder: Path, *, debug: bool) -> Iterator[Project]:
    """The project of a folder. Errors are shown and end the verb; the project is closed either way."""
    with failures_shown(debug):
        from volano.cli.progress import make_reporter
        from volano.project import Project

        project = Project.open(folder, reporter=make_reporter())
        try:
            yield project
        finally:
            project.close()
