"""The views that lack rows, read from online state, also beside the process that writes it."""

from __future__ import annotations

from collections.abc import Iterable

from volano.errors import NotReadyError
from volano.plan.failed_rows import FailedRow, FailingView, decode_failed, failed_prefix, projected_views
from volano.plan.state import StateGroup
from volano.protocols.online_store import OnlineReader
from volano.runtime.applied import Applied
from volano.runtime.stores import Stores


def failing_views(online: OnlineReader, groups: Iterable[StateGroup]) -> tuple[FailingView, ...]:
    """The views of some groups that lack rows now, each once."""
    found: dict[bytes, FailingView] = {}
    with online.snapshot() as snapshot:
        for view in projected_views(groups):
            prefix = failed_prefix(view)
            first: FailedRow | None = None
            n_rows = 0
            for _, value in snapshot.scan(prefix, prefix + b"\xff" * 17):
                n_rows += 1
                first = first or decode_failed(value)
            if first is not None:
                found[prefix] = FailingView(view.name, first.source, n_rows, first.event_id, first.reason)
    return tuple(found.values())


def read_failing(stores: Stores, applied: Applied) -> tuple[FailingView, ...]:
    """The views in force that lack rows now; none while online state is lost: it is then built again first."""
    if not projected_views(applied.groups) or not (stores.data / "online" / applied.state).exists():
        return ()
    try:
        with stores.online_reader(applied.state) as online:
            return failing_views(online, applied.groups)
    except NotReadyError:
        return ()
