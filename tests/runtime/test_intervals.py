"""An interval of a table is brought up to date, and published, however old it is; the rest is not looked at."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tests.runtime.test_rows_held import N_ROWS, visits
from tests.runtime.test_unfit_tables import START, Shops
from volano.cli.main import app
from volano.errors import RequestError
from volano.values.instants import DAY_US, MINUTE_US, format_instant, to_datetime

FIRST = START - 9 * DAY_US


@pytest.fixture
def shops(tmp_path: Path) -> Shops:
    """Visits of a table that is refreshed an hour back, with changes in three old places and one new row."""
    world = Shops(tmp_path)
    file = tmp_path / "shops.py"
    text = file.read_text().replace("visits.csv", "visits.parquet")
    file.write_text(text.replace('available_after="10m"', 'available_after="10m", accept_late="1h"'))
    pq.write_table(visits(N_ROWS), tmp_path / "visits.parquet")
    world.project.apply()
    rows = visits(N_ROWS + 1).to_pylist()
    for n in (100, 300, 500):
        rows[n]["minutes"] = 99.0
    pq.write_table(pa.Table.from_pylist(rows, schema=visits(1).schema), tmp_path / "visits.parquet")
    return world


def changed(world: Shops) -> set[str]:
    rows = world.session.facts.rows("visits").to_pylist()
    return {row["event_id"] for row in rows if row["minutes"] == 99.0}


def at(n: int) -> int:
    """The event time of a visit."""
    return FIRST + n * MINUTE_US


def test_an_interval_is_brought_up_to_date_and_nothing_else(shops):
    assert shops.project.refresh("visits", since=at(300), until=at(500)) == {
        "visits": "1 changes from visits.parquet"
    }
    assert changed(shops) == {"v300"}
    assert shops.project.refresh("visits", since=at(300), until=at(500)) == {
        "visits": "0 changes from visits.parquet"
    }
    assert shops.project.refresh("visits", until=at(101)) == {"visits": "1 changes from visits.parquet"}
    assert changed(shops) == {"v100", "v300"}
    # The job looks at its own range as before: the new row, and not the old correction.
    assert shops.project.refresh("visits") == {"visits": "1 changes from visits.parquet"}
    assert changed(shops) == {"v100", "v300"}
    assert shops.project.refresh("visits", since=at(400)) == {"visits": "1 changes from visits.parquet"}
    assert changed(shops) == {"v100", "v300", "v500"}
    assert all(finding.sound for finding in shops.project.check())


def assert_same_as_rebuilt(world: Shops) -> None:
    """Online state of the visits is what a fill from the lake gives."""

    def held() -> dict[bytes, bytes]:
        applied, stores = world.session.applied, world.session.stores
        prefixes = tuple(group.prefix for group in applied.groups if group.source == "visits")
        with stores.online(applied.state).snapshot() as snapshot:
            return {key: each for key, each in snapshot.scan(b"", b"\xff" * 9) if key.startswith(prefixes)}

    before = held()
    file = world.folder / "shops.py"
    file.write_text(file.read_text().replace("class Sales(", "class Other(", 1))
    world.project.apply()
    assert before
    assert held() == before


def test_what_is_published_is_what_a_rebuild_holds(shops):
    shops.project.refresh("visits", since=at(0), until=at(400))
    assert_same_as_rebuilt(shops)


@pytest.mark.parametrize("to", [700, N_ROWS + 5], ids=["into an interval", "into what a refresh looks at"])
def test_a_row_whose_time_was_changed_across_the_edge_replaces_what_stood(shops, to):
    rows = visits(N_ROWS).to_pylist()
    rows[10]["came_at"] = to_datetime(at(to))
    pq.write_table(pa.Table.from_pylist(rows, schema=visits(1).schema), shops.folder / "visits.parquet")
    for n_changes in (1, 0):
        range_ = {"since": at(600), "until": at(800)} if to == 700 else {"since": at(N_ROWS - 60)}
        said = shops.project.refresh("visits", **(range_ if to == 700 or not n_changes else {}))
        assert said == {"visits": f"{n_changes} changes from visits.parquet"}
    facts = shops.session.facts.rows("visits")
    standing = facts.filter(facts["superseded_at"].is_null())
    assert standing.num_rows == N_ROWS
    (row,) = [row for row in standing.to_pylist() if row["event_id"] == "v10"]
    assert (row["revision"], row["came_at"]) == (1, to_datetime(at(to)))
    assert_same_as_rebuilt(shops)


def test_a_table_that_is_compared_whole_takes_no_interval_and_an_empty_one_is_refused(shops):
    with pytest.raises(RequestError, match="slowly_changing"):
        shops.project.refresh("infos", since=at(0))
    with pytest.raises(RequestError, match="is empty"):
        shops.project.refresh("visits", since=at(5), until=at(5))
    assert set(shops.project.refresh(since=at(0), until=at(200))) == {"visits"}


def test_the_command_line_takes_the_interval(shops):
    shops.project.close()
    times = ["--since", format_instant(at(300)), "--until", format_instant(at(301))]
    result = CliRunner().invoke(app, ["refresh", "visits", *times, "-C", str(shops.folder)])
    assert result.exit_code == 0, result.stderr
    assert "visits: 1 changes from visits.parquet" in result.stdout
