"""What estimators are fitted on: left extensions of rows, counts of counts, the symbols of short contexts.

Kneser–Ney asks of (h, w) not how often it occurs but after how many distinct symbols. In context order, the occurrences
of a node h that share one more symbol are runs of neighbours: a run ends where the shared length is the node's depth.
So the answer is the number of runs that hold w. The start of a document is a symbol like others; contexts that begin
with it have nothing before them and keep their raw counts.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import symbol_of


@kernel()
def left_extensions(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    lo,  # int64, the node's ranks lo .. hi − 1
    hi,  # int64
    depth,  # int64, its symbols, below 255
    token_ids,  # (·,) uint16 or uint32, rows
    a,  # int64, the node's row is token_ids[a:e]
    e,  # int64
    out,  # (·,) uint32, beside token_ids
    tally,  # (S,) int64, zeros between uses
    seen,  # (S,) int64, −1 between uses
):
    """out[a:e] = in how many runs of the node each token of its row stands.

    tally, seen: scratch, one entry a symbol; tally is left zero, seen must not hold a rank of the node.
    """
    run = lo
    for r in range(lo, hi):
        if r > lo and np.int64(common[r]) == depth:
            run = r
        c = symbol_of(next_tokens, r, tally)
        if seen[c] != run:
            seen[c] = run
            tally[c] += 1
    for k in range(a, e):
        c = np.int64(token_ids[k])
        out[k] = tally[c]
        tally[c] = 0
    # a later node may begin at the same rank
    for r in range(lo, hi):
        seen[symbol_of(next_tokens, r, seen)] = -1


@kernel(allocates=True)
def stored_left_extensions(next_tokens, common, num_symbols, bounds, offsets, row_tokens, depths, out):
    """Left extensions of the stored rows; 1 each where a row's depth isn't known or beyond what `common` tells."""
    tally, seen = np.zeros(num_symbols, np.int64), np.full(num_symbols, -1, np.int64)
    for row in range(depths.size):
        lo, hi, depth = np.int64(bounds[row, 0]), np.int64(bounds[row, 1]), np.int64(depths[row])
        if depth >= 255 or (depth == 0 and hi - lo < next_tokens.size):
            out[offsets[row] : offsets[row + 1]] = 1
        else:
            left_extensions(
                next_tokens, common, lo, hi, depth, row_tokens, offsets[row], offsets[row + 1], out, tally, seen
            )


@kernel()
def row_classes(offsets, counts, out):
    """out (R, 3): of each row, how many counts are 1, how many 2, and the sum."""
    for row in range(offsets.size - 1):
        for k in range(offsets[row], offsets[row + 1]):
            c = np.int64(counts[k])
            out[row, 0] += c == 1
            out[row, 1] += c == 2
            out[row, 2] += c


@kernel(allocates=True)
def count_counts(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    known,  # (N,) uint8, of `mark_short_contexts`
    num_symbols,  # int64, S
    order,  # int64, symbols of a context
    adjusted,  # bool, left extensions instead of occurrences
    lo,  # int64, the slice lo .. hi − 1
    hi,  # int64
    out,  # (·,) int64, how many have each count; out[0]: larger ones
):
    """Add to out[1 .. out.size − 1] how many (h, w), h of that order, have each count; out[0] adds larger ones.

    known[r]: symbols of rank r's context where they are few (at most the orders asked for), else 255. adjusted: the
    count is that of left extensions, raw where h begins with the start. The slice must not cut a node of that order.
    """
    tally, seen = np.zeros(num_symbols, np.int64), np.full(num_symbols, -1, np.int64)
    a = lo
    while a < hi:
        e = a + 1
        while e < hi and np.int64(common[e]) >= order:
            e += 1
        symbols = np.int64(known[a])
        if symbols >= order:
            runs = adjusted and symbols > order
            run = a
            for r in range(a, e):
                if runs and r > a and np.int64(common[r]) == order:
                    run = r
                c = symbol_of(next_tokens, r, tally)
                if not runs:
                    tally[c] += 1
                elif seen[c] != run:
                    seen[c] = run
                    tally[c] += 1
            for r in range(a, e):
                c = symbol_of(next_tokens, r, tally)
                if tally[c] > 0:
                    out[tally[c] if tally[c] < out.size else 0] += 1
                    tally[c] = 0
        a = e


@kernel(allocates=True)
def distinct_left(next_tokens, common, num_symbols, out):
    """out[w] = after how many distinct symbols token w stands: the left extensions of the root."""
    seen = np.full(num_symbols, -1, np.int64)
    run = np.int64(0)
    for r in range(next_tokens.size):
        if r > 0 and common[r] == 0:
            run = r
        c = symbol_of(next_tokens, r, seen)
        if seen[c] != run:
            seen[c] = run
            out[c] += 1
