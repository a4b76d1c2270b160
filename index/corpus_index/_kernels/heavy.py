"""The stored rows' place in the tree of contexts: ancestors and totals."""

from __future__ import annotations

from numba import njit

from corpus_index._kernels.mixed import HI, LO, NO_PARENT, PARENT, PARENT_DEPTH
from corpus_index._kernels.nodes import node_around, parent_depth
from corpus_index._kernels.rows import find_row


@njit(cache=True, nogil=True)
def fill_ancestors(text, nodes, bounds, directory, shift, begin, end, table):
    """Ranges, parents' rows and depths of the stored rows begin … end − 1; a node wider than a stored one is stored."""
    for row in range(begin, end):
        lo, hi = int(bounds[2 * row]), int(bounds[2 * row + 1])
        table[row, LO], table[row, HI] = lo, hi
        depth = parent_depth(text, nodes, lo, hi)
        table[row, PARENT_DEPTH] = depth
        table[row, PARENT] = NO_PARENT
        if depth > 0:
            lo, hi = node_around(text, nodes, lo, hi, depth)
            table[row, PARENT] = find_row(bounds, directory, shift, lo, hi)
