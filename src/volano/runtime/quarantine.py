"""The verbs of quarantine. They write through the journal, so they work beside a server."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from volano.collect.quarantine import Quarantine, edited, still_open
from volano.errors import RequestError
from volano.records.journal import Operation
from volano.records.quarantine import Edits, Fate, Replay, Resolution
from volano.runtime.session import Session


def quarantine_of(session: Session) -> Quarantine:
    """The quarantine of a project."""
    stores = session.stores
    return Quarantine(stores.journal_reader, stores.apply_log_reader, stores.lake)


def replay(
    session: Session,
    receipt_ids: Sequence[str],
    *,
    edits: Edits,
    event: bytes | None,
    revision: int | None,
    reason: str,
    actor: str,
) -> list[Replay]:
    """Send rows in again, mended or as they came; what still does not fit is not sent, and stays open.

    The event and what is noted about the row are one append: neither is ever without the other.

    Args:
        edits: fields to set; the same in every row.
        event: the whole event, in place of what came; of one row.
        revision: send it as a correction with this revision; as it was sent when None.

    Raises:
        UnknownNameError: nothing was set aside under a receipt, or its source is not declared.
        RequestError: a row was resolved before, or there is nothing to set a field of.
    """
    if event is not None and (len(receipt_ids) != 1 or edits):
        raise RequestError("A whole event replaces one row.", mend="give one receipt, and no fields to set")
    rows = still_open(quarantine_of(session).get(list(dict.fromkeys(receipt_ids))))
    done: list[Replay] = []
    for row in rows:
        payload = edited(row, edits) if event is None else event
        # A row of a table that was handed over has a revision below zero; sent in, it is pushed.
        operation, number = Operation(row.operation), max(row.revision, 0)
        if revision is not None:
            operation = Operation.CORRECT if operation is Operation.INSERT else operation
            number = revision
        receipt = session.door.replay(
            row.source,
            payload,
            operation=operation,
            revision=number,
            received_at=row.received_at,
            resolution=_resolution(session, row.receipt_id, row.source, Fate.REPLAYED, reason, actor),
        )
        if receipt.problem is not None:
            done.append(Replay(row.receipt_id, "", "unfit", receipt.problem))
        else:
            done.append(Replay(row.receipt_id, receipt.receipt_id, receipt.status.value))
    return done


def discard(session: Session, receipt_ids: Sequence[str], *, reason: str, actor: str) -> int:
    """Note that rows are not wanted, and why; returns how many. They stay where they are.

    Raises:
        UnknownNameError: nothing was set aside under a receipt.
        RequestError: a row was resolved before, or no reason is given.
    """
    if not reason.strip():
        raise RequestError("A row is discarded for a reason.", mend='say it: --reason "test data"')
    rows = still_open(quarantine_of(session).get(list(dict.fromkeys(receipt_ids))))
    session.door.resolve(
        [_resolution(session, row.receipt_id, row.source, Fate.DISCARDED, reason, actor) for row in rows]
    )
    return len(rows)


def ended(session: Session, done: Replay) -> Replay:
    """A replay with what became of its event, as far as it is known."""
    if not done.replayed_as:
        return done
    receipt = session.receipt(done.replayed_as)
    return msgspec.structs.replace(done, status=receipt.status.value, problem=receipt.problem)


def _resolution(
    session: Session, receipt_id: str, source: str, fate: Fate, reason: str, actor: str
) -> Resolution:
    return Resolution(
        receipt_id=receipt_id,
        namespace=session.applied.project.namespace,
        source=source,
        fate=fate,
        actor=actor,
        resolved_at=session.clock.now(),
        reason=reason,
    )
