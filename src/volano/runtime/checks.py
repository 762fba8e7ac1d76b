"""`volano check`: the invariants of a project, run on what is really stored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, TypeVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table
from volano.compile.state import state_groups
from volano.decide.elsewhere import UNKNOWN
from volano.errors import AuthorCodeError, JobError, VolanoError
from volano.learn.checks import check_disjoint, check_label_rows, check_releases
from volano.learn.release import champions, history
from volano.learn.training_set import check_unique, load, verify
from volano.organize.attribution import check_shares
from volano.organize.audit import AuditReport, audit
from volano.organize.features import PointInTime
from volano.records.learning import TrainingSetManifest
from volano.records.receipt import Account
from volano.runtime.datasets import rebuild
from volano.runtime.freezing import PINNED, manifests
from volano.runtime.labelling import ATTRIBUTION, read_labels
from volano.runtime.recurring import job_states
from volano.runtime.scratch import FileScratch
from volano.runtime.session import Session
from volano.values.instants import Instant, format_instant

T = TypeVar("T")

SAMPLE: Final = 10_000
"""How many logged decisions an audit recomputes."""


class Finding(msgspec.Struct, frozen=True):
    """One invariant, checked.

    Args:
        sound: whether it holds.
        detail: what was counted, or the first offender with its mend.
    """

    rule: str
    sound: bool
    detail: str


def run_checks(
    session: Session,
    *,
    account: Account | None = None,
    audits: Mapping[str, AuditReport] | None = None,
    most_sets: int | None = None,
    until: Instant | None = None,
) -> list[Finding]:
    """Check every invariant; one finding each. Everything accepted must be committed, or `until` says how far.

    Args:
        account: of everything accepted, when the caller has just counted it.
        audits: by decision, when the caller has just made them.
        most_sets: at most so many retrainings have their training sets hashed again, the newest and others evenly
            before it; all when None. A year of weekly sets is millions of rows.
        until: audit only decisions applied by this stamp: beside a process at work, which may be in the middle of a
            commit. None: everything.
    """
    rules: list[tuple[str, Callable[[Session], str]]] = [
        (
            "accepted = stored + duplicate + conflict + quarantined + pending",
            partial(_reconciled, known=account),
        ),
        (
            "served features equal recomputed ones, bit for bit",
            partial(_audited, known=audits or {}, until=until),
        ),
        ("every view took every stored row", _taken),
        ("a pending label is never a value", _labels),
        ("the shares of one outcome sum to at most one", _shares),
        ("training sets match their manifests", partial(_training_sets, most=most_sets)),
        ("every member of a training set has an id of its own", partial(_unique, most=most_sets)),
        ("the newest training set, rebuilt from its manifest, has the same content hash", _rebuilt),
        ("no member of an evaluation part is in its training part", partial(_disjoint, most=most_sets)),
        ("no training set touches an evaluation set that was pinned before it", _pinned),
        ("every release has its evidence and a loadable champion and rollback target", _releases),
        ("propensities are probabilities, and their method is logged", _propensities),
        ("the newest run of every job did not fail", _jobs),
    ]
    return [_finding(rule, check, session) for rule, check in rules]


def _finding(rule: str, check: Callable[[Session], str], session: Session) -> Finding:
    try:
        return Finding(rule, True, check(session))
    except (
        Exception
    ) as error:  # whatever stops a check is a finding; the other rules are checked all the same
        return Finding(rule, False, f"{type(error).__name__}: {error}")


def audit_decisions(
    session: Session, decision: str, *, sample: int = SAMPLE, seed: int = 0, until: Instant | None = None
) -> AuditReport:
    """Recompute a sample of logged decisions from the lake and compare every bit.

    Args:
        until: only those applied by this stamp; all when None.
        sample: at most so many; chosen by a seeded draw over all decisions of the newest feature service.
    """
    lake, table = session.stores.lake, decision_table(decision)
    if lake.version(table) is None:
        return AuditReport(0, 0, 0, ())
    rows = lake.read(table, where=None if until is None else {"applied_at": (None, until + 1)})
    rows = rows.filter(
        pc.not_equal(rows["service_version"], "")
    )  # what was decided elsewhere was served nothing
    reports = []
    for bundle in pc.unique(rows["bundle"]).to_pylist():
        made = rows.filter(pc.equal(rows["bundle"], bundle))
        reports.append(_audit_bundle(session, decision, bundle, _drawn(made, sample, seed)))
    return AuditReport(
        sum(report.checked for report in reports),
        sum(report.mismatched for report in reports),
        sum(report.skipped for report in reports),
        tuple(difference for report in reports for difference in report.differences),
    )


def _drawn(rows: pa.Table, sample: int, seed: int) -> pa.Table:
    if rows.num_rows <= sample:
        return rows
    rows = rows.sort_by("decision_id")
    chosen = np.random.default_rng(seed).choice(rows.num_rows, sample, replace=False)
    return rows.take(pa.array(np.sort(chosen)))


def _audit_bundle(session: Session, decision: str, bundle: str, rows: pa.Table) -> AuditReport:
    project = session.definitions.get(bundle)
    definition = project.decision(decision)
    service = project.model(definition.model).service
    stores, functions = session.stores, session.bundles.get(bundle)
    facts = session.definitions.facts(bundle)
    with FileScratch(stores.data / "scratch") as scratch:
        work = PointInTime(project, state_groups(project), facts, stores.sql, functions, scratch=scratch)
        return audit(rows, service, project.requests[definition.request], work)


def _reconciled(session: Session, known: Account | None) -> str:
    account = known or session.reconcile()
    text = "; ".join(
        f"{kind}: "
        + ", ".join(f"{name} {n:,}" for name, n in msgspec.structs.asdict(getattr(account, kind)).items())
        for kind in account.__struct_fields__
    )
    if not account.is_exact:
        raise _broken(f"The account does not add up: {text}.")
    return text


def _audited(session: Session, known: Mapping[str, AuditReport], until: Instant | None) -> str:
    texts = []
    for decision in session.definitions.decisions():
        report = known.get(decision) or audit_decisions(session, decision, until=until)
        if report.mismatched:
            first = report.differences[0]
            raise _broken(
                f"{report.mismatched} of {report.checked} decisions of {decision} differ; first {first.decision_id}: "
                f"{first.feature} was served as {first.served!r} and is {first.recomputed!r} ({first.cause})."
            )
        texts.append(f"{decision}: {report.checked:,} recomputed")
    if until is not None:
        texts.append(f"another process is at work; applied by {format_instant(until)}")
    return "; ".join(texts)


def _taken(session: Session) -> str:
    failing = session.failing_views()
    if failing:
        told = "; ".join(
            f"{each.view} could not take {each.n_rows:,} rows of {each.source}, first {each.event_id!r}: {each.reason}"
            for each in failing
        )
        raise AuthorCodeError(
            f"{told}. Their events are stored; in the view they are null. Mend the projection and run `volano apply`: "
            "the view is built again from the lake."
        )
    return "none is missing"


def _labels(session: Session) -> str:
    n_rows = 0
    for label in session.applied.project.labels:
        rows = read_labels(session, label)
        check_label_rows(rows)
        n_rows += rows.num_rows
    return f"{n_rows:,} label rows"


def _shares(session: Session) -> str:
    lake = session.stores.lake
    if lake.version(ATTRIBUTION) is None:
        return "no outcome yet"
    columns = ["label", "decision", "decision_id", "event_id", "state", "weight", "attached_at"]
    rows = lake.read(ATTRIBUTION, columns=columns)
    check_shares(rows)
    return f"{rows.num_rows:,} attribution rows"


def _chosen(known: Sequence[TrainingSetManifest], most: int | None) -> list[TrainingSetManifest]:
    parents = _evenly([each for each in known if each.kind == "training"], most)
    names = {f"{parent.name}{suffix}" for parent in parents for suffix in ("", "-evaluation")}
    names |= {each.name for each in known if each.kind == PINNED}
    return [manifest for manifest in known if manifest.name in names]


def _training_sets(session: Session, most: int | None) -> str:
    known = manifests(session.stores.catalog)
    chosen = _chosen(known, most)
    for manifest in chosen:
        verify(manifest, session.stores.artifacts)
    return f"{_of(len(chosen), len(known))} sets hashed again"


def _unique(session: Session, most: int | None) -> str:
    known = manifests(session.stores.catalog)
    chosen = _chosen(known, most)
    for manifest in chosen:
        check_unique(load(manifest, session.stores.artifacts).table, manifest.name)
    return f"{_of(len(chosen), len(known))} sets"


def _rebuilt(session: Session) -> str:
    """The newest set and its evaluation part; `volano dataset verify` does any other."""
    newest = max(
        manifests(session.stores.catalog), key=lambda made: (made.label_cutoff, made.name), default=None
    )
    if newest is None:
        return "no set yet"
    names = {newest.name.removesuffix("-evaluation"), f"{newest.name.removesuffix('-evaluation')}-evaluation"}
    for manifest in (made for made in manifests(session.stores.catalog) if made.name in names):
        again = rebuild(session, manifest).manifest
        if again.root_hash != manifest.root_hash:
            raise _broken(
                f"{manifest.name} has {manifest.n_rows:,} rows of root hash {manifest.root_hash[:16]}, and rebuilt "
                f"{again.n_rows:,} of {again.root_hash[:16]}; `volano dataset verify {manifest.name}` names them."
            )
    return f"{newest.name.removesuffix('-evaluation')}: rebuilt from the lake"


def _disjoint(session: Session, most: int | None) -> str:
    by_name = {manifest.name: manifest for manifest in manifests(session.stores.catalog)}
    pairs = [
        (manifest, by_name[f"{name}-evaluation"])
        for name, manifest in by_name.items()
        if f"{name}-evaluation" in by_name
    ]
    chosen = _evenly(pairs, most)
    for training, evaluation in chosen:
        artifacts = session.stores.artifacts
        check_disjoint(load(training, artifacts), load(evaluation, artifacts), groups=False)
    return f"{_of(len(chosen), len(pairs))} pairs"


def _pinned(session: Session) -> str:
    """Every pair, not a sample: there are few pinned sets, and a leak is for ever."""
    artifacts, known = session.stores.artifacts, manifests(session.stores.catalog)
    n_pairs = 0
    for pinned in (made for made in known if made.kind == PINNED):
        later = [
            made
            for made in known
            if (made.kind, made.model) == ("training", pinned.model) and made.built_at > pinned.built_at
        ]
        judged = load(pinned, artifacts) if later else None
        for made in later:
            assert judged is not None
            check_disjoint(load(made, artifacts), judged, groups=True)
        n_pairs += len(later)
    return f"{n_pairs} pairs"


def _evenly(items: Sequence[T], most: int | None) -> list[T]:
    """At most so many of some items: the last, and others at even steps before it."""
    step = 1 if most is None else -(-len(items) // most) or 1
    return list(items[::-1][::step])


def _of(n: int, total: int) -> str:
    return f"{n}" if n == total else f"{n} of {total}"


def _releases(session: Session) -> str:
    n_events = 0
    for decision in session.applied.project.decisions:
        events = history(session.stores.catalog, decision)
        check_releases(events)
        problem = session.loader.find_problem(decision)
        if problem:
            raise _broken(f"Decision {decision} cannot be served as released: {problem}")
        for target in champions(events)[-2:-1]:  # state that was dropped is built again by the rollback
            session.loader.model(target.champion)
            session.bundles.get(target.bundle)
            session.definitions.get(target.bundle)
        n_events += len(events)
    return f"{n_events} release entries"


def _propensities(session: Session) -> str:
    lake = session.stores.lake
    n_rows = 0
    for decision in session.definitions.decisions():
        rows = lake.read(decision_table(decision), columns=["decision_id", "propensity", "propensity_method"])
        wrong = pc.or_(
            pc.or_(pc.less_equal(rows["propensity"], 0.0), pc.greater(rows["propensity"], 1.0)),
            pc.equal(rows["propensity_method"], ""),
        )
        is_unknown = pc.and_(rows["propensity"].is_null(), pc.equal(rows["propensity_method"], UNKNOWN))
        offenders = rows.filter(pc.and_(pc.fill_null(wrong, True), pc.invert(is_unknown)))
        if offenders.num_rows:
            raise _broken(
                f"{offenders.num_rows} decisions of {decision}; first {offenders['decision_id'][0].as_py()}."
            )
        n_rows += rows.num_rows
    return f"{n_rows:,} decisions"


def _jobs(session: Session) -> str:
    states = job_states(session.applied, session.stores.config, session.stores.catalog)
    runs = [state.newest for state in states if state.newest is not None]
    failed = [(run, run.failure) for run in runs if run.failure is not None]
    if failed:
        raise JobError(
            "; ".join(
                f"{run.job} failed {run.attempt} times, [{why.code}] {why.what} ({why.where})"
                for run, why in failed
            ),
            where="ledger job/*",
            mend="; ".join(why.mend for _, why in failed if why.mend) or "see `volano jobs`",
        )
    return f"{len(states)} jobs"


def _broken(what: str) -> VolanoError:
    from volano.errors import InvariantError

    return InvariantError(what, mend="keep the data folder as it is and report this: a promise is broken")
