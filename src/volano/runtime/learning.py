"""Learning, carried out: freeze the parts, train, judge, release. The rules are in `learn`, the rows in `frames`."""

from __future__ import annotations

from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from volano.decide.serving import LoadedModel
from volano.errors import DefinitionError, NotReadyError, UnknownNameError
from volano.learn import release as releases
from volano.learn.checks import check_disjoint, check_time_split
from volano.learn.gate import Verdict, judge
from volano.learn.train import get_version, label_numbers, train
from volano.learn.training_set import TrainingSet, find_manifest, member_ids, rolling_spans
from volano.learn.training_set import load as load_set
from volano.plan.definitions import CompiledGate
from volano.protocols.reporter import Reporter
from volano.records.learning import ModelVersion, ReleaseEvent
from volano.runtime.binding import reads_same_inputs
from volano.runtime.frames import Frames, inputs_of
from volano.runtime.freezing import Freezer, label_of, pinned_sets
from volano.runtime.session import Session
from volano.runtime.trainers import make_trainer
from volano.values.instants import BEGINNING, DAY_US, Instant, format_instant

DEFAULT_PERIOD_US = 7 * DAY_US
"""How much the newest evaluation part holds when a model declares no retraining period."""


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
        self._frames = Frames(session, session.applied.bundle)

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
        session = self._session
        project = session.applied.project
        model = project.model(name)
        label = label_of(project, model)
        spans = rolling_spans(
            cutoff, horizon_us=label.horizon_us, period_us=model.retrain_us or DEFAULT_PERIOD_US
        )
        held_out = pinned_sets(session.stores.catalog, session.stores.artifacts, name)
        freezer = Freezer(session, self._frames, name, cutoff=cutoff, until=spans.evaluation_until)
        set_name = self._set_name(name, cutoff)
        training = freezer.freeze(
            set_name, kind="training", since=BEGINNING, until=spans.training_until, split_rule=spans.rule,
            held_out=held_out,
        )  # fmt: skip
        evaluation = freezer.freeze(
            f"{set_name}-evaluation", kind="evaluation", since=spans.evaluation_from,
            until=spans.evaluation_until, split_rule=spans.rule,
        )  # fmt: skip
        check_time_split(training, evaluation, horizon_us=label.horizon_us)
        check_disjoint(training, evaluation, groups=False)
        for pinned in held_out:
            check_disjoint(training, pinned, groups=True)
        version = train(
            model, training, make_trainer(model.trainer, self._session.functions),
            bundle=self._session.applied.bundle,
            trained_at=cutoff,
            artifacts=self._session.stores.artifacts,
            catalog=self._session.stores.catalog,
            evaluation_set=evaluation if evaluation.table.num_rows else None,
        )  # fmt: skip
        return Candidate(version, training, evaluation)

    def _set_name(self, model: str, cutoff: Instant) -> str:
        """The name of a training part: of its cut-off, and of the bundle where another one took that name before."""
        name = f"{model}-{format_instant(cutoff).removesuffix('T00:00:00Z')}"
        standing = find_manifest(name, self._session.stores.catalog)
        bundle = self._session.applied.bundle
        return name if standing is None or standing.bundle == bundle else f"{name}-{bundle[:8]}"

    # --- judging and releasing -----------------------------------------------------------------------------------

    def judge(self, decision: str, candidate: Candidate, *, at: Instant, actor: str) -> ReleaseEvent:
        """Judge a candidate against the champion and write the verdict to the ledger.

        Returns:
            The ledger entry: released or refused, by the gate and against the champion of now; the entry that put it in
            force when it is what serves already.

        Raises:
            NotReadyError: nothing serves yet, and the candidate cannot be measured.
        """
        catalog = self._session.stores.catalog
        before = releases.current(catalog, decision)
        version = candidate.version
        if before is not None and before.champion == version.version:
            return releases.in_force(catalog, decision) or before
        verdict = self._verdict(self._gate(decision), before, candidate)
        evidence = () if verdict.evaluation is None else (verdict.evaluation,)
        if before is None:
            if not verdict.passed:
                raise NotReadyError(
                    f"{version.version} cannot be the first release of {decision!r}: {verdict.reason}",
                    where=f"evaluation set {candidate.evaluation.manifest.name}",
                    mend="the newest period of `retrain` judges: make it longer, lower the gate's min_labels, or train "
                    "again when more labels are mature",
                )
            event = releases.first_release(
                decision,
                version,
                at=at,
                actor=actor,
                reason=verdict.reason,
                evidence=evidence,
                bundle=self._bundle(decision, version),
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
                bundle=self._bundle(decision, version),
            )
        else:
            event = releases.refuse(
                before, version.version, at=at, actor=actor, reason=verdict.reason, evidence=evidence
            )
        return self._write(event, before)

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
            force_reason: release it whatever the gate says, for this recorded reason; also as the first release. It is
                measured all the same, on as many labels as there are: no release goes without its evidence.

        Raises:
            NotReadyError: it cannot be measured, and it is forced or nothing serves yet.
        """
        candidate = self.candidate(version)
        before = releases.current(self._session.stores.catalog, decision)
        if force_reason is None or (before is not None and before.champion == version.version):
            return self.judge(decision, candidate, at=at, actor=actor)
        return self._force(decision, candidate, before, force_reason, at=at, actor=actor)

    def _force(
        self,
        decision: str,
        candidate: Candidate,
        before: ReleaseEvent | None,
        force_reason: str,
        *,
        at: Instant,
        actor: str,
    ) -> ReleaseEvent:
        version, gate = candidate.version, self._gate(decision)
        verdict = self._verdict(gate, before, candidate)
        measured = verdict
        if verdict.evaluation is None:  # the gate asks for more labels than there are; force does not
            measured = self._verdict(msgspec.structs.replace(gate, min_labels=1), before, candidate)
        if measured.evaluation is None:
            raise NotReadyError(
                f"{version.version} cannot be released, forced or not, for it cannot be measured: {measured.reason}",
                where=f"decision {decision}, evaluation part {candidate.evaluation.manifest.name}",
                mend="force overrules the gate, not the need for evidence: wait for mature labels of both kinds, "
                "then train again",
            )
        reason = f"{force_reason} (forced; the gate said: {verdict.reason})"
        evidence, bundle = (measured.evaluation,), self._bundle(decision, version)
        if before is None:
            event = releases.first_release(
                decision, version, at=at, actor=actor, reason=reason, evidence=evidence, bundle=bundle
            )
        else:
            event = releases.release(
                before, version, at=at, actor=actor, reason=reason, evidence=evidence, verify=self.verify,
                bundle=bundle,
            )  # fmt: skip
        return self._write(event, before)

    def rollback(self, decision: str, *, at: Instant, actor: str, reason: str) -> ReleaseEvent:
        """Go back to the champion before the present one; all that it needs is loaded and checked first.

        Raises:
            NotReadyError: there is nothing to go back to.
            StateMismatchError: the online state that it reads was dropped; `Workplace.rollback` builds it first.
        """
        before = releases.current(self._session.stores.catalog, decision)
        return self._write(self.rollback_event(decision, at=at, actor=actor, reason=reason), before)

    def rollback_event(self, decision: str, *, at: Instant, actor: str, reason: str) -> ReleaseEvent:
        """The transition that a rollback would write: to which version, with whose code."""
        catalog = self._session.stores.catalog
        event = releases.rollback(
            releases.history(catalog, decision), at=at, actor=actor, reason=reason, verify=self.verify
        )
        bundle = self._bundle(decision, get_version(catalog, event.champion), known=event.bundle)
        return msgspec.structs.replace(event, bundle=bundle)

    def _write(self, event: ReleaseEvent, before: ReleaseEvent | None) -> ReleaseEvent:
        """Write a transition to the ledger, once all that it serves is loaded; it serves from the next request on."""
        serving = self._session.loader.prepare(event.decision, event)
        releases.append(self._session.stores.catalog, event, after=before)
        self._session.decider.serve(serving)
        return event

    def candidate(self, version: ModelVersion) -> Candidate:
        """A version trained before, with its frozen parts."""
        names = (version.training_set, f"{version.training_set}-evaluation")
        return Candidate(version, *(self._frozen(name) for name in names))

    def _frozen(self, name: str) -> TrainingSet:
        manifest = find_manifest(name, self._session.stores.catalog)
        if manifest is None:
            raise UnknownNameError(
                f"There is no training set {name!r}.", where="catalog", mend="train the model again"
            )
        return load_set(manifest, self._session.stores.artifacts)

    def verify(self, version: str) -> LoadedModel:
        """Load a version: digest and parity are checked."""
        return self._session.loader.model(version)

    def _bundle(self, decision: str, version: ModelVersion, known: str | None = None) -> str:
        """Whose code a version serves with: the bundle in force where it computes the same inputs."""
        applied = self._session.applied
        if reads_same_inputs(applied.project, decision, version):
            return applied.bundle
        return known or version.bundle

    def _gate(self, decision: str) -> CompiledGate:
        declared = self._session.applied.project.release_of(decision)
        if declared is None:
            raise DefinitionError(
                f"Decision {decision!r} has no release.",
                where=f"decision {decision}",
                mend=f"declare vo.Release({decision}, gate=vo.Gate(...)) and apply",
            )
        return declared.gate

    def _verdict(self, gate: CompiledGate, before: ReleaseEvent | None, candidate: Candidate) -> Verdict:
        part = candidate.evaluation
        if not part.table.num_rows:
            return Verdict(False, "No mature labels to judge on.", None)
        champion = None
        if before is not None:
            loaded = self.verify(before.champion)
            _refuse_seen(loaded.version, part)
            part, inputs = self._as_read_by(loaded, part)
            if not part.table.num_rows:
                return Verdict(False, f"{before.champion} can answer none of the requests to judge on.", None)
            champion = loaded.predictor.predict(inputs)
        challenger = self.verify(candidate.version.version).predictor.predict(part.features)
        return judge(
            gate, champion, challenger, label_numbers(part), part.units,
            evaluation_set=part.manifest, seed=self._session.applied.project.model(candidate.version.model).seed,
        )  # fmt: skip

    def _as_read_by(self, loaded: LoadedModel, part: TrainingSet) -> tuple[TrainingSet, pa.Table]:
        """The rows of a part that another version can answer, and its inputs there: as they are, or recomputed."""
        if loaded.version.service_version == part.manifest.service_version:
            return part, part.features
        bundle = loaded.version.bundle
        model = self._session.definitions.get(bundle).model(loaded.version.model)
        frames = Frames(self._session, bundle)
        made, stamp = part.manifest, part.manifest.stamp
        rows = [frames.decided(model, made.decided_from, made.decided_until, stamp=stamp)]
        past = frames.history(model, stamp=stamp)
        if past is not None:
            rows.append(past.select(rows[0].column_names))
        frame = pa.concat_tables(rows)
        answered = pc.is_in(part.table["id"], value_set=member_ids(frame))
        shared = part._replace(table=part.table.filter(answered))
        return shared, inputs_of(frame, model.service, shared.table["id"].combine_chunks())


def _refuse_seen(champion: ModelVersion, part: TrainingSet) -> None:
    """An old candidate's evaluation part may hold rows that a later champion learnt from."""
    if champion.trained_until > part.manifest.decided_from:
        raise NotReadyError(
            f"{part.manifest.name} holds decisions that the champion {champion.version} learnt from.",
            where=f"trained until {format_instant(champion.trained_until)}",
            mend="train a new version and release that, or `volano rollback`",
        )
