"""OpenAPI 3.1 of a project: one typed route for each decision and each source that takes events."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from volano import __version__
from volano.plan.built_in import collected_sources
from volano.plan.definitions import CompiledProject
from volano.records.answers import Decided, LoggedAnswer, ReceiptAnswer
from volano.server.problems import Problem
from volano.values.schema import DType, Schema

_TYPES: Final[dict[DType, dict[str, Any]]] = {
    DType.BOOL: {"type": "boolean"},
    DType.INT64: {"type": "integer", "format": "int64"},
    DType.FLOAT64: {"type": "number"},
    DType.STRING: {"type": "string"},
    DType.TIMESTAMP: {"type": "string", "format": "date-time"},
    DType.LIST_FLOAT64: {"type": "array", "items": {"type": "number"}},
    DType.LIST_INT64: {"type": "array", "items": {"type": "integer", "format": "int64"}},
    DType.LIST_STRING: {"type": "array", "items": {"type": "string"}},
}
_PROBLEM: Final = {
    "description": "Problem details (RFC 9457).",
    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
}


def openapi(project: CompiledProject) -> dict[str, Any]:
    """The description of everything that `App` answers, as plain data."""
    _, components = msgspec.json.schema_components(
        [Decided, LoggedAnswer, ReceiptAnswer, Problem], ref_template="#/components/schemas/{name}"
    )
    schemas: dict[str, Any] = dict(components)
    paths: dict[str, Any] = {}
    for decision in project.decisions.values():
        request = project.requests[decision.request]
        schemas[f"request.{request.name}"] = _object(request.schema)
        paths[f"/v1/decide/{decision.name}"] = {
            "post": _operation(
                f"decide_{decision.name}",
                f"Decide {decision.name}: one of {', '.join(decision.actions)}.",
                body={"$ref": f"#/components/schemas/request.{request.name}"},
                answer={"$ref": "#/components/schemas/Decided"},
                status="200",
                parameters=[
                    {
                        "name": "Volano-Decision-Id",
                        "in": "header",
                        "description": "The caller's id of the decision: makes a retry safe.",
                        "schema": {"type": "string", "maxLength": 200},
                    }
                ],
            )
        }
        paths[f"/v1/decisions/{decision.name}"] = {
            "post": _operation(
                f"log_{decision.name}",
                f"Log decisions of {decision.name} that were made elsewhere: one, or a list of them.",
                body=_one_or_many(_elsewhere(f"request.{request.name}", decision.actions)),
                answer=_one_or_many({"$ref": "#/components/schemas/LoggedAnswer"}),
                status="202",
                parameters=[_WAIT],
            )
        }
    receipt = {"$ref": "#/components/schemas/ReceiptAnswer"}
    for source in collected_sources(project).values():
        if not source.stream:
            continue
        schemas[f"event.{source.name}"] = _object(source.schema)
        ref = {"$ref": f"#/components/schemas/event.{source.name}"}
        paths[f"/v1/observe/{source.name}"] = {
            "post": _operation(
                f"observe_{source.name}",
                f"Take events of {source.name} in: one, or a list of them.",
                body=_one_or_many(ref),
                answer=_one_or_many(receipt),
                status="202",
                parameters=[
                    _query("operation", {"type": "string", "enum": ["insert", "correct", "retract"]}),
                    _query("revision", {"type": "integer", "minimum": 0}),
                    _WAIT,
                ],
            )
        }
    paths["/v1/observe"] = {
        "post": _operation(
            "observe",
            "Take events of several sources in.",
            body={"type": "array", "items": _ITEM_SCHEMA},
            answer={"type": "array", "items": receipt},
            status="202",
            parameters=[_WAIT],
        )
    }
    paths["/v1/receipts/{receipt_id}"] = {
        "get": _operation(
            "receipt",
            "How an accepted event ended, as far as it has.",
            answer=receipt,
            status="200",
            parameters=[{"name": "receipt_id", "in": "path", "required": True, "schema": {"type": "string"}}],
        )
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": f"Volano: {project.namespace}", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{}, {"token": []}],
    }


_ITEM_SCHEMA: Final = {
    "type": "object",
    "required": ["source", "event"],
    "additionalProperties": False,
    "properties": {
        "source": {"type": "string"},
        "event": {"type": "object"},
        "operation": {"type": "string", "enum": ["insert", "correct", "retract"], "default": "insert"},
        "revision": {"type": "integer", "minimum": 0, "default": 0},
    },
}


def _one_or_many(schema: dict[str, Any]) -> dict[str, Any]:
    return {"oneOf": [schema, {"type": "array", "items": schema}]}


def _elsewhere(request: str, actions: tuple[str, ...]) -> dict[str, Any]:
    """The shape of a decision made elsewhere (`records.elsewhere.DecisionElsewhere`)."""
    text = {"type": "string"}
    return {
        "type": "object",
        "required": ["decision_id", "request", "action", "decided_at", "propensity", "propensity_method"],
        "additionalProperties": False,
        "properties": {
            "decision_id": {**text, "minLength": 1, "maxLength": 200},
            "request": {"$ref": f"#/components/schemas/{request}"},
            "action": {**text, "enum": list(actions)},
            "decided_at": {**text, "format": "date-time"},
            "propensity": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
            "propensity_method": {**text, "minLength": 1},
            "score": {"type": ["number", "null"]},
            "origin": {**text, "minLength": 1, "maxLength": 200, "default": "external"},
            "cost": {"type": ["number", "null"]},
            "subject": {"type": ["string", "null"]},
            "purpose": text,
        },
    }


def _operation(
    name: str,
    summary: str,
    *,
    answer: dict[str, Any],
    status: str,
    body: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary,
        "responses": {
            status: {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            "default": _PROBLEM,
        },
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    if parameters:
        operation["parameters"] = parameters
    return operation


def _query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "schema": schema}


_WAIT: Final = _query("wait", {"type": "boolean", "default": False}) | {
    "description": "Answer with how it ended, where that is known within a second."
}


def _object(schema: Schema) -> dict[str, Any]:
    """A declared schema as JSON schema; what may be null may be left out."""
    properties = {}
    for field in schema.fields:
        shape = dict(_TYPES[field.dtype])
        if field.nullable:
            shape["type"] = [shape["type"], "null"]
        properties[field.name] = shape
    return {
        "type": "object",
        "properties": properties,
        "required": [field.name for field in schema.fields if not field.nullable],
        "additionalProperties": False,
    }
