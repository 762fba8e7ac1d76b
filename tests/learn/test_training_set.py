"""Training sets hold what was known, say so in a manifest, and hash the same for ever."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.learn.world import (
    CUTOFF,
    HORIZON,
    INSTANT,
    LABEL,
    MODEL,
    SERVICE,
    Stores,
    World,
    build_arguments,
    label_rows,
)
from volano.errors import CorruptionError, InvariantError, RequestError, StateMismatchError
from volano.learn.checks import check_disjoint, check_label_rows, check_labels_of, check_time_split
from volano.learn.training_set import (
    TrainingSet,
    build,
    difference,
    find_manifest,
    load,
    rolling_spans,
    store_manifest,
    unanswered,
    verify,
)
from volano.records.learning import TrainingSetManifest
from volano.values.instants import DAY_US


def make(world: World, stores: Stores, **changes: Any) -> TrainingSet:
    return build(
        MODEL, LABEL, world.decisions, world.labels, **build_arguments(artifacts=stores.artifacts, **changes)
    )


def test_members_are_the_decisions_whose_label_was_mature_at_the_cutoff(world: World, stores: Stores) -> None:
    built = make(world, stores, label_cutoff=20 * DAY_US)
    states = {f"get_risk/{row['decision_id']}": row for row in world.labels.to_pylist()}
    decided = dict(
        zip(
            states,
            world.decisions["decided_at"].cast("int64").to_pylist(),
            strict=True,
        )
    )
    expected = {
        name: bool(row["value"])
        for name, row in states.items()
        if row["state"] == "mature" and decided[name] + HORIZON <= 20 * DAY_US
    }
    assert dict(zip(built.table["id"].to_pylist(), built.table["label"].to_pylist(), strict=True)) == expected
    assert built.manifest.n_rows == len(expected)
    assert built.manifest.n_positive == sum(expected.values())
    check_labels_of(built, world.labels, "late")


def test_features_are_those_that_were_served_in_the_order_of_the_service(
    world: World, stores: Stores
) -> None:
    built = make(world, stores)
    assert built.features.column_names == ["x", "z", "carrier", "n"]
    row = built.table.slice(7, 1).to_pylist()[0]
    source = world.decisions["decision_id"].to_pylist().index(row["id"].removeprefix("get_risk/"))
    served = world.decisions.slice(source, 1).to_pylist()[0]
    assert [row[name] for name in ("x", "z", "carrier", "n")] == [
        served[f"feature__{name}"] for name in ("x", "z", "carrier", "n")
    ]


def test_the_same_rows_in_any_order_give_the_same_hash(world: World, stores: Stores) -> None:
    shuffled = np.random.default_rng(1).permutation(world.decisions.num_rows)
    mixed = World(world.decisions.take(shuffled), world.labels.take(shuffled[::-1].copy()))
    assert make(mixed, stores).manifest.root_hash == make(world, stores).manifest.root_hash


def test_what_arrives_later_changes_no_byte(world: World, stores: Stores) -> None:
    """Poison: labels computed after the cut-off, and evidence applied after the stamp, with every value flipped."""
    n = world.labels.num_rows
    decided = world.labels["decided_at"].cast(pa.int64()).to_numpy()
    flipped = 1.0 - np.nan_to_num(world.labels["value"].to_numpy())
    later = label_rows(
        pa.array(world.labels["decision_id"].to_pylist()),
        decided,
        flipped,
        np.zeros(n, bool),
        np.full(n, CUTOFF + 1),
    )
    backfilled = label_rows(
        pa.array(world.labels["decision_id"].to_pylist()),
        decided,
        flipped,
        np.zeros(n, bool),
        np.full(n, CUTOFF),
    )
    after_stamp = pa.array(np.full(n, 2_000 * DAY_US)).cast(INSTANT)
    backfilled = backfilled.set_column(
        backfilled.column_names.index("evidence_stamp"), "evidence_stamp", after_stamp
    )
    late_rows = world.decisions.set_column(4, "applied_at", after_stamp).set_column(
        1, "decision_id", pa.array([f"late-{at}" for at in range(n)])
    )
    poisoned = World(
        pa.concat_tables([world.decisions, late_rows]), pa.concat_tables([world.labels, later, backfilled])
    )
    clean = make(world, stores)
    again = make(poisoned, stores)
    assert again.manifest.root_hash == clean.manifest.root_hash
    assert again.manifest.artifact == clean.manifest.artifact


def test_a_correction_before_the_cutoff_counts(world: World, stores: Stores) -> None:
    first = world.labels.filter(pa.array(np.arange(world.labels.num_rows) == 3))
    decided = first["decided_at"].cast(pa.int64()).to_numpy()
    value = first["value"].to_pylist()[0]
    corrected = label_rows(
        pa.array(first["decision_id"].to_pylist()), decided, [1.0 - value], [False], decided + HORIZON + 5
    )
    changed = make(World(world.decisions, pa.concat_tables([world.labels, corrected])), stores)
    assert difference(make(world, stores), changed).changed == ("get_risk/id-0000003",)


def test_shadow_rows_other_services_and_later_attempts_are_no_members(world: World, stores: Stores) -> None:
    few = world.decisions.slice(0, 6)
    odd = few.set_column(
        few.column_names.index("mode"), "mode", pa.array(["shadow"] + ["live"] * 5)
    ).set_column(
        few.column_names.index("service_version"),
        "service_version",
        pa.array([SERVICE.version, "other"] + [SERVICE.version] * 4),
    )
    retried = few.slice(4, 1).set_column(2, "attempt", pa.array([1]))
    retried = retried.set_column(retried.column_names.index("feature__z"), "feature__z", pa.array([99.0]))
    built = make(World(pa.concat_tables([retried, odd]), world.labels), stores)
    assert set(built.table["id"].to_pylist()) <= {f"get_risk/id-000000{at}" for at in (2, 3, 4, 5)}
    assert 99.0 not in built.table["z"].to_pylist()


def test_a_fallback_without_features_is_no_member(world: World, stores: Stores) -> None:
    few = world.decisions.slice(0, 4)
    names = few.column_names
    few = few.set_column(
        names.index("fallback"), "fallback", pa.array(["features: gone", "no_release: x", "", ""])
    )
    for name in ("feature__x", "feature__z", "feature__carrier", "feature__n"):
        column = few[name].to_pylist()
        few = few.set_column(names.index(name), name, pa.array([None, *column[1:]], few[name].type))
    built = make(World(few, world.labels), stores)
    assert "get_risk/id-0000000" not in built.table["id"].to_pylist()
    assert "get_risk/id-0000001" in built.table["id"].to_pylist()


def test_history_joins_with_features_of_its_own(world: World, stores: Stores) -> None:
    split = world.decisions.num_rows // 2
    names = [
        "decision",
        "decision_id",
        "decided_at",
        "feature__x",
        "feature__z",
        "feature__carrier",
        "feature__n",
    ]
    both = build(
        MODEL,
        LABEL,
        world.decisions.slice(split),
        world.labels,
        history=world.decisions.slice(0, split).select(names),
        **build_arguments(artifacts=stores.artifacts),
    )
    whole = make(world, stores)
    assert both.table["id"].to_pylist() == whole.table["id"].to_pylist()
    assert both.manifest.n_history == sum(origin == "history" for origin in both.table["origin"].to_pylist())
    assert both.features.equals(whole.features)


def past_and_logged(ids: list[str | None]) -> tuple[pa.Table, pa.Table]:
    """Requests a, b and c of the past, asked at 0, 10 and 20; logged decisions at 10, 11 and so on."""
    past = pa.table({"decision_id": ["a", "b", "c"], "decided_at": pa.array([0, 10, 20]).cast(INSTANT)})
    times = pa.array(range(10, 10 + len(ids)), pa.int64()).cast(INSTANT)
    return past, pa.table({"source_event_id": pa.array(ids, pa.string()), "decided_at": times})


@pytest.mark.parametrize(
    ("ids", "left"),
    [
        ([], ["a", "b", "c"]),
        (["b"], ["a", "c"]),
        (["c", "a"], ["b"]),
        ([None], ["a"]),
        (["a", None], ["b"]),
    ],
)
def test_where_a_request_was_decided_the_logged_row_stands(ids: list[str | None], left: list[str]) -> None:
    assert unanswered(*past_and_logged(ids))["decision_id"].to_pylist() == left


def test_decisions_that_share_an_id_are_members_each_with_its_own_label(world: World, stores: Stores) -> None:
    def of_other(table: pa.Table) -> pa.Table:
        at = table.column_names.index("decision")
        return table.set_column(at, table.schema.field(at), pa.repeat("other", table.num_rows))

    labels = of_other(world.labels)
    flipped = pc.subtract(1.0, labels["value"])
    labels = labels.set_column(labels.column_names.index("value"), "value", flipped)
    both = World(
        pa.concat_tables([world.decisions, of_other(world.decisions)]),
        pa.concat_tables([world.labels, labels]),
    )
    built, single = make(both, stores), make(world, stores)
    assert built.manifest.n_rows == 2 * single.manifest.n_rows
    assert built.manifest.n_positive == single.manifest.n_rows
    assert len(set(built.table["id"].to_pylist())) == built.manifest.n_rows
    check_labels_of(built, both.labels, "late")


def test_a_set_with_one_id_twice_is_refused(world: World, stores: Stores) -> None:
    twice = World(pa.concat_tables([world.decisions, world.decisions.slice(5, 1)]), world.labels)
    with pytest.raises(InvariantError, match="1 rows of training set 'delay-set' have the id of another"):
        make(twice, stores)


def test_units_default_to_the_decision(world: World, stores: Stores) -> None:
    units = pa.array(["u"] + [""] * (world.decisions.num_rows - 1))
    table = world.decisions.set_column(world.decisions.column_names.index("unit"), "unit", units)
    built = make(World(table, world.labels), stores)
    assert built.units.to_pylist()[:2] == ["u", "get_risk/id-0000001"]


def test_the_frozen_rows_verify_and_a_changed_byte_does_not(world: World, stores: Stores) -> None:
    built = make(world, stores)
    verify(built.manifest, stores.artifacts)
    assert load(built.manifest, stores.artifacts).table.equals(built.table)
    forged = msgspec.structs.replace(built.manifest, root_hash="0" * 64)
    with pytest.raises(CorruptionError, match="does not match its manifest"):
        verify(forged, stores.artifacts)


def test_a_manifest_is_stored_once_and_another_set_of_its_name_is_refused(
    world: World, stores: Stores
) -> None:
    built = make(world, stores)
    first = store_manifest(built.manifest, stores.catalog)
    again = store_manifest(msgspec.structs.replace(built.manifest, built_at=CUTOFF + 9), stores.catalog)
    assert first == again == find_manifest("delay-set", stores.catalog)
    with pytest.raises(StateMismatchError, match="other content"):
        store_manifest(make(world, stores, decided_until=10 * DAY_US).manifest, stores.catalog)


def test_a_missing_feature_column_is_named(world: World, stores: Stores) -> None:
    with pytest.raises(RequestError, match="'carrier'"):
        make(World(world.decisions.drop_columns(["feature__carrier"]), world.labels), stores)


def test_a_set_without_rows_is_empty_and_hashed(world: World, stores: Stores) -> None:
    empty = make(world, stores, decided_until=0)
    assert empty.manifest.n_rows == 0
    verify(empty.manifest, stores.artifacts)


def test_manifests_of_this_version_read_for_ever() -> None:
    stored = (
        b'{"name":"delay-set","model":"delay","bundle":"b","query_hash":"q","service_version":"s","decided_from":0,'
        b'"decided_until":9,"label_cutoff":9,"stamp":9,"n_rows":1,"n_positive":1,"root_hash":"r","artifact":"a",'
        b'"built_at":9,"features":["x"]}'
    )
    assert msgspec.json.decode(stored, type=TrainingSetManifest).kind == "training"


# --- the invariants, and wrong code that they catch --------------------------------------------------------------


def rolling(world: World, stores: Stores) -> tuple[TrainingSet, TrainingSet]:
    spans = rolling_spans(CUTOFF, horizon_us=HORIZON, period_us=7 * DAY_US)
    training = make(world, stores, name="delay-train", decided_until=spans.training_until)
    evaluation = make(
        world,
        stores,
        name="delay-eval",
        kind="evaluation",
        decided_from=spans.evaluation_from,
        decided_until=spans.evaluation_until,
    )
    return training, evaluation


def test_a_rolling_pair_passes_every_check(world: World, stores: Stores) -> None:
    training, evaluation = rolling(world, stores)
    assert training.table.num_rows > 1_000
    assert evaluation.table.num_rows > 100
    check_time_split(training, evaluation, horizon_us=HORIZON)
    check_disjoint(training, evaluation, groups=True)
    check_label_rows(world.labels)
    for members in (training, evaluation):
        check_labels_of(members, world.labels, "late")


def pending_is_negative(world: World) -> pa.Table:
    """The mistake that the field makes: no outcome yet, so it is a no."""
    n = world.decisions.num_rows
    decided = world.decisions["decided_at"].cast(pa.int64()).to_numpy()
    pending = decided + HORIZON > 30 * DAY_US
    labels = world.labels
    values = np.where(pending, 0.0, np.nan_to_num(labels["value"].to_numpy()))
    return label_rows(
        pa.array(labels["decision_id"].to_pylist()),
        decided,
        values,
        np.zeros(n, bool),
        np.full(n, 30 * DAY_US),
    )


def test_a_pending_label_counted_as_negative_is_caught(world: World, stores: Stores) -> None:
    wrong = pending_is_negative(world)
    built = build(
        MODEL,
        LABEL,
        world.decisions,
        wrong,
        **build_arguments(artifacts=stores.artifacts, label_cutoff=30 * DAY_US),
    )
    with pytest.raises(InvariantError, match="no mature label at the cut-off"):
        check_labels_of(built, world.labels, "late")
    with pytest.raises(InvariantError, match="mature before its horizon ended"):
        check_label_rows(wrong)


def test_a_pending_row_with_a_value_is_caught(world: World) -> None:
    state = pa.array(["pending"] * world.labels.num_rows)
    with pytest.raises(InvariantError, match="holds a value though it is not known"):
        check_label_rows(world.labels.set_column(world.labels.column_names.index("state"), "state", state))


def test_a_label_that_was_flipped_is_caught(world: World, stores: Stores) -> None:
    built = make(world, stores)
    flipped = pa.array([not value for value in built.table["label"].to_pylist()])
    table = built.table.set_column(4, "label", flipped)
    with pytest.raises(InvariantError, match="has another label"):
        check_labels_of(TrainingSet(built.manifest, table), world.labels, "late")


def shuffled_split(whole: TrainingSet, share: float) -> tuple[TrainingSet, TrainingSet]:
    """The usual random split, which mixes past and future."""
    order = np.random.default_rng(0).permutation(whole.table.num_rows)
    cut = int(share * len(order))
    return (
        TrainingSet(whole.manifest, whole.table.take(np.sort(order[:cut]))),
        TrainingSet(whole.manifest, whole.table.take(np.sort(order[cut:]))),
    )


def test_a_shuffled_time_split_is_caught(world: World, stores: Stores) -> None:
    training, evaluation = shuffled_split(make(world, stores), 0.8)
    check_disjoint(training, evaluation, groups=True)
    with pytest.raises(InvariantError, match="matures after the first evaluated decision"):
        check_time_split(training, evaluation, horizon_us=HORIZON)


def test_a_time_split_without_an_embargo_is_caught(world: World, stores: Stores) -> None:
    spans = rolling_spans(CUTOFF, horizon_us=HORIZON, period_us=7 * DAY_US)
    _, evaluation = rolling(world, stores)
    with pytest.raises(InvariantError, match="embargo"):
        check_time_split(
            make(world, stores, decided_until=spans.evaluation_from), evaluation, horizon_us=HORIZON
        )


def test_a_leaked_evaluation_fold_is_caught(world: World, stores: Stores) -> None:
    training, evaluation = rolling(world, stores)
    leaked = TrainingSet(training.manifest, pa.concat_tables([training.table, evaluation.table.slice(0, 3)]))
    with pytest.raises(InvariantError, match="3 members of evaluation set 'delay-eval' are in training set"):
        check_disjoint(leaked, evaluation, groups=False)


def test_a_leaked_group_is_caught(world: World, stores: Stores) -> None:
    training, evaluation = rolling(world, stores)
    as_user = pa.repeat("user-1", 1)
    left = TrainingSet(training.manifest, training.table.slice(0, 1).set_column(2, "unit", as_user))
    right = TrainingSet(evaluation.manifest, evaluation.table.slice(0, 1).set_column(2, "unit", as_user))
    check_disjoint(left, right, groups=False)
    with pytest.raises(InvariantError, match="first unit 'user-1'"):
        check_disjoint(left, right, groups=True)
