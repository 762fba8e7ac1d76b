"""Policies: from scores to an action and the exact probability of choosing it. Pure; randomness is passed in.

Every policy is a distribution over the actions given the scores. What explores draws its action from that
distribution with a number u in [0, 1), so the logged propensity is exact by construction; what does not
explore says "deterministic" and 1.0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from volano.errors import DefinitionError

DETERMINISTIC: Final = "deterministic"
"""Propensity method: the same scores always give the same action."""
EXACT: Final = "exact"
"""Propensity method: the probability under the policy's distribution, computed, not estimated."""


class Choice(NamedTuple):
    """What a policy chose: the action, its probability given the scores, and how that was got."""

    action: str
    propensity: float
    method: str


class Policy(Protocol):
    """A distribution over actions, given scores."""

    @property
    def explores(self) -> bool:
        """Whether `choose` looks at u."""
        ...

    def distribution(self, scores: Sequence[float]) -> list[float]:
        """The probability of each action, in the order declared; they sum to 1.

        Args:
            scores: one for each action, higher is better; or a single one, the score of the first of two
                actions, the other's being 1 minus it.

        Raises:
            ValueError: another number of scores.
        """
        ...

    def choose(self, scores: Sequence[float], u: float) -> Choice:
        """The action for these scores and this u in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True)
class Threshold:
    """One action at or above a score, another below it.

    Args:
        action: chosen when score >= at.
        otherwise: chosen below.

    >>> warn = Threshold(("warn", "ok"), action="warn", otherwise="ok", at=0.5)
    >>> warn.choose([0.5], 0.0).action, warn.choose([0.4999], 0.0)
    ('warn', Choice(action='ok', propensity=1.0, method='deterministic'))
    """

    actions: tuple[str, ...]
    action: str
    otherwise: str
    at: float
    explores: ClassVar[bool] = False

    def distribution(self, scores: Sequence[float]) -> list[float]:
        chosen = self.choose(scores, 0.0).action
        return [1.0 if action == chosen else 0.0 for action in self.actions]

    def choose(self, scores: Sequence[float], u: float) -> Choice:
        (score,) = scores
        return Choice(self.action if score >= self.at else self.otherwise, 1.0, DETERMINISTIC)


@dataclass(frozen=True, slots=True)
class Greedy:
    """The action with the highest score; of equal ones the first declared.

    >>> Greedy(("a", "b", "c")).choose([0.1, 0.7, 0.7], 0.0).action
    'b'
    """

    actions: tuple[str, ...]
    explores: ClassVar[bool] = False

    def distribution(self, scores: Sequence[float]) -> list[float]:
        best = _best(_per_action(scores, self.actions))
        return [1.0 if i == best else 0.0 for i in range(len(self.actions))]

    def choose(self, scores: Sequence[float], u: float) -> Choice:
        return Choice(self.actions[_best(_per_action(scores, self.actions))], 1.0, DETERMINISTIC)


@dataclass(frozen=True, slots=True)
class EpsilonGreedy:
    """With probability epsilon any action, each as likely; else the best. (Sutton & Barto 2018, section 2.2.)

    >>> EpsilonGreedy(("a", "b"), epsilon=0.1).distribution([0.2, 0.8])
    [0.05, 0.95]
    """

    actions: tuple[str, ...]
    epsilon: float
    explores: ClassVar[bool] = True

    def distribution(self, scores: Sequence[float]) -> list[float]:
        best = _best(_per_action(scores, self.actions))
        share = self.epsilon / len(self.actions)
        rest = 1.0 - share * (len(self.actions) - 1)
        return [rest if i == best else share for i in range(len(self.actions))]

    def choose(self, scores: Sequence[float], u: float) -> Choice:
        return draw(self.actions, self.distribution(scores), u)


@dataclass(frozen=True, slots=True)
class Softmax:
    """Probabilities proportional to exp(score / temperature). (Sutton & Barto 2018, section 2.8.)

    >>> [round(share, 4) for share in Softmax(("a", "b"), temperature=1.0).distribution([0.0, math.log(3)])]
    [0.25, 0.75]
    """

    actions: tuple[str, ...]
    temperature: float
    explores: ClassVar[bool] = True

    def distribution(self, scores: Sequence[float]) -> list[float]:
        each = _per_action(scores, self.actions)
        highest = max(each)
        weights = [math.exp((score - highest) / self.temperature) for score in each]
        total = math.fsum(weights)
        return [weight / total for weight in weights]

    def choose(self, scores: Sequence[float], u: float) -> Choice:
        return draw(self.actions, self.distribution(scores), u)


def draw(actions: Sequence[str], distribution: Sequence[float], u: float) -> Choice:
    """The action whose interval of the cumulated distribution holds u.

    An action of probability 0 is never drawn, also when the sum of the others rounds to less than u.

    >>> draw(["a", "b", "c"], [0.2, 0.0, 0.8], 0.2)
    Choice(action='c', propensity=0.8, method='exact')
    """
    last = 0
    for i, (share, reached) in enumerate(zip(distribution, accumulate(distribution), strict=True)):
        if share > 0.0:
            last = i
            if u < reached:
                break
    return Choice(actions[last], distribution[last], EXACT)


def make_policy(kind: str, params: Mapping[str, Any], actions: Sequence[str]) -> Policy:
    """The policy of a compiled declaration.

    Args:
        kind: threshold, greedy, epsilon_greedy or softmax.
        params: `action`, `at` and optionally `otherwise` of a threshold; `epsilon`; `temperature`.
        actions: all actions of the decision, in the order declared; unique.

    Raises:
        DefinitionError: an unknown kind or parameter, one missing or out of range, or an undeclared action.

    >>> make_policy("threshold", {"action": "warn", "at": 0.5}, ["warn", "ok"]).choose([0.7], 0.0).action
    'warn'
    """
    factory = _FACTORIES.get(kind)
    if factory is None:
        raise DefinitionError(f"There is no policy {kind!r}.", mend=f"use one of: {', '.join(_FACTORIES)}")
    if not actions or len(set(actions)) != len(actions):
        raise DefinitionError(
            f"The actions {list(actions)!r} are not a choice.", mend="declare one or more, each once"
        )
    try:
        return factory(tuple(actions), **params)
    except TypeError as error:
        raise DefinitionError(
            f"The policy {kind!r} cannot take {dict(params)!r}: {error}.",
            mend="see its parameters in volano.spec",
        ) from error


def _threshold(actions: tuple[str, ...], *, action: str, at: float, otherwise: str | None = None) -> Policy:
    if otherwise is None:
        otherwise = next((other for other in actions if other != action), action)
    for name in (action, otherwise):
        if name not in actions:
            raise DefinitionError(
                f"The threshold chooses {name!r}, which is no action of the decision.",
                mend=f"use one of: {', '.join(actions)}",
            )
    if not math.isfinite(at):
        raise DefinitionError(f"A threshold at {at} never decides.", mend="give a finite number")
    return Threshold(actions, action, otherwise, float(at))


def _epsilon_greedy(actions: tuple[str, ...], *, epsilon: float) -> Policy:
    if not 0.0 <= epsilon <= 1.0:
        raise DefinitionError(f"An epsilon of {epsilon} is no probability.", mend="give a number from 0 to 1")
    return EpsilonGreedy(actions, float(epsilon))


def _softmax(actions: tuple[str, ...], *, temperature: float) -> Policy:
    if not (temperature > 0.0 and math.isfinite(temperature)):
        raise DefinitionError(
            f"A temperature of {temperature} gives no distribution.", mend="give a positive number"
        )
    return Softmax(actions, float(temperature))


_FACTORIES: Final[Mapping[str, Callable[..., Policy]]] = {
    "threshold": _threshold,
    "greedy": Greedy,
    "epsilon_greedy": _epsilon_greedy,
    "softmax": _softmax,
}


def _per_action(scores: Sequence[float], actions: Sequence[str]) -> Sequence[float]:
    """One score for each action: a single score p of two actions stands for (p, 1 - p)."""
    if len(scores) == len(actions):
        return scores
    if len(scores) == 1 and len(actions) == 2:
        return (scores[0], 1.0 - scores[0])
    raise ValueError(f"{len(scores)} scores for {len(actions)} actions; give one for each")


def _best(scores: Sequence[float]) -> int:
    """The index of the highest score; of equal ones the first."""
    return max(range(len(scores)), key=scores.__getitem__)
