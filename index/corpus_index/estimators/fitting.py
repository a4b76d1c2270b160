"""Parameters of estimators, fitted on leave-document-out evidence: what the rest of the index says at its positions.

All maximise one thing, the log likelihood of the labels through the whole backoff chain, so that the parameters of all
orders answer to each other. Nothing but the index is looked at, and a fit is the same every time.

- jelinek-mercer: expectation maximisation (Jelinek & Mercer 1980); buckets by order and bit length of the count.
- dirichlet, pitman-yor: a mass, or a discount and a strength, an order, by L-BFGS on the exact gradient.
- auto: a weight and three discounts for each bucket of (order, bit length of the count, distinct share), as the sum of
  one table a feature and one of all three, the last drawn towards zero: so a bucket that few positions reach, or none,
  has what its neighbours have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np

from corpus_index._kernels import chains
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators.held_out_evidence import Evidence, leave_documents_out
from corpus_index.estimators.lbfgs import minimise

DEEPEST = 24
"""Symbols of the longest context that a fit looks at; the parameters of the last order go on for deeper ones."""

_ORDERS = 12  # with parameters of their own
_COUNTS = 18  # bit lengths
_SHARES = 8  # of distinct continuations in the count; one more where all are distinct
_ROUNDS = 150
_STRIDE, _LAST_ROUNDS, _FEW = 4, 60, 1_000  # every fourth chain first, then all of them, unless they are few
_EM_ROUNDS = 60
_RIDGE = (0.02, 1.0)  # of the tables of one feature, and of that of all three: nats at a deviation of 1.4
_LIMITS = np.array([1.0, 2.0, 3.0])  # of the discounts
_START = np.array([0.0, 0.8, 0.3, 0.0])
_LEAST_BACK = 1e-4  # an order leaves at least so much to the shorter ones
_FIXED = 1e-3  # of a discount, kept away from 0 and 1

_kept: WeakKeyDictionary[Matcher, Evidence] = WeakKeyDictionary()


class Entries(NamedTuple):
    """The orders of P chains that count: offsets (P + 1,); of each its order, and its five numbers (E, 5)."""

    offsets: np.ndarray
    orders: np.ndarray
    counts: np.ndarray

    def thinned(self, stride: int) -> Entries:
        """Those of every stride-th chain."""
        lengths = np.diff(self.offsets)
        keep = np.repeat(np.arange(lengths.size) % stride == 0, lengths)
        return Entries(np.append(0, np.cumsum(lengths[::stride])), self.orders[keep], self.counts[keep])


class _Chains(NamedTuple):
    """Chains that `auto` is fitted on: offsets (Q + 1,), base (Q,), and of E entries which of U distinct ones each is.

    bucket (U,), counts (U, 5): those. num_buckets: how many buckets there are; see `chains.discount_gradient`.
    """

    offsets: np.ndarray
    which: np.ndarray
    base: np.ndarray
    bucket: np.ndarray
    counts: np.ndarray
    num_buckets: int

    @classmethod
    def of(cls, entries: Entries, base: np.ndarray, sizes: tuple[int, int, int]) -> _Chains:
        """The chains of some entries, in sizes buckets by order, count and share; O(E)."""
        size = entries.orders.size
        features = bucket_of(entries.orders, entries.counts, sizes[0])
        bucket = np.ravel_multi_index(features, sizes) if size else np.empty(0, np.int64)
        slots = np.full(1 << (2 * size + 1).bit_length(), -1, np.int32)
        which, first = np.empty(size, np.int32), np.empty(size, np.int64)
        first = first[: chains.distinct_entries(bucket, entries.counts, slots, which, first)]
        return cls(entries.offsets, which, base, bucket[first], entries.counts[first], int(np.prod(sizes)))

    def loss(self, values: np.ndarray) -> tuple[float, np.ndarray]:
        """−log p of an average chain, and its derivatives by the values, both (buckets, 4)."""
        below = np.empty(int(np.diff(self.offsets).max(initial=1)))
        terms, by_term = np.empty((2, self.bucket.size, 2))
        slopes = np.empty((self.num_buckets, 4))
        loss = chains.discount_gradient(*self[:5], values, terms, by_term, below, slopes)
        positions = max(1, self.base.size)
        return float(loss) / positions, slopes / positions


def evidence_of(index: Matcher) -> Evidence:
    """The evidence that fits on this index share; gathered at the first use and kept as long as the index."""
    if index not in _kept:
        _kept[index] = leave_documents_out(index, DEEPEST)
    return _kept[index]


def branching_entries(evidence: Evidence, max_order: int | None) -> Entries:
    """One entry a node, with left extensions; of order max_order, occurrences: what `auto` counts."""
    orders, keep = evidence.orders, np.ones(evidence.orders.size, np.bool_)
    counts = evidence.left
    if max_order is not None:
        keep = evidence.shallower < max_order
        orders = np.minimum(orders, max_order)
        counts = np.where((orders == max_order)[:, None], evidence.raw, counts)
    return Entries(_kept_offsets(evidence.offsets, keep), orders[keep], np.ascontiguousarray(counts[keep]))


def all_entries(evidence: Evidence, max_order: int | None) -> Entries:
    """One entry for each order of each chain, with occurrences."""
    most = DEEPEST if max_order is None else max_order
    size = np.maximum(np.minimum(evidence.orders, most) - evidence.shallower, 0)
    node = np.repeat(np.arange(size.size), size)
    step = np.arange(node.size) - np.repeat(np.cumsum(size) - size, size)
    orders = np.minimum(evidence.orders, most)[node] - step
    ends = np.append(0, np.cumsum(size))[evidence.offsets]
    return Entries(ends, orders, np.ascontiguousarray(evidence.raw[node]))


def _kept_offsets(offsets: np.ndarray, keep: np.ndarray) -> np.ndarray:
    return np.append(0, np.cumsum(keep))[offsets]


def bucket_of(orders: np.ndarray, counts: np.ndarray, most_orders: int) -> tuple[np.ndarray, ...]:
    """Order, bit length of the count, share of distinct continuations: as `rules.weigh` has them, from 0."""
    total, distinct = counts[:, 1], counts[:, 2:].sum(axis=1)
    lengths = np.frexp(total.astype(np.float64))[1] - 1
    shares = distinct * _SHARES // np.maximum(total, 1)
    return np.minimum(orders, most_orders) - 1, np.minimum(lengths, _COUNTS - 1), shares


def fit_auto(
    index: Matcher, max_order: int | None, root: tuple[float, float, float]
) -> tuple[tuple[tuple[float, ...], ...], dict[str, float]]:
    """The table of `auto`, its first line the numbers of orders, counts and shares; and what the fit promises.

    root: the three discounts of order 0.
    """
    evidence = evidence_of(index)
    entries = branching_entries(evidence, max_order)
    most = max(1, min(_ORDERS, DEEPEST if max_order is None else max_order))
    sizes = (most, _COUNTS, _SHARES + 1)
    num_buckets, num_positions = int(np.prod(sizes)), entries.offsets.size - 1
    places = np.unravel_index(np.arange(num_buckets), sizes)
    base = left_base(evidence, root, index.vocab_size, max_order == 0)
    ridge = np.repeat(_RIDGE, [sum(sizes), num_buckets])[:, None] / max(1, num_positions)
    ends = np.cumsum(sizes)

    def spread(weights: np.ndarray) -> np.ndarray:
        tables = np.split(weights, ends)
        return tables[3] + sum(table[place] for table, place in zip(tables, places, strict=False)) + _START

    def mean_of(some: _Chains) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        """The penalised loss of an average position, and its gradient."""

        def loss_of(flat: np.ndarray) -> tuple[float, np.ndarray]:
            weights = flat.reshape(-1, 4)
            share = _sigmoid(spread(weights))
            loss, slopes = some.loss(_bounded(share))
            by_logit = slopes * share * (1.0 - share)
            by_logit[:, 0] *= 1.0 - _LEAST_BACK
            by_logit[:, 1:] *= _LIMITS
            parts = [_sum_by(by_logit, place, size) for place, size in zip(places, sizes, strict=True)]
            slope = np.concatenate([*parts, by_logit]) + ridge * weights
            return loss + float((ridge * weights**2).sum()) / 2, slope.reshape(-1)

        return loss_of

    found = np.zeros(4 * (sum(sizes) + num_buckets))
    if num_positions > _FEW:  # most of the way with a part of them
        found = minimise(mean_of(_Chains.of(entries.thinned(_STRIDE), base[::_STRIDE], sizes)), found, _ROUNDS)
    every = _Chains.of(entries, base, sizes)
    found = minimise(mean_of(every), found, _LAST_ROUNDS if num_positions > _FEW else _ROUNDS)
    values = _bounded(_sigmoid(spread(found.reshape(-1, 4))))
    loss, _ = every.loss(values)
    values[:, 0] = 1.0 - values[:, 0]
    table = [tuple(float(size) for size in (*sizes, 0)), *(tuple(row) for row in values.round(5).tolist())]
    return tuple(table), _facts(evidence, loss * num_positions)


def fit_jelinek_mercer(index: Matcher, max_order: int | None) -> tuple[tuple[tuple[float, ...], ...], dict[str, float]]:
    """Weights by order (from 0, where none is used) and bit length of the count, and what the fit promises."""
    evidence = evidence_of(index)
    entries = all_entries(evidence, max_order)
    most = max(1, min(_ORDERS, DEEPEST if max_order is None else max_order))
    orders, lengths, _ = bucket_of(entries.orders, entries.counts, most)
    bucket = orders * _COUNTS + lengths
    share = entries.counts[:, 0] / entries.counts[:, 1]
    base = raw_base(index, evidence)
    weights, below = np.full(most * _COUNTS, 0.5), np.empty(bucket.size)
    used, reached = np.empty(weights.size), np.empty(weights.size)
    for _ in range(_EM_ROUNDS):
        used[:], reached[:] = 0.5, 1.0  # an occurrence's worth of the start, so that no weight is 0 or 1
        chains.expected_uses(entries.offsets, share, bucket, weights, base, below, used, reached)
        weights = used / reached
    losses = np.empty(entries.offsets.size - 1)
    chains.chain_losses(entries.offsets, weights[bucket] * share, 1.0 - weights[bucket], base, losses)
    rows = np.minimum(weights.round(5), 1.0 - _LEAST_BACK).reshape(most, _COUNTS).tolist()
    return (tuple(rows[0]), *(tuple(row) for row in rows)), _facts(evidence, losses.sum())


def fit_dirichlet(index: Matcher, max_order: int | None) -> tuple[tuple[tuple[float, ...], ...], dict[str, float]]:
    """A mass an order (from 0, where none is used), and what the fit promises."""

    def shares(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        mass = _mass(values[:, 0])
        total = counts[:, 1] + mass
        own, back = counts[:, 0] / total, mass / total
        return own, back, (-own * back)[:, None], (back * (1.0 - back))[:, None]

    evidence = evidence_of(index)
    entries = all_entries(evidence, max_order)
    found, facts = _fit_by_order(
        evidence, entries, raw_base(index, evidence), max_order, np.array([np.log(16.0)]), shares
    )
    masses = _mass(found[:, 0]).round(5).tolist()
    return tuple((mass,) for mass in (masses[0], *masses)), facts


def fit_pitman_yor(
    index: Matcher, max_order: int | None, root: tuple[float, float, float]
) -> tuple[tuple[tuple[float, float, float], ...], tuple[tuple[float, ...], ...], dict[str, float]]:
    """Discounts and strengths θ an order, the first of them root's and 0, and what the fit promises."""

    def shares(values: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        part = _sigmoid(values[:, 0])
        discount, strength = _FIXED + (1 - 2 * _FIXED) * part, _mass(values[:, 1])
        by_value = (1 - 2 * _FIXED) * part * (1.0 - part)
        seen, total, distinct = counts[:, 0] > 0, counts[:, 1] + strength, counts[:, 2:].sum(axis=1)
        own = np.where(seen, counts[:, 0] - discount, 0.0) / total
        back = (strength + discount * distinct) / total
        own_slopes = np.stack([-by_value * seen / total, -own * strength / total], axis=1)
        return own, back, own_slopes, np.stack([by_value * distinct / total, (1.0 - back) * strength / total], axis=1)

    evidence = evidence_of(index)
    base = left_base(evidence, root, index.vocab_size, max_order == 0)
    entries = branching_entries(evidence, max_order)
    found, facts = _fit_by_order(evidence, entries, base, max_order, np.array([1.0, -1.0]), shares)
    discounts = (_FIXED + (1 - 2 * _FIXED) * _sigmoid(found[:, 0])).round(5).tolist()
    strengths = _mass(found[:, 1]).round(5).tolist()
    return (root, *((d, d, d) for d in discounts)), ((0.0,), *((strength,) for strength in strengths)), facts


def check_table(table: tuple[tuple[float, ...], ...]) -> None:
    """Raise QueryError unless this is a table of `auto`: its sizes, then a line (λ, D1, D2, D3) for each bucket."""
    sizes = table[0]
    if len(sizes) < 3 or min(sizes[:3]) < 1 or len(table) != 1 + int(np.prod(sizes[:3])):
        raise QueryError(
            f"a table of auto has a line of its sizes and one for each bucket, not {len(table):,} lines: fit one"
        )
    limits = ((0, 1), (0, 1), (0, 2), (0, 3))
    for line in table[1:]:
        if len(line) != 4 or not all(low <= value < high for value, (low, high) in zip(line, limits, strict=True)):
            raise QueryError(f"auto takes 0 ≤ λ < 1 and 0 ≤ D_i < i, not {line}: fit it")


def _fit_by_order(
    evidence: Evidence,
    entries: Entries,
    base: np.ndarray,
    max_order: int | None,
    start: np.ndarray,
    shares: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, ...]],
) -> tuple[np.ndarray, dict[str, float]]:
    """Values by order (orders, n) that maximise the likelihood.

    shares(values (E, n), counts (E, 5)): own and back of each entry (see `chains`), and their slopes by the values.
    """
    most = max(1, min(_ORDERS, DEEPEST if max_order is None else max_order))
    place = np.minimum(entries.orders, most) - 1
    below, by_own, by_back = (np.empty(place.size) for _ in range(3))
    num_positions = entries.offsets.size - 1

    def loss_of(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = flat.reshape(most, -1)
        own, back, own_slopes, back_slopes = shares(values[place], entries.counts)
        loss = chains.chain_gradient(entries.offsets, own, back, base, below, by_own, by_back)
        slope = _sum_by(by_own[:, None] * own_slopes + by_back[:, None] * back_slopes, place, most)
        away = values - start  # a weak pull to the start, for orders that no position reaches
        return (loss + 0.005 * float((away**2).sum())) / num_positions, (slope + 0.01 * away).reshape(
            -1
        ) / num_positions

    found = minimise(loss_of, np.tile(start, most), _ROUNDS)
    return found.reshape(most, -1), _facts(evidence, loss_of(found)[0] * num_positions)


def left_base(evidence: Evidence, discounts: tuple[float, float, float], words: int, occurrences: bool) -> np.ndarray:
    """Kneser–Ney's probability of each position's label in the empty context, without the position's document."""
    count, total, *classes = (evidence.root_raw if occurrences else evidence.root_left).T
    if not total.size or total.min() == 0:  # one document, and nothing else
        return np.full(total.size, 1.0 / words)
    cut = np.array([0.0, *discounts])[np.minimum(count, 3)]
    rest = sum(discount * number for discount, number in zip(discounts, classes, strict=True))
    return np.asarray((count - cut + rest / words) / total)


def raw_base(index: Matcher, evidence: Evidence) -> np.ndarray:
    """The probability of each position's label that all others end in, (c(w) + T / V) / (N + T), likewise."""
    distinct = int((index.symbol_counts > 0).sum())
    return np.asarray((evidence.root_raw[:, 0] + distinct / index.vocab_size) / (evidence.root_raw[:, 1] + distinct))


def _bounded(share: np.ndarray) -> np.ndarray:
    """What is left to shorter orders, and the discounts, from numbers in (0, 1)."""
    return np.concatenate(
        [_LEAST_BACK + (1.0 - _LEAST_BACK) * share[:, :1], np.minimum(share[:, 1:], 0.999) * _LIMITS], axis=1
    )


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logit, -30.0, 30.0))))


def _mass(logarithm: np.ndarray) -> np.ndarray:
    """A mass from 10⁻⁴ to 10⁶."""
    return np.asarray(np.exp(np.clip(logarithm, -9.2, 13.8)))


def _sum_by(values: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """The sums of the rows of each place: shape (size, n)."""
    return np.stack([np.bincount(place, column, size) for column in values.T], axis=1)


def _facts(evidence: Evidence, loss: float) -> dict[str, float]:
    positions = evidence.offsets.size - 1
    return {
        "positions": positions,
        "nats": round(float(loss) / max(1, positions), 5),
        "by_blocks": evidence.by_blocks,
        "copies": evidence.copies,
    }
