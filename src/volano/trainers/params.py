"""Checking a trainer's parameters: unknown names and wrong types are the author's mistakes, said all at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from volano.errors import DefinitionError


def refuse_unknown(trainer: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse parameters that a trainer does not know, with the nearest name.

    Raises:
        DefinitionError: at least one is unknown; the mend has a line for each.
    """
    names = sorted(known)
    wrong = sorted(set(given) - set(names))
    if wrong:
        raise_mistakes(trainer, [_unknown(name, names) for name in wrong])


def raise_mistakes(trainer: str, mistakes: Sequence[str]) -> None:
    """Raise every mistake in one error."""
    raise DefinitionError(
        f"Trainer {trainer!r} cannot use its parameters: {'; '.join(mistakes)}.",
        where=f"trainer {trainer}",
        mend="mend the arguments of the trainer in the project file",
    )


def _unknown(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"{name!r} is unknown" + (f", did you mean {near[0]!r}?" if near else "")
