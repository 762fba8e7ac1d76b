"""How a project stands: what is in force, what serves, how far everything has come."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from volano.collect.receipts import total
from volano.learn.release import champions, current, history
from volano.plan.failed_rows import FailingView
from volano.records.receipt import Reconciliation
from volano.runtime.applied import Applied, find_applied, get_applied
from volano.runtime.bundle_shelf import BundleShelf
from volano.runtime.definitions import Definitions
from volano.runtime.failing import read_failing
from volano.runtime.jobs import JobStatus, status_of
from volano.runtime.locks import serving_lock
from volano.runtime.outdated import OutdatedModel, read_outdated
from volano.runtime.processes.beats import Beats
from volano.runtime.recurring import job_states
from volano.runtime.serving import ServingLoader
from volano.runtime.stores import Stores
from volano.values.instants import Instant, format_instant


class ServingStatus(msgspec.Struct, frozen=True):
    """One decision: its champion, since when, and how its last challenger ended.

    Args:
        problem: what the workers of a server cannot load, so that they go on with what they had, or the fallback
            answers; empty without a server: `find_problems` loads it.
    """

    decision: str
    champion: str
    since: str
    last_outcome: str
    last_reason: str
    problem: str = ""


class Status(msgspec.Struct, frozen=True):
    """The present state of a project.

    Args:
        applied_at: when the definitions in force were applied; `never` before the first apply.
        last_stamp: the newest fact that is visible to decisions.
        tables: lake table -> version.
        account: where everything accepted ended: events, decisions and shadow scores together.
        too_late: source -> stored events that came later than it accepts, so that they change no feature.
        failing: views that lack rows, because their projections could not take them.
        outdated: champions that learnt from, or were judged on, labels which have changed since; and what to do.
    """

    namespace: str
    data: str
    applied_at: str
    bundle: str
    decisions: tuple[ServingStatus, ...]
    last_stamp: str
    batches_applied: int
    tables: dict[str, int]
    account: Reconciliation
    too_late: dict[str, int]
    failing: tuple[FailingView, ...]
    jobs: tuple[JobStatus, ...] = ()
    outdated: tuple[OutdatedModel, ...] = ()


def read_status(stores: Stores, now: Instant) -> Status:
    """Read the status; opens nothing for writing but the catalog."""
    applied, _ = find_applied(stores.catalog)
    last = stores.apply_log_reader.last()
    lake = stores.lake
    problems = said_problems(stores)
    accepted = total(stores.journal_reader, stores.apply_log_reader, lake)
    decisions = (
        ()
        if applied is None
        else tuple(_serving(stores, name, problems) for name in applied.project.decisions)
    )
    serving = {each.champion for each in decisions}
    return Status(
        namespace=stores.config.namespace,
        data=str(stores.data),
        applied_at="never" if applied is None else format_instant(applied.at),
        bundle="" if applied is None else applied.bundle[:12],
        decisions=decisions,
        last_stamp="never" if last is None else format_instant(last.last_stamp),
        batches_applied=0 if last is None else last.sequence,
        tables={name: version for name in lake.tables() if (version := lake.version(name)) is not None},
        account=accepted.account,
        too_late=accepted.too_late,
        failing=() if applied is None else read_failing(stores, applied),
        jobs=() if applied is None else tuple(_jobs(applied, stores, now)),
        outdated=tuple(each for each in read_outdated(stores.catalog) if each.version in serving),
    )


def job_statuses(stores: Stores, now: Instant) -> list[JobStatus]:
    """How every recurring job stands.

    Raises:
        NotReadyError: nothing was applied yet.
    """
    return _jobs(get_applied(stores.catalog), stores, now)


def _jobs(applied: Applied, stores: Stores, now: Instant) -> list[JobStatus]:
    return [status_of(state, now) for state in job_states(applied, stores.config, stores.catalog)]


def _serving(stores: Stores, decision: str, problems: Mapping[str, str]) -> ServingStatus:
    event = current(stores.catalog, decision)
    if event is None:
        return ServingStatus(decision, "none: the fallback answers", "", "", "")
    since = format_instant(champions(history(stores.catalog, decision))[-1].at)
    return ServingStatus(
        decision, event.champion, since, event.outcome, event.reason, problems.get(decision, "")
    )


def said_problems(stores: Stores) -> dict[str, str]:
    """What the workers of a server say that they cannot load, by decision; empty without a server."""
    if not serving_lock(stores.data).is_held():
        return {}
    found: dict[str, str] = {}
    for beat in Beats(stores.data).all():
        found |= beat.problems
    return found


def find_problems(stores: Stores) -> dict[str, str]:
    """Why decisions cannot be served, by decision. Loads what serves them, the author's code included.

    Raises:
        NotReadyError: nothing was applied yet.
    """
    applied = get_applied(stores.catalog)
    loader = ServingLoader(stores, applied, BundleShelf(stores.artifacts), Definitions(stores, applied))
    found = {name: loader.find_problem(name) for name in applied.project.decisions}
    return {name: problem for name, problem in found.items() if problem}
