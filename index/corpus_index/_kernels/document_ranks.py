"""What leaving documents out reads of them: their ranks in context order, and which of them take a left extension away.

Both are arrays by document, made once for an index. Naively, of each document: the sorted ranks of its positions, what
follows each, and for each of these the depths of the nodes that lose a left extension of the token with the document.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import document_of, position_of, symbol_of

_AHEAD = 16


@kernel()
def fill_sorted_ranks(
    text,  # TextArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    ends,  # (D,) int64, where each document begins; afterwards where it ends
    ranks,  # (N,) uint32, out: each document's ranks, ascending
    following,  # (N,) as next_tokens, out: the token after each of them
):
    """Deal the ranks out to their documents; whether each document got as many as it has tokens."""
    for r in range(text.num_tokens):
        if r + _AHEAD < text.num_tokens:
            prefetch(text.doc_directory, position_of(text.order, r + _AHEAD) >> text.document_shift)
        d = document_of(text, position_of(text.order, r))
        k = ends[d]
        if k >= np.int64(text.doc_starts[d + 1]):
            return False
        ranks[k] = r
        following[k] = next_tokens[r]
        ends[d] = k + 1
    return True


@kernel()
def fill_lost_from(
    text,  # TextArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    depths,  # (257,) int64, scratch
    firsts,  # (257,) int64, scratch
    last,  # (S,) int64, −1s; scratch
    of,  # (S,) int64, scratch
    apart,  # (S,) uint8, scratch
    shared,  # (N,) uint8, scratch
    begins,  # (D,) int64, where each document ends; scratch
    lost_from,  # (N,) uint8, out, in the order of `fill_sorted_ranks`
):
    """lost_from: from which depth on a node loses a left extension of the token after a rank with its document.

    A node of depth L consists of runs, which share L + 1 symbols. A token c loses its left extension of a run where all
    ranks of the run that c follows are the document's. That is told by the first of them, r: the rank before it that c
    follows shares at most L symbols with r, and so does the next one that c follows in another document. So
    lost_from[r] is the larger one of both numbers, at most 255, 0 where neither rank is there; and what a document's
    ranks take from a node is how many of them have lost_from ≤ L. Exact for L < 255.

    A pass over the ranks for the former (the deepest of the open nodes that hold c's last rank tells what is shared),
    and one backwards for the latter.
    """
    opened = np.int64(1)
    depths[0] = firsts[0] = 0
    for r in range(next_tokens.size):
        depth = np.int64(common[r]) if r > 0 else np.int64(0)
        first = r - 1
        while depths[opened - 1] > depth:
            opened -= 1
            first = firsts[opened]
        if depths[opened - 1] < depth:
            depths[opened], firsts[opened] = depth, first
            opened += 1
        c = symbol_of(next_tokens, r, last)
        before = last[c]
        last[c] = r
        k = opened - 1
        while k > 0 and firsts[k] > before:
            k -= 1
        shared[r] = depths[k] if before >= 0 else 0
    last[:] = -1
    for r in range(next_tokens.size - 1, -1, -1):
        if r >= _AHEAD:
            prefetch(text.doc_directory, position_of(text.order, r - _AHEAD) >> text.document_shift)
        c, d = symbol_of(next_tokens, r, last), document_of(text, position_of(text.order, r))
        other = np.int64(0)
        if last[c] >= 0:
            other = np.int64(shared[last[c]])
            if of[c] == d:
                other = min(other, np.int64(apart[c]))
        last[c], of[c], apart[c] = r, d, other
        begins[d] -= 1
        lost_from[max(begins[d], 0)] = max(other, np.int64(shared[r]))
