"""From counts to probabilities: every estimator's rule over the counts of a chain, whoever counted them.

The kernels of `targets` do the same while they count, for one index and whole batches: tests hold both to each other.
Interpolated estimators mix order by order, p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w), with the D, s and γ of
`_kernels.rules`; those with exclusion settle a token's probability at the longest context that has seen it
(`_kernels.exclusion`). What is left ends in the base, the distribution of the empty context.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from corpus_index._kernels.exclusion_sums import CLASSES
from corpus_index._kernels.rules import ADD_K, KATZ, LEAST_MASS, MAXIMUM, STUPID_BACKOFF, cut_of, node_weights
from corpus_index._kernels.target_arrays import EstimatorArrays
from corpus_index.core.chains import LABEL, TOTAL, ChainCounts
from corpus_index.core.derived import Derived
from corpus_index.estimators.estimator import Estimator


class Root(NamedTuple):
    """What is counted of the whole corpus: what `Estimator.base` reads of an index.

    symbol_counts, left_counts : ndarrays of shape (S,), int64
        Occurrences of each symbol, and after how many distinct symbols it stands.
    """

    symbol_counts: np.ndarray
    left_counts: np.ndarray
    num_tokens: int
    vocab_size: int


def root_of(index: Derived, left: bool) -> Root:
    """The root of one index; left: with left extensions, O(N) at the first use."""
    counts = index.symbol_counts
    return Root(counts, index.left_counts if left else counts, index.num_tokens, index.vocab_size)


def estimator_arrays(estimator: Estimator) -> EstimatorArrays:
    """The rule and its parameters as kernels take them."""
    return EstimatorArrays(
        rule=estimator.rule,
        discounts=np.array(estimator.discounts or [(0.0, 0.0, 0.0)], np.float64),
        extra=np.array(estimator.strengths or [(0.0,)], np.float64),
        left=estimator.uses_left_counts,
        max_order=-1 if estimator.max_order is None else estimator.max_order,
    )


def label_probabilities(estimator: Estimator, chains: ChainCounts, root: Root) -> np.ndarray:
    """The probability of each position's label: shape (Q,), float64; NaN where it is unknown.

    Parameters
    ----------
    estimator : Estimator
        Fitted.
    chains : ChainCounts
        Counted with the estimator's max_order, and left extensions if it uses them.
    root : Root
        Of all that the chains were counted in.

    Notes
    -----
    O(nodes), and no row is read, for interpolated estimators; O(continuations) for those with exclusion.
    """
    answer = np.full(chains.labels.size, np.nan)
    if estimator.excludes:
        for q in np.flatnonzero(chains.labels >= 0).tolist():
            answer[q] = _excluding(estimator, chains, root, q)[chains.labels[q]]
        return answer
    base = estimator.base(root)
    for q in np.flatnonzero(chains.labels >= 0).tolist():
        label, p, remaining = int(chains.labels[q]), 0.0, 1.0
        for node, use_left, s, cuts, remaining in _weights(estimator, chains, q):  # noqa: B007
            x = int((chains.lefts if use_left else chains.occurrences)[node, LABEL])
            if chains.occurrences[node, LABEL] > 0:
                p += s * x - cut_of(x, *cuts)
        grown, drop = _base_without(estimator, chains, root, base, q)
        answer[q] = p + remaining * (grown * base[label] - drop)
    return answer


def distributions(estimator: Estimator, chains: ChainCounts, root: Root) -> np.ndarray:
    """Every position's distribution over the symbols and one unseen token: shape (Q, S + 1), float64.

    Parameters as in `label_probabilities`. A vocabulary has V − S unseen tokens, each with the last probability. Where
    something is left out, the base is exact at the label, and other tokens keep their proportions in it.
    """
    if estimator.excludes:
        answer = [_excluding(estimator, chains, root, q) for q in range(chains.labels.size)]
        return np.stack(answer) if answer else np.empty((0, root.symbol_counts.size + 1))
    base = estimator.base(root)
    out = np.zeros((chains.labels.size, base.size))
    for q, p in enumerate(out):
        remaining = 1.0
        for node, use_left, s, cuts, remaining in _weights(estimator, chains, q):  # noqa: B007
            tokens, counts, lefts = chains.continuations(node)
            x = lefts if use_left else counts
            p[tokens] += s * x - np.array([0.0, *cuts])[np.minimum(x, 3)]
        grown, drop = _base_without(estimator, chains, root, base, q)
        p += remaining * grown * base
        if drop != 0.0:
            p[chains.labels[q]] -= remaining * drop
    return out


def _weights(
    estimator: Estimator, chains: ChainCounts, q: int
) -> Iterator[tuple[int, bool, float, tuple[float, float, float], float]]:
    """Of each node that counts: (node, left extensions?, s, (k1, k2, k3), the mass that is left after it)."""
    arrays, remaining, top = estimator_arrays(estimator), 1.0, True
    for node in range(int(chains.offsets[q]), int(chains.offsets[q + 1]) - 1):
        counts, lefts = chains.occurrences[node, TOTAL:].tolist(), chains.lefts[node, TOTAL:].tolist()
        depth, shallower = int(chains.depths[node]), int(chains.shallower[node])
        raw = top and bool(chains.counts_occurrences[q])
        remaining, use_left, s, *cuts = node_weights(
            arrays, depth, shallower, top, raw, *counts, True, *lefts, remaining
        )
        top = False
        yield node, bool(use_left), s, (cuts[0], cuts[1], cuts[2]), remaining
        if remaining < LEAST_MASS or estimator.rule == MAXIMUM:
            return


def _base_without(
    estimator: Estimator, chains: ChainCounts, root: Root, base: np.ndarray, q: int
) -> tuple[float, float]:
    """(grown, drop): the base without what is left out is grown · base − drop at the label."""
    node = int(chains.offsets[q + 1]) - 1
    if chains.gone_offsets[node] == chains.gone_offsets[node + 1] or base[chains.labels[q]] >= 1.0:
        return 1.0, 0.0
    label = int(chains.labels[q])
    use_left = estimator.uses_left_counts and estimator.max_order != 0
    count, total, *classes = (chains.lefts if use_left else chains.occurrences)[node].tolist()
    if estimator.uses_left_counts:
        cuts = np.array(estimator.discounts[0])
        uniform = estimator.root(root)[2]
        cut = cuts[min(count, 3) - 1] if count > 0 else 0.0
        without = (count - cut + float(cuts @ classes) * uniform) / total if total > 0 else uniform
    else:
        smooth = 0 if estimator.row.base == "counts" else int((root.symbol_counts > 0).sum())
        both = total + smooth
        without = (count + smooth / root.vocab_size) / both if both > 0 else 1.0 / root.vocab_size
    grown = (1.0 - without) / (1.0 - base[label])
    return grown, grown * base[label] - without


def _excluding(estimator: Estimator, chains: ChainCounts, root: Root, q: int) -> np.ndarray:
    """A distribution by exclusion, over the symbols and one unseen token: shape (S + 1,)."""
    nodes = range(int(chains.offsets[q]), int(chains.offsets[q + 1]) - 1)
    size, words = root.symbol_counts.size, root.vocab_size
    tokens, counts, _ = chains.continuations(nodes.stop)
    unigrams = np.zeros(size + 1)
    unigrams[tokens] = counts
    copies = np.append(np.ones(size), words - size)  # tokens that an entry stands for
    if estimator.rule == ADD_K:
        root_only = estimator.max_order == 0
        if len(nodes) > 0:
            tokens, counts, _ = chains.continuations(nodes[0])
            unigrams[:] = 0.0
            unigrams[tokens] = counts
        p = np.asarray((unigrams + estimator.k) / (unigrams.sum() + estimator.k * words))
        return _in_proportion(p, np.zeros(size + 1, np.bool_), estimator, chains, root, q) if root_only else p
    distinct = int((root.symbol_counts > 0).sum())
    p, seen, mass = np.zeros(size + 1), np.zeros(size + 1, np.bool_), 1.0
    for node in nodes:
        tokens, counts, _ = chains.continuations(node)
        new = ~seen[tokens]
        worth = counts.astype(np.float64)
        if estimator.rule == STUPID_BACKOFF:
            p[tokens[new]] = mass * counts[new] / counts.sum()
            for _ in range(int(chains.depths[node]) - int(chains.shallower[node])):
                mass *= estimator.alpha if mass >= LEAST_MASS else 1.0
        elif new.any() or (estimator.rule == KATZ and tokens.size == words):
            passed = float(new.sum())
            if estimator.rule == KATZ:
                ratios = np.ones(CLASSES + 1)
                row = estimator.ratios[min(int(chains.depths[node]), len(estimator.ratios) - 1)]
                ratios[: len(row)] = row
                worth *= ratios[np.minimum(counts, CLASSES + 1) - 1]
                saved = float((counts - worth).sum())
                passed = saved if saved != 0.0 else 1.0
            if (tokens.size == words) if estimator.rule == KATZ else (int(seen.sum() + new.sum()) == words):
                passed = 0.0
            kept = float(worth[new].sum())
            unit = mass / (kept + passed) if kept + passed > 0.0 else 0.0
            p[tokens[new]] = unit * worth[new]
            mass = unit * passed
        seen[tokens] = True
        if mass < LEAST_MASS:
            break
    base = (unigrams + distinct / words) / (unigrams.sum() + distinct)
    others = np.where(seen, 0.0, base)
    total = float((others * copies).sum())
    if estimator.rule == STUPID_BACKOFF:
        p += mass * others
        p /= float((p * copies).sum())
    else:
        p += (mass / total if total > 0.0 else 0.0) * others
    return _in_proportion(p, seen, estimator, chains, root, q)


def _in_proportion(
    p: np.ndarray, seen: np.ndarray, estimator: Estimator, chains: ChainCounts, root: Root, q: int
) -> np.ndarray:
    """Where something is left out, the base is exact at the label: the other unseen tokens keep their proportions."""
    node = int(chains.offsets[q + 1]) - 1
    if chains.gone_offsets[node] == chains.gone_offsets[node + 1]:
        return p
    others = ~seen
    others[chains.labels[q]] = False
    base = np.where(others, estimator.base(root), 0.0)
    copies = np.append(np.ones(p.size - 1), root.vocab_size - p.size + 1)
    total = float((base * copies).sum())
    mass = float((np.where(others, p, 0.0) * copies).sum())
    return np.where(others, base * (mass / total if total > 0.0 else 0.0), p)
