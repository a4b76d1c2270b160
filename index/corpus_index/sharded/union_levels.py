"""The suffixes of one context in several indexes, for `explain`."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from corpus_index.core.matching import as_context
from corpus_index.sharded.sharded_index import ShardedIndex
from corpus_index.targets.explain import Level, levels_of


@levels_of.register
def _(index: ShardedIndex, context: ArrayLike, max_order: int | None, starts_document: bool, left: bool) -> list[Level]:
    """Those of all shards together; see `targets.explain.levels_of`."""
    ids = as_context(context, index.vocab_size)
    chains = index.gathered(ids[None], max_order=max_order, starts_document=starts_document, left=left, only_last=True)
    deepest, longest = int(chains.depth[0, -1]), int(chains.match_len[0, -1])
    levels = []
    for node in range(chains.depths.size - 2, -1, -1):
        row = int(chains.rows[node])
        part = slice(int(chains.row_offsets[row]), int(chains.row_offsets[row + 1]))
        tokens, counts, lefts = chains.row_tokens[part], chains.row_counts[part], chains.row_lefts[part]
        depth = int(chains.depths[node])
        for order in range(int(chains.depths[node + 1]) + 1, depth + 1):
            before = lefts if order == depth else np.ones(tokens.size, np.int64)  # one symbol stands before all
            from_start = deepest > longest and order == deepest
            levels.append(Level(order, node, from_start, tokens, counts, before.copy))
    return levels
