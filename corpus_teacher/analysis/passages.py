"""The passages that a corpus repeats most often, and the lengths of its documents: what its page shows.

Naively: count every n-gram. Here: in context order equal contexts are neighbours, so an n-gram that occurs k times is a
run of k ranks that share n tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from corpus_index import CorpusIndex, ShardedIndex

from corpus_teacher.analysis.reader import Reader

_CANDIDATES = 64
_CHUNK = 1 << 24


@dataclass(frozen=True)
class RepeatedPassage:
    """An n-gram, how often it occurs, its first document and that one's name."""

    text: str
    count: int
    document: int
    name: str | None


@dataclass(frozen=True)
class LengthBin:
    """How many documents have at least `least` and fewer than `below` tokens."""

    least: int
    below: int
    documents: int


def repeated_passages(
    index: CorpusIndex, reader: Reader, num_tokens: int = 16, *, top: int = 10
) -> list[RepeatedPassage]:
    """The n-grams that occur most often; of those that overlap, one.

    Parameters
    ----------
    index : CorpusIndex
        Of one part, or of shards: then each shard names those that it repeats most, which are counted in all; one
        that no shard repeats isn't found.
    reader : Reader
    num_tokens : int
        n, at most 255.
    top : int

    Notes
    -----
    One pass over the shared lengths, O(N).
    """
    parts = index.shards if isinstance(index, ShardedIndex) else [index]
    passages: dict[tuple[int, ...], int] = {}
    for part in parts:
        for passage in _often_repeated(part, num_tokens, top):
            passages.setdefault(tuple(passage.tolist()), index.count(passage))
    found: list[RepeatedPassage] = []
    taken: set[int] = set()
    for key, count in sorted(passages.items(), key=lambda one: -one[1]):
        positions = np.sort(index.positions(list(key), limit=_CANDIDATES))
        blocks = {int(one) // num_tokens for one in positions}
        if taken & {block + step for block in blocks for step in (-1, 0, 1)}:
            continue
        taken |= blocks
        document = int(index.document_of(positions[:1])[0])
        text = reader.text(np.array(key, np.int64))
        found.append(RepeatedPassage(text, count, document, index.document(document).name))
        if len(found) == top:
            break
    return found


def _often_repeated(index: CorpusIndex, num_tokens: int, top: int) -> Iterator[np.ndarray]:
    """N-grams of one index that stand together in its longest runs, inside of documents; some overlap."""
    common, order = index.array("common"), index.array("order")
    last, size = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for first in range(0, common.size, _CHUNK):  # a run that is cut here is seen by its longer part
        same = np.concatenate([[False], np.asarray(common[first : first + _CHUNK]) >= num_tokens, [False]])
        edges = np.flatnonzero(same[1:] != same[:-1]).reshape(-1, 2)
        long = edges[:, 1] - edges[:, 0]
        most = np.argsort(-long, kind="stable")[: _CANDIDATES * top]
        last.append(first + edges[most, 1] - 1)
        size.append(long[most])
    ranks, sizes = np.concatenate(last), np.concatenate(size)
    for rank in ranks[np.argsort(-sizes, kind="stable")[: _CANDIDATES * top]].tolist():
        position = int(order[rank]) - num_tokens
        if position < 0:
            continue
        document = int(index.document_of([position])[0])
        if index.doc_starts[document + 1] >= position + num_tokens:
            yield index.tokens[position : position + num_tokens].astype(np.int64)


def document_lengths(index: CorpusIndex) -> list[LengthBin]:
    """Documents by their tokens, in bins of powers of two."""
    sizes = np.diff(np.asarray(index.doc_starts))
    bins = np.bincount(np.ceil(np.log2(np.maximum(sizes, 1) + 1)).astype(np.int64))
    return [
        LengthBin(0 if number == 0 else 1 << max(0, number - 1), 1 << number, int(count))
        for number, count in enumerate(bins)
        if count
    ]
