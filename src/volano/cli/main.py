"""The application `volano`: its verbs, registered. Imports nothing heavy, so that `--help` answers at once."""

from __future__ import annotations

import typer

from volano import __version__
from volano.cli import (
    apply,
    check,
    dataset,
    decisions,
    demo,
    doctor,
    init,
    jobs,
    lake,
    plan,
    quarantine,
    refresh,
    release,
    rollback,
    serve,
    sql,
    status,
    token,
    train,
    worker,
)

app = typer.Typer(
    name="volano",
    help="Operational machine learning as one loop: decide, collect, organize, learn.",
    epilog="A project begins with: volano init FOLDER",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"volano {__version__}")
        raise typer.Exit


@app.callback()
def _volano(
    version: bool = typer.Option(
        False, "--version", help="Print the version and stop.", callback=_print_version, is_eager=True
    ),
) -> None: ...


app.command()(init.init)
app.command()(plan.plan)
app.command()(apply.apply)
app.command()(demo.demo)
app.command()(refresh.refresh)
app.command()(status.status)
app.add_typer(decisions.app, name="decisions")
app.command()(sql.sql)
app.add_typer(lake.app, name="lake")
app.command()(train.train)
app.add_typer(dataset.app, name="dataset")
app.command()(release.release)
app.command()(rollback.rollback)
app.command()(worker.worker)
app.command()(jobs.jobs)
app.add_typer(quarantine.app, name="quarantine")
app.command()(check.check)
app.command()(serve.serve)
app.add_typer(token.app, name="token")
app.command()(doctor.doctor)
