"""No leakage: what became known after an instant changes no byte of a training set cut there. And the proof can fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tests.project.conftest import HALF
from tests.project.world import DEFINITIONS, HAND_OVER, MODEL, World, items, past_flights, write_project
from volano.records.journal import Operation
from volano.values.instants import DAY_US, HOUR_US, Instant

CUT = HAND_OVER + 13 * DAY_US
WINDOW = DEFINITIONS.replace(
    'mean_delay_7d = vo.mean("arr_delay", within="7d")', 'mean_delay_7d = vo.mean("arr_delay", within="6d")'
)
PATIENT = DEFINITIONS.replace(
    'available_after="5m", accept_late="2h"', 'available_after="5m", accept_late="30d"'
)
"""What is pushed after the cut is in time for the windows of decisions before it: only the stamps keep it out."""
PATIENT_WINDOW = PATIENT.replace('vo.mean("arr_delay", within="7d")', 'vo.mean("arr_delay", within="6d")')
SLOW_FEATURES = DEFINITIONS.replace(
    "cancellations = vo.Source(",
    """slow = vo.Source(
    "slow", Landing, table="slow.parquet", stream=True, available_after="3d", accept_late="2h", owner=ops
)
cancellations = vo.Source(""",
).replace("entity=plane, source=landings", "entity=plane, source=slow")
SLOW_TABLE = DEFINITIONS.replace('available_after="5m"', 'available_after="3d"')

Choose = Callable[[pa.Table], pa.ChunkedArray]


def rewrite(folder: Path, table: str, column: str, choose: Choose) -> int:
    """Change a column of a lake table, in its own files, where `choose` says; returns in how many rows."""
    n_changed = 0
    for file in (folder / ".volano" / "lake" / table).rglob("*.parquet"):
        rows = pq.read_table(file)
        if column not in rows.column_names or not rows.num_rows:
            continue
        hit = pc.fill_null(choose(rows), False)
        values = rows[column]
        if pa.types.is_string(values.type):
            poison = pc.binary_join_element_wise(values, pa.scalar("poison"), "-")
        else:
            poison = pc.subtract(pa.scalar(77, values.type), values)
        at = rows.column_names.index(column)
        pq.write_table(rows.set_column(at, rows.schema.field(at), pc.if_else(hit, poison, values)), file)
        n_changed += pc.sum(pc.cast(hit, pa.int64())).as_py()
    return n_changed


def known(after: bool, column: str = "known_at") -> Choose:
    cut = pa.scalar(CUT, pa.int64()).cast(pa.timestamp("us", "UTC"))
    return lambda rows: pc.greater(rows[column], cut) if after else pc.less_equal(rows[column], cut)


def hashes_at(folder: Path, cutoff: Instant, definitions: str) -> tuple[str, str, int]:
    """Root hashes of the parts cut at an instant, with every logged feature recomputed from the lake."""
    (folder / "flights.py").write_text(definitions)
    with World(folder, items()) as world:
        world.resume()
        world.project.apply()
        candidate = world.work.learner.train(MODEL, cutoff=cutoff)
        logged = candidate.training.manifest.n_rows - candidate.training.manifest.n_history
        return candidate.training.manifest.root_hash, candidate.evaluation.manifest.root_hash, logged


@pytest.fixture(scope="module")
def clean(ground, unfinished):
    folder = ground / "clean"
    with World(unfinished, items()) as world:
        last = world.script[world.n_done() - 1].at
    assert last > CUT + DAY_US
    import shutil

    shutil.copytree(unfinished, folder)
    hashes = hashes_at(folder, CUT, WINDOW)
    assert hashes[2] > 50
    return hashes


def test_what_was_pushed_after_the_cut_changes_no_byte(copy, unfinished, clean):
    folder = copy(unfinished)
    assert rewrite(folder, "fact_landings", "arr_delay", known(after=True)) > 30
    assert rewrite(folder, "fact_landings", "tailnum", known(after=True)) > 30
    assert rewrite(folder, "fact_cancellations", "flight_id", known(after=True)) > 0
    assert rewrite(folder, "label", "value", known(after=True, column="computed_at")) > 30
    assert (
        rewrite(
            folder, "decision_get_delay_risk", "request__distance", known(after=True, column="decided_at")
        )
        > 30
    )
    assert hashes_at(folder, CUT, WINDOW) == clean


@pytest.fixture(scope="module")
def patient(ground) -> Path:
    """An unfinished world whose windows take rows that come a month late."""
    folder = write_project(ground / "patient", definitions=PATIENT)
    with World(folder, items()) as world:
        world.begin()
        world.run(HALF, start=0)
        world.project.drain(commit=True)
    return folder


def correct_all(folder: Path) -> None:
    """Correct or take back every landing that was known before the cut, after it."""
    with World(folder, items()) as world:
        world.resume()
        rows = world.work.stores.lake.read("fact_landings")
        facts = rows.filter(known(after=False)(rows)).to_pylist()
        assert len(facts) > 100
        for number, fact in enumerate(facts):
            body = {name: fact[name] for name in ("flight_id", "tailnum")} | {"arr_delay": 500.0}
            how = Operation.RETRACT if number % 3 == 0 else Operation.CORRECT
            body |= {"landed_at": fact["event_time"]}
            world.project.observe("landings", body, operation=how, revision=9, sync=False)
        world.project.drain(commit=True)


def test_late_corrections_and_retractions_change_no_byte(copy, unfinished, clean):
    folder = copy(unfinished)
    correct_all(folder)
    assert hashes_at(folder, CUT, WINDOW) == clean


def test_corrections_that_windows_would_take_change_no_byte(copy, patient):
    untouched, corrected = copy(patient), copy(patient)
    correct_all(corrected)
    before = hashes_at(untouched, CUT, PATIENT_WINDOW)
    assert before[2] > 50
    assert hashes_at(corrected, CUT, PATIENT_WINDOW) == before


def test_what_was_known_before_the_cut_does_change_it(copy, unfinished, clean):
    folder = copy(unfinished)
    assert rewrite(folder, "fact_landings", "arr_delay", known(after=False)) > 50
    training, evaluation, n_rows = hashes_at(folder, CUT, WINDOW)
    assert n_rows == clean[2]
    assert training != clean[0]
    assert evaluation != clean[1]


def test_a_label_that_stood_before_the_cut_does_change_it(copy, unfinished, clean):
    folder = copy(unfinished)
    before = known(after=False, column="computed_at")
    assert (
        rewrite(
            folder, "label", "value", lambda rows: pc.and_(before(rows), pc.equal(rows["state"], "mature"))
        )
        > 50
    )
    assert hashes_at(folder, CUT, WINDOW)[0] != clean[0]


def history_hashes(
    folder: Path, definitions: str, *, poisoned_after_event_time: Instant | None
) -> tuple[str, str]:
    """Parts learnt from the table alone, cut at the hand-over; rows of the table that happened later are changed."""
    write_project(folder, definitions=definitions, flights=past_flights())
    if poisoned_after_event_time is not None:
        rows = pq.read_table(folder / "landings.parquet")
        cut = pa.scalar(poisoned_after_event_time, pa.int64()).cast(pa.timestamp("us", "UTC"))
        hit = pc.greater(rows["landed_at"], cut)
        assert pc.sum(pc.cast(hit, pa.int64())).as_py() > 20
        changed = pc.if_else(hit, pc.subtract(77.0, rows["arr_delay"]), rows["arr_delay"])
        pq.write_table(rows.set_column(2, rows.schema.field(2), changed), folder / "landings.parquet")
    with World(folder, []) as world:
        world.project.apply()
        candidate = world.work.learner.train(MODEL, cutoff=HAND_OVER)
        assert candidate.training.manifest.n_rows > 100
        return candidate.training.manifest.root_hash, candidate.evaluation.manifest.root_hash


def test_rows_of_a_table_that_a_slow_source_would_not_have_delivered_change_no_byte(fresh):
    """They happened before decisions that are in the set, and production would have had them three days later."""
    late = HAND_OVER - 3 * DAY_US
    clean = history_hashes(fresh / "a", SLOW_TABLE, poisoned_after_event_time=None)
    assert history_hashes(fresh / "b", SLOW_TABLE, poisoned_after_event_time=late) == clean
    assert history_hashes(fresh / "c", SLOW_TABLE, poisoned_after_event_time=late - 12 * HOUR_US) != clean


def test_the_same_rows_of_a_quick_source_do_change_it(fresh):
    late = HAND_OVER - 3 * DAY_US
    clean = history_hashes(fresh / "a", DEFINITIONS, poisoned_after_event_time=None)
    assert history_hashes(fresh / "b", DEFINITIONS, poisoned_after_event_time=late) != clean


def hashes_of_slow_features(folder: Path, *, poisoned_after: Instant | None) -> tuple[str, str]:
    """Parts whose labels come from a quick table and whose features from a slow one, of which rows are changed."""
    write_project(folder, definitions=SLOW_FEATURES, flights=past_flights())
    rows = pq.read_table(folder / "landings.parquet")
    if poisoned_after is not None:
        cut = pa.scalar(poisoned_after, pa.int64()).cast(pa.timestamp("us", "UTC"))
        hit = pc.greater(rows["landed_at"], cut)
        assert pc.sum(pc.cast(hit, pa.int64())).as_py() > 20
        changed = pc.if_else(hit, pc.subtract(77.0, rows["arr_delay"]), rows["arr_delay"])
        rows = rows.set_column(2, rows.schema.field(2), changed)
    pq.write_table(rows, folder / "slow.parquet")
    with World(folder, []) as world:
        world.project.apply()
        candidate = world.work.learner.train(MODEL, cutoff=HAND_OVER)
        return candidate.training.manifest.root_hash, candidate.evaluation.manifest.root_hash


def test_features_do_not_see_what_a_slow_source_had_not_delivered_when_it_was_decided(fresh):
    """Decisions of the set were made after these rows happened and before they were known; their labels were known."""
    unknown = HAND_OVER - 3 * DAY_US
    clean = hashes_of_slow_features(fresh / "a", poisoned_after=None)
    assert hashes_of_slow_features(fresh / "b", poisoned_after=unknown) == clean
    known_to_the_last = unknown - 3 * DAY_US
    assert hashes_of_slow_features(fresh / "c", poisoned_after=known_to_the_last) != clean
