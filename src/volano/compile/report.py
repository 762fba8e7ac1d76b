"""Mistakes, collected while compiling and raised together."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

import msgspec

from volano.errors import DefinitionError, ProjectError


class Caution(msgspec.Struct, frozen=True):
    """A warning: the project compiles, and yet something is probably not as its author wants it."""

    what: str
    where: str
    mend: str

    def __str__(self) -> str:
        return f"{self.what}\n  where: {self.where}\n  mend:  {self.mend}"


class Report:
    """All mistakes and warnings of one compilation, with the file and line of each."""

    def __init__(self) -> None:
        self._mistakes: dict[tuple[str, int, str], DefinitionError] = {}
        self._cautions: dict[tuple[str, int, str], Caution] = {}

    def mistake(self, what: str, *, file: str, line: int, mend: str) -> None:
        """Note one mistake; the same again is noted once."""
        error = DefinitionError(what, where=f"{file}:{line}", mend=mend)
        self._mistakes.setdefault((file, line, what), error)

    def caution(self, what: str, *, file: str, line: int, mend: str) -> None:
        """Note one warning."""
        self._cautions.setdefault((file, line, what), Caution(what, f"{file}:{line}", mend))

    @property
    def cautions(self) -> tuple[Caution, ...]:
        """Every warning, in file and line order."""
        return tuple(caution for _, caution in sorted(self._cautions.items(), key=lambda item: item[0]))

    def raise_mistakes(self) -> None:
        """Raise ProjectError with every mistake, in file and line order; do nothing when there is none."""
        if self._mistakes:
            ordered = sorted(self._mistakes.items(), key=lambda item: item[0])
            raise ProjectError(tuple(error for _, error in ordered))


def nearest(name: object, known: Iterable[str]) -> str:
    """How to mend a wrong name: the nearest known one, or all of them.

    >>> nearest("distanse", ["distance", "origin"])
    "did you mean 'distance'? (known: distance, origin)"
    >>> nearest("x", [])
    'there are none'
    """
    names = list(known)
    if not names:
        return "there are none"
    listed = f"known: {', '.join(names[:12])}{', ...' if len(names) > 12 else ''}"
    near = difflib.get_close_matches(str(name), names, n=1, cutoff=0.6)
    return f"did you mean {near[0]!r}? ({listed})" if near else listed
