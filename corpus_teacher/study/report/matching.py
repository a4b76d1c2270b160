"""Arms compared at equal loss or at equal cost: tokens to reach a loss, and the loss at the same compute.

Both read a loss between runs of several budgets, each finished under its own learning-rate schedule. The inside of one
run is not such a curve: before the learning rate has come down the loss is too high, so that reading there makes every
saving look larger (1.83 where finished runs say 1.30). So with one budget nothing is read, and the result says why.

Between two runs the loss is taken as linear in the logarithm of the cost. How wrong that is, is estimated by what other
curves through the same points would give (linear in the cost; a power law), and by leaving inner points out.

CPU time is compared only where the machine did nothing else: two arms that do the same work took 60 and 68 seconds when
they were timed under different load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from corpus_teacher.study.report.results import Place, Results, Row
from corpus_teacher.study.report.statistics import Estimate, Floats, estimate

FINISHED, FINISHED_ARM = "between finished runs", "between the arm’s finished runs"
BEYOND = "beyond the last finished run"
ONE_BUDGET = "not read: one budget"
LOADED = "not known: the machine did other work while the runs were timed"

_BUSY = 1.15  # seconds over CPU seconds: above that a process waited for others
_ONCE = 0.02  # of a pass: windows and steps don't fill an index exactly
_FAR = 0.5  # of the last step between budgets: so far a compute-matched reading may go beyond it


@dataclass(frozen=True)
class Matched:
    """An arm against the baseline at equal loss or cost.

    Parameters
    ----------
    estimate : Estimate, optional
        A speed-up (the baseline's tokens over the arm's) or a difference of losses; None where it can't be read.
    how : str
        `FINISHED`, `FINISHED_ARM` or `BEYOND`; or why there is none.
    error : float
        Of the interpolation: of the speed-up's logarithm, or of the loss. NaN where there is no estimate.
    """

    estimate: Estimate | None
    how: str
    error: float = math.nan


def loss_metric(results: Results) -> str:
    """The loss that is matched: the primary metric where it is one, else that of the held-out documents."""
    name = results.primary.rpartition(".")[2]
    return results.primary if name in ("nats", "bits_per_byte") else "in.nats"


def token_speed_up(results: Results, place: Place) -> Matched:
    """How many times as many tokens the baseline needs as this arm, for the same loss (above 1: the arm saves tokens).

    Parameters
    ----------
    results : Results
    place : (arm, size, budget)

    Notes
    -----
    The loss is the one that the arm ends with, read on the baseline's curve; where no two finished runs of the baseline
    lie around it, the one that the baseline ends with at this budget, read on the arm's curve.
    """
    base = (results.baseline, *place[1:])
    found = _between_runs(results, results.baseline, place)
    if found is None or found.estimate is None:
        turned = _between_runs(results, place[0], base, turned=True)
        found = turned if turned is not None and turned.estimate is not None else found
    return found or Matched(None, ONE_BUDGET)


def _between_runs(results: Results, runner: str, place: Place, *, turned: bool = False) -> Matched | None:
    """Cost of the loss of a place on the curve of an arm's finished runs, over the place's own; turned, its inverse."""
    points = finished_budgets(results, runner, place, "tokens")
    own = results.mean(place, "tokens")
    if len(points) < 2 or own is None:
        return None
    draws = results.draws([point for point, _ in points] + [place], loss_metric(results))
    if draws is None:
        return Matched(None, f"no seed is common to this run and all budgets of {runner}")
    costs, losses, target = [cost for _, cost in points], draws.point[:-1], draws.point[-1]
    if not (np.diff(losses) < 0).all():
        return Matched(None, f"the loss of {runner} doesn’t fall with every larger budget")
    if target > losses[0]:
        return Matched(None, f"worse than {runner} at its smallest budget")
    if target < losses[-1]:
        return Matched(None, f"better than {runner} at its largest budget")
    at = min(int(np.searchsorted(-losses, -target)), len(costs) - 1)
    left, sign = max(at - 1, 0), -1 if turned else 1
    step, base = math.log(costs[left + 1] / costs[left]), math.log(costs[left] / own)

    def log_speed_up(values: Floats) -> Any:
        share = (values[..., left] - values[..., -1]) / (values[..., left] - values[..., left + 1])
        return sign * (base + share * step)

    error = _cost_error(costs, losses, left, target)
    return Matched(estimate(draws, log_speed_up, ratio=True), FINISHED_ARM if turned else FINISHED, error)


def equal_compute(results: Results, place: Place) -> Matched:
    """The arm's loss minus the baseline's at the cost that the arm had, its teacher's included."""
    points = finished_budgets(results, results.baseline, place, results.cost)
    own = results.mean(place, results.cost)
    if own is None or not points:
        return Matched(None, "the rows lack costs")
    if results.cost == "cpu_s" and any(_is_loaded(results, one) for one in [place, *(point for point, _ in points)]):
        return Matched(None, LOADED)
    costs = [cost for _, cost in points]
    if len(costs) < 2:
        return Matched(None, ONE_BUDGET)
    far = own <= costs[-1] * (costs[-1] / costs[-2]) ** _FAR
    if own < costs[0] or not far or not (np.diff(costs) > 0).all():
        return Matched(None, f"no finished runs of {results.baseline} around that cost")
    draws = results.draws([point for point, _ in points] + [place], loss_metric(results))
    if draws is None:
        return Matched(None, "no seed is common to this run and all budgets of the baseline")
    left = min(max(int(np.searchsorted(costs, own)) - 1, 0), len(costs) - 2)
    share = math.log(own / costs[left]) / math.log(costs[left + 1] / costs[left])

    def gain(values: Floats) -> Any:
        return values[..., -1] - (values[..., left] * (1 - share) + values[..., left + 1] * share)

    how = FINISHED if own <= costs[-1] else BEYOND
    return Matched(estimate(draws, gain), how, _loss_error(costs, draws.point[:-1], left, own))


