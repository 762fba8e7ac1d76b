"""Hot chunks change no answer of a whole world: pushed, corrected, retracted, pruned, rebuilt."""

from __future__ import annotations

from contextlib import contextmanager
from random import Random

import msgspec
import pytest

from tests.collect.world import CARD, SHOP, START, World, feature, project, sale, view_input
from tests.organize.histories import draw_request, live, online_features
from tests.organize.test_retention import answers
from volano.kernels import tiles
from volano.kernels.chunks import MAGIC
from volano.kernels.tiles import is_head
from volano.plan.definitions import CompiledModel, CompiledProject, CompiledService, CompiledTrainer
from volano.protocols.online_store import OnlineSnapshot
from volano.values.instants import DAY_US, HOUR_US
from volano.values.schema import DType


@pytest.mark.parametrize("seed", range(3))
def test_hot_chunks_answer_as_plain_ones(tmp_path, monkeypatch, seed):
    found = []
    for hot_rows, block_rows in ((10**6, 512), (4, 2), (1, 1)):
        monkeypatch.setattr(tiles, "HOT_ROWS", hot_rows)
        monkeypatch.setattr(tiles, "BLOCK_ROWS", block_rows)
        with World(tmp_path / str(hot_rows)) as world:
            live(world, Random(seed), 120)
            now = world.clock.now()
            asked = [draw_request(Random(n), f"s{n}") for n in range(40)]
            found.append([answers(world, asked, now + late) for late in (0, HOUR_US, 2 * DAY_US)])
            with world.online.snapshot() as snapshot:
                heads = sum(
                    is_head(value)
                    for group in world.applier._groups
                    for _, value in snapshot.scan(group.prefix, group.prefix + b"\xff" * 3)
                )
            assert (heads > 0) == (hot_rows < 10**6)
    assert found[0] == found[1] == found[2]


WINDOWED = tuple(
    feature(f"{name}_{n}", aggregate, column, dtype=dtype, **window)
    for n, window in enumerate(
        (
            {"window_us": 6 * HOUR_US, "include_request": True},
            {"window_us": 40 * DAY_US},
            {"window_us": 5 * DAY_US, "offset_us": HOUR_US},
        )
    )
    for name, aggregate, column, dtype in (
        ("kinds", "count_distinct", "kind", DType.INT64),
        ("amounts", "count_distinct", "amount", DType.INT64),
        ("spent", "sum", "amount", DType.FLOAT64),
    )
)
COUNTED = msgspec.structs.replace(CARD, features=(*CARD.features[:1], *WINDOWED))
ASKS = CompiledService(
    "risk", "Ask", tuple(view_input(view, each.name) for view in (SHOP, COUNTED) for each in view.features)
)


def asking() -> CompiledProject:
    """The project whose model reads those features."""
    model = CompiledModel("risk", ASKS, "", CompiledTrainer("python"), "ops")
    return msgspec.structs.replace(project(views=(SHOP, COUNTED)), models={"risk": model})


@pytest.mark.parametrize("seed", range(2))
def test_counts_of_different_values_on_hot_keys_answer_as_plain_ones(tmp_path, monkeypatch, seed):
    found = []
    for hot_rows, block_rows in ((10**6, 512), (4, 2)):
        monkeypatch.setattr(tiles, "HOT_ROWS", hot_rows)
        monkeypatch.setattr(tiles, "BLOCK_ROWS", block_rows)
        with World(tmp_path / str(hot_rows), asking()) as world:
            live(world, Random(seed), 150, service=ASKS)
            now = world.clock.now()
            # Their own events are visible already, some corrected, some retracted.
            asked = [draw_request(Random(n), f"s{n}") for n in range(40)]
            found.append([answers(world, asked, now + late, ASKS) for late in (0, HOUR_US, 2 * DAY_US)])
    assert found[0] == found[1]


class Counting:
    """A snapshot that counts the rows of the blocks that are read."""

    def __init__(self, snapshot: OnlineSnapshot) -> None:
        self._snapshot = snapshot
        self.stamp = snapshot.stamp
        self.n_rows = 0

    def get_many(self, keys):
        found = self._snapshot.get_many(keys)
        magic = MAGIC.to_bytes(8, "little")
        packed = [value for value in found if value and value[:8] == magic]
        self.n_rows += sum(int.from_bytes(value[16:20], "little") for value in packed)
        return found


class CountingStore:
    """A store whose snapshots count."""

    def __init__(self, online) -> None:
        self._online = online
        self.n_rows = 0

    @contextmanager
    def snapshot(self):
        with self._online.snapshot() as snapshot:
            counting = Counting(snapshot)
            yield counting
            self.n_rows = counting.n_rows


def test_a_request_whose_own_event_is_visible_opens_few_blocks_of_a_hot_key(tmp_path):
    kinds = ["food", "drink", "paper", None]
    read = []
    for n in (5_000, 20_000):
        with World(tmp_path / str(n), asking()) as world:
            at = START + 10 * DAY_US
            gap = 4 * HOUR_US // n
            sales = [
                sale(f"s{i}", at - (n - i) * gap, shop=None, kind=kinds[i * 7 % 4], amount=float(i % 9))
                for i in range(n)
            ]
            world.clock.advance_to(at - HOUR_US)
            for begin in range(0, n, 2_000):
                world.door.accept("sales", sales[begin : begin + 2_000], sync=False)
                world.applier.step(100_000)
            store = CountingStore(world.online)
            online = online_features(world, ASKS, online=store)
            request = {"sale_id": f"s{n // 2}", "shop": None, "card": 1, "asked_for": 1.0}
            slots, _ = online.read(request, at)
            assert slots[len(SHOP.features) + 1] == 3, "kinds within six hours"
            read.append(store.n_rows)
    # Pages are made again when eight blocks changed: these are read beside them.
    assert read[1] < 1.5 * read[0] + 4 * 512, read
    assert read[1] < 8_000, "of 20,000"
