"""One logged decision, read back from the lake as the record that it was written from."""

from __future__ import annotations

from volano.collect.tables import decision_table
from volano.decide.explain import decision_of_row
from volano.protocols.lake import LakeReader
from volano.records.journal import DecisionMade
from volano.runtime.definitions import Definitions


def find_logged(
    lake: LakeReader, definitions: Definitions, decision: str, decision_id: str
) -> DecisionMade | None:
    """The first answer to a decision id that is committed, or None."""
    table = decision_table(decision)
    if lake.version(table) is None:
        return None
    found = lake.read(table, where={"decision_id": (decision_id, decision_id + "\x00")})
    if not found.num_rows:
        return None
    row = found.sort_by("attempt").to_pylist()[0]
    project = definitions.get(row["bundle"])
    service = project.model(row["model"]).service
    # The table is as wide as all its bundles; a decision has the fields and features of its own.
    fields = project.requests[service.request].schema.names
    kept = {name: value for name, value in row.items() if not name.startswith(("feature__", "request__"))}
    kept |= {f"request__{name}": row.get(f"request__{name}") for name in fields}
    kept |= {f"feature__{each.name}": row.get(f"feature__{each.name}") for each in service.inputs}
    return decision_of_row(kept, namespace=project.namespace, decision=decision)
