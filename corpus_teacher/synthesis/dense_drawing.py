"""Drawing tokens from distributions that are written out over the vocabulary, as those of a model are.

Naively: raise to 1/temperature, cut, divide by the sum, draw. The rules are those of `corpus_teacher.data.drawing`,
which draws from sparse + rest · base: a cut is a threshold, and tokens that tie with it stay. All chance comes from
numpy's generator, so that a seed gives the same tokens on every device that gives the same probabilities.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.data.drawing import DrawOptions

_FIRST_LOOK = 256  # most probable tokens that a nucleus is looked for among, before all are sorted


def kept_weights(probs: Tensor, options: DrawOptions) -> Tensor:
    """Tempered and cut distributions, up to a factor per row.

    Parameters
    ----------
    probs : Tensor of shape (n, V), float
        Each row a distribution.
    options : DrawOptions

    Returns
    -------
    Tensor of shape (n, V), float64
        0 at what isn't drawn.

    Notes
    -----
    O(n · V); a nucleus of more than 256 tokens sorts its row.

    Examples
    --------
    >>> kept_weights(torch.tensor([[0.5, 0.25, 0.25, 0.0]]), DrawOptions(0.5, top_k=2)).tolist()
    [[1.0, 0.25, 0.25, 0.0]]
    """
    if options.temperature == 0:
        return (probs == probs.amax(-1, keepdim=True)).double()
    weights = probs.double()
    if options.temperature != 1:
        weights = (weights / weights.amax(-1, keepdim=True)) ** (1 / options.temperature)
    if options.top_k is not None and options.top_k < weights.shape[1]:
        least = weights.topk(options.top_k).values[:, -1:]
        weights = torch.where(weights >= least, weights, 0.0)
    if options.top_p is not None and options.top_p < 1:
        weights = torch.where(weights >= _nucleus(weights, options.top_p), weights, 0.0)
    return weights


def draw_tokens(
    probs: Tensor, options: DrawOptions, generator: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """One token a row, and its log-probability before temperature and cuts.

    Parameters
    ----------
    probs : Tensor of shape (n, V), float
        Each row a distribution.
    options : DrawOptions
    generator : numpy Generator
        Gives one number a row.

    Returns
    -------
    tokens : ndarray of shape (n,), int64
    log_probs : ndarray of shape (n,), float64
        Nats.
    """
    cumulative = kept_weights(probs, options).cumsum(-1)
    total = cumulative[:, -1:]
    chance = torch.from_numpy(generator.random(probs.shape[0])).to(probs.device)[:, None]
    wanted = torch.minimum(
        chance * total, torch.nextafter(total, torch.zeros_like(total))
    )  # rounding may reach the end
    tokens = torch.searchsorted(cumulative, wanted, right=True)
    return _numpy(tokens[:, 0]), _numpy(probs.gather(1, tokens)[:, 0].double().log())


def _nucleus(weights: Tensor, top_p: float) -> Tensor:
    """The least weight of the smallest set of heaviest tokens that holds the share top_p: shape (n, 1)."""
    goal = top_p * weights.sum(-1, keepdim=True)
    ordered = weights.topk(min(_FIRST_LOOK, weights.shape[1])).values
    least, is_found = _last_needed(ordered, goal)
    if not bool(is_found.all()):
        wide = (~is_found[:, 0]).nonzero()[:, 0]
        least[wide] = _last_needed(weights[wide].sort(-1, descending=True).values, goal[wide])[0]
    return least


def _last_needed(ordered: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """The weight at which the sum of descending weights reaches the goal, and whether it does: both of shape (n, 1)."""
    sums = ordered.cumsum(-1)
    place = torch.searchsorted(sums, goal).clamp(max=ordered.shape[1] - 1)
    return ordered.gather(1, place), sums[:, -1:] >= goal


def _numpy(values: Tensor) -> npt.NDArray[Any]:
    return values.cpu().numpy()