def curve(row: Row) -> tuple[Floats, Floats]:
    """Tokens read and held-out nats along one training, by its evaluations that gave a finite loss."""
    measured = [one for one in row.get("history") or () if one["nats"] is not None]
    points = sorted({float(one["tokens"]): float(one["nats"]) for one in measured}.items())
    return np.array([at for at, _ in points]), np.array([nats for _, nats in points])


def mean_curves(results: Results, place: Place, seeds: Sequence[int]) -> tuple[Floats, Floats] | None:
    """Tokens (P,) and nats (S, P) of several seeds at the evaluations that all of them made."""
    curves = [curve(results.runs[place][seed]) for seed in seeds]
    if not curves or any(not len(tokens) for tokens, _ in curves):
        return None
    shared = curves[0][0]
    for tokens, _ in curves[1:]:
        shared = np.intersect1d(shared, tokens)
    return (shared, np.array([nats[np.isin(tokens, shared)] for tokens, nats in curves])) if len(shared) else None


def _is_loaded(results: Results, place: Place) -> bool:
    """Whether a run of a place waited for other work: its seconds exceed its CPU seconds."""
    times = [(row.get("seconds"), row.get("cpu_s")) for row in results.runs.get(place, {}).values()]
    return any(seconds and cpu_s and seconds > _BUSY * cpu_s for seconds, cpu_s in times)


def finished_budgets(results: Results, arm: str, place: Place, field: str) -> list[tuple[Place, float]]:
    """An arm's budgets at the size of a place, by cost: those that read more or less of one text, not other texts."""
    own = (arm, *place[1:])
    places = [(arm, place[1], budget) for budget in results.budgets]
    costs = [(one, results.mean(one, field)) for one in places if _is_one_text(results, one, own)]
    found = sorted(((one, cost) for one, cost in costs if cost), key=lambda entry: entry[1])
    same = any(left[1] == right[1] for left, right in pairwise(found))
    return [point for point in found if point[0] == own] if same else found


def _is_one_text(results: Results, first: Place, second: Place) -> bool:
    """Whether the runs of two places read more or less of one text.

    Each index of a study is the beginning of its larger ones, so indexes that are each read once are one text too.
    """
    rows = [next(iter(results.runs.get(place, {}).values()), {}) for place in (first, second)]
    texts = []
    for row in rows:
        config = row.get("config")
        data = config.get("data", {}) if isinstance(config, Mapping) else {}
        texts.append({key: value for key, value in data.items() if key != "train_tokens"})
    if texts[0] == texts[1]:
        return True
    once = [passes is not None and abs(passes - 1) < _ONCE for passes in map(results.passes, rows)]
    return all(once) and texts[0] | {"index": ""} == texts[1] | {"index": ""}


def _cost_error(costs: Sequence[float], losses: Floats, left: int, target: float) -> float:
    """Of the logarithm of the cost at which the curve has the target."""
    ours = _crossing(costs, losses, left, target, math.log, lambda nats: nats, math.exp)
    others = [
        _crossing(costs, losses, left, target, lambda cost: cost, lambda nats: nats, lambda cost: cost),
        _crossing(costs, losses, left, target, math.log, math.log, math.exp),
    ]
    errors = [abs(math.log(other / ours)) for other in others]
    for inner in range(1, len(costs) - 1):
        outer_costs, outer = [costs[inner - 1], costs[inner + 1]], np.array([losses[inner - 1], losses[inner + 1]])
        without = _crossing(outer_costs, outer, 0, float(losses[inner]), math.log, lambda nats: nats, math.exp)
        errors.append(abs(math.log(without / costs[inner])))
    return max(errors)


def _crossing(
    costs: Sequence[float],
    losses: Floats,
    left: int,
    target: float,
    of_cost: Callable[[float], float],
    of_loss: Callable[[float], float],
    back: Callable[[float], float],
) -> float:
    """The cost at which a line between two points, on these scales, has the target."""
    high, low, goal = (of_loss(float(one)) for one in (losses[left], losses[left + 1], target))
    first, last = of_cost(costs[left]), of_cost(costs[left + 1])
    return back(first + (high - goal) / (high - low) * (last - first))


def _loss_error(costs: Sequence[float], losses: Floats, left: int, cost: float) -> float:
    """Of the loss at a cost."""
    first, last, high, low = costs[left], costs[left + 1], float(losses[left]), float(losses[left + 1])
    share = math.log(cost / first) / math.log(last / first)
    ours = high + share * (low - high)
    errors = [abs(high + (cost - first) / (last - first) * (low - high) - ours)]
    if min(high, low) > 0:
        errors.append(abs(high * (low / high) ** share - ours))
    for inner in range(1, len(costs) - 1):
        part = math.log(costs[inner] / costs[inner - 1]) / math.log(costs[inner + 1] / costs[inner - 1])
        errors.append(abs(float(losses[inner - 1] * (1 - part) + losses[inner + 1] * part - losses[inner])))
    return max(errors)
