"""The k likeliest tokens of exact distributions, and the rank of one token, without an array over the vocabulary.

Naively: write each distribution out over V and sort it. Here a distribution is its E explicit tokens and rest · base
over all others: of those only the first of the base's order can be among the k likeliest, and how many are likelier
than a token is one search in the sorted base. O(E + k log k) a position, and O(V log V) once for a base.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from corpus_teacher.targets.soft import SoftTargets

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOTHING = -9999.0
"""The log-probability of what can't be, as vLLM gives it: JSON has no infinity."""


class Entry(NamedTuple):
    """A token at a position: its log-probability in nats, and how many are likelier, plus 1."""

    token: int
    logprob: float
    rank: int


class RankedBase:
    """A base distribution, sorted: made once for all positions.

    Parameters
    ----------
    base : ndarray of shape (V,), float32
    """

    def __init__(self, base: npt.NDArray[Any]) -> None:
        self.base: Floats = base.astype(np.float64)
        self.order: Ints = np.argsort(-self.base, kind="stable")
        self.falling: Floats = self.base[self.order]
        self._rising: Floats = -self.falling

    def likelier(self, probability: float, rest: float) -> int:
        """How many tokens have more than a probability under rest · base."""
        if rest <= 0:
            return 0
        place = int(np.searchsorted(self._rising, -probability / rest, side="left"))
        while place < self.falling.size and rest * self.falling[place] > probability:  # rounding of the division
            place += 1
        while place and not rest * self.falling[place - 1] > probability:
            place -= 1
        return place

    def first_outside(self, tokens: Ints, k: int) -> Ints:
        """The k likeliest tokens of the base that aren't among some."""
        head = self.order[: k + tokens.size]
        return head[~np.isin(head, tokens)][:k]


def likeliest(
    targets: SoftTargets, positions: Ints, actual: Ints, k: int, base: RankedBase, temperature: float = 1.0
) -> list[list[Entry]]:
    """The k likeliest tokens at some positions, the likeliest first, and the actual one behind them if it isn't there.

    Parameters
    ----------
    targets : SoftTargets
        Exact ones: nothing cut.
    positions : ndarray of shape (P,), int64
        Which of them.
    actual : ndarray of shape (P,), int64
        The token that truly follows each.
    k : int
        0: the actual one alone.
    base : RankedBase
        Of the targets' base.
    temperature : float
        Probabilities are raised to its inverse and divided by their sum; 0: as they are.
    """
    offsets, ids, probs = targets.offsets.numpy(), targets.token_ids.numpy(), targets.probs.numpy()
    rests = targets.rest.numpy().astype(np.float64)
    power = 1.0 if temperature == 0 else 1.0 / temperature
    with np.errstate(divide="ignore"):
        logs_of_base = np.log(base.base)
    top_of_base = float(logs_of_base.max())
    tempered = None if power == 1.0 else np.exp(power * (logs_of_base - top_of_base))
    told = []
    for position, token in zip(positions.tolist(), actual.tolist(), strict=True):
        lo, hi = int(offsets[position]), int(offsets[position + 1])
        tokens, rest = ids[lo:hi].astype(np.int64), float(rests[position])
        whole = np.maximum(probs[lo:hi].astype(np.float64) + rest * base.base[tokens], 0.0)
        own = np.flatnonzero(tokens == token)
        mine = float(whole[own[0]]) if own.size else rest * float(base.base[token])
        outside = base.first_outside(tokens, k)
        candidates = np.concatenate([tokens, outside])
        values = np.concatenate([whole, rest * base.base[outside]])
        kept = min(k, candidates.size)
        if kept < candidates.size:
            least = np.partition(values, candidates.size - max(kept, 1))[candidates.size - max(kept, 1)]
            chosen = np.flatnonzero(values >= least)
            candidates, values = candidates[chosen], values[chosen]
        first = np.lexsort((candidates, -values))[:kept]
        names, chances = candidates[first].tolist(), values[first]
        if token not in names:
            names, chances = [*names, token], np.append(chances, mine)
        with np.errstate(divide="ignore"):
            logs = np.log(chances)
        if tempered is not None:
            logs = power * logs - _log_sum(whole, tokens, rest, power, tempered, top_of_base)
        higher = int((whole > mine).sum()) + base.likelier(mine, rest)
        higher -= int((rest * base.base[tokens] > mine).sum())
        ranks = [*range(1, kept + 1), higher + 1]
        told.append(
            [
                Entry(int(name), max(float(log), NOTHING), rank)
                for name, log, rank in zip(names, logs.tolist(), ranks, strict=False)
            ]
        )
    return told


def top_rows(targets: SoftTargets, k: int) -> tuple[Tensor, Tensor]:
    """The k likeliest tokens of every position and their whole probabilities, the likeliest first.

    Parameters
    ----------
    targets : SoftTargets
        Of Q positions, on the CPU.
    k : int
        At most V.

    Returns
    -------
    token_ids : Tensor of shape (Q, k), int64
    probs : Tensor of shape (Q, k), float32

    Notes
    -----
    One sort of E + Q (k + n) pairs, n being how many pairs of a position take from the base: those and the base's first
    k tokens are likelier than any that follows them.
    """
    size, base = targets.num_positions, targets.base.double().numpy()
    rows, ids = targets.rows().numpy(), targets.token_ids.numpy().astype(np.int64)
    rest = targets.rest.double().numpy()
    below = int(np.bincount(rows[targets.probs.numpy() < 0], minlength=size).max(initial=0))
    first = np.argsort(-base, kind="stable")[: k + below]
    key = np.concatenate([rows * base.size + ids, (np.arange(size)[:, None] * base.size + first).reshape(-1)])
    whole = np.concatenate(
        [targets.probs.double().numpy() + rest[rows] * base[ids], (rest[:, None] * base[first]).reshape(-1)]
    )
    _, places = np.unique(key, return_index=True)  # of a token that is explicit the first, which is whole
    key, whole = key[places], np.maximum(whole[places], 0.0)
    row = key // base.size
    order = np.lexsort((key, -whole, row))
    begins = np.searchsorted(row[order], np.arange(size))
    chosen = order[begins[:, None] + np.arange(k)]
    return torch.from_numpy(key[chosen] % base.size), torch.from_numpy(whole[chosen].astype(np.float32))


def _log_sum(whole: Floats, tokens: Ints, rest: float, power: float, tempered: Floats, top_of_base: float) -> float:
    """log Σ p^power over the vocabulary."""
    with np.errstate(divide="ignore"):
        explicit = power * np.log(whole)
        hidden = power * (np.log(rest) + top_of_base) if rest > 0 else -np.inf
    others = max(float(tempered.sum() - tempered[tokens].sum()), 0.0)
    largest = max(float(explicit.max(initial=-np.inf)), hidden)
    return largest + float(np.log(np.exp(explicit - largest).sum() + np.exp(hidden - largest) * others))
