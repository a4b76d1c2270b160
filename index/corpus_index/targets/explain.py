"""What each order of a context adds to an estimator's distribution: for people who want to see where a word comes from.

One context at a time, in numpy over the continuations of each of its suffixes, from the longest match down. Each order
takes its part of the mass that reaches it and passes the rest on, in the end to the base distribution, so that the
parts add up to the probability that `smoothed_targets` gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels.rules import AUTO, LEAST_MASS, PITMAN_YOR, weigh
from corpus_index.core.chains import left_extensions
from corpus_index.core.checks import as_array, check_whole
from corpus_index.core.matching import Matcher
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike, fitted


@dataclass(frozen=True)
class OrderShare:
    """What one order has, and what it does with the mass that reaches it.

    Attributes
    ----------
    order : int
        Symbols of the context; 0 is the base distribution.
    count, distinct : int
        How often it is followed by a token, and by how many different ones.
    kept, passed : float
        Of the mass that the longer orders passed on, the share that stays and the one that goes on; their sum is 1.
    """

    order: int
    count: int
    distinct: int
    kept: float
    passed: float


class Explanation(NamedTuple):
    """A distribution, order by order.

    Attributes
    ----------
    estimator : str
    orders : list of OrderShare
        From the base up to the longest match.
    token_ids : ndarray of shape (K,), int64
        The likeliest tokens, descending.
    probs : ndarray of shape (K,), float64
        Their probabilities.
    contributions : ndarray of shape (K, orders), float64
        What each order adds; rows sum to probs.
    """

    estimator: str
    orders: list[OrderShare]
    token_ids: np.ndarray
    probs: np.ndarray
    contributions: np.ndarray


class Level(NamedTuple):
    """A suffix of the context: its order, its node, and its continuations.

    node tells it from suffixes that stand at other places. ids, ascending, and counts: of the continuations. lefts()
    gives after how many distinct symbols each of them stands.
    """

    order: int
    node: Any
    from_start: bool
    ids: np.ndarray
    counts: np.ndarray
    lefts: Callable[[], np.ndarray]

    @property
    def total(self) -> int:
        """How often it is followed by a token."""
        return int(self.counts.sum())


_Part = tuple[np.ndarray, np.ndarray]  # token ids, and what an order adds to them


def explain(
    index: Matcher,
    context: ArrayLike,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    starts_document: bool = False,
    top: int = 10,
) -> Explanation:
    """An estimator's distribution after a context, with what each order adds to the likeliest tokens.

    Parameters
    ----------
    index : Matcher
    context : array_like of shape (n,), integer
        Token ids below V; may be empty.
    estimator, max_order
        As in `corpus_index.targets.interpolated.smoothed_targets`.
    starts_document : bool
        Whether the context is the whole of its document so far.
    top : int
        How many tokens.

    Raises
    ------
    QueryError
        If an id is out of range, or the context or an option is wrong.

    Notes
    -----
    O(orders · continuations + V) time. Of the estimators that add their orders up, an order's part is what it adds
    times the weight that the longer ones pass on; of those with exclusion, a token has its probability from one order.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
    >>> answer = index.explain([1, 2], max_order=1, top=2)
    >>> answer.token_ids.tolist(), answer.probs.round(3).tolist(), answer.contributions.round(3).tolist()
    ([1, 3], [0.422, 0.359], [[0.172, 0.25], [0.109, 0.25]])
    """
    check_whole(top, "top", 1)
    made = fitted(index, estimator, max_order)
    context = as_array(context, "a context")
    levels = levels_of(index, context, made.max_order, starts_document, made.uses_left_counts)
    parts = _excluding(index, made, levels) if made.excludes else _interpolated(index, made, levels)
    probs = np.zeros(index.vocab_size)
    for ids, added in parts:
        probs[ids] += added
    tokens = np.argsort(-probs, kind="stable")[:top]
    contributions = np.zeros((tokens.size, len(parts)))
    one = np.zeros(index.vocab_size)
    for column, (ids, added) in enumerate(parts):
        one[ids] = added
        contributions[:, column] = one[tokens]
        one[ids] = 0.0
    return Explanation(made.name, _shares(index, levels, parts), tokens, probs[tokens], contributions)


def _shares(index: Matcher, levels: list[Level], parts: list[_Part]) -> list[OrderShare]:
    """What each order keeps of the mass that reaches it."""
    masses = np.array([added.sum() for _, added in parts])
    reaching = np.cumsum(masses)
    kept = np.divide(masses, reaching, out=np.zeros(masses.size), where=reaching > 0)
    facts = [(0, index.num_tokens, int((index.symbol_counts > 0).sum()))]
    facts += [(level.order, level.total, level.ids.size) for level in levels]
    return [OrderShare(*fact, float(share), float(1 - share)) for fact, share in zip(facts, kept, strict=True)]


@singledispatch
def levels_of(
    index: Matcher, context: ArrayLike, max_order: int | None, starts_document: bool, left: bool
) -> list[Level]:
    """The suffixes of a context that something follows, from order 1 up; left: with left extensions."""
    del left  # they are counted where they are asked for
    levels: list[Level] = []
    if np.size(context) == 0:
        if starts_document and max_order != 0:
            levels.append(_level(index, 1, 0, index.num_starts, True))
        return levels
    longest, depths = index.match_nodes(context, max_order=max_order, starts_document=starts_document)
    deepest = int(depths[0, -1])
    started = deepest > int(longest.match_len[0, -1])
    for order in range(1, deepest + 1):
        match, _ = index.match_nodes(context, max_order=order, starts_document=starts_document)
        lo, hi = int(match.lo[0, -1]), int(match.hi[0, -1])
        levels.append(_level(index, order, lo, hi, started and order == deepest))
    return levels


def _level(index: Matcher, order: int, lo: int, hi: int, from_start: bool) -> Level:
    """One suffix, with its row."""
    rows = index.rows_of_nodes(np.array([lo]), np.array([hi]), np.array([order]))
    number, stored = int(rows.numbers[0]), rows.stored_offsets.size - 1
    symbols, counts = rows.symbols, rows.counts
    if number < stored:
        part = slice(int(rows.stored_offsets[number]), int(rows.stored_offsets[number + 1]))
        symbols, counts = rows.stored_symbols[part], rows.stored_counts[part]
    ids = index.ids_of(symbols).astype(np.int64)
    lefts = partial(left_extensions, index, lo, hi, order)
    return Level(order, (lo, hi), from_start, ids, counts.astype(np.int64), lefts)


def _base(index: Matcher, estimator: Estimator) -> np.ndarray:
    """The base distribution over V, float64."""
    of_symbols = estimator.base(index)
    base = np.full(index.vocab_size, of_symbols[-1])
    base[index.ids_of(np.arange(index.num_symbols))] = of_symbols[:-1]
    return base


def _interpolated(index: Matcher, estimator: Estimator, levels: list[Level]) -> list[_Part]:
    """p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w), from the longest match down; see `rules`."""
    discounts = np.array(estimator.discounts or [(0.0, 0.0, 0.0)], np.float64)
    strengths = np.array(estimator.strengths or [(0.0,)], np.float64)
    reaching, parts = 1.0, []
    branching = estimator.rule in (PITMAN_YOR, AUTO)
    for level, deeper in zip(reversed(levels), [None, *reversed(levels)], strict=False):
        counts = level.counts
        repeats = branching and deeper is not None and level.node == deeper.node
        if repeats or reaching < LEAST_MASS:
            parts.append((level.ids, np.zeros(level.ids.size)))
            continue
        whole = level is levels[-1] and ((estimator.max_order is None and not branching) or level.from_start)
        if estimator.uses_left_counts and level.order != estimator.max_order and not whole:
            counts = level.lefts()
        ones, twos = int((counts == 1).sum()), int((counts == 2).sum())
        more = counts.size - ones - twos
        *cuts, scale, passed = weigh(
            estimator.rule, discounts, strengths, level.order, int(counts.sum()), ones, twos, more
        )
        parts.append((level.ids, reaching * scale * (counts - np.array(cuts)[np.minimum(counts, 3) - 1])))
        reaching *= passed
    return [(np.arange(index.vocab_size), reaching * _base(index, estimator)), *reversed(parts)]


def _excluding(index: Matcher, estimator: Estimator, levels: list[Level]) -> list[_Part]:
    """Each token from the longest context that has seen it; see `_kernels.exclusion` for the rules."""
    everything, base = np.arange(index.vocab_size), _base(index, estimator)
    if estimator.name == "add-k":
        return _add_k(index, estimator, levels)
    unseen = np.ones(index.vocab_size, np.bool_)
    reaching, parts = 1.0, []
    for level in reversed(levels):
        if reaching < LEAST_MASS:
            parts.append((level.ids, np.zeros(level.ids.size)))
            continue
        new = unseen[level.ids]
        unseen[level.ids] = False
        worth, left = level.counts.astype(np.float64), 0.0
        if estimator.name == "katz":
            ratios = np.array(estimator.ratios[min(level.order, len(estimator.ratios) - 1)])
            small = level.counts <= ratios.size
            worth[small] *= ratios[level.counts[small] - 1]
            saved = float((level.counts - worth).sum())
            left = 0.0 if level.ids.size == index.vocab_size else saved or 1.0
        elif estimator.name == "ppm-c":
            left = float(new.sum()) if unseen.any() else 0.0
        taken = worth * new
        if estimator.name == "stupid-backoff":
            parts.append((level.ids, reaching * taken / worth.sum()))
            reaching *= estimator.alpha
        elif taken.sum() + left > 0 and (new.any() or left == 0.0):
            parts.append((level.ids, reaching * taken / (taken.sum() + left)))
            reaching *= left / (taken.sum() + left)
        else:
            parts.append((level.ids, taken))
    lowest = base * unseen
    if estimator.name != "stupid-backoff" and lowest.sum() > 0:
        lowest /= lowest.sum()
    parts.append((everything, reaching * lowest))
    total = sum(float(added.sum()) for _, added in parts) if estimator.name == "stupid-backoff" else 1.0
    return [(ids, added / total) for ids, added in reversed(parts)]


def _add_k(index: Matcher, estimator: Estimator, levels: list[Level]) -> list[_Part]:
    """(c(w) + k) / (c + k V) at the longest match; the orders between it and the uniform base are passed by."""
    everything = np.arange(index.vocab_size)
    if not levels:
        base = np.full(index.vocab_size, estimator.k)
        base[index.ids_of(np.arange(index.num_symbols))] += index.symbol_counts
        return [(everything, base / base.sum())]
    longest = levels[-1]
    total = longest.counts.sum() + estimator.k * index.vocab_size
    parts = [(level.ids, np.zeros(level.ids.size)) for level in levels[:-1]]
    return [(everything, np.full(index.vocab_size, estimator.k / total)), *parts, (longest.ids, longest.counts / total)]
