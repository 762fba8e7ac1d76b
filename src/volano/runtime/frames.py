"""Frames to learn from: decisions and past requests with their features, and their labels. Reads; writes nothing.

A frame has a row a decision, with `feature__<input>` columns as one feature service names them. Features stand as
served where the decision was served by that service, else recomputed as of what was visible then. Everything is read as
of a stamp, and past requests are frozen before they are read, so the same frame can be made again at any time.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from volano.collect.tables import decision_table
from volano.compile.judging import can_judge
from volano.compile.state import state_groups
from volano.kernels.standing import as_micros, newest_rows
from volano.learn.training_set import member_ids, unanswered
from volano.organize.features import Mode, PointInTime
from volano.organize.labels import LABEL_SCHEMA, Evidence, attribute
from volano.plan.built_in import fact_table
from volano.plan.definitions import (
    CompiledHistory,
    CompiledLabel,
    CompiledModel,
    CompiledRequest,
    CompiledService,
)
from volano.protocols.functions import Functions
from volano.runtime.labelling import LABELS, evidence_columns, read_labels
from volano.runtime.scratch import FileScratch
from volano.runtime.session import Session
from volano.values.arrow import ARROW_TYPES, INSTANT
from volano.values.event_ids import event_id
from volano.values.instants import BEGINNING, Instant
from volano.values.schema import Scalar

_SYSTEM = pa.schema(
    [
        ("decision", pa.string()),
        ("decision_id", pa.string()),
        ("decided_at", INSTANT),
        ("applied_at", INSTANT),
        ("mode", pa.string()),
        ("attempt", pa.int64()),
        ("unit", pa.string()),
        ("fallback", pa.string()),
        ("service_version", pa.string()),
    ]
)


_ANSWERED = pa.schema([("source_event_id", pa.string()), ("decided_at", INSTANT)])


class _History(NamedTuple):
    """A frame of past requests, and the stamp that it was computed as of."""

    frame: pa.Table
    stamp: Instant


class Frames:
    """The frames of one bundle's definitions.

    Args:
        bundle: the one in force, or an older one that a release serves or a training set was built with.
    """

    def __init__(self, session: Session, bundle: str) -> None:
        self._session = session
        self._project = session.definitions.get(bundle)
        self._functions: Functions = session.bundles.get(bundle)
        self._facts = session.definitions.facts(bundle)
        self._histories: dict[tuple[str, str], _History] = {}
        self._frozen: dict[str, tuple[str, pa.Table]] = {}

    def pin(self, cutoff: Instant) -> Instant:
        """The stamp that a set cut at an instant is read as of: nothing applied later exists for it.

        It is one that was given: what is applied from now on has a higher one, even within this microsecond. A
        hand-over may have been stamped after the cut-off, when stamps ran ahead of the clock; what it brought counts by
        its `known_at`.
        """
        stamp = min(cutoff, self._session.committed_stamp())
        return max([max(stamp, 0), *self._facts.handed_over()])

    def decided(
        self, model: CompiledModel, since: Instant, until: Instant, *, stamp: Instant | None = None
    ) -> pa.Table:
        """Logged decisions of a model, decided in `[since, until)`."""
        lake = self._session.stores.lake
        schema = _frame_schema(model.service)
        found = [schema.empty_table()]
        for decision in self._project.decisions.values():
            table = decision_table(decision.name)
            if decision.model != model.name or lake.version(table) is None:
                continue
            asked = [f"request__{name}" for name in self._project.requests[decision.request].schema.names]
            rows = lake.read(
                table,
                columns=[*schema.names[1:], "features_as_of", *asked],
                where={"decided_at": (max(since, BEGINNING), until)},
            )
            rows = rows.add_column(0, "decision", pa.repeat(decision.name, rows.num_rows))
            served = pc.equal(rows["service_version"], model.service.version)
            found.append(rows.filter(served).select(schema.names).cast(schema))
            # What was decided elsewhere saw none of our features: they are those of production at that instant.
            request = self._project.requests[decision.request]
            elsewhere = _askable(rows.filter(pc.equal(rows["service_version"], "")), request)
            if elsewhere.num_rows:
                computed = self._compute(model, _spine(elsewhere, as_of="decided_at"), Mode.HISTORY, stamp)
                found.append(_frame(elsewhere, computed, model.service).select(schema.names).cast(schema))
            # What fell back before its features were read saw nothing: there is nothing to recompute.
            others = rows.filter(pc.and_(pc.invert(served), rows["features_as_of"].is_valid()))
            others = _askable(others, request)
            if others.num_rows:
                computed = self._compute(model, _spine(others, as_of="features_as_of"), Mode.REPLAY, stamp)
                found.append(_frame(others, computed, model.service).select(schema.names).cast(schema))
        return pa.concat_tables(found)

    def asked(self, model: CompiledModel) -> str:
        """The digest of the past requests of a model as they are now; empty when it has none."""
        return "" if model.history is None else self._freeze(self._project.histories[model.history])[0]

    def history(self, model: CompiledModel, *, stamp: Instant, asked: str = "") -> pa.Table | None:
        """The declared requests of the past, with features as production would have seen them; None without any.

        Only those that nobody decided: a table of requests may hold those that were asked live too.

        Args:
            stamp: only what was applied by then exists.
            asked: digest of the requests, as `asked` gave it; those that are declared now without it.
        """
        if model.history is None:
            return None
        asked = asked or self.asked(model)
        key = (asked, model.service.version)
        kept = self._histories.get(key)
        if kept is None or self._is_altered(kept, stamp):
            rows = self._requests(asked)
            computed = self._compute(model, _spine(rows, as_of="decided_at"), Mode.HISTORY, stamp)
            kept = _History(_frame(rows, computed, model.service), stamp)
        # What holds as of both stamps need not be asked again: the next one is compared with this one.
        self._histories[key] = kept._replace(stamp=stamp)
        return unanswered(kept.frame, self._answered(model, stamp))

    def labels(
        self,
        model: CompiledModel,
        label: CompiledLabel,
        cutoff: Instant,
        *,
        stamp: Instant,
        asked: str = "",
    ) -> pa.Table:
        """Label rows of logged decisions and of the history, as computed by a cut-off."""
        logged = self._judged(label, read_labels(self._session, label.name, until=cutoff))
        history = self.history(model, stamp=stamp, asked=asked)
        if history is None or model.history is None:
            return logged
        # No later event can decide a label of the history: its horizons are over.
        newest = pc.max(history["decided_at"].cast(pa.int64())).as_py()
        until = cutoff + 1 if newest is None else min(cutoff + 1, newest + label.horizon_us)
        facts = {
            source: self._facts.rows(
                source, until=until, stamp=stamp, columns=evidence_columns(self._project, label, source)
            )
            for source in (label.source, *label.censored_by)
        }
        past = attribute(
            label,
            history,
            Evidence(
                facts[label.source],
                {source: facts[source] for source in label.censored_by},
                order_by=self._project.sources[label.source].order_by,
            ),
            decision=model.history,
            as_of=cutoff,
            sql=self._session.stores.sql,
        ).labels
        return pa.concat_tables([logged.cast(LABEL_SCHEMA), past.cast(LABEL_SCHEMA)])

    def _answered(self, model: CompiledModel, stamp: Instant) -> pa.Table:
        """What was asked live by a stamp and saw features, or was decided elsewhere: source_event_id, decided_at."""
        lake = self._session.stores.lake
        found = [_ANSWERED.empty_table()]
        for decision in self._project.decisions.values():
            table = decision_table(decision.name)
            if decision.model != model.name or lake.version(table) is None:
                continue
            rows = lake.read(
                table,
                columns=[*_ANSWERED.names, "mode", "features_as_of", "service_version"],
                where={"applied_at": (None, stamp + 1)},
            )
            counts = pc.or_(rows["features_as_of"].is_valid(), pc.equal(rows["service_version"], ""))
            saw = pc.and_(pc.equal(rows["mode"], "live"), counts)
            found.append(rows.filter(saw).select(_ANSWERED.names).cast(_ANSWERED))
        return pa.concat_tables(found)

    def _judged(self, label: CompiledLabel, rows: pa.Table) -> pa.Table:
        """Label rows without those that a label of the same name gave to decisions which this one cannot judge."""
        definitions, lake = self._session.definitions, self._session.stores.lake
        for decision in definitions.decisions():
            strangers = [
                bundle
                for bundle in definitions.bundles
                if decision in definitions.get(bundle).decisions
                and not can_judge(label, definitions.get(bundle), decision)
            ]
            if strangers:
                made = lake.read(decision_table(decision), columns=["decision_id", "bundle"])
                made = made.filter(pc.is_in(made["bundle"], value_set=pa.array(strangers)))
                foreign = pc.is_in(rows["decision_id"], value_set=made["decision_id"].combine_chunks())
                rows = rows.filter(pc.invert(pc.and_(foreign, pc.equal(rows["decision"], decision))))
        return rows

    def tables(self, model: CompiledModel) -> dict[str, int]:
        """The lake tables behind a frame of a model, at the versions that are read now."""
        lake = self._session.stores.lake
        decisions = [each.name for each in self._project.decisions.values() if each.model == model.name]
        facts = [fact_table(source) for source in self._project.sources]
        names = [*(decision_table(name) for name in decisions), *facts, LABELS]
        return {name: version for name in names if (version := lake.version(name)) is not None}

    def _is_altered(self, kept: _History, stamp: Instant) -> bool:
        """Whether features of a history come out otherwise as of another stamp."""
        if stamp == kept.stamp:
            return False
        low, high = sorted((kept.stamp, stamp))
        newest = pc.max(kept.frame["decided_at"].cast(pa.int64())).as_py()
        return newest is not None and any(
            self._facts.is_altered(source, after=low, until=high, known_by=newest)
            for source in self._project.sources
        )

    def _freeze(self, history: CompiledHistory) -> tuple[str, pa.Table]:
        """The past requests as they are in the author's table now, kept for ever under their digest."""
        snapshot = self._session.stores.sql.snapshot(history.table)
        key = f"{history.name}/{snapshot}"
        if key not in self._frozen:
            rows = self._asked(history)
            sink = pa.BufferOutputStream()
            pq.write_table(rows, sink, compression="zstd")
            digest = self._session.stores.artifacts.put(sink.getvalue().to_pybytes())
            self._frozen[key] = digest, rows
        return self._frozen[key]

    def _requests(self, digest: str) -> pa.Table:
        for known, rows in self._frozen.values():
            if known == digest:
                return rows
        return pq.read_table(pa.BufferReader(self._session.stores.artifacts.get(digest)))

    def _asked(self, history: CompiledHistory) -> pa.Table:
        """One row a past request: an id of its own, when it would have been asked, and its fields."""
        sql = self._session.stores.sql
        request = self._project.requests[history.request]
        rows = sql.query(
            f"SELECT *, CAST(({history.at_sql}) AS TIMESTAMPTZ) AS decided_at FROM source",
            {"source": sql.read_table(history.table)},
        )
        # Without an id, what was asked and when is the identity; rows that share one are one request, first asked.
        names = request.id_columns or ("decided_at", *request.schema.names)
        types = {field.name: ARROW_TYPES[field.dtype] for field in request.schema.fields} | {
            "decided_at": INSTANT
        }
        parts = zip(*(_scalars(rows[name].cast(types[name])) for name in names), strict=True)
        ids = pa.array([event_id(values) for values in parts], pa.string())
        rows = rows.append_column("decision_id", ids)
        first = newest_rows(ids, -as_micros(rows["decided_at"].cast(INSTANT)))
        rows = rows.take(pa.array(np.sort(first)))
        asked = {f"request__{name}": rows[name] for name in request.schema.names}
        return pa.table(
            {
                "decision": pa.repeat(history.name, rows.num_rows),
                "decision_id": rows["decision_id"],
                "decided_at": rows["decided_at"].cast(INSTANT),
                **asked,
            }
        )

    def _compute(self, model: CompiledModel, spine: pa.Table, mode: Mode, stamp: Instant | None) -> pa.Table:
        project = self._project
        stores = self._session.stores
        request = project.requests[model.service.request]
        with FileScratch(stores.data / "scratch") as scratch:
            work = PointInTime(
                project, state_groups(project), self._facts, stores.sql, self._functions, scratch=scratch
            )
            return work.features(model.service.inputs, spine, mode=mode, request=request, stamp=stamp)


def inputs_of(frame: pa.Table, service: CompiledService, ids: pa.Array) -> pa.Table:
    """The inputs of some members, in the order of their ids; a member that the frame lacks has nulls."""
    at = pc.index_in(ids, value_set=member_ids(frame))
    names = [read.name for read in service.inputs]
    return frame.take(at).select([f"feature__{name}" for name in names]).rename_columns(names)


def _frame_schema(service: CompiledService) -> pa.Schema:
    return pa.schema(
        [*_SYSTEM, *(pa.field(f"feature__{read.name}", ARROW_TYPES[read.dtype]) for read in service.inputs)]
    )


def _askable(rows: pa.Table, request: CompiledRequest) -> pa.Table:
    """The decisions that a request could have asked: an older one may have lacked a field that is never null now."""
    for field in request.schema.fields:
        if not field.nullable:
            rows = rows.filter(rows[f"request__{field.name}"].is_valid())
    return rows


def _scalars(column: pa.ChunkedArray) -> list[Scalar]:
    """Values as requests hold them: instants as integers."""
    values: list[Scalar] = (
        column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column
    ).to_pylist()
    return values


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
        "decision": rows["decision"],
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
