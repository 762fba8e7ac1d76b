"""`volano serve`: the decision API and the door for observations, over HTTP."""

from __future__ import annotations

import signal
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from volano.cli.failures import failures_shown
from volano.cli.options import HERE, Debug, Folder


def serve(
    host: Annotated[str, typer.Option("--host", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", help="The port; 0 takes a free one.", min=0, max=65_535)
    ] = 8066,
    workers: Annotated[int, typer.Option("--workers", help="HTTP workers: about one a core.", min=1)] = 2,
    folder: Folder = HERE,
    debug: Debug = False,
) -> None:
    """Serve decisions and take observations in, until interrupted; then everything accepted is committed."""
    with failures_shown(debug):
        from volano.server.serve import serve as run

        stop = Event()

        def ask(_signal: int, _frame: FrameType | None) -> None:
            stop.set()

        signal.signal(signal.SIGTERM, ask)
        signal.signal(signal.SIGINT, ask)
        run(folder, host, port, workers=workers, stop=stop, say=lambda line: typer.echo(line, err=False))
