"""Compiled projects and plans as canonical JSON, and back, also from older versions.

A new field has a default, so that what was written before it is read for ever; `tests/plan/old` holds one
file a version.
"""

from __future__ import annotations

from typing import Final

import msgspec

from volano.errors import CorruptionError
from volano.plan.definitions import CompiledProject
from volano.plan.plan import Plan

_ENCODER: Final = msgspec.json.Encoder(order="deterministic")
_PROJECTS: Final = msgspec.json.Decoder(CompiledProject)
_PLANS: Final = msgspec.json.Decoder(Plan)


def encode_project(project: CompiledProject) -> bytes:
    """The canonical JSON of a compiled project."""
    return _ENCODER.encode(project)


def decode_project(data: bytes) -> CompiledProject:
    """The compiled project of some JSON.

    Raises:
        CorruptionError: it is not one.

    >>> decode_project(encode_project(CompiledProject("flights"))).namespace
    'flights'
    """
    try:
        return _PROJECTS.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptionError(f"These are not compiled definitions: {error}", mend="apply again") from error


def encode_plan(plan: Plan) -> bytes:
    """The canonical JSON of a plan."""
    return _ENCODER.encode(plan)


def decode_plan(data: bytes) -> Plan:
    """The plan of some JSON.

    Raises:
        CorruptionError: it is not one.
    """
    try:
        return _PLANS.decode(data)
    except msgspec.DecodeError as error:
        raise CorruptionError(f"This is not a plan: {error}", mend="plan again") from error
