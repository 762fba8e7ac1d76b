"""The one tree of errors. Imports nothing of ours; never formats a traceback.

Every error says what happened, where, and the mend. `code` is stable for ever: clients match on it,
never on the text. `retryable` says whether the same call may succeed later without a change.
"""

from __future__ import annotations

from typing import ClassVar


class VolanoError(Exception):
    """Root of every error that Volano raises on purpose.

    Args:
        what: one sentence: what is wrong.
        where: file and line, definition, table or address that it concerns; empty when unknown.
        mend: what to do about it.

    >>> print(VolanoError("Source 'clicks' has no table.", where="shop.py:12", mend="pass table=..."))
    Source 'clicks' has no table.
      where: shop.py:12
      mend:  pass table=...
    """

    code: ClassVar[str] = "volano"
    retryable: ClassVar[bool] = False

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what = what
        self.where = where
        self.mend = mend
        super().__init__(what)

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.mend:
            lines.append(f"  mend:  {self.mend}")
        return "\n".join(lines)


class DefinitionError(VolanoError):
    """One mistake in an author's declarations."""

    code = "definition"


class ProjectError(VolanoError):
    """All mistakes found in a project, reported together.

    Args:
        mistakes: every mistake, in file and line order.
    """

    code = "project"

    def __init__(self, mistakes: tuple[DefinitionError, ...]) -> None:
        self.mistakes = mistakes
        n = len(mistakes)
        super().__init__(f"{n} mistake{'' if n == 1 else 's'} in the project.")

    def __str__(self) -> str:
        return "\n".join([self.what, *(str(mistake) for mistake in self.mistakes)])


class PlanRefused(VolanoError):
    """The definitions are valid, yet applying them would break a promise."""

    code = "plan_refused"


class PartlyAppliedError(VolanoError):
    """Some steps of a plan could not be carried out; everything that does not depend on them is in force.

    Args:
        failures: (the step as a sentence, why), in the order of the plan.
        n_done: how many steps were carried out.
    """

    code = "partly_applied"

    def __init__(self, failures: tuple[tuple[str, VolanoError], ...], *, n_done: int) -> None:
        self.failures = failures
        n = len(failures)
        super().__init__(
            f"{n} of {n + n_done} steps could not be carried out; what does not depend on them is in force.",
            where="; ".join(step for step, _ in failures),
            mend="mend what is named below and run `volano apply` again: it does the rest",
        )

    def __str__(self) -> str:
        return "\n".join([super().__str__(), *(f"{step}: {error}" for step, error in self.failures)])


class AuthorCodeError(VolanoError):
    """An author's function raised or returned the wrong shape. `__cause__` keeps their traceback."""

    code = "author_code"


class RequestError(VolanoError):
    """A request or an event does not fit its declared schema."""

    code = "invalid_input"


class IdReusedError(RequestError):
    """A decision id came before with another request; the first one's answer stands."""

    code = "id_reused"


class UnknownNameError(VolanoError):
    """No definition, decision, source or model has this name."""

    code = "unknown_name"


class NotReadyError(VolanoError):
    """The project has not reached the state this verb needs (not applied, no release yet)."""

    code = "not_ready"


class ConfigError(VolanoError):
    """`volano.toml` or the environment holds a wrong or unknown value."""

    code = "config"


class MissingExtraError(VolanoError):
    """An optional dependency is not installed. The mend is the pip line."""

    code = "missing_extra"


class StoreError(VolanoError):
    """A store could not do what was asked; the vendor's error is the `__cause__`."""

    code = "store"


class TableUnreadableError(StoreError):
    """An author's table is not there, or cannot be read."""

    code = "table_unreadable"


class StoreBusyError(StoreError):
    """Another process holds the lock; the same call may succeed later."""

    code = "store_busy"
    retryable = True


class StoreFullError(StoreError):
    """No space left. Nothing that was accepted is lost; free space and call again."""

    code = "store_full"
    retryable = True


class StoreReadOnlyError(StoreError):
    """The data folder cannot be written."""

    code = "store_read_only"


class CorruptionError(StoreError):
    """Stored bytes do not match their digest or checksum."""

    code = "corruption"


class ConflictError(StoreError):
    """A compare-and-set found another value than the caller expected."""

    code = "conflict"
    retryable = True


class StateMismatchError(StoreError):
    """State was written by another definition than the one that reads it."""

    code = "state_mismatch"


class SealedStateError(StoreError):
    """Features were asked for at an instant before which online state keeps no rows any more."""

    code = "sealed_state"


class InvariantError(VolanoError):
    """A check that must always hold does not hold."""

    code = "invariant"


class JobError(VolanoError):
    """A recurring job failed, and has not succeeded since; its own error and mend are in the text."""

    code = "job"


class UnsupportedError(VolanoError):
    """A declared capability is absent in the chosen adapter."""

    code = "unsupported"


def problem_of(error: Exception) -> str:
    """Any exception as one line of at most 300 characters.

    >>> problem_of(StoreError("The disk is gone.", mend="mount it")), problem_of(KeyError("x"))
    ('The disk is gone.', "KeyError: 'x'")
    """
    text = error.what if isinstance(error, VolanoError) else f"{type(error).__name__}: {error}"
    return text.replace("\n", " ")[:300]
