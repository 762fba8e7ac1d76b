"""One turn of learning, composed as the runtime composes it: sets, training, judgement, release or refusal.

Every step is written before the next begins, and every step recognises what it wrote before. The crash tests kill it
between any two writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from volano.errors import NotReadyError, StateMismatchError
from volano.learn import release as releases
from volano.learn.checks import check_disjoint, check_time_split
from volano.learn.gate import Verdict, judge
from volano.learn.train import get_version, label_numbers, train
from volano.learn.training_set import TrainingSet, build, rolling_spans, store_manifest
from volano.plan.definitions import CompiledGate, CompiledLabel, CompiledModel
from volano.protocols.artifact_store import ArtifactWriter
from volano.protocols.catalog import CatalogWriter
from volano.protocols.trainer import Predictor, Trainer
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.values.instants import BEGINNING, Instant, format_instant


class Rows(NamedTuple):
    """What the caller has read, as `learn.training_set.build` takes it."""

    decisions: pa.Table
    labels: pa.Table
    stamp: Instant
    history: pa.Table | None = None
    tables: Mapping[str, int] | None = None
    snapshots: Mapping[str, str] | None = None


def challenge(
    model: CompiledModel,
    label: CompiledLabel,
    decision: str,
    gate: CompiledGate,
    rows: Rows,
    *,
    at: Instant,
    period_us: int,
    bundle: str,
    trainer: Trainer,
    predictor_of: Callable[[str], Predictor],
    artifacts: ArtifactWriter,
    catalog: CatalogWriter,
    actor: str,
) -> ReleaseEvent:
    """Train a challenger on what was mature at an instant, judge it, and release or refuse it."""
    training, evaluation = _sets(model, label, rows, at, period_us, bundle, artifacts)
    check_time_split(training, evaluation, horizon_us=label.horizon_us)
    check_disjoint(training, evaluation, groups=False)
    for members in (training, evaluation):
        store_manifest(members.manifest, catalog)
    version = train(
        model,
        training,
        trainer,
        bundle=bundle,
        trained_at=at,
        artifacts=artifacts,
        catalog=catalog,
        evaluation_set=evaluation,
    )
    before = releases.current(catalog, decision)
    done = _already(before, decision, version, catalog, at, actor)
    if done is not None:
        return done
    champion = None if before is None else get_version(catalog, before.champion)
    verdict = _judge(gate, version, champion, evaluation, predictor_of, seed=model.seed)
    event = _transition(decision, before, version, verdict, at, actor, predictor_of)
    return releases.append(catalog, event, after=before)


def _sets(
    model: CompiledModel,
    label: CompiledLabel,
    rows: Rows,
    at: Instant,
    period_us: int,
    bundle: str,
    artifacts: ArtifactWriter,
) -> tuple[TrainingSet, TrainingSet]:
    spans = rolling_spans(at, horizon_us=label.horizon_us, period_us=period_us)
    day = format_instant(at).removesuffix("T00:00:00Z")

    def part(name: str, kind: str, since: Instant, until: Instant) -> TrainingSet:
        return build(
            model,
            label,
            rows.decisions,
            rows.labels,
            name=name,
            kind=kind,
            bundle=bundle,
            decided_from=since,
            decided_until=until,
            label_cutoff=at,
            stamp=rows.stamp,
            built_at=at,
            artifacts=artifacts,
            history=rows.history,
            tables=rows.tables,
            snapshots=rows.snapshots,
            split_rule=spans.rule,
        )

    return (
        part(f"{model.name}-{day}", "training", BEGINNING, spans.training_until),
        part(f"{model.name}-{day}-evaluation", "evaluation", spans.evaluation_from, spans.evaluation_until),
    )


def _already(
    before: ReleaseEvent | None,
    decision: str,
    version: ModelVersion,
    catalog: CatalogWriter,
    at: Instant,
    actor: str,
) -> ReleaseEvent | None:
    """The transition of an earlier run of this very job, if there is one."""
    if before is None:
        return None
    if before.champion == version.version:
        return before
    return releases.find_verdict(catalog, decision, version.version, at=at, actor=actor)


def _judge(
    gate: CompiledGate,
    version: ModelVersion,
    champion: ModelVersion | None,
    evaluation: TrainingSet,
    predictor_of: Callable[[str], Predictor],
    *,
    seed: int,
) -> Verdict:
    if champion is not None and champion.service_version != evaluation.manifest.service_version:
        raise StateMismatchError(
            f"The champion {champion.version!r} reads other features than the evaluation set holds.",
            where=f"service {champion.service_version}, set {evaluation.manifest.service_version}",
            mend="release the first version with the new features by hand: `volano release`",
        )
    features = evaluation.features
    return judge(
        gate,
        None if champion is None else predictor_of(champion.version).predict(features),
        predictor_of(version.version).predict(features),
        label_numbers(evaluation),
        np.asarray(evaluation.units.to_pylist()),
        evaluation_set=evaluation.manifest,
        seed=seed,
    )


def _transition(
    decision: str,
    before: ReleaseEvent | None,
    version: ModelVersion,
    verdict: Verdict,
    at: Instant,
    actor: str,
    predictor_of: Callable[[str], Predictor],
) -> ReleaseEvent:
    evidence = () if verdict.evaluation is None else (verdict.evaluation,)
    if before is None:
        if not verdict.passed:
            raise NotReadyError(
                f"The first model of {decision!r} is not released: {verdict.reason}",
                mend="wait for more mature labels, or declare a history",
            )
        return releases.first_release(
            decision, version, at=at, actor=actor, reason=verdict.reason, evidence=evidence
        )
    if not verdict.passed:
        return releases.refuse(
            before, version.version, at=at, actor=actor, reason=verdict.reason, evidence=evidence
        )
    return releases.release(
        before, version, at=at, actor=actor, reason=verdict.reason, evidence=evidence, verify=predictor_of
    )
