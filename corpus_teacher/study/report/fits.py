"""How loss falls with the tokens read: a law for each arm, L(T) = E + A·T^−b, and the tokens that an arm saves by it.

A law is fitted to the finished runs of an arm at several budgets, each under its own learning-rate schedule. Naively:
for each exponent b of a fine grid solve the least squares in E ≥ 0 and A ≥ 0, and keep the b of least residual. Every
draw of the bootstrap over seeds and documents is fitted anew, all arms on the same draw, so intervals are paired; that
the law may be wrong is not in them. That is reported beside: how far the law misses the points (`Law.misfit`), and the
range of a saving when the law lies that much too high or too low (`Law.lack_of_fit`). A law that misses its points by
more than `MISSES` is not read beyond them.

With three budgets the law goes through all points and its misfit says nothing: four are asked for.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any

import numpy as np

from corpus_teacher.errors import ConfigError
from corpus_teacher.study.report.matching import finished_budgets, loss_metric
from corpus_teacher.study.report.results import Place, Results
from corpus_teacher.study.report.statistics import Draws, Estimate, Floats, estimate, t_quantile

FEWEST = 4
"""Budgets that a law is fitted to, at least."""

FAR = 10.0
"""How many times the largest budget the extrapolation goes."""

MISSES = 0.01
"""Nats per token: a law that misses its points by more is not read beyond them."""

LACK_LEVEL = 0.9
"""Of the range by lack of fit: ± t · s, s² the squares left over the degrees of freedom left, K points less 3 terms."""

_TERMS = 3
_EXPONENTS = np.geomspace(0.01, 2.0, 150)
_MOST = 7.0  # e-folds of tokens: a law never reaches a loss below its floor E


@dataclass(frozen=True)
class Law:
    """The law of one arm at one size.

    Parameters
    ----------
    arm, size : str
    tokens : tuple of float
        Of each budget, ascending.
    losses : tuple of float
        Nats per token, mean over the seeds.
    floor, scale, exponent : float
        E, A and b of E + A · (tokens / 10⁶)^−b.
    misfit : float
        The largest distance of a point from the law, nats per token.
    savings : tuple of Estimate
        At each budget: the tokens that the baseline needs by its law for this arm's loss, over the arm's. Empty for
        the baseline.
    lack_of_fit : tuple of (float, float)
        At each budget: that saving, read where the baseline's law lies too high or too low by its lack of fit.
    far_tokens : float
        `FAR` times the largest budget.
    far_gain, far_saving : Estimate, optional
        There, by the two laws: loss of the arm minus the baseline's, and the saving. None for the baseline, and where
        the arm's law misses its points.
    """

    arm: str
    size: str
    tokens: tuple[float, ...]
    losses: tuple[float, ...]
    floor: float
    scale: float
    exponent: float
    misfit: float
    savings: tuple[Estimate, ...] = ()
    lack_of_fit: tuple[tuple[float, float], ...] = ()
    far_tokens: float = math.nan
    far_gain: Estimate | None = None
    far_saving: Estimate | None = None


def laws(results: Results, size: str) -> list[Law]:
    """The laws of all arms that have enough budgets which read more or less of one text; the baseline's first."""
    found = []
    base = _points(results, results.baseline, size)
    for arm in results.arms:
        own = _points(results, arm, size)
        if len(own) < FEWEST or len(base) < FEWEST:
            continue
        draws = results.draws([place for place, _ in (*base, *own)], loss_metric(results))
        if draws is not None:
            found.append(_law(results, arm, size, [cost for _, cost in base], [cost for _, cost in own], draws))
    return found


def fit_law(tokens: Sequence[float], losses: Floats) -> tuple[Floats, Floats, Floats]:
    """Least squares of E + A · (tokens / 10⁶)^−b with E ≥ 0 and A ≥ 0.

    Parameters
    ----------
    tokens : sequence of K floats
    losses : ndarray of shape (…, K)
        One curve, or many.

    Returns
    -------
    tuple of ndarray of shape (…)
        E, A, b.

    Examples
    --------
    >>> tokens = [1e6, 2e6, 4e6, 8e6]
    >>> floor, scale, exponent = fit_law(tokens, np.array([3.0 + 2 * (t / 1e6) ** -0.3 for t in tokens]))
    >>> round(float(floor), 1), round(float(scale), 1), round(float(exponent), 2)
    (3.0, 2.0, 0.3)
    """
    losses = np.asarray(losses, dtype=np.float64)
    powers = (np.asarray(tokens, dtype=np.float64) / 1e6) ** -_EXPONENTS[:, None]  # (B, K)
    mean = powers.mean(axis=1)
    level = losses.mean(axis=-1, keepdims=True)  # (…, 1)
    spread = ((powers - mean[:, None]) ** 2).sum(axis=1)
    scale = np.maximum(losses @ (powers - mean[:, None]).T / spread, 0.0)  # (…, B)
    floor = level - scale * mean
    through = np.maximum(losses @ powers.T / (powers**2).sum(axis=1), 0.0)  # the best A where E is 0
    below = floor < 0
    scale, floor = np.where(below, through, scale), np.where(below, 0.0, floor)
    missed = ((losses[..., None, :] - floor[..., None] - scale[..., None] * powers) ** 2).sum(axis=-1)
    best = missed.argmin(axis=-1)[..., None]
    floor, scale = (np.take_along_axis(one, best, axis=-1)[..., 0] for one in (floor, scale))
    return floor, scale, _EXPONENTS[best[..., 0]]


