"""The jobs that definitions ask for: refreshes, labels, shadow scores, retraining, pruning, upkeep of the lake."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from volano.learn.release import current, find_verdict
from volano.protocols.catalog import CatalogReader
from volano.runtime.applied import Applied
from volano.runtime.config import Config
from volano.runtime.jobs import Job, JobState, read_state
from volano.runtime.labelling import labelled_decisions, update_labels
from volano.runtime.learning import Learner
from volano.runtime.outdated import flag_outdated
from volano.runtime.refreshing import refresh, refresh_every_us
from volano.runtime.session import Session
from volano.runtime.shadowing import score_open_shadows
from volano.runtime.upkeep import compact_lake, vacuum_lake
from volano.values.instants import DAY_US, Instant, floor_to

ACTOR = "schedule"
LABELS, SHADOWS, PRUNE, RETRAIN, REFRESH = "labels", "shadows", "prune", "retrain/", "refresh/"
COMPACT, VACUUM = "compact", "vacuum"
COMPACT_EVERY_US: Final = DAY_US
VACUUM_EVERY_US: Final = 7 * DAY_US
PRUNE_EVERY_US: Final = 7 * DAY_US
"""A prune looks at every key, and a week more of rows costs nothing to reads."""


def schedule(applied: Applied, config: Config) -> dict[str, int]:
    """Every recurring job of a project and its grid in microseconds; those of one instant run in this order."""
    project = applied.project
    found: dict[str, int] = {}
    for source in project.sources:
        every_us = refresh_every_us(project, source)
        if every_us is not None:
            found[f"{REFRESH}{source}"] = every_us
    if any(True for _ in labelled_decisions(project)):
        found[LABELS] = config.label_every_us
    if any(release.keep_first for release in project.releases.values()):
        found[SHADOWS] = config.label_every_us
    for model in project.models.values():
        if model.retrain_us is not None:
            found[f"{RETRAIN}{model.name}"] = model.retrain_us
    if any(group.raw_us is not None or group.sealed_us is not None for group in applied.groups):
        found[PRUNE] = PRUNE_EVERY_US
    if project.sources or project.decisions:
        found |= {COMPACT: COMPACT_EVERY_US, VACUUM: VACUUM_EVERY_US}
    return found


def recurring_jobs(session: Session, learner: Learner) -> list[Job]:
    """The schedule of a project with the work that each job does."""
    works: dict[str, Callable[[Instant], str]] = {
        LABELS: lambda at: _label(session, at),
        SHADOWS: lambda at: _shadow(session),
        PRUNE: lambda at: _prune(session, at),
        COMPACT: lambda at: _compact(session),
        VACUUM: lambda at: _vacuum(session),
    }
    for model in session.applied.project.models:
        works[f"{RETRAIN}{model}"] = partial(_retrain, session, learner, model)
    for source in session.applied.project.sources:
        works[f"{REFRESH}{source}"] = partial(_refresh, session, source)
    every = schedule(session.applied, session.stores.config)
    return [Job(name, every_us, works[name]) for name, every_us in every.items()]


def job_states(applied: Applied, config: Config, catalog: CatalogReader) -> list[JobState]:
    """How every job of a project stands; only reads."""
    every = schedule(applied, config)
    return [read_state(catalog, name, every_us, since=applied.at) for name, every_us in every.items()]


def label_until(session: Session, at: Instant) -> int:
    """Bring labels up to date as of an instant, and flag the models that learnt from what changed.

    First as of every earlier cut-off at which a retraining is still to be done: it learns from the labels as computed
    by then, and once they are up to date as of a later instant those are not computed any more.

    Returns:
        How many label rows were appended.
    """
    every, catalog = schedule(session.applied, session.stores.config), session.stores.catalog
    due = {at}
    for name, every_us in every.items():
        if name.startswith(RETRAIN):
            cutoff = floor_to(at, every_us)
            if read_state(catalog, name, every_us, since=session.applied.at).done_until < cutoff:
                due.add(cutoff)
    n_rows = sum(update_labels(session, as_of=cutoff) for cutoff in sorted(due))
    flag_outdated(session, as_of=at)
    return n_rows


def _prune(session: Session, at: Instant) -> str:
    """Rows that no window reaches leave online state, and those that none needs one by one become tiles."""
    return f"{session.prune(at)} chunks"


def _compact(session: Session) -> str:
    """Only where enough small files have gathered: a row is not written again every day."""
    done = compact_lake(session.stores, eager=False)
    return f"{sum(each.n_merged for each in done)} files merged into {sum(each.n_made for each in done)}"


def _vacuum(session: Session) -> str:
    done = vacuum_lake(session.stores, retain_us=session.stores.config.keep_replaced_us)
    return f"{sum(each.n_removed for each in done)} files removed, {sum(each.n_bytes for each in done)} bytes"


def _refresh(session: Session, source: str, at: Instant) -> str:
    return refresh(session, source)


def _label(session: Session, at: Instant) -> str:
    session.drain(commit=True)
    return f"{label_until(session, at)} label rows"


def _shadow(session: Session) -> str:
    session.drain(commit=True)
    n_scored = score_open_shadows(session)
    session.drain(commit=True)
    return f"{n_scored} decisions scored"


def _retrain(session: Session, learner: Learner, model: str, at: Instant) -> str:
    """Train a challenger and judge it for every decision of the model; nothing before the first release."""
    decisions = [each.name for each in session.applied.project.decisions.values() if each.model == model]
    released = [name for name in decisions if current(session.stores.catalog, name) is not None]
    if not released:
        return "no release yet: release the first version by hand"
    session.drain(commit=True)
    label_until(session, at)  # after downtime the labels job of this very instant may never have run
    candidate = learner.train(model, cutoff=at)
    version, catalog = candidate.version.version, session.stores.catalog
    events = [
        find_verdict(catalog, name, version, at=at, actor=ACTOR)  # it was killed after it had judged
        or learner.judge(name, candidate, at=at, actor=ACTOR)
        for name in released
    ]
    return "; ".join(f"{version} {event.outcome}: {event.reason}" for event in events)
