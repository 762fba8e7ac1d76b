"""Dumps as facts: what each says, by the book, and what a view and a join see of it."""

from __future__ import annotations

from random import Random

import pyarrow as pa
import pytest

from volano.errors import RequestError
from volano.organize.snapshots import changes_of
from volano.values.instants import DAY_US

INSTANT = pa.timestamp("us", "UTC")
SCHEMA = pa.schema(
    [
        ("bank", pa.string()),
        ("number", pa.int64()),
        ("limit", pa.float64()),
        ("note", pa.string()),
        ("at", INSTANT),
    ]
)
KEY = ("bank", "number")


def table(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def changes(rows, **options):
    facts, operations = changes_of(table(rows), key=KEY, at="at", where="cards.csv", **options)
    return [
        (operation, *row.values())
        for operation, row in zip(operations.to_pylist(), facts.to_pylist(), strict=True)
    ]


def naive(rows):
    """Dump by dump, with dictionaries."""
    found = []
    before = {}
    for at in sorted({row["at"] for row in rows}):
        dump = {(row["bank"], row["number"]): (row["limit"], row["note"]) for row in rows if row["at"] == at}
        found += [("insert", *key, *values, at) for key, values in dump.items() if before.get(key) != values]
        found += [("end", *key, None, None, at) for key in before if key not in dump]
        before = dump
    return found


@pytest.mark.parametrize("seed", range(30))
def test_what_differs_from_dump_to_dump_is_a_fact(seed):
    random = Random(seed)
    rows = []
    for day in random.sample(range(10), random.randrange(1, 8)):
        for bank in "ab":
            for number in (1, 2, -3):
                if random.random() < 0.7:
                    limit, note = random.choice((None, 1.0, 0.0)), random.choice((None, "", "x"))
                    rows.append(
                        {"bank": bank, "number": number, "limit": limit, "note": note, "at": day * DAY_US}
                    )
    random.shuffle(rows)
    rows = table(rows).to_pylist()
    assert sorted(changes(rows), key=repr) == sorted(naive(rows), key=repr)


def test_what_is_ignored_makes_no_difference():
    rows = [
        {"bank": "a", "number": 1, "limit": 1.0, "note": note, "at": day * DAY_US}
        for day, note in enumerate("xy")
    ]
    assert len(changes(rows)) == 2
    assert len(changes(rows, ignored=["note"])) == 1


def test_no_dump_says_nothing():
    assert changes([]) == []


def test_a_key_that_occurs_twice_in_a_dump_is_refused():
    row = {"bank": "a", "number": 1, "limit": 1.0, "note": None, "at": DAY_US}
    with pytest.raises(RequestError, match=r"repeat the key .*\{'bank': 'a', 'number': 1\}") as caught:
        changes([row, row | {"limit": 2.0}])
    assert caught.value.where == "cards.csv"
