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
            answer[q] = excluded(estimator, chains, root, q).of_label
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
        remaining, use_left, s, *cuts = node_weights(arrays, depth, shallower, top, raw, *counts, *lefts, remaining)
        top = False
        yield node, bool(use_left), s, (cuts[0], cuts[1], cuts[2]), remaining
        if remaining < LEAST_MASS or estimator.rule == MAXIMUM:
            return


def _base_without(
    estimator: Estimator, chains: ChainCounts, root: Root, base: np.ndarray, q: int
) -> tuple[float, float]:
    """(grown, drop): the base without what is left out is grown · base − drop at the label."""
    node = int(chains.offsets[q + 1]) - 1
    part = chains.gone_from(node)
    if part.start == part.stop or base[chains.labels[q]] >= 1.0:
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


class Excluded(NamedTuple):
    """A distribution by exclusion, written short.

    Attributes
    ----------
    tokens, masses : ndarrays of shape (K,), int64 and float64
        The tokens that a context has seen, ascending, and their probabilities.
    rest : float
        The mass of all others, which share it in the proportions of the unigrams.
    of_label : float
        The label's probability, or score; 0 where it is unknown.
    """

    tokens: np.ndarray
    masses: np.ndarray
    rest: float
    of_label: float


def excluded(estimator: Estimator, chains: ChainCounts, root: Root, q: int, *, raw: bool = False) -> Excluded:
    """One position's distribution by exclusion, in O(continuations) and the base.

    raw: scores of stupid backoff as published: not divided by their sum, and nothing added to the unigrams.
    """
    nodes = range(int(chains.offsets[q]), int(chains.offsets[q + 1]) - 1)
    words, label = root.vocab_size, int(chains.labels[q])
    unigrams, total = root.symbol_counts, int(chains.occurrences[nodes.stop, TOTAL])
    lost_of_label = 0
    gone = chains.gone_from(nodes.stop)
    gone_tokens, gone_counts = chains.gone_tokens[gone], chains.gone_counts[gone]
    if label >= 0:
        lost_of_label = int(gone_counts[gone_tokens == label].sum())
    own = int(unigrams[label]) - lost_of_label if 0 <= label < unigrams.size else 0
    tokens, masses = np.zeros(0, np.int64), np.zeros(0)
    mass, uniform = 1.0, False
    if estimator.rule == ADD_K:
        uniform = estimator.max_order != 0
        if uniform:  # the longest context alone, or all of the corpus
            tokens, counts, _ = chains.continuations(nodes[0] if len(nodes) else nodes.stop)
            unit = 1.0 / (int(counts.sum()) + estimator.k * words)
            masses = unit * (counts + estimator.k)
            mass = unit * estimator.k * (words - tokens.size)
        nodes = range(0)
    else:
        for node in nodes:
            tokens, masses, mass = _settle(estimator, chains, node, tokens, masses, mass, words, raw=raw)
            if mass < LEAST_MASS and not raw:
                break
    added = 0.0 if raw else estimator.k if estimator.row.base == "uniform" else int((unigrams > 0).sum()) / words
    units = added * (words - tokens.size)
    if not uniform:
        lost = np.zeros(tokens.size, np.int64)
        where = np.searchsorted(tokens, gone_tokens)
        held = where < tokens.size
        held[held] = tokens[where[held]] == gone_tokens[held]
        lost[where[held]] = gone_counts[held]
        units += total - int((unigrams[tokens] - lost).sum())
    share = mass / units if units > 0.0 else 0.0
    scale = 1.0
    if estimator.rule == STUPID_BACKOFF:
        everything = total + added * words
        share = mass / everything if everything > 0.0 else 0.0
        mass = share * units
        if not raw:
            scale = 1.0 / (float(masses.sum()) + mass)
    of_label = 0.0
    if label >= 0:
        seen = tokens == label
        of_label = float(masses[seen][0]) if seen.any() else share * (added + (0 if uniform else own))
    return Excluded(tokens, masses * scale, mass * scale, of_label * scale)


def _settle(
    estimator: Estimator,
    chains: ChainCounts,
    node: int,
    tokens: np.ndarray,
    masses: np.ndarray,
    mass: float,
    words: int,
    *,
    raw: bool,
) -> tuple[np.ndarray, np.ndarray, float]:
    """Settle the tokens that a node is the longest context to have seen: (tokens, masses, mass left)."""
    held, counts, _ = chains.continuations(node)
    new = ~np.isin(held, tokens)
    worth, unit = counts.astype(np.float64), 0.0
    if estimator.rule == STUPID_BACKOFF:
        unit = mass / int(counts.sum())
    elif new.any() or (estimator.rule == KATZ and held.size == words):
        left = float(new.sum())
        if estimator.rule == KATZ:
            ratios = np.ones(CLASSES + 1)
            row = estimator.ratios[min(int(chains.depths[node]), len(estimator.ratios) - 1)]
            ratios[: len(row)] = row
            worth *= ratios[np.minimum(counts, CLASSES + 1) - 1]
            saved = float((counts - worth).sum())
            left = saved if saved != 0.0 else 1.0
        if held.size == words:
            left = 0.0
        kept = float(worth[new].sum())
        unit = mass / (kept + left) if kept + left > 0.0 else 0.0
        mass = unit * left
    if estimator.rule == STUPID_BACKOFF:
        for _ in range(int(chains.depths[node]) - int(chains.shallower[node])):
            mass *= estimator.alpha if raw or mass >= LEAST_MASS else 1.0
    merged = np.concatenate([tokens, held[new]])
    order = np.argsort(merged, kind="stable")
    return merged[order], np.concatenate([masses, unit * worth[new]])[order], mass


def _excluding(estimator: Estimator, chains: ChainCounts, root: Root, q: int) -> np.ndarray:
    """A distribution by exclusion, over the symbols and one unseen token: shape (S + 1,)."""
    said, label = excluded(estimator, chains, root, q), int(chains.labels[q])
    size, rest = root.symbol_counts.size, said.rest
    p, seen = np.zeros(size + 1), np.zeros(size + 1, np.bool_)
    p[said.tokens], seen[said.tokens] = said.masses, True
    node = int(chains.offsets[q + 1]) - 1
    part = chains.gone_from(node)
    if part.start < part.stop and not seen[label]:
        # the base is exact at the label: the other unseen tokens keep their proportions
        p[label], seen[label] = said.of_label, True
        rest -= said.of_label
    others = np.where(seen, 0.0, estimator.base(root))
    total = float((others * np.append(np.ones(size), root.vocab_size - size)).sum())
    return np.asarray(p + (rest / total if total > 0.0 else 0.0) * others)
