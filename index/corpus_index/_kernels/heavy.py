"""The stored rows' place in the tree of contexts: ancestors and totals."""

from __future__ import annotations

from numba import njit

from corpus_index._kernels.nodes import CAP, node_around, parent_depth
from corpus_index._kernels.rows import find_row
from corpus_index._kernels.target_arrays import BLOCK_BITS, HI, LO, NO_PARENT, OWN_DEPTH, PARENT, PARENT_DEPTH


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


@njit(cache=True, nogil=True)
def fill_depths(common, table):
    """Depths of the stored rows: what their children say, else the least shared length inside (0 if that is capped)."""
    for row in range(table.shape[0]):
        if table[row, PARENT] != NO_PARENT:
            table[table[row, PARENT], OWN_DEPTH] = table[row, PARENT_DEPTH]
    for row in range(table.shape[0]):
        if table[row, OWN_DEPTH] == 0:
            least = CAP
            for r in range(table[row, LO] + 1, table[row, HI]):
                least = min(least, int(common[r]))
            table[row, OWN_DEPTH] = least if least < CAP else 0


@njit(cache=True, nogil=True)
def fill_narrowest(table, widest_first, narrowest):
    """narrowest[b] = the narrowest stored row that holds the first rank of block b; of all ranks, none."""
    narrowest[:] = NO_PARENT
    for row in widest_first:
        first = (int(table[row, LO]) + (1 << BLOCK_BITS) - 1) >> BLOCK_BITS
        for block in range(first, ((int(table[row, HI]) - 1) >> BLOCK_BITS) + 1):
            narrowest[block] = row
