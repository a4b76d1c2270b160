"""Several indexes that answer as one: a corpus larger than memory, cut at document boundaries.

Each module makes its way of asking shards known to the function that asks an index (`functools.singledispatch`).
"""

from corpus_index.sharded import sharded_request, union_duplicates, union_evidence, union_levels, union_ngrams
from corpus_index.sharded.sharded_index import ShardedIndex, open_index

__all__ = [
    "ShardedIndex",
    "open_index",
    "sharded_request",
    "union_duplicates",
    "union_evidence",
    "union_levels",
    "union_ngrams",
]
