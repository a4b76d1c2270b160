"""The study's answer: every arm against the baseline by the metric that was named before the run, in one sentence."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from corpus_teacher.study.report.matching import Matched, equal_compute, token_speed_up
from corpus_teacher.study.report.numbers import interval, number, p_text, plural, ratio, signed, unit_of
from corpus_teacher.study.report.results import Place, Results, lower_is_better
from corpus_teacher.study.report.statistics import Estimate, difference, holm

LEVEL = 0.05
"""Of the error of claiming one arm or more where there is nothing."""

BETTER, WORSE, UNDECIDED, UNKNOWN = "better", "worse", "no difference shown", "no interval"


@dataclass(frozen=True)
class Comparison:
    """An arm against the baseline at one size and budget.

    Parameters
    ----------
    place : (arm, size, budget)
    value, baseline_value : float
        The primary metric, mean over the seeds that both have.
    difference : Estimate
        Arm minus baseline.
    p_holm : float
        Corrected over the arms of this size and budget.
    p_study : float
        Corrected over all comparisons of the study.
    speed_up, compute : Matched
        At equal loss, and at equal CPU time.
    """

    place: Place
    value: float
    baseline_value: float
    difference: Estimate
    p_holm: float
    p_study: float
    speed_up: Matched
    compute: Matched
    lower_is_better: bool

    @property
    def verdict(self) -> str:
        """better, worse, no difference shown, or no interval."""
        if math.isnan(self.p_holm):
            return UNKNOWN
        if self.p_holm >= LEVEL:
            return UNDECIDED
        return BETTER if (self.difference.value < 0) == self.lower_is_better else WORSE

    @property
    def gain(self) -> float:
        """How much better than the baseline, in the metric's unit."""
        return -self.difference.value if self.lower_is_better else self.difference.value


@dataclass(frozen=True)
class Analysis:
    """All comparisons of a study, and the place of the headline.

    Parameters
    ----------
    comparisons : tuple of Comparison
        In the order of sizes, budgets, arms.
    headline : (size, budget), optional
        The first declared size and the last declared budget, or what study.json says of "headline"; None without
        comparisons.
    answer : str
        One sentence.
    checks_failed : tuple of str
        Leak checks that a run did not pass, a sentence each.
    """

    comparisons: tuple[Comparison, ...]
    headline: tuple[str, str] | None
    answer: str
    checks_failed: tuple[str, ...]

    def at(self, size: str, budget: str) -> list[Comparison]:
        """Comparisons of one size and budget."""
        return [one for one in self.comparisons if one.place[1:] == (size, budget)]


def analyse(results: Results) -> Analysis:
    """Compare every arm with the baseline wherever both have a finished run of the same seed."""
    found: list[Comparison] = []
    for size in results.sizes:
        for budget in results.budgets:
            family = [one for arm in results.arms[1:] if (one := _compare(results, (arm, size, budget))) is not None]
            corrected = holm([one.difference.p for one in family])
            found += [replace(one, p_holm=p) for one, p in zip(family, corrected, strict=True)]
    over_all = holm([one.difference.p for one in found])
    found = [replace(one, p_study=p) for one, p in zip(found, over_all, strict=True)]
    headline = _headline(results, found)
    family = [one for one in found if one.place[1:] == headline]
    return Analysis(tuple(found), headline, _answer(results, family), tuple(_failed(results)))


def check_values(results: Results, name: str) -> list[object]:
    """What the runs say of a check; those that say nothing are left out."""
    found = [row.get("checks", {}).get(name) for row in results.rows]
    return [value.get("ok", value) if isinstance(value, dict) else value for value in found if value is not None]


def passed(value: object) -> bool:
    """Whether a check of a row says that it went well."""
    return value is True or value == "ok"


def _compare(results: Results, place: Place) -> Comparison | None:
    draws = results.draws([(results.baseline, *place[1:]), place], results.primary)
    if draws is None:
        return None
    return Comparison(
        place,
        float(draws.point[1]),
        float(draws.point[0]),
        difference(draws),
        math.nan,
        math.nan,
        token_speed_up(results, place),
        equal_compute(results, place),
        lower_is_better(results.primary),
    )


def _headline(results: Results, found: Sequence[Comparison]) -> tuple[str, str] | None:
    """As declared, which is before the run; the first place that has comparisons while that one has none."""
    declared = results.settings.get("headline") or {}
    sizes = [str(name) for name in results.settings.get("sizes") or results.sizes]
    budgets = [str(name) for name in results.settings.get("budgets") or results.budgets]
    if not sizes or not budgets:
        return None
    wanted = (str(declared.get("size", sizes[0])), str(declared.get("budget", budgets[-1])))
    places = [one.place[1:] for one in found]
    return wanted if wanted in places or not places else places[0]


def _answer(results: Results, family: Sequence[Comparison]) -> str:
    """The answer as one sentence, with number and interval."""
    metric, baseline = results.primary, results.baseline
    if not family:
        return f"No answer yet: no arm and {baseline} have a finished run of the same seed."
    best = max(family, key=lambda one: one.gain)
    arm, size, budget = best.place
    places = [f"size {size}"] * (len(results.sizes) > 1) + [f"budget {budget}"] * (len(results.budgets) > 1)
    where = f" at {', '.join(places)}" if places else ""
    basis = plural(best.difference.seeds, "paired seed")
    if best.difference.documents > 1:
        basis += f", {plural(best.difference.documents, 'document')}"
    change = f"{signed(best.difference.value)}{unit_of(metric)} {interval(best.difference)}"
    if math.isnan(best.p_holm):
        return f"No claim yet: {arm} has {metric} {change} against {baseline}{where}, from {basis}."
    counts = {word: sum(one.verdict == word for one in family) for word in (BETTER, UNDECIDED, WORSE)}
    others = f"of {len(family)} arms {counts[BETTER]} better, {counts[UNDECIDED]} undecided, {counts[WORSE]} worse"
    basis += f"; Holm-corrected p {p_text(best.p_holm)}; {others if len(family) > 1 else 'the only arm'}"
    if best.verdict == BETTER:
        verb = "lowers" if best.lower_is_better else "raises"
        gained = f"{number(best.gain)}{unit_of(metric)} {interval(best.difference, turned=best.lower_is_better)}"
        text = f"{arm} {verb} {metric} by {gained} against {baseline}{where} ({basis})"
        if best.speed_up.estimate is not None:
            text += f"; {baseline} needs {ratio(best.speed_up.estimate)} times its tokens for the same loss"
        return text + "."
    said = f"{arm}, has {metric} {change} against it ({basis})."
    if counts[WORSE] == len(family):
        return f"Every arm is worse than {baseline}{where}: the least so, {said}"
    return f"No arm is shown to be better than {baseline}{where}: the best, {said}"


def _failed(results: Results) -> list[str]:
    values = check_values(results, "leave_out_label_invariance")
    bad = sum(not passed(value) for value in values)
    return [f"Leave-out label invariance failed ({plural(bad, 'run')}): a target read its own label."] if bad else []
