"""Releases: pure transitions from one release event to the next, and the ledger they are appended to.

The ledger stream `release/<decision>` holds every transition; what serves is a view over it. Nothing is ever changed:
a rollback is one more entry. Appending is compare-and-set: whoever judged against an outdated champion is refused
with a ConflictError and judges again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from volano.errors import ConflictError, InvariantError, NotReadyError, UnknownNameError
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.records.learning import Evaluation, ModelVersion, ReleaseEvent
from volano.values.instants import Instant

RELEASED: Final = "released"
REFUSED: Final = "refused"
ROLLED_BACK: Final = "rolled_back"
APPLIED: Final = "applied"

Verify = Callable[[str], object]
"""Loads a model version by name and raises when it cannot be loaded (see `learn.train.load_version`)."""


# --- reading ---------------------------------------------------------------------------------------------------


def stream_of(decision: str) -> str:
    """The ledger stream of a decision's releases."""
    return f"release/{decision}"


def history(catalog: CatalogReader, decision: str) -> list[ReleaseEvent]:
    """Every transition of a decision, oldest first."""
    return [_decode(entry.body) for entry in catalog.entries(stream_of(decision))]


def current(catalog: CatalogReader, decision: str) -> ReleaseEvent | None:
    """The newest transition, or None before the first release.

    Its `champion`, `bundle` and `release_id` are what serves, also when it is a refusal.
    """
    entry = catalog.last_entry(stream_of(decision))
    return None if entry is None else _decode(entry.body)


def find_verdict(
    catalog: CatalogReader, decision: str, challenger: str, *, at: Instant, actor: str
) -> ReleaseEvent | None:
    """The verdict that a run of a job already gave on a challenger, or None: a killed run that repeats finds it.

    For every other run it is no answer: the champion and the gate may be others by then.

    Args:
        at: the scheduled instant of the run.
        actor: who runs it.
    """
    for event in reversed(history(catalog, decision)):
        if event.outcome in (RELEASED, REFUSED) and (event.challenger, event.at, event.actor) == (
            challenger,
            at,
            actor,
        ):
            return event
    return None


def in_force(catalog: CatalogReader, decision: str) -> ReleaseEvent | None:
    """The transition that put in force what serves, or None before the first release; a refusal puts nothing."""
    events = (event for event in reversed(history(catalog, decision)) if event.outcome != REFUSED)
    return next(events, None)


def champions(events: Sequence[ReleaseEvent]) -> list[ReleaseEvent]:
    """The releases in force, the serving one last: what a rollback goes back through.

    Each names the bundle that it was last bound to.
    """
    standing: list[ReleaseEvent] = []
    for event in events:
        if event.outcome == RELEASED:
            standing.append(event)
        elif event.outcome == ROLLED_BACK:
            names = [release.champion for release in standing]
            del standing[names.index(event.champion) + 1 :]
            standing[-1] = msgspec.structs.replace(standing[-1], bundle=event.bundle)
        elif event.outcome == APPLIED:
            standing[-1] = msgspec.structs.replace(standing[-1], bundle=event.bundle)
    return standing


# --- transitions -----------------------------------------------------------------------------------------------


def first_release(
    decision: str,
    version: ModelVersion,
    *,
    at: Instant,
    actor: str,
    reason: str,
    evidence: Sequence[Evaluation],
    bundle: str | None = None,
) -> ReleaseEvent:
    """The first version goes live. Its evidence is its own evaluation; there is no champion to compare with.

    Args:
        bundle: whose code it serves with; the one it was trained with when None.

    Raises:
        InvariantError: there is no evidence.
    """
    _need_evidence(evidence, version.version)
    return ReleaseEvent(
        release_id=_release_id(decision, 1),
        decision=decision,
        outcome=RELEASED,
        challenger=version.version,
        champion=version.version,
        previous=None,
        first=version.version,
        bundle=bundle or version.bundle,
        at=at,
        actor=actor,
        reason=reason,
        evidence=tuple(evidence),
    )


def release(
    before: ReleaseEvent,
    challenger: ModelVersion,
    *,
    at: Instant,
    actor: str,
    reason: str,
    evidence: Sequence[Evaluation],
    verify: Verify,
    bundle: str | None = None,
) -> ReleaseEvent:
    """The challenger replaces the champion.

    Args:
        before: the newest transition.
        evidence: the comparison that it passed.
        verify: loads a version; both the challenger and the rollback target must load.
        bundle: whose code it serves with; the one it was trained with when None.

    Raises:
        InvariantError: there is no evidence, or it compares with nothing.
    """
    _need_evidence(evidence, challenger.version)
    if not any(evaluation.champion is not None for evaluation in evidence):
        raise InvariantError(
            f"The evidence for {challenger.version!r} compares with no champion.",
            mend="judge it against the champion on the same rows",
        )
    verify(challenger.version)
    verify(before.champion)
    return msgspec.structs.replace(
        before,
        release_id=_next_id(before),
        outcome=RELEASED,
        challenger=challenger.version,
        champion=challenger.version,
        previous=before.champion,
        bundle=bundle or challenger.bundle,
        at=at,
        actor=actor,
        reason=reason,
        evidence=tuple(evidence),
    )


