"""Pointers into the index, one per corpus position: what `corpus-teacher targets build` would have kept.

The pointer of a position is the rank of its context: the inverse of the index's `order`, 4 bytes a token. All nodes of
the position's backoff chain are found from it by widening, so a reader neither steps nor compares, and it knows the
whole document before a window. The command isn't kept, because asking the index came out close enough: see LOG.md. The
two kernels stay so that the comparison can be run again.
"""

from __future__ import annotations

import numpy as np
from corpus_index import CorpusIndex
from corpus_index._kernels.arrays import IndexArrays
from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import CAP, document_start, widened
from corpus_index._kernels.walk import step_range
from corpus_index.core.answers import Match

_AHEAD = 32


def make_pointers(index: CorpusIndex) -> np.ndarray:
    """The rank of each corpus position: shape (N,), uint32. O(N), one random write a token."""
    ranks = np.empty(index.num_tokens, np.uint32)
    _invert(index.array("order"), ranks, _AHEAD)
    return ranks


def match_positions(
    index: CorpusIndex, ranks: np.ndarray, positions: np.ndarray, max_order: int | None = None
) -> tuple[Match, np.ndarray]:
    """What `CorpusIndex.match_nodes` says of the contexts of corpus positions, their documents read from the start.

    Parameters
    ----------
    ranks : ndarray of shape (N,), uint32
        Of `make_pointers`.
    positions : ndarray of any shape, int64
        Each stands for the context before it: the rest of its document so far.

    Returns
    -------
    Match and ndarray
        Of the shape of positions.
    """
    flat = np.ascontiguousarray(positions).reshape(-1)
    lo, hi = np.empty(flat.size, np.int64), np.empty(flat.size, np.int64)
    depth, match_len = np.empty(flat.size, np.int32), np.empty(flat.size, np.int32)
    bound = -1 if max_order is None else max_order
    _nodes_of_positions(index.kernel_arrays(), ranks, flat, bound, _AHEAD, lo, hi, depth, match_len)
    shape = positions.shape
    return Match(lo.reshape(shape), hi.reshape(shape), match_len.reshape(shape)), depth.reshape(shape)


@kernel()
def _invert(order: np.ndarray, ranks: np.ndarray, ahead: int) -> None:
    """ranks[order[r]] = r."""
    for r in range(order.size):
        if r + ahead < order.size:
            prefetch(ranks, np.int64(order[r + ahead]))
        ranks[np.int64(order[r])] = r


@kernel(allocates=True)
def _nodes_of_positions(
    index: IndexArrays,
    ranks: np.ndarray,
    positions: np.ndarray,
    max_order: int,
    ahead: int,
    lo: np.ndarray,
    hi: np.ndarray,
    depth: np.ndarray,
    match_len: np.ndarray,
) -> None:
    """Fill the match of each position's context; max_order: −1 for no bound."""
    text, nodes = index.text, index.nodes
    common, doc_starts = nodes.common, text.doc_starts
    ids = np.empty((1, 1), np.int64)
    n = common.size
    start = end = np.int64(0)
    for q in range(positions.size):
        if q + ahead < positions.size:
            prefetch(common, np.int64(ranks[positions[q + ahead]]))
        p = positions[q]
        r = np.int64(ranks[p])
        if not start <= p < end:
            start = document_start(text, p)
            end = np.int64(doc_starts[np.searchsorted(doc_starts, p, side="right")])
        whole = p - start + 1  # symbols of the context, the document's start included
        bounded = 0 <= max_order < whole
        d = max_order if bounded else whole
        if d > CAP and np.int64(common[r]) < CAP and (r + 1 == n or np.int64(common[r + 1]) < CAP):
            lo[q], hi[q] = r, r + 1
        elif d > CAP and not bounded and q > 0 and positions[q - 1] == p - 1 and p > start:
            lo[q], hi[q] = step_range(index.steps, np.int64(text.tokens[p - 1]), lo[q - 1], hi[q - 1])
        else:
            lo[q], hi[q] = widened(text, nodes, r, r + 1, d, ids, 0, 0, 0, False, r)
        depth[q] = d
        match_len[q] = d if bounded else whole - 1
