"""The replay: requests and events of a world, each at the instant at which it would have come, through a workplace.

Only the clock is made up. Requests are decided, events observed, the journal drained and the scheduled jobs run by
the same calls that live operation uses; nothing is written beside them.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from volano.protocols.reporter import Reporter
from volano.runtime.clock import FileClock, ReplayClock
from volano.runtime.demo.flights_data import World
from volano.runtime.workplace import Workplace
from volano.values.instants import BEGINNING, DAY_US, HOUR_US, MINUTE_US, Instant, format_instant

TURN_US: Final = 15 * MINUTE_US
"""How often it is asked whether what was accepted should become visible."""
WAIT_AT_MOST_US: Final = HOUR_US
"""How long anything waits for that."""
WORTH_A_DRAIN: Final = 20
"""So many records do not wait. A drain syncs the disk twice, so their number sets how fast a year goes."""
REQUESTS: Final = "schedule"
"""The table of the world that holds requests; the others are named after their sources."""

Values: TypeAlias = Mapping[str, Any]


class Arrival(NamedTuple):
    """One thing that reaches the platform.

    Args:
        source: where it came to; `REQUESTS` for a request.
    """

    at: Instant
    source: str
    values: Values


class Replayed(NamedTuple):
    """What was put in."""

    n_decisions: int
    n_observations: int


class Entrance(Protocol):
    """How what comes reaches the platform, and becomes visible."""

    def decide(self, decision: str, request: Values) -> None:
        """Ask for a decision, now."""
        ...

    def observe(self, source: str, event: Values) -> None:
        """Hand an event in; it may wait for the next `settle` to be visible."""
        ...

    def settle(self) -> Instant:
        """Make everything that was handed in visible; the first instant at which whoever asks surely sees it."""
        ...

    def run_due(self) -> None:
        """Run the jobs that are due."""
        ...

    def finish(self) -> None:
        """Commit everything."""
        ...

    def champion(self, decision: str) -> str:
        """The model version that decides; empty before the first."""
        ...


class OwnProcess:
    """In this process, by the calls that a served project makes too."""

    def __init__(self, work: Workplace) -> None:
        self._work = work

    def decide(self, decision: str, request: Values) -> None:
        self._work.session.decide(decision, request)

    def observe(self, source: str, event: Values) -> None:
        # Kept through a kill at once, through a loss of power from the next turn on.
        self._work.session.observe(source, [event], sync=False)

    def settle(self) -> Instant:
        self._work.session.drain()
        # Each record took a microsecond: whoever decides now, decides after what is visible.
        return self._work.session.applier.last_stamp

    def run_due(self) -> None:
        self._work.run_due()

    def finish(self) -> None:
        self._work.session.drain(commit=True)

    def champion(self, decision: str) -> str:
        champion = self._work.session.decider.serving(decision).champion
        return "" if champion is None else champion.version.version


class Replay:
    """Turns simulated time.

    Args:
        entrance: of the applied project, with a release.
        clock: its clock; the replay moves it.
        decision: what the world's requests ask for.
    """

    def __init__(
        self, entrance: Entrance, clock: ReplayClock | FileClock, decision: str, reporter: Reporter
    ) -> None:
        self._entrance = entrance
        self._clock = clock
        self._decision = decision
        self._reporter = reporter
        self._n_decisions = 0
        self._n_observations = 0
        self._n_waiting = 0
        self._drained_at = BEGINNING

    def run(self, world: World, *, since: Instant, until: Instant) -> Replayed:
        """Live through `[since, until)`, and run the jobs that are due at its end."""
        live = world.known(since=since, until=until)
        self._reporter.started("replay", sum(len(table) for table in live))
        for day in range(since, until, DAY_US):
            began, n_before = time.perf_counter(), self._n_decisions
            self._live_through(
                arrivals(live.known(since=day, until=day + DAY_US)), day, min(day + DAY_US, until)
            )
            rate = (self._n_decisions - n_before) / (time.perf_counter() - began)
            self._tell(day, rate)
        self._turn(until)
        self._entrance.finish()
        self._reporter.finished(f"{self._n_decisions:,} decisions, {self._n_observations:,} observations")
        return Replayed(self._n_decisions, self._n_observations)

    def _live_through(self, coming: Iterator[Arrival], since: Instant, until: Instant) -> None:
        """One day. Its first turn, at midnight, is also the end of the day before."""
        turn = since
        for arrival in coming:
            while arrival.at >= turn:
                self._turn(turn)
                turn += TURN_US
            self._pass_to(arrival.at)
            self._take(arrival)
        while turn < until:
            self._turn(turn)
            turn += TURN_US

    def _take(self, arrival: Arrival) -> None:
        self._n_waiting += 1
        if arrival.source == REQUESTS:
            self._entrance.decide(self._decision, arrival.values)
            self._n_decisions += 1
        else:
            self._entrance.observe(arrival.source, arrival.values)
            self._n_observations += 1

    def _turn(self, at: Instant) -> None:
        """Make what came visible, then run what is due."""
        self._pass_to(at)
        is_time = self._n_waiting >= WORTH_A_DRAIN or at - self._drained_at >= WAIT_AT_MOST_US
        if self._n_waiting and is_time:
            self._pass_to(self._entrance.settle())
            self._n_waiting = 0
            self._drained_at = at
        self._entrance.run_due()

    def _pass_to(self, at: Instant) -> None:
        """Move the clock forward, never back."""
        self._clock.advance_to(max(at, self._clock.now()))

    def _tell(self, day: Instant, rate: float) -> None:
        serving = self._entrance.champion(self._decision) or "none"
        note = f"{format_instant(day)[:10]}  {rate:,.0f} decisions/s  champion {serving}"
        self._reporter.advanced(self._n_decisions + self._n_observations, note)


def arrivals(world: World) -> Iterator[Arrival]:
    """Everything of a world in the order in which it becomes known; at one instant by source, then by id."""
    found: list[tuple[Instant, int, int, Arrival]] = []
    for rank, (name, table) in enumerate(world._asdict().items()):
        known_at = table["known_at"].cast(pa.int64()).to_pylist()
        columns = [column for column in table.column_names if column != "known_at"]
        values = zip(*(table[column].to_pylist() for column in columns), strict=True)
        found += [
            (at, rank, row, Arrival(at, name, dict(zip(columns, cells, strict=True))))
            for row, (at, cells) in enumerate(zip(known_at, values, strict=True))
        ]
    found.sort()
    return (arrival for *_, arrival in found)
