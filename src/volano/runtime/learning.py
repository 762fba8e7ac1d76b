"""Learning, carried out: frames from the lake, training, judging, releasing. The rules are in `learn`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from volano.collect.tables import decision_table
from volano.compile.state import state_groups
from volano.decide.serving import LoadedModel
from volano.errors import DefinitionError, NotReadyError, UnknownNameError
from volano.learn import release as releases
from volano.learn.checks import check_disjoint, check_labels_of, check_time_split
from volano.learn.gate import Verdict, judge
from volano.learn.train import label_numbers, train
from volano.learn.training_set import TrainingSet, build, find_manifest, rolling_spans, store_manifest
from volano.learn.training_set import load as load_set
from volano.organize.features import Mode, PointInTime
from volano.organize.labels import LABEL_SCHEMA, attribute
from volano.plan.definitions import (
    CompiledGate,
    CompiledHistory,
    CompiledLabel,
    CompiledModel,
    CompiledService,
)
from volano.protocols.reporter import Reporter
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.runtime.labelling import evidence_columns, read_labels
from volano.runtime.session import Session
from volano.runtime.trainers import make_trainer
from volano.values.arrow import ARROW_TYPES, INSTANT
from volano.values.event_ids import event_id
from volano.values.instants import BEGINNING, DAY_US, Instant, format_instant

DEFAULT_PERIOD_US = 7 * DAY_US
"""How much the newest evaluation part holds when a model declares no retraining period."""
_SYSTEM = (
    "decision_id",
    "decided_at",
    "applied_at",
    "features_as_of",
    "mode",
    "attempt",
    "unit",
    "fallback",
    "service_version",
)


class Candidate(NamedTuple):
    """A trained version and the two frozen parts behind it."""

    version: ModelVersion
    training: TrainingSet
    evaluation: TrainingSet


class Learner:
    """Trains, judges and releases for one session.

    Everything that it reads must be committed: the caller drains with `commit=True` first.
    """

    def __init__(self, session: Session, reporter: Reporter) -> None:
        self._session = session
        self._reporter = reporter
        self._histories: dict[tuple[str, str], pa.Table] = {}

    # --- training ----------------------------------------------------------------------------------------------

    def train(self, name: str, *, cutoff: Instant) -> Candidate:
        """Freeze a training part and an evaluation part as of a cut-off, and train a version on the former.

        Args:
            name: of the model.
            cutoff: only labels mature by then, from evidence known by then.

        Raises:
            UnknownNameError: no such model.
            NotReadyError: too little is mature to train on.
        """
        project = self._session.applied.project
        model = project.model(name)
        if not model.label:
            raise DefinitionError(
                f"Model {name!r} has no label, so nothing can be learnt.", mend="declare label= on the model"
            )
        label = project.labels[model.label]
        period_us = model.retrain_us or DEFAULT_PERIOD_US
        spans = rolling_spans(cutoff, horizon_us=label.horizon_us, period_us=period_us)
        rows = self._decided(model, BEGINNING, spans.evaluation_until)
        history = self._history(model)
        labels = self._labels(model, label, history, cutoff)
        day = format_instant(cutoff)[:10]
        parts = []
        for kind, since, until in (
            ("training", BEGINNING, spans.training_until),
            ("evaluation", spans.evaluation_from, spans.evaluation_until),
        ):
            part = build(
                model, label, rows, labels,
                name=f"{name}-{day}" if kind == "training" else f"{name}-{day}-{kind}",
                bundle=self._session.applied.bundle,
                decided_from=since,
                decided_until=until,
                label_cutoff=cutoff,
                stamp=self._stamp(cutoff),
                built_at=cutoff,
                artifacts=self._session.stores.artifacts,
                kind=kind,
                history=history,
                tables=self._versions(model),
                snapshots=self._session.facts.snapshots(),
                split_rule=spans.rule,
            )  # fmt: skip
            check_labels_of(part, labels, label.name)
            parts.append(TrainingSet(store_manifest(part.manifest, self._session.stores.catalog), part.table))
        training, evaluation = parts
        check_time_split(training, evaluation, horizon_us=label.horizon_us)
        check_disjoint(training, evaluation, groups=False)
        version = train(
            model, training, make_trainer(model.trainer, self._session.functions),
            bundle=self._session.applied.bundle,
            trained_at=cutoff,
            artifacts=self._session.stores.artifacts,
            catalog=self._session.stores.catalog,
            evaluation_set=evaluation if evaluation.table.num_rows else None,
        )  # fmt: skip
        return Candidate(version, training, evaluation)

    # --- judging and releasing -----------------------------------------------------------------------------------

    def judge(self, decision: str, candidate: Candidate, *, at: Instant, actor: str) -> ReleaseEvent:
        """Judge a candidate against the champion and write the verdict to the ledger.

        Returns:
            The ledger entry: released or refused. A candidate that was judged on these rows before keeps its verdict.

        Raises:
            NotReadyError: nothing serves yet, and the candidate cannot be measured.
        """
        catalog = self._session.stores.catalog
        before = releases.current(catalog, decision)
        version = candidate.version
        if before is not None and before.champion == version.version:
            return before
        known = releases.find_verdict(
            catalog, decision, version.version, candidate.evaluation.manifest.root_hash
        )
        if known is not None:
            return known
        verdict = self._verdict(self._gate(decision), before, candidate)
        evidence = () if verdict.evaluation is None else (verdict.evaluation,)
        if before is None:
            if not verdict.passed:
                raise NotReadyError(
                    f"{version.version} cannot be the first release of {decision!r}: {verdict.reason}",
                    mend="train again when more labels are mature; see `volano status`",
                )
            event = releases.first_release(
                decision, version, at=at, actor=actor, reason=verdict.reason, evidence=evidence
            )
        elif verdict.passed:
            event = releases.release(
                before,
                version,
                at=at,
                actor=actor,
                reason=verdict.reason,
                evidence=evidence,
                verify=self.verify,
            )
        else:
            event = releases.refuse(
                before, version.version, at=at, actor=actor, reason=verdict.reason, evidence=evidence
            )
        releases.append(catalog, event, after=before)
        self._session.refresh(decision)
        return event

    def release(
        self,
        decision: str,
        version: ModelVersion,
        *,
        at: Instant,
        actor: str,
        force_reason: str | None = None,
    ) -> ReleaseEvent:
        """Judge a trained version on its own evaluation part, and release it if the gate lets it pass.

        Args:
            force_reason: release it whatever the gate says, for this recorded reason. It is measured all the same.

        Raises:
            NotReadyError: it cannot be measured, and nothing serves yet.
        """
        catalog = self._session.stores.catalog
        candidate = self.candidate(version)
        before = releases.current(catalog, decision)
        if before is not None and force_reason is not None:
            verdict = self._verdict(self._gate(decision), before, candidate)
            evidence = () if verdict.evaluation is None else (verdict.evaluation,)
            reason = f"{force_reason} (forced; the gate said: {verdict.reason})"
            event = releases.release(
                before, version, at=at, actor=actor, reason=reason, evidence=evidence, verify=self.verify
            )
            releases.append(catalog, event, after=before)
            self._session.refresh(decision)
            return event
        return self.judge(decision, candidate, at=at, actor=actor)

    def rollback(self, decision: str, *, at: Instant, actor: str, reason: str) -> ReleaseEvent:
        """Go back to the champion before the present one; its artifact is loaded and checked first."""
        catalog = self._session.stores.catalog
        before = releases.current(catalog, decision)
        event = releases.rollback(
            releases.history(catalog, decision), at=at, actor=actor, reason=reason, verify=self.verify
        )
        releases.append(catalog, event, after=before)
        self._session.refresh(decision)
        return event

    def candidate(self, version: ModelVersion) -> Candidate:
        """A version trained before, with its frozen parts."""
        names = (version.training_set, f"{version.training_set}-evaluation")
        return Candidate(version, *(self._frozen(name) for name in names))

    def _frozen(self, name: str) -> TrainingSet:
        manifest = find_manifest(name, self._session.stores.catalog)
        if manifest is None:
            raise UnknownNameError(f"There is no training set {name!r}.", mend="train the model again")
        return load_set(manifest, self._session.stores.artifacts)

    def verify(self, version: str) -> LoadedModel:
        """Load a version: digest and parity are checked."""
        return self._session.loader.model(version)

    def _gate(self, decision: str) -> CompiledGate:
        declared = self._session.applied.project.release_of(decision)
        if declared is None:
            raise DefinitionError(
                f"Decision {decision!r} has no release.",
                mend=f"declare vo.Release({decision}, gate=vo.Gate(...)) and apply",
            )
        return declared.gate

    def _verdict(self, gate: CompiledGate, before: ReleaseEvent | None, candidate: Candidate) -> Verdict:
        part = candidate.evaluation
        if not part.table.num_rows:
            return Verdict(False, "No mature labels to judge on.", None)
        challenger = self.verify(candidate.version.version).predictor.predict(part.features)
        champion = None
        if before is not None:
            loaded = self.verify(before.champion)
            champion = loaded.predictor.predict(self._inputs_of(loaded, part))
        return judge(
            gate, champion, challenger, label_numbers(part), part.units,
            evaluation_set=part.manifest, seed=self._session.applied.project.model(candidate.version.model).seed,
        )  # fmt: skip

    def _inputs_of(self, loaded: LoadedModel, part: TrainingSet) -> pa.Table:
        """The rows of a part as another version reads them: the same columns, or its own, recomputed."""
        if loaded.version.service_version == part.manifest.service_version:
            return part.features
        project = self._session.loader.project(loaded.version.bundle)
        model = project.model(loaded.version.model)
        rows = self._decided(model, part.manifest.decided_from, part.manifest.decided_until)
        past = self._history(model)
        if past is not None:
            rows = pa.concat_tables([rows, past.select(rows.column_names)])
        at = pc.index_in(part.table["id"].combine_chunks(), value_set=rows["decision_id"].combine_chunks())
        names = [f"feature__{read.name}" for read in model.service.inputs]
        return rows.take(at).select(names).rename_columns([read.name for read in model.service.inputs])

    # --- frames --------------------------------------------------------------------------------------------------

    def _decided(self, model: CompiledModel, since: Instant, until: Instant) -> pa.Table:
        """Logged decisions of a model with its features: as served, or recomputed where they served another service."""
        lake = self._session.stores.lake
        features = [f"feature__{read.name}" for read in model.service.inputs]
        schema = _frame_schema(model.service)
        found = [schema.empty_table()]
        for decision in self._session.applied.project.decisions.values():
            table = decision_table(decision.name)
            if decision.model != model.name or lake.version(table) is None:
                continue
            request = self._session.applied.project.requests[decision.request]
            asked = [f"request__{name}" for name in request.schema.names]
            rows = lake.read(
                table,
                columns=[*_SYSTEM, *asked, *features],
                where={"decided_at": (max(since, BEGINNING), until)},
            )
            served = pc.equal(rows["service_version"], model.service.version)
            found.append(rows.filter(served).select(schema.names).cast(schema))
            others = rows.filter(pc.invert(served))
            if others.num_rows:
                spine = _spine(others, as_of="features_as_of")
                computed = self._compute(model, spine, mode=Mode.REPLAY)
                found.append(_frame(others, computed, model.service).cast(schema))
        return pa.concat_tables(found)

    def _history(self, model: CompiledModel) -> pa.Table | None:
        """The declared requests of the past with features as production would have seen them; None without any."""
        if model.history is None:
            return None
        project, sql = self._session.applied.project, self._session.stores.sql
        history = project.histories[model.history]
        key = (sql.snapshot(history.table), model.service.version)
        if key not in self._histories:
            rows = self._asked(history)
            computed = self._compute(model, _spine(rows, as_of="decided_at"), mode=Mode.HISTORY)
            self._histories[key] = _frame(rows, computed, model.service)
        return self._histories[key]

    def _asked(self, history: CompiledHistory) -> pa.Table:
        """One row a past request: an id of its own, when it would have been asked, and its fields."""
        project, sql = self._session.applied.project, self._session.stores.sql
        request = project.requests[history.request]
        rows = sql.query(
            f"SELECT *, CAST(({history.at_sql}) AS TIMESTAMPTZ) AS decided_at FROM source",
            {"source": sql.read_table(history.table)},
        )
        names = request.id_columns or request.schema.names
        parts = zip(*(rows[name].to_pylist() for name in names), strict=True)
        ids = [f"{history.name}/{event_id(values)}" for values in parts]
        columns = {
            "decision_id": pa.array(ids, pa.string()),
            "decided_at": rows["decided_at"].cast(INSTANT),
            **{f"request__{name}": rows[name] for name in request.schema.names},
        }
        return pa.table(columns)

    def _compute(self, model: CompiledModel, spine: pa.Table, *, mode: Mode) -> pa.Table:
        session = self._session
        project = session.applied.project
        work = PointInTime(
            project, state_groups(project), session.facts, session.stores.sql, session.functions
        )
        return work.features(
            model.service.inputs, spine, mode=mode, request=project.requests[model.service.request]
        )

    def _labels(
        self, model: CompiledModel, label: CompiledLabel, history: pa.Table | None, cutoff: Instant
    ) -> pa.Table:
        logged = read_labels(self._session, label.name, until=cutoff)
        if history is None or model.history is None:
            return logged
        project = self._session.applied.project
        facts = {
            source: self._session.facts.rows(
                source, until=cutoff + 1, columns=evidence_columns(project, label, source)
            )
            for source in (label.source, *label.censored_by)
        }
        past = attribute(
            label, history, facts[label.source], {name: facts[name] for name in label.censored_by}, None,
            decision=model.history, as_of=cutoff, sql=self._session.stores.sql,
        )  # fmt: skip
        return pa.concat_tables([logged.cast(LABEL_SCHEMA), past.cast(LABEL_SCHEMA)])

    def _stamp(self, cutoff: Instant) -> Instant:
        """The newest stamp that counts: nothing applied after the cut-off."""
        return cutoff

    def _versions(self, model: CompiledModel) -> dict[str, int]:
        """The lake tables behind a training set, at the versions read."""
        lake = self._session.stores.lake
        names = [
            decision_table(decision.name)
            for decision in self._session.applied.project.decisions.values()
            if decision.model == model.name
        ]
        return {name: version for name in [*names, "label"] if (version := lake.version(name)) is not None}


def _frame_schema(service: CompiledService) -> pa.Schema:
    system = [
        ("decision_id", pa.string()), ("decided_at", INSTANT), ("applied_at", INSTANT), ("mode", pa.string()),
        ("attempt", pa.int64()), ("unit", pa.string()), ("fallback", pa.string()), ("service_version", pa.string()),
    ]  # fmt: skip
    return pa.schema(
        [*system, *((f"feature__{read.name}", ARROW_TYPES[read.dtype]) for read in service.inputs)]
    )


def _spine(rows: pa.Table, *, as_of: str) -> pa.Table:
    """Rows as the point-in-time engine asks: instants, and the request's fields under their own names."""
    asked = {
        name.removeprefix("request__"): rows[name]
        for name in rows.column_names
        if name.startswith("request__")
    }
    return pa.table({"decided_at": rows["decided_at"], "as_of": rows[as_of], **asked})


def _frame(rows: pa.Table, computed: pa.Table, service: CompiledService) -> pa.Table:
    """Rows with their recomputed features, as if served by the present service."""
    names = rows.column_names
    n = rows.num_rows
    columns = {
        "decision_id": rows["decision_id"],
        "decided_at": rows["decided_at"],
        "applied_at": rows["applied_at"] if "applied_at" in names else rows["decided_at"],
        "mode": rows["mode"] if "mode" in names else pa.array(np.full(n, "live")),
        "attempt": rows["attempt"] if "attempt" in names else pa.array(np.zeros(n, np.int64)),
        "unit": rows["unit"] if "unit" in names else pa.array(np.full(n, "")),
        "fallback": pa.array(np.full(n, "")),
        "service_version": pa.array(np.full(n, service.version)),
        **{f"feature__{read.name}": computed[read.name] for read in service.inputs},
    }
    asked = {name: rows[name] for name in names if name.startswith("request__")}
    return pa.table({**columns, **asked})
