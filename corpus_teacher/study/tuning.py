"""How the settings of a cell are chosen: a grid on tuning seeds, which grows where its best lies at an end.

Naively: train with every learning rate of the grid, and every value of what else is tuned, on the tuning seeds; take
the best mean of the primary metric on the tuning documents. While the best rate is the lowest or the highest one, the
next rate beyond it (by the ratio of its two neighbours) is tried too, `grow_rates` times at most.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple


class Choice(NamedTuple):
    """One point of the grid: a learning rate, and the values of what else is tuned, by "table.key"."""

    learning_rate: float
    tuned: tuple[tuple[str, Any], ...] = ()


class Grid(NamedTuple):
    """The points that have to be tried, and the best of those whose loss is known; None while some is missing."""

    choices: list[Choice]
    best: Choice | None
    at_end: bool


def grid(
    rates: Sequence[float],
    tuned: Mapping[str, Sequence[Any]],
    grow: int,
    loss: Callable[[Choice], float | None],
) -> Grid:
    """The grid of a cell, as far as the losses that are known let it grow.

    Parameters
    ----------
    rates : sequence of float
        Ascending; one rate never grows.
    tuned : mapping of str to sequence
        Other settings, by "table.key", with the values to try.
    grow : int
        How many rates may be added at the ends.
    loss : callable
        The tuning loss of a choice, lower is better; infinity where it diverged, None where it isn't known yet.
    """
    others = [tuple(zip(tuned, values, strict=True)) for values in itertools.product(*tuned.values())]
    rates = list(rates)
    for left in range(grow, -1, -1):
        choices = [Choice(rate, other) for other in others for rate in rates]
        known = {choice: loss(choice) for choice in choices}
        if len(choices) == 1:
            return Grid(choices, choices[0], False)
        if any(value is None for value in known.values()):
            return Grid(choices, None, False)
        best = min(choices, key=lambda choice: (known[choice], choice.learning_rate))
        at_end = len(rates) > 1 and best.learning_rate in (rates[0], rates[-1])
        if not at_end or left == 0 or not math.isfinite(known[best] or 0.0):
            return Grid(choices, best, at_end)
        if best.learning_rate == rates[0]:
            rates.insert(0, _rounded(rates[0] * rates[0] / rates[1]))
        else:
            rates.append(_rounded(rates[-1] * rates[-1] / rates[-2]))
    raise AssertionError("unreachable")


def _rounded(rate: float) -> float:
    """To 12 digits, so that a rate is the same number on every way to it."""
    return float(f"{rate:.12g}")
