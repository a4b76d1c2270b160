"""How many n-grams of the union occur once, twice, …: what discounts in closed form are fitted on.

Naively: list every n-gram of the corpus and count. Here every shard lists the n-grams that end with some tokens as its
own order has them, and the lists are merged: equal n-grams of all orders come side by side. O(N · (orders + shards))
time, and memory for a few million n-grams, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from corpus_index._kernels import merged_ngrams
from corpus_index.estimators.counts_of_counts import counts_of_counts
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.shard_answers import ngrams_in
from corpus_index.sharded.sharded_index import ShardedIndex

_OCCURRENCES = 1 << 21  # that are listed at a time, or those of one token


@counts_of_counts.register
def _(index: ShardedIndex, highest: int, *, left: bool, most: int = 4) -> np.ndarray:
    """Those of all shards together; see `estimators.counts_of_counts`."""
    size, table = highest + 2, np.zeros((highest + 1, most + 1), np.int64)
    for first, stop in _token_groups(index.symbol_counts):
        found = ask_all(partial(ngrams_in, first=first, stop=stop, size=size), index.shards)
        lists = [each for of_shard in found for each in of_shard]
        ngrams, counts = (np.concatenate(column) for column in zip(*lists, strict=True))
        bounds = np.append(0, np.cumsum([each.size for _, each in lists])).astype(np.int64)
        scratch = np.empty(len(lists), np.int64), np.zeros((2, highest + 1), np.int64)
        merged_ngrams.count_merged(bounds, ngrams, counts, *scratch, left, table)
    return table[:, :most]


def _token_groups(counts: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of ids, first .. stop − 1, that occur a few million times together, or are one id."""
    group = np.cumsum(counts) // _OCCURRENCES
    firsts = np.flatnonzero(np.append(True, np.diff(group) != 0))
    return zip(firsts.tolist(), [*firsts[1:].tolist(), counts.size], strict=True)
