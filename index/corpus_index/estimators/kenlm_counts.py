"""Counts of counts as KenLM's lmplz has them, which differ from the definition by one n-gram an order.

Its pass over the n-grams, sorted by their last symbol, then the one before, and so on, counts the last one of each
adjusted order by how often it occurs, not by its left extensions (lm/builder/adjust_counts.cc, the loop that outputs
the last n-grams). Symbols are sorted by their first appearance in the text, after <s> and </s>. Only so are its
discounts had to the last digit; the naive twin is `reference_counts.kenlm_counts_of_counts`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from corpus_index.index import CorpusIndex

_CHUNK = 1 << 22


def kenlm_shift(index: CorpusIndex, max_order: int) -> np.ndarray:
    """What to add to the counts of counts 1 to 4 of orders 0 … max_order: shape (max_order + 1, 4), int64.

    O(N), and the occurrences of the token that appears last.
    """
    shift = np.zeros((max_order + 1, 4), np.int64)
    tokens = index.array("tokens")
    rank = _by_first_appearance(index)
    last = np.argmax(rank)
    places = np.concatenate(
        [np.flatnonzero(tokens[start : start + _CHUNK] == last) + start for start in range(0, tokens.size, _CHUNK)]
    )
    starts = index.doc_starts[index.document_of(places)]
    for order in range(max_order):  # the highest order isn't adjusted
        before = places - order - 1
        symbols = np.where(before >= starts, rank[tokens[np.maximum(before, 0)]], -1)
        for count, change in ((np.unique(symbols).size, -1), (places.size, 1)):
            if count <= 4:
                shift[order, count - 1] += change
        kept = symbols == symbols.max()
        if symbols.max() < 0:  # it begins with the start of a document: not adjusted, and nothing is longer
            break
        places, starts = places[kept], starts[kept]
    return shift


def _by_first_appearance(index: CorpusIndex) -> np.ndarray:
    """Where each symbol first stands, from 1 on; 0 for the end of documents, −1 for those that never do."""
    tokens = index.array("tokens")
    rank = np.full(index.num_symbols, -1, np.int64)
    for start in range((tokens.size - 1) // _CHUNK * _CHUNK, -1, -_CHUNK):
        chunk = tokens[start : start + _CHUNK]
        rank[chunk[::-1]] = np.arange(start + chunk.size, start, -1)  # of equal ones the last is kept: the first place
    if index.end_of_document is not None:
        end = int(index.symbols_of(np.array([index.end_of_document], np.int64))[0])
        if end < rank.size and rank[end] > 0:
            rank[end] = 0
    return rank
