"""Policies: how scores become an action, and with what probability."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Threshold:
    """Choose `action` when the score is at least `at`, else `otherwise`.

    Args:
        action: the action above the threshold.
        at: the threshold, a score.
        otherwise: the other action; needed only when there are more than two.

    >>> Threshold("warn", at=0.5).action
    'warn'
    """

    action: str
    at: float | None = None
    otherwise: str | None = None


@dataclass(frozen=True)
class Greedy:
    """Always choose the action with the best score.

    >>> Greedy()
    Greedy()
    """


@dataclass(frozen=True)
class EpsilonGreedy:
    """Choose the best action, and with probability `epsilon` any action, all equally likely.

    >>> EpsilonGreedy(0.05).epsilon
    0.05
    """

    epsilon: float | None = None


@dataclass(frozen=True)
class Softmax:
    """Choose each action with probability proportional to exp(score / temperature).

    >>> Softmax(temperature=0.1).temperature
    0.1
    """

    temperature: float | None = None


Policy: TypeAlias = Threshold | Greedy | EpsilonGreedy | Softmax
