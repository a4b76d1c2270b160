"""Drawing tokens from sparse + rest · base: temperature, top-k and top-p without an array over the vocabulary.

Naively: write each distribution out over V, raise it to 1/temperature, cut it, divide by its sum, draw. Here a row is
its few explicit tokens and a *tail*, all other tokens, whose probabilities are one number times the base distribution:
sorted by the base once, any cut of the tail is a prefix of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import SparseTargets, draw_from, sorted_base

from corpus_teacher.errors import ConfigError
from corpus_teacher.settings import check_whole, is_number

Ints = npt.NDArray[np.int64]

_GREEDY = 1e-7  # a temperature below which what float32 tells apart is told apart for sure: as 0
_COLD = 0.2  # a temperature below which probabilities are scaled before they are raised to its inverse


@dataclass(frozen=True)
class DrawOptions:
    """How to draw.

    Parameters
    ----------
    temperature : float
        Probabilities are raised to 1 / temperature; 0: always the most probable token, ties by chance.
    top_k : int, optional
        Only the k most probable tokens; all that tie with the k-th stay.
    top_p : float, optional
        Then only the smallest set of the most probable tokens that holds this share of what top_k left; ties stay.

    Raises
    ------
    ConfigError
        If one is out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether the distributions are drawn from as they are."""
        return self.temperature == 1.0 and self.top_k is None and self.top_p in (None, 1.0)

    def __post_init__(self) -> None:
        if not is_number(self.temperature) or not 0 <= self.temperature < np.inf:
            raise ConfigError(f"temperature {self.temperature} must be 0 (the most probable token) or more")
        if self.top_k is not None:
            check_whole(self.top_k, "top-k", 1)
        if self.top_p is not None and not (is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigError(f"top-p {self.top_p} must be above 0 and at most 1")


class Drawer:
    """Draws from the targets of one estimator; the base is sorted once.

    Parameters
    ----------
    base : ndarray of shape (V,), float32
        Of all targets that will be given.
    options : DrawOptions
    generator : numpy Generator
        The only source of chance.
    """

    def __init__(self, base: npt.NDArray[Any], options: DrawOptions, generator: np.random.Generator) -> None:
        self.generator, self.options = generator, options
        greedy = options.temperature < _GREEDY
        self.top_k = 1 if greedy else options.top_k
        # near 0 the powers of all probabilities are 0 as numbers, unless the largest is 1 before
        self.scale = float(np.max(base)) if _GREEDY <= options.temperature < _COLD else None
        scaled = base if self.scale is None else base / self.scale
        self.base = sorted_base(scaled, 1.0 if greedy else 1.0 / options.temperature)

    def draw(self, targets: SparseTargets) -> Ints:
        """One token a row.

        Parameters
        ----------
        targets : SparseTargets
            Of Q positions, made without leaving anything out.

        Returns
        -------
        ndarray of shape (Q,), int64
        """
        # a pair below 0, as estimators with exclusion give them, takes mass from the base: no mixture of two draws
        if self.options.is_plain and not (targets.probs < 0).any():
            return self._draw_plain(targets)
        if self.scale is not None:
            largest = np.maximum(targets.top_tokens()[1], np.finfo(np.float32).tiny)
            targets = targets._replace(
                probs=(targets.probs / np.repeat(largest, np.diff(targets.offsets))).astype(np.float32),
                rest=(targets.rest * (self.scale / largest)).astype(np.float32),
                base=self.base.base,
            )
        return draw_from(targets, self.base, self.generator, top_k=self.top_k, top_p=self.options.top_p)

    def _draw_plain(self, targets: SparseTargets) -> Ints:
        """The mixture as it is: a token of the sparse part, or with the rest's probability one of the base."""
        size, cumulative = targets.rest.size, self.base.cumulative
        sums = np.concatenate([[0.0], np.cumsum(targets.probs, dtype=np.float64)])
        begin, end = sums[targets.offsets[:-1]], sums[targets.offsets[1:]]
        rest = targets.rest.astype(np.float64) * cumulative[-1]
        chance = self.generator.random((2, size))
        wanted = chance[0] * (end - begin + rest)
        from_base = wanted >= end - begin
        places = np.searchsorted(sums, begin + wanted, side="right") - 1
        places = np.clip(places, targets.offsets[:-1], np.maximum(targets.offsets[1:] - 1, 0))
        of_base = np.searchsorted(cumulative, chance[1] * cumulative[-1], side="right") - 1
        tokens: Ints = self.base.order[np.minimum(of_base, self.base.order.size - 1)]
        tokens[~from_base] = targets.token_ids[places[~from_base]]
        return tokens
