"""The longest context that each position shares with a position of another document.

Naively: for each position, the longest common end of its context and any other's, over all positions of other
documents. In context order the shared length of two ranks is the minimum of `common` between them, so it only falls
with the distance: of the ranks above, the nearest of another document shares most, and so below. Both are carried along
in one pass each: where the neighbour is of another document, it is the nearest; else the neighbour's nearest is ours.

What stands before the end of a document is no context: no token follows. Where passages count that end there, the ends
take part as `Ends`, each between the ranks where its text would be inserted.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import CAP, document_start, position_of
from corpus_index._kernels.walk import step_range


class Ends(NamedTuple):
    """The ends of documents, in context order, shape (E,) each; empty where they don't take part.

    ranks: the rank that each would be inserted before, ascending. documents. before: tokens shared with the entry
    before it, a rank or an end. after: with the rank that it stands before. shared: to be filled, the tokens that its
    text shares with another document's.
    """

    ranks: np.ndarray
    documents: np.ndarray
    before: np.ndarray
    after: np.ndarray
    shared: np.ndarray

    @classmethod
    def empty(cls, size: int) -> Ends:
        """Room for so many ends."""
        return cls(
            ranks=np.empty(size, np.int64),
            documents=np.empty(size, np.int64),
            before=np.empty(size, np.int64),
            after=np.empty(size, np.int64),
            shared=np.zeros(size, np.int64),
        )


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
def _shared_texts(text, p, q):
    """Tokens that the texts before two places of the corpus share, at most CAP; each place follows a token."""
    tokens = text.tokens
    most = min(p - document_start(text, p - 1), q - document_start(text, q - 1), CAP)
    m = np.int64(0)
    while m < most and tokens[p - 1 - m] == tokens[q - 1 - m]:
        m += 1
    return m


@kernel()
def _shared_with_context(text, rank, place):
    """Tokens that the text before a place, which follows a token, shares with a rank's context."""
    position = position_of(text.order, rank)
    if document_start(text, position) == position:
        return np.int64(0)
    return _shared_texts(text, position, place)


@kernel()
def insert_ends(index, endings, ends):
    """Fill the ends of all documents that hold a token; endings: their last tokens and ranks, ascending."""
    text, steps, order = index.text, index.steps, index.text.order
    last = np.int64(-1)
    for i in range(endings.size):
        c, r = np.int64(endings[i] >> np.uint64(32)), np.int64(endings[i] & np.uint64(0xFFFFFFFF))
        place = position_of(order, r) + 1
        ends.documents[i] = _document(text.doc_starts, text.doc_directory, text.document_shift, place - 1)
        at = np.int64(steps.symbols[4 * c])
        if np.int64(steps.symbols[4 * c + 4]) != at:
            at = step_range(steps, c, r, r + 1)[0]
        ends.ranks[i] = at
        ends.before[i] = ends.after[i] = 0
        if i > 0 and ends.ranks[i - 1] == at:
            ends.before[i] = _shared_texts(text, last, place)
        elif at > 0:
            ends.before[i] = _shared_with_context(text, at - 1, place)
        if at < order.size:
            ends.after[i] = _shared_with_context(text, at, place)
        last = place


@kernel()
def shared_above(text, common, ends, shared, partner, ahead):
    """By rank: symbols shared with the nearest rank above of another document, and that document.

    shared (N,) uint8, partner (N,) uint32: both are written whole; where there is no such rank, 0 and the own document.
    """
    order = text.order
    before, best, other = np.int64(-1), np.int64(0), np.int64(-1)
    e = np.int64(0)
    for r in range(order.size):
        if r + ahead < order.size:
            prefetch(text.doc_directory, np.int64(order[r + ahead]) >> text.document_shift)
        between = np.int64(common[r])
        while e < ends.ranks.size and ends.ranks[e] == r:
            if r + e > 0:
                if ends.documents[e] != before:
                    best, other = ends.before[e], before
                else:
                    best = min(best, ends.before[e])
            ends.shared[e] = best
            before, between = ends.documents[e], ends.after[e]
            e += 1
        document = _document(text.doc_starts, text.doc_directory, text.document_shift, position_of(order, r))
        if r + e > 0 and document != before:
            best, other = between, before
        elif r + e > 0:
            best = min(best, between)
        shared[r] = best
        partner[r] = other if best > 0 else document
        before = document
    while e < ends.ranks.size:  # after all ranks
        if ends.documents[e] != before:
            best, other = ends.before[e], before
        else:
            best = min(best, ends.before[e])
        ends.shared[e] = best
        before = ends.documents[e]
        e += 1


@kernel()
def shared_by_position(text, common, ends, above, above_partner, shared, partner, ahead):
    """By position: tokens shared with the nearest rank of another document, above or below, and that document.

    above, above_partner: of `shared_above`. The start symbol, which `common` counts, is taken off: a context of m
    tokens shares at most m of them.
    """
    order = text.order
    after, best, other, between = np.int64(-1), np.int64(0), np.int64(-1), np.int64(0)
    e = ends.ranks.size - 1
    for r in range(order.size - 1, -1, -1):
        if r - ahead >= 0:
            place = np.int64(order[r - ahead])
            prefetch(shared, place)
            prefetch(partner, place)
        position = position_of(order, r)
        document = _document(text.doc_starts, text.doc_directory, text.document_shift, position)
        first = True  # of the ends below this rank, from the last one up
        while e >= 0 and ends.ranks[e] == r + 1:
            if after >= 0:
                down = ends.after[e] if first else between
                if ends.documents[e] != after:
                    best, other = down, after
                else:
                    best = min(best, down)
            ends.shared[e] = max(ends.shared[e], best)
            after, between = ends.documents[e], ends.before[e]
            first = False
            e -= 1
        if first and r + 1 < order.size:
            between = np.int64(common[r + 1])
        if after >= 0:
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
    first = True
    while e >= 0:  # before all ranks
        down = ends.after[e] if first else between
        if ends.documents[e] != after:
            best, other = down, after
        else:
            best = min(best, down)
        ends.shared[e] = max(ends.shared[e], best)
        after, between = ends.documents[e], ends.before[e]
        first = False
        e -= 1


@kernel()
def count_shared(shared, histogram):
    """histogram (256,) += how many positions share each number of tokens."""
    for position in range(shared.size):
        histogram[shared[position]] += 1


@kernel(allocates=True)
def count_covered(doc_starts, shared, at_end, lengths):
    """How many tokens lie in a passage of at least each length that another document holds too: shape of lengths.

    shared (N,): by position; at_end (D,): of each document as a whole. Such a passage ends before each position, or at
    each end, that shares so many tokens; its last `length` tokens suffice, since the positions inside a longer one
    share almost as many.
    """
    covered = np.zeros(lengths.size, np.int64)
    left = np.zeros(lengths.size, np.int64)
    document = doc_starts.size - 1
    for position in range(shared.size - 1, -1, -1):
        ends = False
        while document > 0 and np.int64(doc_starts[document]) > position:  # the last token of that document
            document -= 1
            ends = np.int64(doc_starts[document + 1]) == position + 1
        for i in range(lengths.size):
            if ends and at_end[document] >= lengths[i]:
                left[i] = lengths[i]
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
