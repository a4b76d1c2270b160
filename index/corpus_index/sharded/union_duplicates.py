"""What documents share across shards: each shard's own answer, and its documents matched over every other shard.

Naively: compare every position with those of all other documents. Here the longest end of a context that stands in
another document is the longest of those that its own shard and each other shard hold: S − 1 walks over the text.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from corpus_index._kernels import duplicates as kernels
from corpus_index.core.chains import chains_of
from corpus_index.core.duplicates import (
    LONGEST,
    NearDuplicates,
    check_lengths,
    covered_parts,
    named_documents,
    named_pairs,
    near_duplicates,
    shared_across_documents,
)
from corpus_index.core.matching import Matcher
from corpus_index.sharded.sharded_index import ShardedIndex

_BATCH_TOKENS = 1 << 18
_ROWS = 64


@shared_across_documents.register
def _(index: ShardedIndex) -> tuple[np.ndarray, np.ndarray]:
    """Those of all shards together; S − 1 walks over the text."""
    found = [_shared(index, number) for number in range(len(index.shards))]
    return np.concatenate([shared for shared, _ in found]), np.concatenate([partner for _, partner in found])


@near_duplicates.register
def _(
    index: ShardedIndex, lengths: Sequence[int] = (16, 32, 64, 128), *, top: int = 10, top_length: int = 64
) -> NearDuplicates:
    """Those of all shards together; see `core.duplicates.near_duplicates`."""
    wanted = check_lengths(lengths, top, top_length)
    shared, partner = shared_across_documents(index)
    histogram = np.zeros(256, np.int64)
    kernels.count_shared(shared, histogram)
    at_least = histogram[::-1].cumsum()[::-1]
    with_ends, at_end = _with_ends(index, shared, int(wanted.min()))
    covered = np.asarray(kernels.count_covered(index.doc_starts, with_ends, at_end, wanted))
    documents = named_documents(index, shared, top_length, top)
    pairs = named_pairs(index, shared, partner, top_length, top)
    return NearDuplicates(wanted, at_least[wanted], covered, histogram, top_length, documents, pairs)


def _shared(index: ShardedIndex, number: int) -> tuple[np.ndarray, np.ndarray]:
    """One shard's positions: what they share with another document anywhere, and which one that is."""
    shard = index.shards[number]
    shared, partner = shared_across_documents(shard)
    partner = (partner.astype(np.int64) + index.first_documents[number]).astype(np.uint32)
    for other, found in enumerate(index.shards):
        if other == number:
            continue
        for begin, rows, inside in _rows(shard):
            match, _ = found.match_nodes(rows, max_order=LONGEST)
            length = match.match_len[:, :-1]
            places = (begin[:, None] + np.arange(1, rows.shape[1]))[inside[:, 1:]]
            longer = length[inside[:, 1:]]
            better = longer > shared[places]
            shared[places[better]] = longer[better]
            at = found.array("order")[match.lo[:, :-1][inside[:, 1:]][better]]
            partner[places[better]] = found.document_of(at) + index.first_documents[other]
    return shared, partner


def _rows(shard: Matcher) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The documents in batches of similar length: where they begin, padded rows (B, T), and what isn't padding."""
    starts, batches = shard.doc_starts, []
    sizes = np.diff(starts)
    order = np.argsort(sizes, kind="stable")
    order = order[sizes[order] > 0]
    first = 0
    while first < order.size:
        count = 1
        while count < _ROWS and first + count < order.size:
            if (count + 1) * sizes[order[first + count]] > _BATCH_TOKENS:
                break
            count += 1
        chosen = order[first : first + count]
        width = int(sizes[chosen[-1]])
        inside = np.arange(width) < sizes[chosen][:, None]
        places = np.minimum(starts[chosen][:, None] + np.arange(width), shard.num_tokens - 1)
        rows = np.where(inside, shard.ids_of(shard.array("tokens")[places]).astype(np.int64), 0)
        batches.append((starts[chosen].astype(np.int64), rows, inside))
        first += count
    return batches


def _with_ends(index: ShardedIndex, shared: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """What positions share with others and their ends, from `least` tokens on; and what each end shares."""
    parts = [covered_parts(shard) for shard in index.shards]
    whole = np.maximum(shared, np.concatenate([part for part, _ in parts]))
    at_end = np.concatenate([ends for _, ends in parts])
    tails = [_tails(shard) for shard in index.shards]
    for number in range(len(index.shards)):
        for other, found in enumerate(index.shards):
            if other == number:
                continue
            for document, tail in tails[number]:
                document += int(index.first_documents[number])
                match, depth = found.match_nodes(tail[None], max_order=LONGEST)
                at_end[document] = max(int(at_end[document]), int(match.match_len[0, -1]))
                _raise_sharers(found, match.lo[0, -1], match.hi[0, -1], depth[0, -1], least, whole, index, other)
    _raise_tails(index, tails, at_end)
    return whole, at_end


def _tails(shard: Matcher) -> list[tuple[int, np.ndarray]]:
    """The last tokens of each document that has some, by its number."""
    tokens, starts = shard.array("tokens"), shard.doc_starts
    return [
        (number, shard.ids_of(tokens[max(begin, end - LONGEST) : end]).astype(np.int64))
        for number, (begin, end) in enumerate(pairwise(starts.tolist()))
        if begin < end
    ]


def _raise_sharers(
    shard: Matcher, lo: int, hi: int, depth: int, least: int, whole: np.ndarray, index: ShardedIndex, number: int
) -> None:
    """Positions of a shard whose context ends as a tail does share that much with the tail's document."""
    nodes = chains_of(shard, np.array([lo]), np.array([hi]), np.array([depth], np.int32))[1:]
    first = int(index.first_positions[number])
    for a, e, shares in reversed(list(zip(*(part.tolist() for part in nodes), strict=True))):
        if shares >= least:
            places = shard.array("order")[a:e].astype(np.int64) + first
            whole[places] = np.maximum(whole[places], min(shares, LONGEST))


def _raise_tails(index: ShardedIndex, tails: list[list[tuple[int, np.ndarray]]], at_end: np.ndarray) -> None:
    """Tails that end alike, in different shards: neighbours in the order of their reversed texts share most."""
    listed = [
        (tail[::-1].tolist(), number, document + int(index.first_documents[number]))
        for number, some in enumerate(tails)
        for document, tail in some
    ]
    listed.sort()
    for run in (listed, listed[::-1]):
        reach: dict[int, int] = {}  # of the last tail of each shard, what the current one shares with it
        for place, (text, number, document) in enumerate(run):
            if place > 0:
                common = _common(run[place - 1][0], text)
                reach = {shard: min(length, common) for shard, length in reach.items()}
            others = [length for shard, length in reach.items() if shard != number]
            at_end[document] = max(int(at_end[document]), *others, 0)
            reach[number] = len(text)


def _common(one: list[int], other: list[int]) -> int:
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
