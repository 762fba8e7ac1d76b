"""`volano token create|list|revoke`: who may do what over HTTP."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from volano.cli.failures import failures_shown
from volano.cli.options import HERE, Debug, Folder, Json
from volano.cli.output import print_json, print_table, when

if TYPE_CHECKING:
    from volano.protocols.catalog import CatalogWriter

app = typer.Typer(help="Tokens: who may do what over HTTP.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Who will use it.")],
    role: Annotated[
        list[str], typer.Option("--role", help="decide, observe, read, review, release or admin.")
    ],
    only: Annotated[
        list[str] | None, typer.Option("--only", help="Limit it to this decision or source.")
    ] = None,
    folder: Folder = HERE,
    debug: Debug = False,
) -> None:
    """Make a token and print it, once: only a digest is kept."""
    with failures_shown(debug), _catalog(folder) as catalog:
        from volano.runtime.clock import SystemClock
        from volano.runtime.tokens import create_token, parse_roles

        now = SystemClock().now()
        typer.echo(
            create_token(catalog, name, parse_roles(role), names=only or (), at=now, entropy=os.urandom)
        )


@app.command("list")
def list_all(folder: Folder = HERE, json: Json = False, debug: Debug = False) -> None:
    """List tokens, also revoked ones; never the secrets."""
    with failures_shown(debug), _catalog(folder) as catalog:
        from volano.runtime.tokens import list_tokens

        tokens = list_tokens(catalog)
        if json:
            print_json(tokens)
            return
        rows = [
            (
                token.name,
                ", ".join(token.roles),
                ", ".join(token.names) or "all",
                when(token.created_at),
                when(token.revoked_at),
            )
            for token in tokens
        ]
        print_table("tokens", ("name", "roles", "only", "created", "revoked"), rows)


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the token.")],
    folder: Folder = HERE,
    debug: Debug = False,
) -> None:
    """Let a token count no more; every worker knows within a second."""
    with failures_shown(debug), _catalog(folder) as catalog:
        from volano.runtime.clock import SystemClock
        from volano.runtime.tokens import revoke_token

        revoke_token(catalog, name, at=SystemClock().now())
        typer.echo(f"{name} is revoked.")


@contextmanager
def _catalog(folder: Path) -> Iterator[CatalogWriter]:
    from volano.runtime.config import read_config
    from volano.runtime.stores import Stores

    stores = Stores(folder, read_config(folder))
    try:
        yield stores.catalog
    finally:
        stores.close()
