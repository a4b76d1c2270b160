"""Drawing tokens from sparse + rest · base: temperature, top-k and top-p without an array over the vocabulary.

Naively: write each distribution out over V, raise it to 1/temperature, cut it, divide by its sum, draw. Here a row is
its few explicit tokens and a *tail*, all other tokens, whose probabilities are one number times the base distribution.
Sorted by the base once, any cut of the tail is a prefix of one cumulative sum, so a row costs its explicit tokens and a
few binary searches. A draw from the tail that hits an explicit token is drawn again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import SparseTargets

from corpus_teacher.errors import ConfigError

_HALVINGS = 48  # of a range of exp(−69) .. 1 in logarithms: 1e-13 of the threshold
_LEAST = 1e-30
_REDRAWS = 64  # then the row is written out

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


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

    def __post_init__(self) -> None:
        if not 0 <= self.temperature < np.inf:
            raise ConfigError(f"temperature {self.temperature} must be 0 (the most probable token) or more")
        if self.top_k is not None and self.top_k < 1:
            raise ConfigError(f"top-k {self.top_k} must be at least 1")
        if self.top_p is not None and not 0 < self.top_p <= 1:
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
        self.generator = generator
        greedy = options.temperature == 0
        self.power = 1.0 if greedy else 1.0 / options.temperature
        self.top_k = 1 if greedy else options.top_k
        self.top_p = None if options.top_p == 1.0 else options.top_p
        self.plain = self.power == 1.0 and self.top_k is None and self.top_p is None
        self.base: Floats = base.astype(np.float64) ** self.power
        self.order = np.argsort(-self.base, kind="stable")
        self.ascending = self.base[self.order[::-1]]
        self.place = np.empty(self.order.size, np.int64)
        self.place[self.order] = np.arange(self.order.size)
        self.cumulative = np.concatenate([[0.0], np.cumsum(self.base[self.order])])

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
        is_mixture = self.plain and not (targets.probs < 0).any()
        return self._draw_plain(targets) if is_mixture else self._draw_cut(targets)

    def _draw_plain(self, targets: SparseTargets) -> Ints:
        """The mixture as it is: a token of the sparse part, or with the rest's probability one of the base."""
        size = targets.rest.size
        sums = np.concatenate([[0.0], np.cumsum(targets.probs, dtype=np.float64)])
        begin, end = sums[targets.offsets[:-1]], sums[targets.offsets[1:]]
        rest = targets.rest.astype(np.float64) * self.cumulative[-1]
        chance = self.generator.random((2, size))
        wanted = chance[0] * (end - begin + rest)
        from_base = wanted >= end - begin
        places = np.searchsorted(sums, begin + wanted, side="right") - 1
        places = np.clip(places, targets.offsets[:-1], np.maximum(targets.offsets[1:] - 1, 0))
        tokens = self._of_base(chance[1] * self.cumulative[-1])
        tokens[~from_base] = targets.token_ids[places[~from_base]]
        return tokens

    def _draw_cut(self, targets: SparseTargets) -> Ints:
        """Tempered and cut: explicit tokens above the threshold, or one of the tail's prefix that isn't explicit."""
        size, tokens = targets.rest.size, targets.token_ids
        rows = np.repeat(np.arange(size), np.diff(targets.offsets))
        rest = targets.rest.astype(np.float64)
        full = targets.probs + rest[rows] * targets.base[tokens]
        weights = np.maximum(full, 0.0) ** self.power
        rest = rest**self.power
        as_tail = rest[rows] * self.base[tokens]  # what the tail's prefix would count an explicit token as
        threshold = self._threshold(rows, weights, as_tail, rest)
        kept = np.where(weights >= threshold[rows], weights, 0.0)
        prefix = self._prefix(threshold, rest)
        inside = self.place[tokens] < prefix[rows]
        twice = np.bincount(rows[inside], as_tail[inside], size)
        tail = np.maximum(rest * self.cumulative[prefix] - twice, 0.0)
        tail[prefix == np.bincount(rows[inside], minlength=size)] = 0.0  # no rounding may open an empty tail
        sums = np.concatenate([[0.0], np.cumsum(kept)])
        begin, end = sums[targets.offsets[:-1]], sums[targets.offsets[1:]]
        wanted = self.generator.random(size) * (end - begin + tail)
        places = np.searchsorted(sums, begin + wanted, side="right") - 1
        places = np.clip(places, targets.offsets[:-1], np.maximum(targets.offsets[1:] - 1, 0))
        from_tail = (wanted >= end - begin) & (tail > 0)
        answer = np.empty(size, np.int64)
        answer[~from_tail] = tokens[places[~from_tail]]
        open_rows = np.flatnonzero(from_tail)
        keys = rows * self.order.size + tokens  # ascending
        for _ in range(_REDRAWS):
            if open_rows.size == 0:
                return answer
            drawn = self._of_base(self.generator.random(open_rows.size) * self.cumulative[prefix[open_rows]])
            answer[open_rows] = drawn
            open_rows = open_rows[_among(keys, open_rows * self.order.size + drawn)]
        for row in open_rows:  # nearly all of the tail's prefix is explicit
            left = self.base.copy()
            left[self.order[prefix[row] :]] = 0.0
            left[tokens[targets.offsets[row] : targets.offsets[row + 1]]] = 0.0
            answer[row] = self.generator.choice(left.size, p=left / left.sum())
        return answer

    def _of_base(self, wanted: Floats) -> Ints:
        """Tokens at places of the base's cumulative sum."""
        places = np.searchsorted(self.cumulative, wanted, side="right") - 1
        return self.order[np.minimum(places, self.order.size - 1)]

    def _prefix(self, threshold: Floats, rest: Floats) -> Ints:
        """How many tokens of the sorted base have rest · base ≥ threshold; none where there is no rest."""
        least = np.divide(threshold, rest, out=np.full(rest.size, np.inf), where=rest > 0)
        return self.order.size - np.searchsorted(self.ascending, least, side="left")

    def _threshold(self, rows: Ints, weights: Floats, as_tail: Floats, rest: Floats) -> Floats:
        """The least weight that each row keeps; 0: all."""
        threshold = np.zeros(rest.size)
        values, signs = np.concatenate([weights, as_tail]), np.repeat([1.0, -1.0], rows.size)
        twice = np.concatenate([rows, rows])
        if self.top_k is not None:
            threshold = self._cut(twice, values, signs, rest, np.full(rest.size, float(self.top_k)), masses=False)
        if self.top_p is not None:
            counted = values >= threshold[twice]
            mass = np.bincount(twice[counted], (values * signs)[counted], rest.size).astype(np.float64)
            mass = mass + rest * self.cumulative[self._prefix(threshold, rest)]
            found = self._cut(twice, values, values * signs, rest, self.top_p * mass, masses=True)
            threshold = np.maximum(threshold, found)
        return threshold

    def _cut(self, rows: Ints, values: Floats, amounts: Floats, rest: Floats, goal: Floats, *, masses: bool) -> Floats:
        """The largest threshold at which each row still has its goal, by halving the range of its logarithm.

        values, amounts: what each item adds from its value on. Items that a half decides are put aside, so that the
        work falls with each step.
        """
        size = rest.size
        decided = np.zeros(size)
        low, high = np.full(size, _LEAST), np.full(size, 2.0)
        for step in range(_HALVINGS + 1):
            middle = np.sqrt(low * high) if step else low
            above = values >= middle[rows]
            prefix = self._prefix(middle, rest)
            total = decided + np.bincount(rows[above], amounts[above], size)
            total += rest * self.cumulative[prefix] if masses else prefix
            enough = total >= goal
            if step == 0:
                everything = ~enough
                continue
            low, high = np.where(enough, middle, low), np.where(enough, high, middle)
            enough_here = enough[rows]
            decided += np.bincount(rows[above & ~enough_here], amounts[above & ~enough_here], size)
            undecided = above == enough_here
            rows, values, amounts = rows[undecided], values[undecided], amounts[undecided]
        return np.where(everything, 0.0, low)


def _among(keys: Ints, wanted: Ints) -> npt.NDArray[np.bool_]:
    """Which of the wanted are among ascending keys."""
    if keys.size == 0:
        return np.zeros(wanted.size, np.bool_)
    places = np.minimum(np.searchsorted(keys, wanted), keys.size - 1)
    return keys[places] == wanted
