"""The naive twin of `kernels.attribution`: every outcome beside every decision. For tests; nobody optimises it."""

from __future__ import annotations

from volano.kernels.attribution import Credit, Decided, Happened, Keep, Rule


def attribute_naively(
    decided: Decided, happened: Happened, credit: Credit, *, horizon_us: int, keep: Keep
) -> list[tuple[int, int, float]]:
    """(place of the outcome, place of the decision, share), sorted by decision and outcome; shares unrounded."""
    found: list[tuple[int, int, float]] = []
    for outcome, (key, at, waits_until) in enumerate(zip(*happened, strict=True)):
        touches = [
            place
            for place, (own, made_at, opens_at, known_at) in enumerate(zip(*decided, strict=True))
            if own == key
            and key >= 0
            and made_at <= at < made_at + horizon_us
            and opens_at <= at
            and known_at < waits_until
        ]
        ages = [(int(decided.at[touches[-1]]) - int(decided.at[place])) for place in touches]
        found += [
            (outcome, place, share)
            for place, share in zip(touches, _shares(ages, credit), strict=True)
            if share * 2**52 >= 1.0
        ]
    for place in range(len(decided.key)):
        own = [touch for touch in found if touch[1] == place]
        drop = {Keep.ALL: [], Keep.FIRST: own[1:], Keep.LAST: own[:-1]}[keep]
        found = [touch for touch in found if touch not in drop]
    return sorted(found, key=lambda touch: (touch[1], touch[0]))


def _shares(ages: list[int], credit: Credit) -> list[float]:
    """The share of each touch, oldest first, by its age before the newest."""
    n = len(ages)
    if n == 0:
        return []
    if credit.rule is Rule.FIRST:
        return [float(place == 0) for place in range(n)]
    if credit.rule is Rule.LAST:
        return [float(place == n - 1) for place in range(n)]
    if credit.rule is Rule.DECAY:
        raw = [2.0 ** (-age / credit.half_life_us) for age in ages]
        return [each / sum(raw) for each in raw]
    if credit.rule is Rule.POSITION and n > 2:
        between = (1.0 - 2.0 * credit.ends) / (n - 2)
        return [credit.ends, *[between] * (n - 2), credit.ends]
    return [1.0 / n] * n
