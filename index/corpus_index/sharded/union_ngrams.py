"""How many n-grams of the union occur once, twice, …: what discounts in closed form are fitted on.

Naively: list every n-gram of the corpus and count. Here the occurrences of some tokens at a time are listed with the
symbols before them and sorted, which puts equal n-grams of all orders side by side: O(N · orders · log N) time, and
memory for a few million n-grams, whatever the size of the corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np

from corpus_index.estimators.counts_of_counts import counts_of_counts
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.shard_answers import START, occurrences_in
from corpus_index.sharded.sharded_index import ShardedIndex

_OCCURRENCES = 1 << 22  # that are sorted at a time, or those of one token
_CHUNK = 1 << 22
_NOTHING = START - 1  # beyond the start of a document


@counts_of_counts.register
def _(index: ShardedIndex, highest: int, *, left: bool, most: int = 4) -> np.ndarray:
    """Those of all shards together; see `estimators.counts_of_counts`."""
    table = np.zeros((highest + 1, most + 1), np.int64)
    for tokens in _token_groups(index.symbol_counts):
        question = partial(occurrences_in, wanted=tokens, symbols=highest + 1, chunk=_CHUNK)
        found = ask_all(question, index.shards)
        columns = [np.concatenate(parts) for parts in zip(*found, strict=True)]
        order = np.lexsort(columns[::-1])
        columns = [column[order] for column in columns]
        begins = np.append(True, np.diff(columns[0]) != 0)
        for size in range(highest + 1):
            deeper = begins | np.append(False, np.diff(columns[size + 1]) != 0)
            first = np.flatnonzero(begins)
            counts = np.diff(np.append(first, begins.size))
            if left and size < highest:
                types = np.diff(np.append(np.cumsum(deeper)[first], int(deeper.sum()) + 1))
                begun = columns[size][first] == START if size > 0 else np.zeros(first.size, np.bool_)
                counts = np.where(begun, counts, types)
            if size > 0:
                counts = counts[columns[size][first] != _NOTHING]
            table[size] += np.bincount(np.minimum(counts, most + 1), minlength=most + 2)[1:]
            begins = deeper
    return table[:, :most]


def _token_groups(counts: np.ndarray) -> Iterator[np.ndarray]:
    """Tokens that occur, in groups that occur a few million times together, by group a mask over V."""
    group = np.cumsum(counts) // _OCCURRENCES
    for number in np.unique(group[counts > 0]).tolist():
        yield (group == number) & (counts > 0)
