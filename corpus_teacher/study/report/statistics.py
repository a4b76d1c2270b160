"""What a study may claim: paired differences, their intervals, and a correction for having looked more than once.

Runs are paired by seed (same first weights, same order of the data) and scored on the same documents, so the unit is
the difference of two arms on one document under one seed. Chance comes in twice: another seed, another document. So the
bootstrap draws seeds and documents, each with replacement and independently of the other (Owen 2007, *The pigeonhole
bootstrap*, Annals of Applied Statistics 1), and every number of a study is a function of the mean losses of one such
draw: all arms share the draws and stay paired.

Five seeds are few: a percentile interval of five values covers about 83 % where it says 95 %. So the bootstrap gives
the standard error only, with seeds' deviations stretched by √(S/(S−1)), and Student's t gives the width. Documents are
few too, and of unequal lengths: the variance that they bring is that of D_eff equal ones, D_eff = (Σ n)² / Σ n² of
their numbers of tokens n, and it is stretched by D_eff/(D_eff−1). Degrees of freedom are Satterthwaite's, of the seeds'
and the documents' shares of the variance: near S − 1 where seeds rule, near D_eff − 1 where documents do. A draw of
seeds *and* documents counts what is neither's own (the interaction) about three times. Simulated with the documents of
the studies, what says 95 % covers 94 to 96 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from corpus_teacher.errors import InputError

Floats = npt.NDArray[np.float64]

DRAWS = 2000
"""Bootstrap draws; the standard error is then known to about 2 %."""

_SEED = 20_070  # of the bootstrap itself: a report made twice says the same
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(96)


@dataclass(frozen=True)
class Estimate:
    """A number with its 95 % interval.

    Parameters
    ----------
    value, low, high : float
        In the unit of what was estimated; the ends are NaN where there is one seed and no documents.
    p : float
        Two-sided, against "nothing": a difference of 0, a ratio of 1. NaN where there is no interval.
    seeds, documents : int
        Drawn from; 1 means that this source of chance is not in the interval.
    """

    value: float
    low: float
    high: float
    p: float
    seeds: int
    documents: int

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Draws:
    """Mean losses of K runs (each over its seeds) as they are, and as bootstrap draws have them.

    Parameters
    ----------
    point : ndarray of shape (K,), float64
    joint, by_seed, by_document : ndarray of shape (DRAWS, K), float64
        Seeds and documents drawn; seeds alone; documents alone.
    seeds, documents : int
    effective_documents : float
        As many documents of equal length would bring the same variance.
    """

    point: Floats
    joint: Floats
    by_seed: Floats
    by_document: Floats
    seeds: int
    documents: int
    effective_documents: float

    def mapped(self, function: Callable[[Floats], Floats]) -> Draws:
        """The draws of other numbers, made of the losses: the function takes shape (…, K) and returns (…, J)."""
        point, joint, by_seed, by_document = map(function, (self.point, self.joint, self.by_seed, self.by_document))
        return replace(self, point=point, joint=joint, by_seed=by_seed, by_document=by_document)


def draw_losses(sums: npt.ArrayLike, tokens: npt.ArrayLike) -> Draws:
    """Bootstrap draws of mean losses per token.

    Parameters
    ----------
    sums : array of shape (K, S, D), float64
        Nats of each document under each seed of each of K runs.
    tokens : array of shape (D,)
        Of each document.

    Returns
    -------
    Draws
        The same draws for the same S and D.

    Raises
    ------
    InputError
        A loss that isn't finite, or no tokens.

    Notes
    -----
    O(DRAWS · K · S · D). The naive twin draws one document and one seed at a time; see the tests.

    Examples
    --------
    >>> draws = draw_losses([[[2.0, 4.0]], [[1.0, 3.0]]], [1, 1])
    >>> draws.point.tolist(), draws.seeds, draws.documents
    ([3.0, 2.0], 1, 2)
    """
    sums, tokens = np.asarray(sums, dtype=np.float64), np.asarray(tokens, dtype=np.float64)
    if not np.isfinite(sums).all():
        raise InputError("a loss is not a finite number: leave diverged runs out of the comparison")
    if not tokens.sum() > 0:
        raise InputError("the documents hold no tokens: evaluate on text")
    scored = tokens > 0  # a document without tokens says nothing, and a draw of such documents alone would be 0 / 0
    sums, tokens = sums[:, :, scored], tokens[scored]
    num_seeds, num_documents = sums.shape[1:]
    of_seeds, of_documents = _multiplicities(num_seeds, num_documents)
    means = sums.sum(axis=2) / tokens.sum()  # (K, S)
    drawn = np.tensordot(of_documents, sums, axes=(1, 2)) / (of_documents @ tokens)[:, None, None]  # (DRAWS, K, S)
    return Draws(
        point=means.mean(axis=1),
        joint=np.einsum("bks,bs->bk", drawn, of_seeds),
        by_seed=of_seeds @ means.T,
        by_document=drawn.mean(axis=2),
        seeds=num_seeds,
        documents=num_documents,
        effective_documents=float(tokens.sum() ** 2 / (tokens**2).sum()),
    )


def draw_values(values: npt.ArrayLike) -> Draws:
    """Bootstrap draws of a measure that is known by seed alone; values have shape (K, S)."""
    return draw_losses(np.asarray(values, dtype=np.float64)[:, :, None], [1.0])


def estimate(draws: Draws, function: Callable[[Floats], Any], *, ratio: bool = False) -> Estimate:
    """A number made of mean losses, with its interval.

    Parameters
    ----------
    draws : Draws
    function : callable
        Takes losses of shape (…, K), returns the number of shape (…); for a ratio, its logarithm.
    ratio : bool
        Build the interval on the logarithm and give back the ratio.
    """
    value = float(function(draws.point))
    joint, of_seeds, of_documents = (
        float(np.var(function(one), ddof=1)) for one in (draws.joint, draws.by_seed, draws.by_document)
    )
    others = draws.effective_documents - 1
    stretch = of_documents / others if others > 0 else 0.0  # documents' variance: D_eff / (D_eff − 1) times the drawn
    error, freedom = math.sqrt(joint + stretch), _freedom(of_seeds, of_documents + stretch, draws)
    if freedom == 0:
        low = high = p = math.nan
    elif error == 0:
        low, high, p = value, value, 1.0 if value == 0 else 0.0
    else:
        width = t_quantile(0.975, freedom) * error
        low, high, p = value - width, value + width, 2 * t_tail(abs(value) / error, freedom)
    if ratio:
        value, low, high = (_exp(one) for one in (value, low, high))
    return Estimate(value, low, high, p, draws.seeds, draws.documents)


def difference(draws: Draws, arm: int = 1, baseline: int = 0) -> Estimate:
    """Run `arm` minus run `baseline`: below 0, the arm has the lower loss."""
    return estimate(draws, lambda losses: losses[..., arm] - losses[..., baseline])


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979), in the order given; NaN is not counted and stays.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted((p, place) for place, p in enumerate(p_values) if not math.isnan(p))
    corrected, highest = [math.nan] * len(p_values), 0.0
    for rank, (p, place) in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - rank) * p))
        corrected[place] = highest
    return corrected


def t_tail(t: float, freedom: float) -> float:
    """P(T > t) of Student's t for t ≥ 0, by Gauss–Legendre over the angle atan(t/√freedom).

    >>> round(t_tail(2.776445, 4), 6)
    0.025
    """
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    # From t outwards where the tail is the smaller part, so that a tiny one keeps its digits.
    angle = math.atan2(t, math.sqrt(freedom))
    if t > 1:
        top = math.atan(math.sqrt(math.expm1(min(700.0, 80 / (freedom + 1) + math.log1p(t * t / freedom)))))
        return float(scale * _integral(lambda x: np.cos(x) ** (freedom - 1), angle, top))
    return float(0.5 - scale * _integral(lambda x: np.cos(x) ** (freedom - 1), 0.0, angle))


def t_quantile(probability: float, freedom: float) -> float:
    """The value that Student's t stays below with a probability between ½ and 1.

    >>> round(t_quantile(0.975, 4), 4), round(t_quantile(0.975, 1e6), 4)
    (2.7764, 1.96)
    """
    low, high = 0.0, 2.0
    while t_tail(high, freedom) > 1 - probability:
        high *= 2
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if t_tail(middle, freedom) > 1 - probability else (low, middle)
    return (low + high) / 2


@lru_cache(maxsize=8)
def _multiplicities(num_seeds: int, num_documents: int) -> tuple[Floats, Floats]:
    """How often each draw has each seed, as weights (DRAWS, S), and each document (DRAWS, D)."""
    rng = np.random.default_rng((_SEED, num_seeds, num_documents))
    counts = rng.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=DRAWS) / num_seeds
    stretched = 1 / num_seeds + (counts - 1 / num_seeds) * math.sqrt(num_seeds / max(num_seeds - 1, 1))
    documents = rng.multinomial(num_documents, np.full(num_documents, 1 / num_documents), size=DRAWS)
    return stretched, documents.astype(np.float64)


def _freedom(of_seeds: float, of_documents: float, draws: Draws) -> float:
    """Satterthwaite's degrees of freedom; 0 where nothing was drawn."""
    parts = [(of_seeds, draws.seeds - 1), (of_documents, draws.effective_documents - 1)]
    parts = [(variance, freedom) for variance, freedom in parts if freedom > 0]
    total = sum(variance for variance, _ in parts)
    if not parts or total <= 0:
        return float(max((freedom for _, freedom in parts), default=0))
    return total**2 / sum(variance**2 / freedom for variance, freedom in parts)


def _integral(function: Callable[[Floats], Floats], low: float, high: float) -> float:
    half = (high - low) / 2
    return half * float(_WEIGHTS @ function(low + half * (_NODES + 1)))


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0)) if not math.isnan(value) else value
