"""The jobs that a project's definitions ask for: refreshes, labels, shadow scores, retraining, pruning."""

from __future__ import annotations

from functools import partial
from typing import Final

from volano.errors import VolanoError
from volano.learn.release import current
from volano.protocols.reporter import Reporter
from volano.runtime.jobs import Job
from volano.runtime.labelling import labelled_decisions, update_labels
from volano.runtime.learning import Learner
from volano.runtime.refreshing import refresh, refresh_every_us
from volano.runtime.session import Session
from volano.runtime.shadowing import score_open_shadows
from volano.values.instants import DAY_US, Instant

ACTOR = "schedule"
PRUNE_EVERY_US: Final = 7 * DAY_US
"""A prune looks at every key, and a week more of rows costs nothing to reads."""


def recurring_jobs(session: Session, learner: Learner, reporter: Reporter) -> list[Job]:
    """Every recurring job of a project; those of one instant run in this order."""
    project = session.applied.project
    found: list[Job] = []
    for source in project.sources:
        every_us = refresh_every_us(project, source)
        if every_us is not None:
            found.append(Job(f"refresh/{source}", every_us, partial(_refresh, session, source)))
    if any(True for _ in labelled_decisions(project)):
        found.append(Job("labels", session.stores.config.label_every_us, lambda at: _label(session, at)))
    if any(release.keep_first for release in project.releases.values()):
        found.append(Job("shadows", session.stores.config.label_every_us, lambda at: _shadow(session)))
    for model in project.models.values():
        if model.retrain_us is not None:
            work = partial(_retrain, session, learner, model.name)
            found.append(Job(f"retrain/{model.name}", model.retrain_us, work))
    if any(group.raw_us is not None for group in session.applied.groups):
        found.append(Job("prune", PRUNE_EVERY_US, lambda at: _prune(session, at)))
    return found


def _prune(session: Session, at: Instant) -> str:
    """Rows that no window reaches leave online state; the lake keeps them."""
    return f"{session.applier.prune(at)} chunks"


def _refresh(session: Session, source: str, at: Instant) -> str:
    """A table that is wrong or cannot be read stops no other job; the next instant of the grid tries again."""
    try:
        return refresh(session, source)
    except VolanoError as error:
        return f"refused: {error}"


def _label(session: Session, at: Instant) -> str:
    session.drain(commit=True)
    return f"{update_labels(session, as_of=at)} label rows"


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
    update_labels(session, as_of=at)  # after downtime the labels job of this very instant may never have run
    candidate = learner.train(model, cutoff=at)
    events = [learner.judge(name, candidate, at=at, actor=ACTOR) for name in released]
    return "; ".join(
        f"{candidate.version.version} {event.outcome}: {event.reason}" for event in events if event
    )
