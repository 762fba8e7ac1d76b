"""How an error ends a verb: what, where and the mend on stderr, and an exit code. No traceback unless asked
for.

Exit codes: 0 done; 1 it failed, or a check found something; 2 the author or the call must change; 130
interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import typer

from volano.errors import (
    AuthorCodeError,
    ConfigError,
    DefinitionError,
    MissingExtraError,
    NotReadyError,
    PlanRefused,
    ProjectError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
    VolanoError,
)

FAILED: Final = 1
AUTHOR_MUST_CHANGE: Final = 2
INTERRUPTED: Final = 130

_AUTHOR_ERRORS: Final = (
    AuthorCodeError,
    ConfigError,
    DefinitionError,
    MissingExtraError,
    NotReadyError,
    PlanRefused,
    ProjectError,
    RequestError,
    UnknownNameError,
    UnsupportedError,
)


def exit_code(error: VolanoError) -> int:
    """2 when the author or the call must change, 1 for a failure."""
    return AUTHOR_MUST_CHANGE if isinstance(error, _AUTHOR_ERRORS) else FAILED


@contextmanager
def failures_shown(debug: bool) -> Iterator[None]:
    """Turn what a verb raises into words and an exit code; with `debug` the traceback comes through."""
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("Stopped. What was done so far is kept; run it again to go on.", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except VolanoError as error:
        if debug:
            raise
        typer.echo(f"{typer.style('error:', fg='red', bold=True)} {error}", err=True)
        raise typer.Exit(exit_code(error)) from error
    except BrokenPipeError:
        raise typer.Exit(FAILED) from None
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"{typer.style('error:', fg='red', bold=True)} {type(error).__name__}: {error}\n"
            "  mend:  this is a mistake in Volano; run it again with --debug and report what it shows",
            err=True,
        )
        raise typer.Exit(FAILED) from error
