"""Walk rows of tokens through a compact index: what `walk.match_rows` does, without texts.

A match that breaks goes on from the parent of its node: of the contexts that the last one shortens to, the longest that
the new token continues often enough. Each parent costs a step; most fail without one, since a narrow node is looked
through for the token first.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.compact import SCANNED, count_before, count_inside
from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import node_around, parent_depth


@kernel()
def _grown(text, nodes, steps, c, lo, hi, depth, min_count):
    """The longest suffix of a node's context, and c, that has enough occurrences: lo, hi, depth (0: all ranks)."""
    symbols = steps.symbols
    first, stop = np.int64(symbols[4 * c]), np.int64(symbols[4 * c + 4])
    if stop - first < min_count:
        return np.int64(0), text.num_tokens, np.int64(0)
    while True:
        if depth == 0:
            return first, stop, np.int64(1)
        if hi - lo <= SCANNED:
            inside = count_inside(steps, c, lo, hi)
            if inside >= min_count:
                lo = first + count_before(steps, c, lo)
                return lo, min(lo + inside, stop), depth + 1
        else:
            new_lo, new_hi = first + count_before(steps, c, lo), first + count_before(steps, c, hi)
            if new_hi - new_lo >= min_count:
                return new_lo, new_hi, depth + 1
        depth = parent_depth(text, nodes, lo, hi, depth)
        lo, hi = node_around(text, nodes, lo, hi, depth)


@kernel(work=lambda index, ids, *rest: ids.size)
def match_rows(
    index,  # IndexArrays, of a compact index
    ids,  # (B, T) int64, symbols; S: the corpus lacks it
    starts,  # (B,) bool, which rows begin where a document does
    end_of_document,  # int64, the symbol after which a context begins anew; −1: none
    min_count,  # int64, ranks of a match at least
    max_order,  # int64, symbols of it at most; −1: no bound
    walkers,  # Walkers, as long as many rows step together
    out_lo,  # (B, T) int64, the match: ranks lo .. hi − 1
    out_hi,  # (B, T) int64
    out_depth,  # (B, T) int32, its symbols
    out_len,  # (B, T) int32, its tokens
):
    """Fill lo, hi, depth and match_len for every position of ids (B, T); see `CorpusIndex.match`."""
    num_rows, length = ids.shape
    text, nodes, steps = index.text, index.nodes, index.steps
    symbols, n = steps.symbols, text.num_tokens
    num_symbols = symbols.size // 4 - 1
    num_starts = np.int64(index.num_starts)
    start_matches = num_starts >= min_count and max_order != 0
    lanes = walkers.lo.size
    for row in range(0, num_rows, lanes):
        width = min(lanes, num_rows - row)
        for g in range(width):
            walkers.started[g] = starts[row + g]
            walkers.known[g] = 1 if starts[row + g] else 0
            whole = starts[row + g] and start_matches
            walkers.lo[g], walkers.hi[g], walkers.depth[g] = 0, num_starts if whole else n, 1 if whole else 0
        for t in range(length):
            for g in range(width):
                c = ids[row + g, t]
                if t + 1 < length:
                    prefetch(symbols, 4 * ids[row + g, t + 1])
                lo, hi, depth = walkers.lo[g], walkers.hi[g], walkers.depth[g]
                started, known = walkers.started[g], walkers.known[g]
                if c == end_of_document:
                    started, known = True, np.int64(1)
                    lo = np.int64(0)
                    hi, depth = (num_starts, np.int64(1)) if start_matches else (n, np.int64(0))
                else:
                    known += 1
                    if c >= num_symbols or symbols[4 * c + 4] == symbols[4 * c]:  # continued nowhere
                        lo, hi, depth = np.int64(0), n, np.int64(0)
                    else:
                        lo, hi, depth = _grown(text, nodes, steps, c, lo, hi, depth, min_count)
                        if max_order >= 0 and depth > max_order:
                            depth = max_order
                            lo, hi = node_around(text, nodes, lo, hi, depth)
                walkers.lo[g], walkers.hi[g], walkers.depth[g] = lo, hi, depth
                walkers.started[g], walkers.known[g] = started, known
                b = row + g
                out_lo[b, t] = lo
                out_hi[b, t] = hi
                out_depth[b, t] = depth
                out_len[b, t] = depth - (1 if started and depth == known else 0)
