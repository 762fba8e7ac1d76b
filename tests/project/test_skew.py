"""The audit of served features can fail: one value of the lake is changed behind its back, and it says which."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.project.world import DECISION, World, items
from volano.runtime.checks import audit_decisions
from volano.values.instants import HOUR_US

RULE = "served features equal recomputed ones, bit for bit"


def used_landing(world: World) -> tuple[str, str]:
    """A decision, and the landing that was its plane's newest when it was made."""
    decisions = world.work.stores.lake.read(f"decision_{DECISION}").sort_by("decided_at").to_pylist()
    facts = world.work.stores.lake.read("fact_landings").sort_by("event_time").to_pylist()
    replaced = {fact["event_id"] for fact in facts if fact["revision"] > 0}
    for decision in reversed(decisions):
        seen = [
            fact
            for fact in facts
            if fact["tailnum"] is not None
            and fact["tailnum"] == decision["request__tailnum"]
            and fact["event_id"] not in replaced
            and fact["event_time"] < decision["decided_at"]
            and fact["applied_at"] <= decision["features_as_of"]
            and (fact["applied_at"] - fact["event_time"]).total_seconds() * 1e6 < 2 * HOUR_US
        ]
        if seen and seen[-1]["arr_delay"] == decision["feature__PlaneHistory__last_delay"]:
            return decision["decision_id"], seen[-1]["event_id"]
    raise AssertionError("no decision read a landing")


def corrupt(folder: Path, event_id: str) -> int:
    """Rewrite one value in the lake's own files; returns how many rows were changed."""
    n_changed = 0
    for file in (folder / ".volano" / "lake" / "fact_landings").rglob("*.parquet"):
        rows = pq.read_table(file)
        if "arr_delay" not in rows.column_names:
            continue
        hit = pc.equal(rows["event_id"], event_id)
        if not pc.any(hit).as_py():
            continue
        changed = pc.if_else(hit, pc.add(rows["arr_delay"], 0.001), rows["arr_delay"])
        at = rows.column_names.index("arr_delay")
        assert pa.types.is_float64(changed.type)
        n_changed += pc.sum(pc.cast(hit, pa.int64())).as_py()
        pq.write_table(rows.set_column(at, rows.schema.field(at), changed), file)
    return n_changed


def test_one_changed_value_in_the_lake_is_found_and_named(copy, unfinished):
    folder = copy(unfinished)
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[-1].at)
        assert audit_decisions(world.work.session, DECISION).mismatched == 0
        decision_id, event_id = used_landing(world)
    assert corrupt(folder, event_id) == 1
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[-1].at)
        report = audit_decisions(world.work.session, DECISION)
        found = {(each.decision_id, each.feature) for each in report.differences}
        assert 0 < report.mismatched < report.checked
        assert (decision_id, "PlaneHistory__last_delay") in found
        assert (decision_id, "PlaneHistory__mean_delay_7d") in found
        assert not any(feature == "distance" for _, feature in found)
        (finding,) = [each for each in world.project.check() if each.rule == RULE]
        assert not finding.sound
        first = report.differences[0]
        assert first.decision_id in finding.detail
        assert first.feature in finding.detail
        others = [each for each in world.project.check() if each.rule != RULE]
        assert all(each.sound for each in others)
