"""Requests under newer definitions than those that a release serves by: answered where they hold all that it asks for.

After an apply that changes a request, callers follow the definitions in force, while yesterday's release serves until
another one is released. What it does not know it leaves aside; what it lacks makes its fallback answer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from volano.decide.request import RequestReader
from volano.plan.definitions import CompiledRequest
from volano.values.schema import Scalar


class NewerRequests(NamedTuple):
    """Reads requests of the definitions in force for a release of older ones.

    Args:
        reader: of the definitions in force.
        served: the request that the release asks for.
    """

    reader: RequestReader
    served: CompiledRequest

    def read(self, request: Mapping[str, Any] | bytes) -> tuple[dict[str, Scalar], dict[str, Scalar] | None]:
        """The fields of a request, and those of them that the release asks for; None when it lacks one.

        Raises:
            RequestError: it does not fit the definitions in force either.
        """
        values = self.reader.read(request)
        missing = missing_fields(self.served, self.reader.request)
        served: dict[str, Scalar] = {}
        for field in self.served.schema.fields:
            value = None if field.name in missing else values.get(field.name)
            if value is None and not field.nullable:
                return values, None
            served[field.name] = value
        return values, served


def missing_fields(served: CompiledRequest, newer: CompiledRequest) -> list[str]:
    """The fields of a request that a newer one has no longer, or with another type."""
    known = {field.name: field.dtype for field in newer.schema.fields}
    return [field.name for field in served.schema.fields if known.get(field.name) is not field.dtype]


def lacking_fields(served: CompiledRequest, newer: CompiledRequest) -> list[str]:
    """The fields without which a release cannot answer, and which newer requests may lack."""
    missing = set(missing_fields(served, newer))
    optional = {field.name for field in newer.schema.fields if field.nullable}
    return [
        field.name
        for field in served.schema.fields
        if not field.nullable and (field.name in missing or field.name in optional)
    ]
