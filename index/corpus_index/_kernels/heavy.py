"""The stored rows' place in the tree of contexts: ancestors and totals."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import CAP, parent_depth
from corpus_index._kernels.target_arrays import BLOCK_BITS, HI, LEVEL, LO, NO_PARENT, OWN_DEPTH, PARENT, PARENT_DEPTH


@kernel(allocates=True)
def fill_ancestors(text, nodes, bounds, outer_first, table):
    """Ranges, parents and levels of the stored rows; returns the rows of the longest chain.

    outer_first: the rows by where they begin, of two that begin alike the wider one first. A node that holds a stored
    one is stored itself, so a row's parent is the narrowest of those that hold it. The row of all ranks is no parent.
    """
    open_rows = np.empty(outer_first.size, np.int64)
    opened = longest = 0
    for row in outer_first:
        lo, hi = np.int64(bounds[2 * row]), np.int64(bounds[2 * row + 1])
        table[row, LO], table[row, HI] = lo, hi
        table[row, PARENT], table[row, PARENT_DEPTH], table[row, LEVEL] = NO_PARENT, 0, 0
        while opened > 0 and np.int64(table[open_rows[opened - 1], HI]) <= lo:
            opened -= 1
        if hi - lo == text.num_tokens:
            continue
        if opened > 0:
            parent = open_rows[opened - 1]
            table[row, PARENT], table[row, LEVEL] = parent, table[parent, LEVEL] + 1
            table[row, PARENT_DEPTH] = parent_depth(text, nodes, lo, hi, text.num_tokens)
        open_rows[opened] = row
        opened += 1
        longest = max(longest, opened)
    return longest


@kernel()
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


@kernel()
def fill_narrowest(table, widest_first, narrowest):
    """narrowest[b] = the narrowest stored row that holds the first rank of block b; of all ranks, none."""
    narrowest[:] = NO_PARENT
    for row in widest_first:
        first = (int(table[row, LO]) + (1 << BLOCK_BITS) - 1) >> BLOCK_BITS
        for block in range(first, ((int(table[row, HI]) - 1) >> BLOCK_BITS) + 1):
            narrowest[block] = row
