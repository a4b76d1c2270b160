"""The judge of distributions: Witten–Bell, modified Kneser–Ney and the ∞-gram by a scan with numpy.

The definition, dense over V: the occurrences of each suffix of the context are found by narrowing all positions of the
corpus, those to leave out are dropped, and the estimator's formula (corpus_index.reference.estimators) is applied from
the empty context up. Shares no code with the engine; O(N) a context.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np


class NaiveTeacher:
    """Distributions from the raw arrays: tokens of shape (N,), doc_starts of shape (D+1,), V below 65,536."""

    def __init__(self, tokens: np.ndarray, doc_starts: np.ndarray, vocab_size: int) -> None:
        self.tokens, self.doc_starts, self.vocab_size = np.asarray(tokens), doc_starts, vocab_size
        self.unigrams = np.bincount(self.tokens, minlength=vocab_size)

    def occurrences(self, context: np.ndarray, longest: int) -> list[np.ndarray]:
        """The positions that have each suffix of the context before them: orders 1, 2, … while there are any."""
        found: list[np.ndarray] = []
        positions = np.flatnonzero(self.tokens[:-1] == context[-1]) + 1
        starts = self._starts(positions)
        for size in range(1, min(longest, len(context)) + 1):
            if size > 1:
                before = positions - size
                kept = before >= starts
                kept[kept] = self.tokens[before[kept]] == context[-size]
            else:
                kept = positions > starts
            positions, starts = positions[kept], starts[kept]
            if not positions.size:
                break
            found.append(positions)
        return found

    def _starts(self, positions: np.ndarray) -> np.ndarray:
        return self.doc_starts[np.searchsorted(self.doc_starts, positions, side="right") - 1]

    def _pairs(self, positions: np.ndarray, order: int) -> np.ndarray:
        """(symbol before the context, token) of occurrences, as one number; the start of the document counts as V."""
        before = positions - order - 1
        symbols = np.where(before >= self._starts(positions), self.tokens[np.maximum(before, 0)], self.vocab_size)
        return symbols.astype(np.uint32) * np.uint32(self.vocab_size) + self.tokens[positions]

    @cached_property
    def _all_pairs(self) -> np.ndarray:
        chunks = range(0, self.tokens.size, 1 << 24)
        parts = [self._pairs(np.arange(a, min(a + (1 << 24), self.tokens.size)), 0) for a in chunks]
        pairs = np.concatenate(parts)
        pairs.sort()
        return pairs

    @cached_property
    def _left_counts(self) -> np.ndarray:
        """After how many distinct symbols each token stands."""
        pairs = self._all_pairs
        distinct = pairs[np.append(True, pairs[1:] != pairs[:-1])]
        return np.bincount(distinct % self.vocab_size, minlength=self.vocab_size)

    def _left_counts_without(self, without: np.ndarray) -> np.ndarray:
        pairs, gone = np.unique(self._pairs(without, 0), return_counts=True)
        first, end = (np.searchsorted(self._all_pairs, pairs, side=side) for side in ("left", "right"))
        lost = pairs[end - first == gone] % self.vocab_size
        return self._left_counts - np.bincount(lost, minlength=self.vocab_size)

    def distribution(
        self,
        name: str,
        max_order: int | None,
        found: list[np.ndarray],
        without: np.ndarray,
        discounts: tuple[tuple[float, float, float], ...] = (),
    ) -> np.ndarray:
        """p over V, float64; found: `occurrences` of the context. without: positions to leave out, ascending."""
        chain = list(self._chain(found[:max_order], without))
        left = name == "modified-kneser-ney"
        probs = self._base(left, without, discounts)
        if name == "mle":
            if chain:
                probs = self._counts(chain[-1])
                return probs / probs.sum()
            unigrams = self.unigrams - self._counts(without)
            return unigrams / unigrams.sum()
        for order, positions in enumerate(chain, start=1):
            counts = self._counts(positions)
            if left and order != max_order:
                pairs = np.unique(self._pairs(positions, order))
                counts = np.bincount(pairs % self.vocab_size, minlength=self.vocab_size)
            if left:
                probs = _discounted(counts, discounts[min(order, len(discounts) - 1)], probs)
            else:
                distinct = np.count_nonzero(counts)
                probs = (counts + distinct * probs) / (counts.sum() + distinct)
        return probs

    def _counts(self, positions: np.ndarray) -> np.ndarray:
        return np.bincount(self.tokens[positions], minlength=self.vocab_size)

    @staticmethod
    def _chain(found: list[np.ndarray], without: np.ndarray) -> Iterator[np.ndarray]:
        for positions in found:
            if without.size:
                inside = (positions >= without[0]) & (positions <= without[-1])  # one position, or one document
                positions = positions[~inside]
            if not positions.size:
                return
            yield positions

    def _base(self, left: bool, without: np.ndarray, discounts: tuple[tuple[float, float, float], ...]) -> np.ndarray:
        uniform = np.full(self.vocab_size, 1.0 / self.vocab_size)
        if left:
            counts = self._left_counts_without(without) if without.size else self._left_counts
            return _discounted(counts, discounts[0], uniform)
        counts, distinct = self.unigrams - self._counts(without), np.count_nonzero(self.unigrams)
        return (counts + distinct * uniform) / (counts.sum() + distinct)


def _discounted(counts: np.ndarray, discounts: tuple[float, float, float], lower: np.ndarray) -> np.ndarray:
    """p(w) = (a(w) − D) / A + Σ D / A · lower(w), D by the count's class."""
    cuts = np.array([0.0, *discounts])[np.minimum(counts, 3)]
    total = counts.sum()
    return (counts - cuts) / total + cuts.sum() / total * lower if total else lower
