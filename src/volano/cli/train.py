"""`volano train`: one model version, now."""

from __future__ import annotations

from typing import Annotated

import typer

from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json
from volano.cli.session import open_project


def train(
    model: Annotated[str, typer.Argument(help="Name of the model.")],
    folder: Folder = HERE,
    json: Json = False,
    debug: Debug = False,
) -> None:
    """Build a training set as of now and train a version. It serves only once it is released."""
    with open_project(folder, debug=debug) as project:
        version = project.train(model)
        if json:
            print_json(version)
            return
        typer.echo(f"{version.version}: trained on {version.training_set} ({version.training_set_hash[:12]})")
        for metric, value in version.metrics.items():
            typer.echo(f"  {metric}: {value:.4g}")
        typer.echo("Next: volano release --decision NAME")