def refuse(
    before: ReleaseEvent,
    challenger: str,
    *,
    at: Instant,
    actor: str,
    reason: str,
    evidence: Sequence[Evaluation] = (),
) -> ReleaseEvent:
    """The champion stays. `release_id` stays too: decisions are still made under the same release."""
    return msgspec.structs.replace(
        before,
        outcome=REFUSED,
        challenger=challenger,
        previous=before.champion,
        at=at,
        actor=actor,
        reason=reason,
        evidence=tuple(evidence),
    )


def rollback(
    events: Sequence[ReleaseEvent],
    *,
    at: Instant,
    actor: str,
    reason: str,
    verify: Verify,
    to: str | None = None,
    evidence: Sequence[Evaluation] = (),
) -> ReleaseEvent:
    """Go back to an earlier champion and its bundle.

    Args:
        events: every transition so far, from `history`.
        to: a version that served before; the one before the present champion when None.
        verify: loads a version; the target must load before anything changes.

    Raises:
        NotReadyError: there is nothing to go back to.
        UnknownNameError: `to` never served, or was itself rolled back.
    """
    standing = champions(events)
    earlier = {event.champion: event for event in standing[:-1]}
    if not earlier:
        served = f"only {standing[0].champion!r} was released" if standing else "nothing was released yet"
        raise NotReadyError(
            f"There is no release to go back to: {served}.",
            where=f"ledger {stream_of(events[-1].decision)}" if events else "ledger of releases",
            mend="release another version first; `volano status` shows what serves",
        )
    target = standing[-2].champion if to is None else to
    if target not in earlier:
        raise UnknownNameError(
            f"Version {target!r} is no champion that a rollback can go back to.",
            where=f"ledger {stream_of(events[-1].decision)}",
            mend=f"known: {', '.join(earlier)}",
        )
    verify(target)
    last = events[-1]
    return msgspec.structs.replace(
        last,
        release_id=_next_id(last),
        outcome=ROLLED_BACK,
        challenger=last.champion,
        champion=target,
        previous=last.champion,
        bundle=earlier[target].bundle,
        at=at,
        actor=actor,
        reason=reason,
        evidence=tuple(evidence),
    )


def apply_bundle(before: ReleaseEvent, bundle: str, *, at: Instant, actor: str) -> ReleaseEvent:
    """The champion goes on, with the code and policy of another bundle that computes the same inputs."""
    return msgspec.structs.replace(
        before,
        release_id=_next_id(before),
        outcome=APPLIED,
        challenger=before.champion,
        previous=before.champion,
        bundle=bundle,
        at=at,
        actor=actor,
        reason=f"Definitions were applied that keep its inputs: bundle {bundle[:12]} for {before.bundle[:12]}.",
        evidence=(),
    )


# --- writing ---------------------------------------------------------------------------------------------------


def append(catalog: CatalogWriter, event: ReleaseEvent, *, after: ReleaseEvent | None) -> ReleaseEvent:
    """Append a transition, if the newest one is still `after`.

    Args:
        after: the newest transition that the event was derived from; None for the first release.

    Returns:
        The event. When exactly this one was appended before (a job that runs again), nothing is added.

    Raises:
        ConflictError: someone else appended in between; read `current` again and judge again.
    """
    stream = stream_of(event.decision)
    last = catalog.last_entry(stream)
    standing = None if last is None else _decode(last.body)
    if standing == event:
        return event
    if standing != after:
        raise ConflictError(
            f"The releases of {event.decision!r} changed while version {event.challenger!r} was judged.",
            where=f"ledger {stream}",
            mend="read the newest release and judge again",
        )
    sequence = 0 if last is None else last.sequence
    catalog.append(stream, [msgspec.json.encode(event)], at=event.at, expected=sequence)
    return event


def _decode(body: bytes) -> ReleaseEvent:
    return msgspec.json.decode(body, type=ReleaseEvent)


def _need_evidence(evidence: Sequence[Evaluation], version: str) -> None:
    if not evidence:
        raise InvariantError(
            f"There is no evidence for releasing {version!r}.", mend="evaluate it on an evaluation set first"
        )


def _release_id(decision: str, number: int) -> str:
    return f"{decision}-r{number:04d}"


def _next_id(before: ReleaseEvent) -> str:
    head, _, number = before.release_id.rpartition("-r")
    return _release_id(head, int(number) + 1)
