"""`volano demo flights`: a project is written, the past is handed over, a year goes by, the result is measured."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pyarrow.parquet as pq

from volano.errors import ConfigError, StoreReadOnlyError, UnknownNameError
from volano.protocols.reporter import Reporter
from volano.runtime.clock import ReplayClock
from volano.runtime.config import CONFIG_FILE
from volano.runtime.demo.flights_data import World, data_folder, load_world
from volano.runtime.demo.replay import OwnProcess, Replay
from volano.runtime.demo.report import Report, make_report, render
from volano.runtime.silence import Silence
from volano.runtime.templates import write_template
from volano.runtime.workplace import Workplace
from volano.values.instants import Instant, parse_instant

HAND_OVER: Final = parse_instant("2013-03-01")
"""What was known before comes from tables; what came later is pushed."""
END: Final = parse_instant("2014-01-01")
SEED: Final = 2013
"""Of the ids that are drawn: two runs draw the same."""

_DEMO: Final = "flights"
_MODEL: Final = "delay"
_DECISION: Final = "get_delay_risk"
_PARENT: Final = Path("demo")
_MIN_LABELS: Final = "min_labels=1000"
_SETTINGS: Final = """
# Simulated days take a second: one commit each is enough.
commit_every = "1d"
"""


class Outcome(NamedTuple):
    """How a demo ended.

    Args:
        text: the result for people.
        is_sound: whether every promise held.
    """

    text: str
    is_sound: bool
    report: Report


def run_demo(
    name: str,
    *,
    folder: Path | None = None,
    sample: float = 1.0,
    report: Path | None = None,
    until: Instant = END,
    reporter: Reporter | None = None,
) -> Outcome:
    """Run a demo from nothing to its result.

    Args:
        name: `flights`.
        folder: where the project goes; new or empty. A new one below `demo/` when None.
        sample: share of the planes.
        report: where the result goes, as JSON.
        until: where the replay ends; it begins at `HAND_OVER`.
        reporter: hears of progress.

    Raises:
        UnknownNameError: no such demo.
        ConfigError: the folder is not empty, or `until` lies before the hand-over.
        MissingExtraError: the data is not installed.
    """
    if name != _DEMO:
        raise UnknownNameError(
            f"There is no demo named {name!r}.", where="demo", mend=f"known names: {_DEMO}"
        )
    if not HAND_OVER < until <= END:
        raise ConfigError(
            "The replay ends in 2013, after March 1.", where="until", mend="choose a later or an earlier end"
        )
    began = time.perf_counter()
    told = reporter or Silence()
    project = folder or _new_folder()
    world = _prepare(project, sample, told)
    clock = ReplayClock(HAND_OVER)
    # The daily jobs say nothing: the replay tells how far it has come, and the report what they did.
    work = Workplace(project, clock, random.Random(SEED).randbytes, Silence())
    try:
        work.apply(told)
        _release_first(work, told)
        replayed = Replay(OwnProcess(work), clock, _DECISION, told).run(world, since=HAND_OVER, until=until)
        told.started("measuring")
        made = make_report(work.session, _DECISION, replayed)
        told.finished()
    finally:
        work.close()
    made = msgspec.structs.replace(made, seconds=round(time.perf_counter() - began, 1))
    if report is not None:
        _write(report, made)
    return Outcome(render(made, str(project)), made.is_sound, made)


def prepare(folder: Path, world: World) -> None:
    """Write the tables that the template's sources and its history read: what was known at the hand-over."""
    for name, table in world.known(until=HAND_OVER)._asdict().items():
        pq.write_table(table.drop_columns(["known_at"]), folder / f"{name}.parquet")


def _prepare(folder: Path, sample: float, told: Reporter) -> World:
    told.started("a year of flights")
    data = data_folder()
    write_template(_DEMO, folder, namespace=_DEMO)
    _fit_to_replay(folder, sample)
    world = load_world(data, sample=sample)
    prepare(folder, world)
    told.finished(f"{len(world.schedule):,} flights in {folder}")
    return world


def _fit_to_replay(folder: Path, sample: float) -> None:
    """What a replay needs otherwise: fewer commits and, with fewer planes, a gate that asks for fewer labels."""
    with (folder / CONFIG_FILE).open("a", encoding="utf-8") as settings:
        settings.write(_SETTINGS)
    definitions = folder / "flights.py"
    text = definitions.read_text(encoding="utf-8")
    assert _MIN_LABELS in text
    n_labels = max(round(1_000 * sample), 50)
    definitions.write_text(text.replace(_MIN_LABELS, f"min_labels={n_labels}"), encoding="utf-8")


def _release_first(work: Workplace, told: Reporter) -> None:
    told.started("the first model")
    version = work.train(_MODEL)
    released = work.release(_DECISION, version.version, None)
    told.finished(f"{version.version}: {released.reason}")


def _new_folder() -> Path:
    """`demo/flights`, or the first free `demo/flights-2`, `-3`, ..."""
    wanted, n = _PARENT / _DEMO, 1
    while wanted.exists() and any(wanted.iterdir()):
        n += 1
        wanted = _PARENT / f"{_DEMO}-{n}"
    return wanted


def _write(path: Path, report: Report) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise StoreReadOnlyError(
            f"The report cannot be written: {error.strerror}.", where=str(path), mend="name a writable file"
        ) from error
