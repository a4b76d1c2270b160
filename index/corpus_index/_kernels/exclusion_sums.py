"""Sums of a context's counts: the total, how many are 1 to 5, and how many in all, kept for every stored row.

And the sums of its parent's counts of the same tokens: what is new in the parent are its own sums less these. A
document that is left out changes them for its tokens only.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_at_least, first_at_least_near, place_in_row
from corpus_index._kernels.tallies import read
from corpus_index._kernels.target_arrays import HI, LO, NO_PARENT, PARENT

CLASSES = 5  # counts up to here may have a discount of their own
TOTAL, DISTINCT = 0, CLASSES + 1  # of sums: the total; how many are 1, 2, … 5; how many in all
SUMS = CLASSES + 2


class ExclusionArrays(NamedTuple):
    """A rule, its parameters, and its base (c(w) + added) / (total + added · V).

    ratios (orders, 5): Katz's d_1 … d_5 by order, the last order going on. raw: scores of stupid backoff, not
    divided by their sum. unigrams (S,): the c(w) of the base, all 0 where it is uniform. occurrences (S,): how often
    each symbol stands in the corpus of num_tokens. whole: whether a context that matches nothing lists all of them.
    row_sums: see `fill_row_sums`.
    """

    rule: int
    ratios: np.ndarray
    alpha: float
    added: float
    vocab_size: int
    raw: bool
    unigrams: np.ndarray
    total: int
    occurrences: np.ndarray
    num_tokens: int
    whole: bool
    base: np.ndarray
    row_sums: np.ndarray


class ExclusionScratch(NamedTuple):
    """By symbol: counts in the light node read last; the number of the last position that saw it; what is left out.

    tally, gone, gone_above: zeros between uses. numbers: how many positions there were. tokens, gone_tokens, best, …:
    lists. memo_…: sums of stored rows without a document, of the rows that memo_keys names. sums (4, SUMS), worth
    (CLASSES + 1,): those of the node that is read.
    """

    tally: np.ndarray
    seen: np.ndarray
    gone: np.ndarray
    gone_above: np.ndarray
    numbers: np.ndarray
    tokens: np.ndarray
    gone_tokens: np.ndarray
    gone_tokens_above: np.ndarray
    best_tokens: np.ndarray
    best_masses: np.ndarray
    memo_keys: np.ndarray
    memo_sums: np.ndarray
    sums: np.ndarray
    worth: np.ndarray

    @classmethod
    def empty(cls, num_symbols: int, memo: int) -> ExclusionScratch:
        """As it is between positions; memo: rows to remember, a power of two."""
        return cls(
            tally=np.zeros(num_symbols, np.uint32),
            seen=np.zeros(num_symbols, np.int64),
            gone=np.zeros(num_symbols, np.int64),
            gone_above=np.zeros(num_symbols, np.int64),
            numbers=np.zeros(1, np.int64),
            tokens=np.zeros(num_symbols + 1, np.int64),
            gone_tokens=np.zeros(num_symbols + 1, np.int64),
            gone_tokens_above=np.zeros(num_symbols + 1, np.int64),
            best_tokens=np.zeros(num_symbols + 1, np.int64),
            best_masses=np.zeros(num_symbols + 1, np.float64),
            memo_keys=np.full((memo, 2), -1, np.int64),
            memo_sums=np.zeros((memo, 2, SUMS), np.int64),
            sums=np.zeros((4, SUMS), np.int64),
            worth=np.zeros(CLASSES + 1),
        )


@kernel(inline="always")
def shift(sums, old, new):
    """Change one of the counts of sums; 0: it isn't among them."""
    sums[TOTAL] += new - old
    if 0 < old <= CLASSES:
        sums[old] -= 1
    if 0 < new <= CLASSES:
        sums[new] += 1
    sums[DISTINCT] += np.int64(new > 0) - np.int64(old > 0)


@kernel()
def fill_row_sums(heavy, occurrences, row_sums):
    """row_sums (R, 2, SUMS): of each stored row, the sums of its counts, and of its parent's counts of its tokens.

    The parent of the widest rows is the empty context.
    """
    for row in range(heavy.offsets.size - 1):
        parent = np.int64(heavy.table[row, PARENT])
        a, e = np.int64(0), np.int64(0)
        if parent != NO_PARENT:
            a, e = heavy.offsets[parent], heavy.offsets[parent + 1]
        for k in range(heavy.offsets[row], heavy.offsets[row + 1]):
            c = np.int64(heavy.tokens[k])
            shift(row_sums[row, 0], 0, np.int64(heavy.counts[k]))
            if parent == NO_PARENT:
                above = np.int64(occurrences[c])
            else:
                a = min(first_at_least_near(heavy.tokens, a, e, c), e - 1)  # both rows ascend, the parent's is longer
                above = np.int64(heavy.counts[a])
            shift(row_sums[row, 1], 0, above)


@kernel()
def count_ranks(following, ranks, lo, hi, begin, end, gone, tokens):
    """gone[c]: how often c stands at those of ranks[begin:end] that are in lo .. hi − 1; how many tokens."""
    a = first_at_least(ranks, begin, end, lo)
    return read(following, a, first_at_least_near(ranks, a, end, hi), gone, tokens, np.int64(0))


@kernel()
def sums_without_document(heavy, documents, document, occurrences, scratch, row, sums):
    """Take a document from a stored row's sums (2, SUMS)."""
    table, gone, gone_above = heavy.table, scratch.gone, scratch.gone_above
    begin, end = documents.first[document], documents.last[document]
    start, stop = heavy.offsets[row], heavy.offsets[row + 1]
    lo, hi = np.int64(table[row, LO]), np.int64(table[row, HI])
    n = count_ranks(documents.following, documents.ranks, lo, hi, begin, end, gone, scratch.gone_tokens)
    for i in range(n):
        c = scratch.gone_tokens[i]
        x = np.int64(heavy.counts[place_in_row(heavy.tokens, start, stop, c)])
        shift(sums[0], x, x - np.int64(gone[c]))
    parent = np.int64(table[row, PARENT])
    above = scratch.gone_tokens_above
    a, e = np.int64(0), np.int64(0)
    if parent != NO_PARENT:
        a, e = heavy.offsets[parent], heavy.offsets[parent + 1]
        lo, hi = np.int64(table[parent, LO]), np.int64(table[parent, HI])
        num_above = count_ranks(documents.following, documents.ranks, lo, hi, begin, end, gone_above, above)
    else:
        first = documents.token_offsets[document]
        num_above = documents.token_offsets[document + 1] - first
        for i in range(num_above):
            above[i] = documents.tokens[first + i]
            gone_above[above[i]] = documents.lost[first + i]
    for i in range(num_above):
        c = above[i]
        k = place_in_row(heavy.tokens, start, stop, c)
        if k >= 0:
            old = np.int64(occurrences[c])
            if parent != NO_PARENT:
                old = np.int64(heavy.counts[place_in_row(heavy.tokens, a, e, c)])
            still = np.int64(heavy.counts[k]) > np.int64(gone[c])
            shift(sums[1], old, old - np.int64(gone_above[c]) if still else 0)
        gone_above[c] = 0
    for i in range(n):
        gone[scratch.gone_tokens[i]] = 0


@kernel()
def document_loss(documents, document, token):
    """How often a token stands in a document that is left out."""
    a, e = documents.token_offsets[document], documents.token_offsets[document + 1]
    k = place_in_row(documents.tokens, a, e, token)
    return np.int64(documents.lost[k]) if k >= 0 else np.int64(0)
