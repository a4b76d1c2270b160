"""The comparisons that a study names before it runs, beside those of every arm with the baseline.

A contrast sets one gain against another: [L(arm) − L(baseline)] − [L(against) − L(baseline)], each pair at its own size
and budget. At one size and budget the baseline cancels, and what is left is arm minus against; at two it says whether
an arm helps more here than there. Against the baseline itself, which gains nothing, losses are compared wherever the
two are: whether an arm here is better than the baseline there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from corpus_teacher.study.report.numbers import interval, p_text, plural, signed, unit_of
from corpus_teacher.study.report.results import CONTRAST_KEYS, Place, Results, lower_is_better
from corpus_teacher.study.report.statistics import Estimate, Floats, estimate, holm


@dataclass(frozen=True)
class Contrast:
    """One gain minus another, or a loss minus that of the baseline.

    Parameters
    ----------
    place, against : (arm, size, budget)
    difference : Estimate, optional
        Below 0, the first has the lower metric, or gains more; None without runs of a common seed.
    p_holm : float
        Corrected over the contrasts of the study.
    lower_is_better : bool
    shown : tuple of int
        Which of arm, size and budget tell the study's contrasts apart.
    """

    place: Place
    against: Place
    difference: Estimate | None
    p_holm: float
    lower_is_better: bool
    shown: tuple[int, ...]

    @property
    def names(self) -> tuple[str, str]:
        """Both places, with the size and the budget where the study's contrasts are at several."""
        first, second = (" · ".join(place[axis] for axis in self.shown) for place in (self.place, self.against))
        return first, second

    @property
    def verdict(self) -> str:
        """What the interval allows to say of the first."""
        if self.difference is None or math.isnan(self.p_holm):
            return "no interval"
        if self.p_holm >= 0.05:
            return "no difference shown"
        return "better" if (self.difference.value < 0) == self.lower_is_better else "worse"


def contrasts(results: Results) -> tuple[Contrast, ...]:
    """The contrasts that study.json names, in their order."""
    said = [[str(one[key]) for key in CONTRAST_KEYS] for one in results.settings.get("contrasts") or ()]
    pairs: list[tuple[Place, Place]] = [((a, b, c), (d, e, f)) for a, b, c, d, e, f in said]
    shown = (0, *(axis for axis in (1, 2) if len({place[axis] for pair in pairs for place in pair}) > 1))
    found = [_contrast(results, *pair, shown) for pair in pairs]
    corrected = holm([math.nan if one.difference is None else one.difference.p for one in found])
    return tuple(replace(one, p_holm=p) for one, p in zip(found, corrected, strict=True))


def sentence(one: Contrast, metric: str) -> str:
    """A contrast in words: number, interval, and on how many seeds it stands."""
    first, second = one.names
    if one.difference is None:
        return f"{first} against {second}: no seed in common yet."
    return (
        f"{first} against {second}: {signed(one.difference.value)}{unit_of(metric)} {interval(one.difference)} "
        f"({plural(one.difference.seeds, 'paired seed')}, Holm-corrected p {p_text(one.p_holm)}): {one.verdict}."
    )


def _contrast(results: Results, place: Place, against: Place, shown: tuple[int, ...]) -> Contrast:
    base, other = ((results.baseline, *one[1:]) for one in (place, against))
    draws = results.draws([base, place, other, against], results.primary)

    def gap(losses: Floats) -> Any:
        if against == other:
            return losses[..., 1] - losses[..., 3]
        return (losses[..., 1] - losses[..., 0]) - (losses[..., 3] - losses[..., 2])

    difference = None if draws is None else estimate(draws, gap)
    return Contrast(place, against, difference, math.nan, lower_is_better(results.primary), shown)
