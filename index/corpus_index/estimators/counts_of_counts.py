"""Counts of counts, the discounts that have a closed form in them, and how KenLM's differ by one n-gram an order.

n_r, how many (context, token) have a count of r, is all that absolute, Kneser–Ney and Good–Turing discounts need.

KenLM's lmplz: its pass over the n-grams, sorted by their last symbol, then the one before, and so on, counts the last
one of each adjusted order by how often it occurs, not by its left extensions (lm/builder/adjust_counts.cc, the loop
that outputs the last n-grams). Symbols are sorted by their first appearance in the text, after <s> and </s>. Only so
are its discounts had to the last digit; the naive twin is `reference.counts.kenlm_counts_of_counts`.
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np

from corpus_index._kernels import counting, walk
from corpus_index.core.matching import Matcher

MOST_ORDERS = 254
"""Of contexts whose left extensions are counted: shared lengths are stored up to 255."""

_CHUNK = 1 << 22


@singledispatch
def counts_of_counts(index: Matcher, highest: int, *, left: bool, most: int = 4) -> np.ndarray:
    """How many (h, w) have a count of 1, 2, …, most: shape (highest + 1, most), by the order of h.

    left: below the highest order, the count is that of distinct left extensions (raw where h begins with the start).
    """
    next_tokens, common = index.array("next_tokens"), index.array("common")
    known = np.full(index.num_tokens, 255, np.uint8)
    walk.mark_short_contexts(index.kernel_arrays(), next_tokens, min(highest + 1, MOST_ORDERS), known)
    table = np.zeros((highest + 1, most + 1), np.int64)
    for order in range(highest + 1):
        counting.count_counts(
            next_tokens,
            common,
            known,
            index.num_symbols,
            order,
            left and order < highest,
            0,
            index.num_tokens,
            table[order],
        )
    return table[:, 1:]


def absolute_discount(counts: list[int]) -> tuple[float, float, float] | None:
    """D = n1 / (n1 + 2 n2) for counts of 1, 2, 3 and more (Ney, Essen & Kneser 1994); None without singletons."""
    n1, n2 = counts[:2]
    if n1 == 0:
        return None
    discount = n1 / (n1 + 2 * n2)
    return discount, discount, discount


def modified_discounts(counts: list[int], zero: bool) -> tuple[float, float, float] | None:
    """The three discounts of Chen & Goodman (1998), or None where one isn't in (0, its count] (zero: or is 0)."""
    n = [0, *counts]
    if not all(counts[:3]):
        return None
    y = n[1] / (n[1] + 2 * n[2])
    one, two, three = (i - (i + 1) * y * n[i + 1] / n[i] for i in (1, 2, 3))
    least = min(one, two, three)
    return (one, two, three) if one <= 1 and two <= 2 and three <= 3 and (least > 0 or (zero and least == 0)) else None


def kenlm_shift(index: Matcher, max_order: int) -> np.ndarray:
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


def _by_first_appearance(index: Matcher) -> np.ndarray:
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
