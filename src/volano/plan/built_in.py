"""Sources that every project has: what was really shown, and what was really done, of a decision.

They are sources like any other: their events are checked, get receipts, are recognised when they come twice, can be
corrected and retracted. What sets them apart is that no author declares them, that each names a decision, and that
their tables are named as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from volano.plan.definitions import CompiledProject, CompiledSource
from volano.records import elsewhere
from volano.values.schema import DType, Field, Schema

EXPOSURE: Final = CompiledSource(
    name=elsewhere.EXPOSURE,
    event="Exposure",
    schema=Schema(
        (
            Field("exposure_id", DType.STRING),
            Field("decision", DType.STRING),
            Field("decision_id", DType.STRING),
            Field("exposed_at", DType.TIMESTAMP),
            Field("shown", DType.STRING, nullable=True),
            Field("position", DType.INT64, nullable=True),
            Field("surface", DType.STRING, nullable=True),
            Field("subject", DType.STRING, nullable=True),
            Field("purpose", DType.STRING, nullable=True),
        )
    ),
    id_columns=("exposure_id",),
    event_time="exposed_at",
    owner="",
    stream=True,
)
"""What was really shown of a decision, and when. `shown` is null where it was the action itself."""

ACTION_TAKEN: Final = CompiledSource(
    name=elsewhere.ACTION_TAKEN,
    event="ActionTaken",
    schema=Schema(
        (
            Field("action_id", DType.STRING),
            Field("decision", DType.STRING),
            Field("decision_id", DType.STRING),
            Field("taken_at", DType.TIMESTAMP),
            Field("action", DType.STRING),
            Field("propensity", DType.FLOAT64, nullable=True),
            Field("actor", DType.STRING, nullable=True),
            Field("reason", DType.STRING, nullable=True),
            Field("subject", DType.STRING, nullable=True),
            Field("purpose", DType.STRING, nullable=True),
        )
    ),
    id_columns=("action_id",),
    event_time="taken_at",
    owner="",
    stream=True,
)
"""What was really done about a decision, by whom, and when."""

BUILT_IN: Final[Mapping[str, CompiledSource]] = {source.name: source for source in (EXPOSURE, ACTION_TAKEN)}


def collected_sources(project: CompiledProject) -> dict[str, CompiledSource]:
    """Every source whose events are collected: the declared ones, then the built-in ones."""
    return {**project.sources, **BUILT_IN}


def source_of(project: CompiledProject, name: str) -> CompiledSource:
    """The source of a name, declared or built in.

    Raises:
        UnknownNameError: there is none.
    """
    return BUILT_IN.get(name) or project.source(name)


def fact_table(source: str) -> str:
    """The name of the lake table of a source's facts.

    >>> fact_table("orders"), fact_table("exposure")
    ('fact_orders', 'exposure')
    """
    return source if source in BUILT_IN else f"fact_{source}"


def is_fact_table(table: str) -> bool:
    """Whether a lake table holds the facts of a source."""
    return table in BUILT_IN or table.startswith("fact_")
