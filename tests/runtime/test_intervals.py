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
from volano.values.instants import DAY_US, MINUTE_US, format_instant

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


def test_what_is_published_is_what_a_rebuild_holds(shops):
    shops.project.refresh("visits", since=at(0), until=at(400))
    session = shops.session
    with session.stores.online(session.applied.state).snapshot() as snapshot:
        before = dict(snapshot.scan(b"\x01", b"\xff" * 9))
    file = shops.folder / "shops.py"
    file.write_text(file.read_text().replace("class Sales(", "class Other(", 1))
    shops.project.apply()
    session = shops.session
    prefixes = [group.prefix for group in session.applied.groups if group.source == "visits"]
    with session.stores.online(session.applied.state).snapshot() as snapshot:
        after = dict(snapshot.scan(b"\x01", b"\xff" * 9))
    for prefix in prefixes:
        one, other = (
            {key: value for key, value in found.items() if key.startswith(prefix)}
            for found in (before, after)
        )
        assert one
        assert one == other


def test_a_row_that_moved_over_the_edge_is_refused_by_name(shops):
    rows = visits(N_ROWS).to_pylist()
    rows[10]["came_at"] = rows[700]["came_at"]
    pq.write_table(pa.Table.from_pylist(rows, schema=visits(1).schema), shops.folder / "visits.parquet")
    with pytest.raises(RequestError, match="'v10'"):
        shops.project.refresh("visits", since=at(600), until=at(800))
    assert shops.project.refresh("visits", since=at(0), until=at(800)) == {
        "visits": "1 changes from visits.parquet"
    }


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