def predicted(law: tuple[Any, Any, Any], tokens: float) -> Floats:
    """The loss of a law, as `fit_law` gives it, at a number of tokens."""
    floor, scale, exponent = law
    return np.asarray(floor + scale * (tokens / 1e6) ** -exponent)


def lack_of_fit(law: tuple[Any, Any, Any], tokens: Sequence[float], losses: Sequence[float]) -> float:
    """How far a law may lie from the truth by what it misses its points, nats per token: t · s at `LACK_LEVEL`.

    Marin reports a speed-up so, with two degrees of freedom less than points; here three terms are fitted.

    Raises
    ------
    ConfigError
        Fewer than four points: nothing is left to judge a law of three terms by.
    """
    left = len(tokens) - _TERMS
    if left < 1:
        raise ConfigError(f"a law of three terms has {len(tokens)} points: give at least {FEWEST}")
    missed = [float(predicted(law, at)) - loss for at, loss in zip(tokens, losses, strict=True)]
    return t_quantile((1 + LACK_LEVEL) / 2, left) * math.sqrt(sum(one * one for one in missed) / left)


def _law(results: Results, arm: str, size: str, base: list[float], own: list[float], draws: Draws) -> Law:
    """One law; the baseline's runs come first in the draws."""
    split, far = len(base), FAR * own[-1]
    means = draws.point[split:]
    fitted = fit_law(own, means)
    misfit = max(abs(float(predicted(fitted, at)) - loss) for at, loss in zip(own, means, strict=True))
    floor, scale, exponent = map(float, fitted)
    found = Law(arm, size, tuple(own), tuple(map(float, means)), floor, scale, exponent, misfit)
    if arm == results.baseline:
        return found

    def read(losses: Floats) -> Floats:
        """Logarithms of the savings at each budget and far beyond them, and the gain there: (…, budgets + 2)."""
        theirs, mine = fit_law(base, losses[..., :split]), fit_law(own, losses[..., split:])
        there = predicted(mine, far)
        savings = [
            _log_tokens(theirs, target) - math.log(tokens)
            for tokens, target in [*((at, losses[..., split + place]) for place, at in enumerate(own)), (far, there)]
        ]
        return np.stack([*savings, there - predicted(theirs, far)], axis=-1)

    known = draws.mapped(read)
    savings = [estimate(known, itemgetter((..., at)), ratio=True) for at in range(len(own) + 1)]
    theirs = fit_law(base, draws.point[:split])
    off = lack_of_fit(theirs, base, draws.point[:split].tolist())
    low, high = (
        [math.exp(float(_log_tokens(theirs, loss + shift))) / at for at, loss in zip(own, means, strict=True)]
        for shift in (off, -off)
    )
    ranges = tuple(zip(low, high, strict=True))
    found = replace(found, savings=tuple(savings[:-1]), lack_of_fit=ranges, far_tokens=far)
    if misfit > MISSES:
        return found
    return replace(found, far_saving=savings[-1], far_gain=estimate(known, itemgetter((..., -1))))


def _log_tokens(law: tuple[Floats, Floats, Floats], target: Floats) -> Floats:
    """The logarithm of the tokens at which a law reaches a loss, at most `_MOST` from that of a million."""
    floor, scale, exponent = law
    share = np.maximum(target - floor, 1e-12) / np.maximum(scale, 1e-12)
    return math.log(1e6) + np.clip(-np.log(share) / exponent, -_MOST, _MOST)


def _points(results: Results, arm: str, size: str) -> list[tuple[Place, float]]:
    """Places and tokens of an arm's budgets, of those that read the text that its largest one does."""
    there = [(arm, size, budget) for budget in results.budgets if (arm, size, budget) in results.runs]
    return finished_budgets(results, arm, there[-1], "tokens") if there else []
