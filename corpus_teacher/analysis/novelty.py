"""Which share of a text's n-grams the corpus lacks, by n: the measure of novelty of Rusty-DAWG (Merrill et al. 2024).

A number alone says little: human text repeats the corpus as well. So a curve stands beside that of other text: held-out
text that is given, or the corpus itself, where each passage is compared with all documents but its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from corpus_index import CorpusIndex, ShardedIndex
from corpus_index.sharded.asking import ask_all

from corpus_teacher.analysis.matching import Ints, longest_matches, tokens_known

NGRAM_LENGTHS = (1, 2, 3, 4, 5, 6, 7, 8, 10, 13, 16, 20, 25, 32, 40, 50, 64, 100)
"""Lengths whose novelty is reported."""

_PASSAGES = 48
_PASSAGE_TOKENS = 256
_MOST_STEPS = 4096  # ranks that are looked at beside a match that only its own document holds


@dataclass(frozen=True)
class Novelty:
    """The n-grams of a text that the corpus lacks.

    Parameters
    ----------
    n : int
        Tokens of an n-gram.
    ngrams : int
        How many the text has, each place counted.
    novel : float
        The share of them that doesn't occur in the corpus.
    """

    n: int
    ngrams: int
    novel: float


def novelty_curve(lengths: Iterable[tuple[Ints, Ints]], ngram_lengths: Iterable[int] = NGRAM_LENGTHS) -> list[Novelty]:
    """The share of n-grams that the corpus lacks, for each n that the text is long enough for.

    Parameters
    ----------
    lengths : iterable of pairs of ndarrays of shape (T,), int64
        Of each text: the longest match at each token, and the tokens since its text, or its document, began (1, 2, …).
    """
    pairs = list(lengths)
    length = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    known = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, np.int64)
    curve = []
    for n in ngram_lengths:
        whole = known >= n
        if whole.any():
            curve.append(Novelty(n, int(whole.sum()), float((length[whole] < n).mean())))
    return curve


def corpus_novelty(
    index: CorpusIndex, *, passages: int = _PASSAGES, passage_tokens: int = _PASSAGE_TOKENS
) -> list[Novelty]:
    """The novelty of the corpus's own text, each passage compared with all documents but its own.

    Parameters
    ----------
    index : CorpusIndex
    passages, passage_tokens : int
        How many passages, spread evenly, of how many tokens at most.

    Returns
    -------
    list of Novelty
        Empty where the corpus is one document: then nothing is left to compare it with.

    Notes
    -----
    Matches of more than 255 tokens count as 255.
    """
    if index.num_documents < 2:
        return []
    begins = np.unique(np.linspace(0, index.num_tokens - 1, passages).astype(np.int64))
    documents = index.document_of(begins)
    ends = np.minimum(begins + passage_tokens, index.doc_starts[documents + 1])
    texts = [
        index.tokens[begin:end].astype(np.int64) for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
    ]
    own = np.repeat(documents, [text.size for text in texts])
    shards, firsts = [index], np.zeros(2, np.int64)
    if isinstance(index, ShardedIndex):
        shards, firsts = index.shards, index.first_documents
    outside = np.zeros(own.size, np.int64)
    arguments = [(texts, own - first) for first in firsts[: len(shards)]]
    for found in ask_all(_outside_in, shards, arguments):
        outside = np.maximum(outside, found)
    known = [tokens_known(text, index.end_of_document) for text in texts]
    return novelty_curve([(outside, np.concatenate(known))])


def _outside_in(shard: CorpusIndex, texts: list[Ints], own: Ints) -> Ints:
    """The longest match of each position of some texts in one shard, outside of its own document."""
    found = longest_matches(shard, texts)
    length, lo, hi = (np.concatenate([match[part] for match in found]) for part in range(3))
    return _outside_own(shard, own, length, lo, hi)


def _outside_own(index: CorpusIndex, own: Ints, length: Ints, lo: Ints, hi: Ints) -> Ints:
    """The longest match of each position outside of its own document.

    From the match's ranks outwards on either side, where neighbours share ever less, to the first rank of another
    document.
    """
    order, common, starts = index.array("order"), index.array("common"), np.asarray(index.doc_starts)
    best = np.zeros(length.size, np.int64)
    for side in (-1, 1):
        rank, shared = (hi - 1 if side < 0 else lo).astype(np.int64), length.copy()
        active = np.flatnonzero((length > 0) & (hi > lo))
        for _ in range(_MOST_STEPS):
            if active.size == 0:
                break
            places = np.asarray(order[rank[active]], np.int64)
            other = np.searchsorted(starts, places, side="right") - 1 != own[active]
            best[active[other]] = np.maximum(best[active[other]], shared[active[other]])
            active = active[~other]
            inner = rank[active] if side < 0 else rank[active] + 1  # common[r]: what rank r shares with rank r − 1
            inside = (inner > 0) & (inner < order.size)
            active, inner = active[inside], inner[inside]
            shared[active] = np.minimum(shared[active], common[inner])
            rank[active] += side
            active = active[shared[active] > best[active]]
    return best
