"""Which label judges the decisions of an older bundle: today's where it can, else the one they were made under.

Pure: it compares definitions; whether evidence came is not its question.
"""

from __future__ import annotations

from volano.compile.expressions import read_expression
from volano.plan.definitions import DECISION_ID, CompiledLabel, CompiledProject


def can_judge(label: CompiledLabel, other: CompiledProject, decision: str) -> bool:
    """Whether a label may judge decisions that were made under other definitions.

    It may when it could have been declared there: the request has the fields that it joins on, and its sources have the
    columns that it reads. Else an outcome that came under the older schema would look as if it had never come.

    Args:
        label: of the definitions in force, or of those that a training set was built with.
        other: the definitions that made the decisions; `decision` is their name.
    """
    made = other.decisions.get(decision)
    source = other.sources.get(label.source)
    if made is None or source is None:
        return False
    request = other.requests[made.request].schema
    if any(field != DECISION_ID and request.find(field) is None for field, _ in label.on):
        return False
    for name in (label.source, *label.censored_by):
        read = other.sources.get(name)
        if read is None or any(read.schema.find(column) is None for _, column in label.on):
            return False
    types = {field.name: field.dtype for field in source.schema.fields}
    _, problems = read_expression(label.value_sql, types)
    return not problems
