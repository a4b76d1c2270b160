"""What documents share across shards: each shard's own answer, and its documents matched over every other shard.

Naively: compare every position with those of all other documents. Here the longest end of a context that stands in
another document is the longest of those that its own shard and each other shard hold: S − 1 walks over the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np

from corpus_index._kernels import duplicates as kernels
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
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.shard_answers import longer_in, sharers_in, tails_in
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
    [(shared, partner)] = ask_all(shared_across_documents, [shard])
    shared = np.array(shared)  # what comes from elsewhere is read-only
    partner = (partner.astype(np.int64) + index.first_documents[number]).astype(np.uint32)
    others = [other for other in range(len(index.shards)) if other != number]
    for begin, rows, inside in _rows(shard) if others else ():
        places = begin[:, None] + np.arange(1, rows.shape[1])
        known = np.where(inside[:, 1:], shared[np.minimum(places, shard.num_tokens - 1)], LONGEST)
        question = partial(longer_in, rows=rows, than=known)
        for other, (better, length, document) in zip(
            others, ask_all(question, [index.shards[other] for other in others]), strict=True
        ):
            at = places.reshape(-1)[better]
            longer = length > shared[at]
            shared[at[longer]] = length[longer]
            partner[at[longer]] = document[longer] + index.first_documents[other]
    return shared, partner


def _rows(shard: Matcher) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The documents in batches of similar length: where they begin, padded rows (B, T), and what isn't padding."""
    starts = shard.doc_starts
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
        yield starts[chosen].astype(np.int64), rows, inside
        first += count


def _with_ends(index: ShardedIndex, shared: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """What positions share with others and their ends, from `least` tokens on; and what each end shares."""
    parts = ask_all(covered_parts, index.shards)
    whole = np.maximum(shared, np.concatenate([part for part, _ in parts]))
    at_end = np.concatenate([ends for _, ends in parts])
    tails = ask_all(tails_in, index.shards)
    others = [
        [
            (document + int(index.first_documents[number]), tail)
            for number, some in enumerate(tails)
            if number != shard
            for document, tail in some
        ]
        for shard in range(len(index.shards))
    ]
    found = ask_all(sharers_in, index.shards, [([tail for _, tail in some], least) for some in others])
    for first, some, answers in zip(index.first_positions.tolist(), others, found, strict=False):
        for (document, _), (length, sharers) in zip(some, answers, strict=True):
            at_end[document] = max(int(at_end[document]), length)
            for places, shares in sharers:
                whole[places + first] = np.maximum(whole[places + first], shares)
    _raise_tails(index, tails, at_end)
    return whole, at_end


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
