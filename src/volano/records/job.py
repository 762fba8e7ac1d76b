"""Runs of recurring jobs as the ledger keeps them: one entry when a run begins, one when it ends.

The newest entry of a job's stream says all that the next run needs, so nothing else has to be read.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

from volano.values.instants import Instant


class JobOutcome(StrEnum):
    """What became of a run."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class JobFailure(msgspec.Struct, frozen=True):
    """Why a run failed.

    Args:
        code: of the error; `unexpected` for what is no error of ours, `killed` for runs that never told their end.
    """

    code: str
    what: str
    where: str = ""
    mend: str = ""


class JobRun(msgspec.Struct, frozen=True, omit_defaults=True):
    """One entry of the stream `job/<name>`.

    Args:
        scheduled_at: the grid instant that the work was given.
        finished_at: None while it runs.
        note: one sentence of the work, or of the failure.
        attempt: counts from 1 since the last success; a later grid instant does not begin anew.
        n_killed: how many of these attempts never told their end.
        done_until: the newest scheduled instant that was done before; None when none ever was.
        retry_at: a failed run is not repeated before.
        holder: the worker that runs it.
        held_until: until then no other worker takes it over.
    """

    job: str
    scheduled_at: Instant
    finished_at: Instant | None = None
    note: str = ""
    outcome: JobOutcome = JobOutcome.DONE
    attempt: int = 1
    n_killed: int = 0
    started_at: Instant | None = None
    done_until: Instant | None = None
    failure: JobFailure | None = None
    retry_at: Instant | None = None
    holder: str = ""
    held_until: Instant | None = None
