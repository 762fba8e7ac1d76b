"""What a worker counts, as Prometheus text. Each worker speaks for itself, under its own label."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from typing import Final

from volano.records.journal import DecisionMade

_BOUNDS_US: Final = (
    50,
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    1_000_000,
)


class Metrics:
    """Counters of one worker. Used from its event loop only.

    >>> metrics = Metrics("worker_0")
    >>> metrics.count_observed("clicks", 3)
    >>> print(metrics.text(behind_bytes=0).decode().splitlines()[1])
    volano_observed_total{worker="worker_0",source="clicks"} 3
    """

    def __init__(self, worker: str) -> None:
        self._worker = worker
        self._observed: Counter[str] = Counter()
        self._decided: Counter[tuple[str, str]] = Counter()
        self._problems: Counter[str] = Counter()
        self._took: dict[str, list[int]] = {}
        self._took_us: Counter[str] = Counter()

    def count_observed(self, source: str, n: int) -> None:
        """So many events of a source were accepted."""
        self._observed[source] += n

    def count_decision(self, made: DecisionMade) -> None:
        """A decision was answered."""
        reason = made.fallback.partition(":")[0]
        self._decided[made.decision, reason] += 1
        took = made.latency_us.get("total", 0)
        buckets = self._took.setdefault(made.decision, [0] * (len(_BOUNDS_US) + 1))
        buckets[bisect_left(_BOUNDS_US, took)] += 1
        self._took_us[made.decision] += took

    def count_problem(self, kind: str) -> None:
        """A request ended with problem details."""
        self._problems[kind.rpartition(":")[2]] += 1

    def text(self, *, behind_bytes: int) -> bytes:
        """The exposition, version 0.0.4."""
        lines: list[str] = []

        def put(name: str, value: float, **labels: str) -> None:
            shown = ",".join(
                f'{key}="{_escaped(each)}"' for key, each in {"worker": self._worker, **labels}.items()
            )
            lines.append(
                f"{name}{{{shown}}} {value:g}" if isinstance(value, float) else f"{name}{{{shown}}} {value}"
            )

        lines.append("# TYPE volano_observed_total counter")
        for source, n in sorted(self._observed.items()):
            put("volano_observed_total", n, source=source)
        lines.append("# TYPE volano_decisions_total counter")
        for (decision, reason), n in sorted(self._decided.items()):
            put("volano_decisions_total", n, decision=decision, fallback=reason)
        lines.append("# TYPE volano_problems_total counter")
        for code, n in sorted(self._problems.items()):
            put("volano_problems_total", n, code=code)
        lines.append("# TYPE volano_decision_seconds histogram")
        for decision, buckets in sorted(self._took.items()):
            n_so_far = 0
            for bound, n in zip(_BOUNDS_US, buckets, strict=False):
                n_so_far += n
                put("volano_decision_seconds_bucket", n_so_far, decision=decision, le=f"{bound / 1e6:g}")
            put("volano_decision_seconds_bucket", sum(buckets), decision=decision, le="+Inf")
            put("volano_decision_seconds_sum", self._took_us[decision] / 1e6, decision=decision)
            put("volano_decision_seconds_count", sum(buckets), decision=decision)
        lines.append("# TYPE volano_journal_behind_bytes gauge")
        put("volano_journal_behind_bytes", behind_bytes)
        return ("\n".join(lines) + "\n").encode()


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
