"""`volano demo`: a year of real data through the whole loop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from volano.cli.failures import FAILED, failures_shown
from volano.cli.options import Debug
from volano.cli.progress import make_reporter


def demo(
    name: Annotated[str, typer.Argument(help="Which demo: flights.")] = "flights",
    report: Annotated[
        Path | None, typer.Option("--report", help="Write the result to this file, as JSON.")
    ] = None,
    sample: Annotated[
        float,
        typer.Option("--sample", help="The share of the planes to replay; 0.1 is quick.", min=0.001, max=1.0),
    ] = 1.0,
    folder: Annotated[
        Path | None, typer.Option("--folder", "-C", help="Keep the project there.", show_default="a new one")
    ] = None,
    debug: Debug = False,
) -> None:
    """Replay a demo: decisions, outcomes, labels, challengers and releases, in time order."""
    with failures_shown(debug):
        from volano.runtime.demo import run_demo  # type: ignore[import-not-found,import-untyped,attr-defined,unused-ignore]

        outcome = run_demo(name, folder=folder, sample=sample, report=report, reporter=make_reporter())
        typer.echo(outcome.text)
        if not outcome.is_sound:
            raise typer.Exit(FAILED)
