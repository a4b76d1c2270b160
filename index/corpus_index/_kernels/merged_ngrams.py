"""The n-grams of several indexes, merged as each lists its own in order, and counted by their orders."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import document_start, position_of

START, NOTHING = -1, -2
"""What stands before the first token of a document, and before that."""


@kernel()
def list_ngrams(
    text,  # TextArrays
    ranks,  # (n,) int64, in the order of the n-grams
    back,  # int64: an n-gram ends that many tokens before the rank's position
    ahead,  # int64, ranks whose places are asked for ahead
    ngrams,  # (n, size) int64, to be filled: symbols, the last of the n-gram first
    counts,  # (n,) int64, to be filled
):
    """The distinct n-grams that end at the positions of ranks, and how often each is there; returns how many."""
    used = np.int64(0)
    for i in range(ranks.size):
        if i + 2 * ahead < ranks.size:
            prefetch(text.order, ranks[i + 2 * ahead])
        if i + ahead < ranks.size:
            position = position_of(text.order, ranks[i + ahead])
            prefetch(text.tokens, position)
            prefetch(text.doc_directory, position >> text.document_shift)
        position = position_of(text.order, ranks[i])
        start = document_start(text, position)
        shared = np.int64(0)
        for j in range(ngrams.shape[1]):
            place = position - back - j
            symbol = np.int64(NOTHING)
            if place >= start:
                symbol = np.int64(text.tokens[place])
            elif place == start - 1:
                symbol = np.int64(START)
            ngrams[used, j] = symbol
            if used > 0 and shared == j and ngrams[used - 1, j] == symbol:
                shared += 1
        if used > 0 and shared == ngrams.shape[1]:
            counts[used - 1] += 1
        else:
            counts[used] = 1
            used += 1
    return used


@kernel()
def count_merged(
    bounds,  # (K + 1,) int64: list k is bounds[k] : bounds[k + 1] of the next two
    ngrams,  # (n, size) int64: ids, `START` or `NOTHING`, the last of the n-gram first; each list distinct, ascending
    counts,  # (n,) int64
    at,  # (K,) int64, scratch
    sums,  # (2, size − 1) int64, zeros; scratch: of the n-gram of each order that is being counted
    left,  # bool: below the highest order, the count is that of distinct symbols before
    table,  # (size − 1, most + 1) int64, to be added to: n-grams of each order that count 1, 2, …, more
):
    """How many n-grams of each order have a count of 1, 2, …: several sorted lists are read as if they were one."""
    orders, before, lists = table.shape[0], np.int64(-1), bounds.size - 1
    for k in range(lists):
        at[k] = bounds[k]
    while True:
        least = np.int64(-1)
        for k in range(lists):
            if at[k] < bounds[k + 1]:
                if least < 0:
                    least = k
                else:
                    j = 0
                    while j <= orders and ngrams[at[k], j] == ngrams[at[least], j]:
                        j += 1
                    if j <= orders and ngrams[at[k], j] < ngrams[at[least], j]:
                        least = k
        here = at[least] if least >= 0 else np.int64(-1)
        shared = 0
        while least >= 0 and before >= 0 and shared <= orders and ngrams[here, shared] == ngrams[before, shared]:
            shared += 1
        for order in range(orders):
            if shared <= order and before >= 0:  # the n-gram of this order is through
                by_type = left and order < orders - 1 and (order == 0 or ngrams[before, order] != START)
                count = sums[np.int64(by_type), order]
                if order == 0 or ngrams[before, order] != NOTHING:
                    table[order, min(count, table.shape[1]) - 1] += 1
                sums[0, order] = sums[1, order] = 0
        if least < 0:
            break
        for order in range(orders):
            sums[0, order] += counts[here]
            if shared <= order + 1:
                sums[1, order] += 1
        before = here
        at[least] += 1
