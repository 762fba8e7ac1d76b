"""The lake tables of a project, as Arrow schemas: what the committer writes and everyone else may count on."""

from __future__ import annotations

from typing import Final

import pyarrow as pa

from volano.plan.built_in import collected_sources, fact_table
from volano.plan.definitions import CompiledDecision, CompiledProject, CompiledSource
from volano.values.arrow import ARROW_TYPES, INSTANT

FACT_COLUMNS: Final = pa.schema(
    [
        ("event_id", pa.string()),
        ("revision", pa.int64()),
        ("operation", pa.string()),
        ("event_time", INSTANT),
        ("received_at", INSTANT),
        ("applied_at", INSTANT),
        ("known_at", INSTANT),
        ("receipt_id", pa.string()),
        ("payload_hash", pa.binary()),
        ("too_late", pa.bool_()),
    ]
)
DECISION_COLUMNS: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("attempt", pa.int64()),
        ("decided_at", INSTANT),
        ("features_as_of", INSTANT),
        ("applied_at", INSTANT),
        ("bundle", pa.string()),
        ("release_id", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("service_version", pa.string()),
        ("unit", pa.string()),
        ("role", pa.string()),
        ("mode", pa.string()),
        ("score", pa.float64()),
        ("action", pa.string()),
        ("propensity", pa.float64()),
        ("propensity_method", pa.string()),
        ("fallback", pa.string()),
        ("deadline_us", pa.int64()),
        ("latency_us", pa.map_(pa.string(), pa.int64())),
        ("log_keep_probability", pa.float64()),
        ("cost", pa.float64()),
        ("subject", pa.string()),
        ("purpose", pa.string()),
        ("source_event_id", pa.string()),
        ("origin", pa.string()),
    ]
)
SHADOW_COLUMNS: Final = pa.schema(
    [
        ("decision_id", pa.string()),
        ("attempt", pa.int64()),
        ("decision", pa.string()),
        ("model", pa.string()),
        ("model_version", pa.string()),
        ("score", pa.float64()),
        ("scored_at", INSTANT),
        ("applied_at", INSTANT),
    ]
)
RECEIPT_COLUMNS: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("receipt_id", pa.string()),
        ("source", pa.string()),
        ("event_id", pa.string()),
        ("revision", pa.int64()),
        ("status", pa.string()),
        ("received_at", INSTANT),
        ("applied_at", INSTANT),
    ]
)
QUARANTINE_COLUMNS: Final = pa.schema(
    [
        ("kind", pa.string()),
        ("receipt_id", pa.string()),
        ("source", pa.string()),
        ("event_id", pa.string()),
        ("operation", pa.string()),
        ("revision", pa.int64()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("field", pa.string()),
        ("message", pa.string()),
        ("payload", pa.binary()),
        ("received_at", INSTANT),
        ("applied_at", INSTANT),
    ]
)

RESOLUTION_COLUMNS: Final = pa.schema(
    [
        ("receipt_id", pa.string()),
        ("source", pa.string()),
        ("fate", pa.string()),
        ("actor", pa.string()),
        ("reason", pa.string()),
        ("replayed_as", pa.string()),
        ("resolved_at", INSTANT),
        ("applied_at", INSTANT),
    ]
)

SHADOWS: Final = "shadow_score"
RECEIPTS: Final = "receipt"
QUARANTINE: Final = "quarantine"
RESOLUTIONS: Final = "quarantine_resolution"


def decision_table(decision: str) -> str:
    """The name of the table of a decision's records."""
    return f"decision_{decision}"


def lake_tables(project: CompiledProject) -> dict[str, pa.Schema]:
    """Every lake table that collecting writes, by name.

    All columns may be null in the lake: a wider schema must be able to read what a narrower one wrote.
    """
    tables: dict[str, pa.Schema] = {}
    for source in collected_sources(project).values():
        tables[fact_table(source.name)] = _fact_schema(source)
    for decision in project.decisions.values():
        tables[decision_table(decision.name)] = _decision_schema(project, decision)
    return tables | {
        SHADOWS: SHADOW_COLUMNS,
        QUARANTINE: QUARANTINE_COLUMNS,
        RESOLUTIONS: RESOLUTION_COLUMNS,
        RECEIPTS: RECEIPT_COLUMNS,
    }


def _fact_schema(source: CompiledSource) -> pa.Schema:
    own = [
        pa.field(field.name, ARROW_TYPES[field.dtype])
        for field in source.schema.fields
        if field.name not in FACT_COLUMNS.names
    ]
    return pa.schema([*FACT_COLUMNS, *own])


def _decision_schema(project: CompiledProject, decision: CompiledDecision) -> pa.Schema:
    request = project.requests[decision.request]
    service = project.model(decision.model).service
    return pa.schema(
        [
            *DECISION_COLUMNS,
            *(
                pa.field(f"request__{field.name}", ARROW_TYPES[field.dtype])
                for field in request.schema.fields
            ),
            *(pa.field(f"feature__{source.name}", ARROW_TYPES[source.dtype]) for source in service.inputs),
        ]
    )
