"""The demo's result: as data for a file, and as text for people. Reads stores; changes nothing."""

from __future__ import annotations

import io
from typing import Final

import msgspec
import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table

from volano.collect.tables import decision_table
from volano.learn.release import RELEASED, history
from volano.learn.training_set import load
from volano.organize.labels import LABEL_SCHEMA
from volano.records.learning import ReleaseEvent, TrainingSetManifest
from volano.records.receipt import Account, Reconciliation
from volano.runtime.checks import Finding, audit_decisions, run_checks
from volano.runtime.demo.months import (
    MEASURED,
    SCORERS,
    Floats,
    Month,
    base_rates,
    count_states,
    join_scores,
    lead_of_live,
    measure_months,
)
from volano.runtime.demo.replay import Replayed
from volano.runtime.freezing import manifests
from volano.runtime.labelling import LABELS
from volano.runtime.session import Session
from volano.values.instants import format_instant

_SHADOWS: Final = "shadow_score"
_WIDTH: Final = 140
_AUDITED: Final = 12_000
_SETS_HASHED: Final = 6


class TrainingSetLine(msgspec.Struct, frozen=True):
    """A training set that was built."""

    name: str
    rows: int
    content_hash: str


class ReleaseLine(msgspec.Struct, frozen=True):
    """A verdict on a model. `difference` and `low` are None for the first model: there was nothing to beat."""

    model: str
    at: str
    outcome: str
    reason: str
    metric: str = ""
    n: int = 0
    challenger: float | None = None
    champion: float | None = None
    difference: float | None = None
    low: float | None = None


class Skew(msgspec.Struct, frozen=True):
    """Promise 3 on a sample: decisions recomputed from the lake, and those with a bit that differs."""

    checked: int
    mismatched: int


