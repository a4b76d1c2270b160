"""The nodes of backoff chains: from a match, its parent, the parent's parent, and so on."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import node_around, parent_depth


@kernel()
def backoff_chains(
    text,  # TextArrays
    nodes,  # NodeArrays
    lo,  # (Q,) int64, the matches: ranks lo .. hi − 1 share depth symbols
    hi,  # (Q,) int64
    depth,  # (Q,) int32
    begin,  # int64, the first match whose chain is wanted
    offsets,  # (Q − begin + 1,) int64, to be filled
    out_lo,  # (room,) int64, to be filled
    out_hi,  # (room,) int64, to be filled
    out_depth,  # (room,) int64, to be filled
    num_ranks,  # int64
    ahead,  # int64, matches whose neighbours are asked for ahead
):
    """Write the chain of nodes of each match from `begin` on, deepest first, the empty context last.

    offsets[q − begin] : offsets[q − begin + 1] of the out arrays hold match q's chain. Stops before a chain that may
    not fit; returns the match to go on from.
    """
    used = np.int64(0)
    offsets[0] = 0
    for q in range(begin, lo.size):
        if used + depth[q] + 1 > out_lo.size:
            return np.int64(q)
        if q + ahead < lo.size:
            prefetch(nodes.common, lo[q + ahead])
            prefetch(nodes.common, hi[q + ahead])
        first, stop, d = lo[q], hi[q], np.int64(depth[q])
        while d > 0:
            out_lo[used], out_hi[used], out_depth[used] = first, stop, d
            used += 1
            d = parent_depth(text, nodes, first, stop, d)
            if d > 0:
                first, stop = node_around(text, nodes, first, stop, d)
        out_lo[used], out_hi[used], out_depth[used] = 0, num_ranks, 0
        used += 1
        offsets[q - begin + 1] = used
    return np.int64(lo.size)
