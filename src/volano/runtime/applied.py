"""What is in force: the applied definitions, their bundle, the layout of their state, the hand-overs.

Kept as one catalog document, replaced by compare-and-set at the end of an apply; every replacement is also an entry
of the ledger, so the past can be read.
"""

from __future__ import annotations

import msgspec

from volano.errors import NotReadyError, UnknownNameError
from volano.plan.definitions import CompiledProject
from volano.plan.state import StateGroup
from volano.protocols.catalog import CatalogReader, CatalogWriter
from volano.records.handover import HandOver
from volano.values.instants import Instant

_KIND, _NAME, _STREAM = "project", "applied", "applied"
_DEFINITIONS = "definitions"


class Applied(msgspec.Struct, frozen=True):
    """What is in force since `at`.

    Args:
        state: name of the online store that holds the groups' state; a rebuild makes a new one and swaps.
        groups: every group that receives events: of the applied project, and of the bundles that a serving
            release or its rollback target needs.
    """

    bundle: str
    project: CompiledProject
    groups: tuple[StateGroup, ...]
    state: str
    handovers: dict[str, HandOver]
    at: Instant


def find_applied(catalog: CatalogReader) -> tuple[Applied | None, int]:
    """What is in force and its revision; (None, 0) before the first apply."""
    document = catalog.find(_KIND, _NAME)
    if document is None:
        return None, 0
    return msgspec.json.decode(document.body, type=Applied), document.revision


def applied_revision(catalog: CatalogReader) -> int:
    """The revision of what is in force; 0 before the first apply."""
    document = catalog.find(_KIND, _NAME)
    return 0 if document is None else document.revision


def get_applied(catalog: CatalogReader) -> Applied:
    """What is in force.

    Raises:
        NotReadyError: nothing was applied yet.
    """
    applied, _ = find_applied(catalog)
    if applied is None:
        raise NotReadyError(
            "Nothing is applied yet.", where="catalog", mend="run `volano plan`, then `volano apply`"
        )
    return applied


def put_applied(catalog: CatalogWriter, applied: Applied, *, expected: int) -> None:
    """Put a new state in force.

    Raises:
        ConflictError: somebody else applied in between; plan again.
    """
    catalog.put(_KIND, _NAME, msgspec.json.encode(applied), expected=expected)


def note_applied(catalog: CatalogWriter, applied: Applied) -> None:
    """Enter what is in force into the ledger, once all that belongs to it is done; entered already, it is not again."""
    if not is_noted(catalog, applied):
        catalog.append(_STREAM, [_note(applied)], at=applied.at)


def is_noted(catalog: CatalogReader, applied: Applied) -> bool:
    """Whether all that an apply does was done; if not, it was killed behind the swap, and the next one does it."""
    last = catalog.last_entry(_STREAM)
    return last is not None and last.body == _note(applied)


def _note(applied: Applied) -> bytes:
    return msgspec.json.encode({"bundle": applied.bundle, "state": applied.state})


def put_definitions(catalog: CatalogWriter, bundle: str, project: CompiledProject) -> None:
    """Keep the definitions of a bundle, for ever; writing them again changes nothing."""
    if catalog.find(_DEFINITIONS, bundle) is None:
        catalog.put(_DEFINITIONS, bundle, msgspec.json.encode(project))


def all_bundles(catalog: CatalogReader) -> list[str]:
    """Every bundle that was ever applied here."""
    return [document.name for document in catalog.documents(_DEFINITIONS)]


def get_definitions(catalog: CatalogReader, bundle: str) -> CompiledProject:
    """The definitions of a bundle.

    Raises:
        UnknownNameError: it was never applied here.
    """
    found = find_definitions(catalog, bundle)
    if found is None:
        raise UnknownNameError(
            f"No definitions are kept for bundle {bundle[:12]}.",
            where="catalog",
            mend="apply the project again",
        )
    return found


def find_definitions(catalog: CatalogReader, bundle: str) -> CompiledProject | None:
    """The definitions of a bundle, or None when it was never applied here."""
    document = catalog.find(_DEFINITIONS, bundle)
    return None if document is None else msgspec.json.decode(document.body, type=CompiledProject)
