"""The longest context that each position shares with a position of another document.

Naively: for each position, the longest common end of its context and any other's, over all positions of other
documents. In context order the shared length of two ranks is the minimum of `common` between them, so it only falls
with the distance: of the ranks above, the nearest of another document shares most, and so below. Both are carried along
in one pass each: where the neighbour is of another document, it is the nearest; else the neighbour's nearest is ours.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel


@kernel()
def _document(doc_starts, directory, shift, position):
    """The document of a position."""
    n = doc_starts.size - 1
    d = np.int64(directory[position >> shift])
    end = n
    if d + 8 < n and np.int64(doc_starts[d + 8]) <= position:
        while d + 1 < end:
            middle = (d + end) >> 1
            if np.int64(doc_starts[middle]) <= position:
                d = middle
            else:
                end = middle
        return d
    while d + 1 < n and np.int64(doc_starts[d + 1]) <= position:
        d += 1
    return d


@kernel()
def shared_above(text, common, shared, partner, ahead):
    """By rank: symbols shared with the nearest rank above of another document, and that document.

    shared (N,) uint8, partner (N,) uint32: both are written whole; where there is no such rank, 0 and the own document.
    """
    order = text.order
    before, best, other = np.int64(-1), np.int64(0), np.int64(-1)
    for r in range(order.size):
        if r + ahead < order.size:
            prefetch(text.doc_directory, np.int64(order[r + ahead]) >> text.document_shift)
        document = _document(text.doc_starts, text.doc_directory, text.document_shift, np.int64(order[r]))
        if r > 0 and document != before:
            best, other = np.int64(common[r]), before
        elif r > 0:
            best = min(best, np.int64(common[r]))
        shared[r] = best
        partner[r] = other if best > 0 else document
        before = document


@kernel()
def shared_by_position(text, common, above, above_partner, shared, partner, ahead):
    """By position: tokens shared with the nearest rank of another document, above or below, and that document.

    above, above_partner: of `shared_above`. The start symbol, which `common` counts, is taken off: a context of m
    tokens shares at most m of them.
    """
    order = text.order
    after, best, other = np.int64(-1), np.int64(0), np.int64(-1)
    for r in range(order.size - 1, -1, -1):
        if r - ahead >= 0:
            place = np.int64(order[r - ahead])
            prefetch(shared, place)
            prefetch(partner, place)
        position = np.int64(order[r])
        document = _document(text.doc_starts, text.doc_directory, text.document_shift, position)
        if r + 1 < order.size:
            between = np.int64(common[r + 1])
            if document != after:
                best, other = between, after
            else:
                best = min(best, between)
        length, which = best, other if best > 0 else document
        if np.int64(above[r]) > length:
            length, which = np.int64(above[r]), np.int64(above_partner[r])
        shared[position] = min(length, position - np.int64(text.doc_starts[document]))
        partner[position] = which
        after = document


@kernel()
def count_shared(shared, histogram):
    """histogram (256,) += how many positions share each number of tokens."""
    for position in range(shared.size):
        histogram[shared[position]] += 1


@kernel()
def count_covered(shared, lengths):
    """How many tokens lie in a passage of at least each length that another document holds too: shape of lengths.

    Such a passage ends before each position that shares so many tokens; its last `length` tokens suffice, since the
    positions inside a longer one share almost as many.
    """
    covered = np.zeros(lengths.size, np.int64)
    left = np.zeros(lengths.size, np.int64)
    for position in range(shared.size - 1, -1, -1):
        for i in range(lengths.size):
            if left[i] > 0:
                left[i] -= 1
                covered[i] += 1
            if np.int64(shared[position]) >= lengths[i]:
                left[i] = lengths[i]
    return covered


@kernel()
def count_by_document(doc_starts, shared, length, counts):
    """counts[d] = positions of document d that share at least so many tokens."""
    for d in range(counts.size):
        for position in range(np.int64(doc_starts[d]), np.int64(doc_starts[d + 1])):
            counts[d] += np.int64(shared[position]) >= length


@kernel()
def partner_runs(doc_starts, shared, partner, length, documents, partners, counts):
    """Runs of positions of one document that share so many tokens with the same other one; returns how many.

    With empty outputs the runs are only counted.
    """
    runs = 0
    write = documents.size > 0
    for d in range(doc_starts.size - 1):
        last = np.int64(-1)
        for position in range(np.int64(doc_starts[d]), np.int64(doc_starts[d + 1])):
            if np.int64(shared[position]) < length:
                continue
            which = np.int64(partner[position])
            if which != last:
                if write:
                    documents[runs], partners[runs], counts[runs] = d, which, 0
                runs += 1
                last = which
            if write:
                counts[runs - 1] += 1
    return runs
