"""A changed view is built beside the old one, which keeps serving until the swap; a build cut short serves on."""

from __future__ import annotations

from typing import Any

import pytest

from tests.project.conftest import HALF
from tests.project.test_versions import REASON, WINDOW, ask
from tests.project.world import DECISION, MODEL, World, assert_sound, items
from volano.records.journal import DecisionMade
from volano.runtime.applied import get_applied
from volano.runtime.silence import Silence

WIDER = WINDOW.replace('legs_3d = vo.count(within="3d")', 'legs_3d = vo.count(within="4d")')


class Asking(Silence):
    """Decides at every sign of progress, as a request would that comes while an apply is under way."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.made: list[tuple[str, DecisionMade]] = []
        self.states: set[str] = set()

    def advanced(self, done: int, note: str = "") -> None:
        self.made.append((note, ask(self._world)))
        self.states |= {path.name for path in (self._world.folder / ".volano" / "online").iterdir()}


def answer(made: DecisionMade) -> tuple[Any, ...]:
    return made.bundle, tuple(made.features), made.score, made.fallback


def test_old_values_are_read_while_the_new_view_is_built_and_new_ones_after_the_swap(copy, unfinished):
    with World(copy(unfinished), items()) as world:
        world.resume()
        before, state = ask(world), get_applied(world.work.stores.catalog).state
        (world.folder / "flights.py").write_text(WINDOW)
        asking = Asking(world)
        applied = world.project.apply(asking)

        parts = [note for note, _ in asking.made if "part" in note]
        assert len(parts) > 8, "no request came between two parts of the build"
        assert asking.states == {state, applied.state}, "both states were there"
        steps = [note for note, _ in asking.made]
        swap = steps.index("PublishState")
        assert {answer(made) for _, made in asking.made[: swap + 1]} == {answer(before)}
        assert len({made.features_as_of for _, made in asking.made[: swap + 1]}) == 1
        # What was decided meanwhile waits in the journal, and is applied to the new state.
        assert world.project.drain(commit=True) >= len(asking.made)
        assert [path.name for path in (world.folder / ".volano" / "online").iterdir()] == [applied.state]
        # The release binds to the old definitions until a version of the new ones is released.
        assert ask(world).bundle == before.bundle
        world.run(HALF + 30, start=HALF)
        version = world.project.train(MODEL)
        world.project.release(DECISION, version.version, force_reason=REASON)
        after = ask(world)
        assert (after.bundle, after.fallback) == (applied.bundle, "")
        assert after.features != before.features
        assert_sound(world)


@pytest.mark.parametrize("at", [1, 5, 12])
def test_a_build_cut_short_leaves_the_old_view_serving_and_is_resumed(copy, unfinished, at):
    class Cut(Silence):
        n_parts = 0

        def advanced(self, done: int, note: str = "") -> None:
            self.n_parts += "part" in note
            if self.n_parts == at:
                raise KeyboardInterrupt

    with World(copy(unfinished), items()) as world:
        world.resume()
        before, old = ask(world), get_applied(world.work.stores.catalog)
        (world.folder / "flights.py").write_text(WIDER)
        with pytest.raises(KeyboardInterrupt):
            world.project.apply(Cut())
        assert get_applied(world.work.stores.catalog) == old
        assert ask(world).features == before.features
    with World(world.folder, items()) as world:
        world.clock.advance_to(world.script[HALF].at)
        world.run(HALF + 20, start=HALF)  # what comes between the attempts is in the state of the second
        applied = world.project.apply()
        assert applied.bundle != old.bundle
        assert ask(world).bundle == before.bundle
        assert_sound(world)
