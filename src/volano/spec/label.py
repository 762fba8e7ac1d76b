"""Labels: what a decision led to, derived from later events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta

import msgspec

from volano.spec.attribution import Attribution
from volano.spec.fields import FieldRef, SchemaType
from volano.spec.owner import Owner
from volano.spec.source import Source
from volano.spec.sql import Sql


@dataclass(frozen=True, eq=False)
class Label:
    """A value derived for a decision from observations inside a horizon.

    Args:
        name: unique among the project's labels.
        request: the request whose decisions it labels.
        source: where the evidence comes from.
        on: the field that both share; several; or a map from request field to source column. "decision_id" is the
            decision's own id, where the source has a column that names it.
        value: the label, SQL over the source's columns (or the name of one): a bool or a number.
        horizon: evidence later than this after decided_at does not count; the label is mature then. A
            duration.
        censored_by: sources whose event for the same `on` means that the label will never be known.
        default: the value at maturity when no evidence came; without it such a label is censored.
        combine: what several outcomes of one decision make: the `first` or `last` of them, `any` (of bools), or their
            `sum`, each by the share that the decision has in it.
        attribution: how an outcome that several decisions came before is divided among them; equally without it.
        owner: who answers for it.
    """

    name: str
    _: KW_ONLY
    request: SchemaType | None = None
    source: Source | None = None
    on: str | FieldRef | Sequence[str | FieldRef] | Mapping[str, str] | None = None
    value: Sql | str | FieldRef | None = None
    horizon: str | timedelta | None = None
    censored_by: Source | Sequence[Source] = ()
    default: bool | int | float | str | msgspec.UnsetType | None = msgspec.UNSET
    combine: str = "first"
    attribution: Attribution | None = None
    owner: Owner | None = None
