"""A backfill that was killed goes on behind its last part, whatever was applied in between."""

from __future__ import annotations

import re
from random import Random

import pytest

from tests.organize.test_backfill import state
from tests.project.conftest import HALF
from tests.project.test_beside_build import WIDER
from tests.project.test_versions import ask
from tests.project.world import World, assert_sound, items
from volano.runtime.applied import get_applied
from volano.runtime.rebuilding import fill
from volano.runtime.silence import Silence
from volano.stores.lmdb_online_store import LmdbOnlineStore


class Mortal(Silence):
    """Counts the parts that were written, and dies behind one of them."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.parts: list[str] = []
        self.totals: set[int] = set()
        self._dies_at = dies_at

    def advanced(self, done: int, note: str = "") -> None:
        if found := re.search(r"part \d+ of (\d+)", note):
            self.parts.append(note)
            self.totals.add(int(found[1]))
        if self._dies_at is not None and len(self.parts) == self._dies_at:
            raise KeyboardInterrupt


def assert_is_a_fresh_fill(world: World) -> None:
    """Every key of online state is what a fill of everything gives."""
    world.project.drain(commit=True)
    session = world.work.session
    applied, definitions = session.applied, session.definitions
    fresh = LmdbOnlineStore(world.folder / "fresh", map_size=1 << 28)
    groups, handovers = applied.groups, applied.handovers
    fill(fresh, session.stores, definitions.of_state, groups, session.functions, handovers)
    wanted, found = state(fresh), state(session.stores.online(applied.state))
    fresh.close()
    wanted.pop(b"position"), found.pop(b"position")
    assert found == wanted


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_backfill_repeats_no_part_though_events_came_in_between(copy, unfinished, seed):
    random = Random(seed)
    with World(copy(unfinished), items()) as world:
        world.resume()
        old = get_applied(world.work.stores.catalog)
        folder = world.folder
        (folder / "flights.py").write_text(WIDER)
    at, written = HALF, []
    totals: set[int] = set()
    for _ in range(3):  # killed, and killed again
        with World(folder, items()) as world:
            world.clock.advance_to(world.script[at].at)
            mortal = Mortal(random.randrange(1, 6))
            with pytest.raises(KeyboardInterrupt):
                world.project.apply(mortal)
            assert get_applied(world.work.stores.catalog) == old
            written += mortal.parts
            totals |= mortal.totals
            world.run(at + 8, start=at)
            at += 8
    with World(folder, items()) as world:
        world.clock.advance_to(world.script[at].at)
        last = Mortal()
        applied = world.project.apply(last)
        written += last.parts
        (total,) = totals | last.totals
        assert len(written) == len(set(written)) == total, "a part was built twice, or not at all"
        assert applied.bundle != old.bundle
        ask(world)
        assert_is_a_fresh_fill(world)
        world.run(at + 8, start=at)
        assert_is_a_fresh_fill(world)
        assert_sound(world)


def test_a_backfill_that_lost_its_store_is_built_again(copy, unfinished):
    """The ledger says that it was done; only the store itself knows what it holds."""
    with World(copy(unfinished), items()) as world:
        world.resume()
        old = get_applied(world.work.stores.catalog)
        (world.folder / "flights.py").write_text(WIDER)
        with pytest.raises(KeyboardInterrupt):
            world.project.apply(Dies())
        assert get_applied(world.work.stores.catalog) == old
    with World(world.folder, items()) as world:
        for path in (world.folder / ".volano" / "online").iterdir():
            if path.name != old.state:
                (path / "data.mdb").unlink()
        world.clock.advance_to(world.script[HALF].at)
        world.project.apply()
        assert_is_a_fresh_fill(world)


class Dies(Silence):
    """Dies when the first group is built."""

    def advanced(self, done: int, note: str = "") -> None:
        if note == "BackfillGroup":
            raise KeyboardInterrupt