class Report(msgspec.Struct, frozen=True):
    """What a replay did and what came of it.

    Args:
        labels: decisions by the state of their label.
        reconciliation: of events, decisions and shadow scores together; `account` has each by itself.
        lead: of the live champion's AUC over the frozen first model's, averaged over July to December.
        checks: every invariant, sound or broken.
        seconds: from the first file read to the last check.
    """

    decisions: int
    observations: int
    labels: dict[str, int]
    months: list[Month]
    lead: float | None
    training_sets: list[TrainingSetLine]
    releases: list[ReleaseLine]
    skew: Skew
    reconciliation: Reconciliation
    account: Account
    checks: list[Finding]
    seconds: float

    @property
    def is_sound(self) -> bool:
        """Whether every promise held."""
        return (
            self.skew.mismatched == 0
            and self.skew.checked >= min(10_000, self.decisions * 9 // 10)
            and self.reconciliation.is_exact
            and self.account.is_exact
            and all(f.sound for f in self.checks)
        )


def make_report(session: Session, decision: str, replayed: Replayed, *, seconds: float = 0.0) -> Report:
    """Measure a replay. Everything accepted must be committed.

    Args:
        decision: the one that was replayed; it has a release.
        replayed: what was put in, as the sender counted it.
    """
    scored, base = _scores(session, decision)
    months = measure_months(scored, base)
    audit = audit_decisions(session, decision, sample=_AUDITED)
    account = session.reconcile()
    findings = run_checks(session, account=account, audits={decision: audit}, most_sets=_SETS_HASHED)
    return Report(
        decisions=scored.num_rows,
        observations=replayed.n_observations,
        labels=count_states(scored),
        months=months,
        lead=lead_of_live(months, since="2013-07", until="2013-12"),
        training_sets=[
            TrainingSetLine(manifest.name, manifest.n_rows, manifest.root_hash)
            for manifest in _manifests(session)
        ],
        releases=[_release_line(event) for event in history(session.stores.catalog, decision)],
        skew=Skew(audit.checked, audit.mismatched),
        reconciliation=account.total,
        account=account,
        checks=[*findings, _all_arrived(account, scored.num_rows, replayed)],
        seconds=seconds,
    )


def render(report: Report, folder: str) -> str:
    """The report for people."""
    out = io.StringIO()
    console = Console(file=out, width=_WIDTH, highlight=False, color_system=None, soft_wrap=True)
    console.print(_months_table(report.months))
    if report.lead is not None:
        console.print(f"Live above frozen, ROC AUC, July to December: {report.lead:+.4f} on average")
    console.print()
    console.print(_releases_table(report.releases))
    console.print()
    for finding in report.checks:
        console.print(f"{'ok    ' if finding.sound else 'BROKEN'} {finding.rule}: {finding.detail}")
    console.print()
    rate = report.decisions / report.seconds if report.seconds else 0
    console.print(
        f"{report.decisions:,} decisions and {report.observations:,} observations in {report.seconds:,.0f} s "
        f"({rate:,.0f} decisions/s, learning included)."
    )
    console.print(_next(report, folder))
    return out.getvalue()


def _scores(session: Session, decision: str) -> tuple[pa.Table, Floats]:
    """Every decision with its scores and label, and its base rate."""
    project, lake = session.applied.project, session.stores.lake
    model = project.model(project.decision(decision).model)
    label = project.labels[model.label]
    logged = ["decision_id", "attempt", "decided_at", "request__carrier", "score"]
    scored = join_scores(
        session.stores.sql,
        decision=decision,
        decisions=lake.read(decision_table(decision), columns=logged),
        labels=lake.read(LABELS, columns=LABEL_SCHEMA.names),
        shadows=lake.read(_SHADOWS, columns=["decision", "decision_id", "model_version", "score"]),
        label=label.name,
        first=history(session.stores.catalog, decision)[0].first,
    )
    return scored, base_rates(scored, _past(session), horizon_us=label.horizon_us)


def _past(session: Session) -> pa.Table:
    """The labelled requests from before the first decision, as the newest training set froze them."""
    newest = max(
        (manifest for manifest in _manifests(session) if manifest.kind == "training"),
        key=lambda manifest: manifest.label_cutoff,
    )
    rows = load(newest, session.stores.artifacts).table
    rows = rows.filter(pc.equal(rows["origin"], "history"))
    return pa.table(
        {
            "decided_at": rows["decided_at"],
            "carrier": rows["carrier"],
            "value": rows["label"].cast(pa.float64()),
        }
    )


def _manifests(session: Session) -> list[TrainingSetManifest]:
    found = manifests(session.stores.catalog)
    return sorted(found, key=lambda manifest: (manifest.label_cutoff, manifest.name))


def _release_line(event: ReleaseEvent) -> ReleaseLine:
    line = ReleaseLine(event.challenger, format_instant(event.at), event.outcome, event.reason)
    if not event.evidence:
        return line
    evidence = event.evidence[0]
    return msgspec.structs.replace(
        line,
        metric=evidence.metric,
        n=evidence.n,
        challenger=evidence.challenger,
        champion=evidence.champion,
        difference=evidence.difference,
        low=evidence.low,
    )


def _all_arrived(account: Account, n_decisions: int, replayed: Replayed) -> Finding:
    """The sender's own count against ours."""
    accepted, asked = account.events.accepted, account.decisions.accepted
    sound = accepted == replayed.n_observations and asked == n_decisions == replayed.n_decisions
    detail = (
        f"{replayed.n_decisions:,} asked and {n_decisions:,} logged; "
        f"{replayed.n_observations:,} sent and {accepted:,} accepted"
    )
    return Finding("everything that was sent has arrived", sound, detail)


def _months_table(months: list[Month]) -> Table:
    table = Table(
        title="Months (AP: average precision, loss: log loss)",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
    )
    heads = ("", "decisions", "mature", "pending", "censored")
    measures = [f"{short}\n{scorer}" for short in ("AUC", "AP", "loss") for scorer in SCORERS]
    for head in (*heads, *measures):
        table.add_column(head, justify="right", no_wrap=True)
    for month in months:
        measured = [getattr(month, f"{scorer}_{short}") for short in MEASURED for scorer in SCORERS]
        table.add_row(
            month.month,
            *(f"{count:,}" for count in (month.decisions, month.mature, month.pending, month.censored)),
            *("" if value is None else f"{value:.3f}" for value in measured),
        )
    return table


def _releases_table(releases: list[ReleaseLine]) -> Table:
    table = Table(title="Releases (ROC AUC on labels that neither has seen)", title_justify="left", box=None)
    for head in ("at", "model", "outcome"):
        table.add_column(head)
    for head in ("labels", "challenger", "champion", "difference", "at least"):
        table.add_column(head, justify="right")
    for line in releases:
        numbers = (line.challenger, line.champion, line.difference, line.low)
        shown = (
            "" if number is None else f"{number:{form}}"
            for number, form in zip(numbers, (".4f", ".4f", "+.4f", "+.4f"), strict=True)
        )
        table.add_row(line.at[:10], line.model, line.outcome, f"{line.n:,}", *shown)
    return table


def _next(report: Report, folder: str) -> str:
    lines = [
        "What next:",
        f"  cd {folder}",
        "  less flights.py                            the sixty lines behind all this",
        "  volano status                              what serves, how far everything has come",
        "  volano decisions list get_delay_risk       the newest decisions",
        "  volano decisions show DECISION_ID          one of them, explained",
        "  volano check                               every invariant, again",
    ]
    if sum(line.outcome == RELEASED for line in report.releases) > 1:
        lines.append('  volano rollback --decision get_delay_risk --reason "to see it"')
        lines.append("                                             the champion before serves again")
    return "\n".join(lines)
