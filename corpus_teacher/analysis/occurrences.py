"""Where sequences occur in one shard, as servers of infini-gram's answers list it; it runs where the shard is open."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

Ints = npt.NDArray[np.int64]
Cnf = list[list[Ints]]


def segments_in(shard: CorpusIndex, ids: Ints) -> list[tuple[int, int]]:
    """Ranks of the occurrences that a token follows, and places in the list of those at documents' ends."""
    if not ids.size:
        return [(0, int(shard.num_tokens)), (0, 0)]
    symbols = shard.symbols_of(ids)
    if (symbols >= shard.num_symbols).any():
        return [(0, 0), (0, 0)]
    inside = shard.match_nodes(ids[None], max_order=ids.size)[0] if ids.size else None
    assert inside is not None
    lo, hi, length = (int(part[0, -1]) for part in inside)
    before = (0, int(shard.num_tokens)) if ids.size == 1 else _inner_range(shard, ids[:-1])
    keys = np.array(before, np.uint64) | (np.uint64(int(symbols[-1])) << np.uint64(32))
    first, stop = np.searchsorted(shard.array("endings"), keys).tolist()
    return [(lo, hi) if length == ids.size else (0, 0), (first, max(first, stop))]


def _inner_range(shard: CorpusIndex, ids: Ints) -> tuple[int, int]:
    match = shard.match_nodes(ids[None], max_order=ids.size)[0]
    lo, hi, length = (int(part[0, -1]) for part in match)
    return (lo, hi) if length == ids.size else (0, 0)


def met_in(shard: CorpusIndex, cnf: Cnf, most: int) -> Ints:
    """The first place of each group of terms, one of each clause, that stand near in one document of a shard."""
    # distances count a separator between documents, as there; an end-of-document token is one
    apart = shard.end_of_document is None
    clauses = [np.concatenate([shard.positions(term) for term in clause]) for clause in cnf]
    if apart:
        clauses = [places + shard.document_of(places) if places.size else places for places in clauses]
    if any(not one.size for one in clauses):
        return np.empty(0, np.int64)
    clauses.sort(key=lambda places: places.size)
    left = right = clauses[0]
    for places in (np.sort(one) for one in clauses[1:]):
        before = np.searchsorted(places, right, side="left") - 1
        after = np.searchsorted(places, left, side="left")
        has_before, has_after = before >= 0, after < places.size
        new_left = np.minimum(left, places[np.maximum(before, 0)])
        new_right = np.maximum(right, places[np.minimum(after, places.size - 1)])
        near_left = has_before & (new_left + most >= left)
        near_right = has_after & (new_right <= right + most)
        both = near_left & near_right
        only_left, only_right = near_left & ~both, near_right & ~both
        order = np.argsort(
            np.concatenate([np.flatnonzero(both), np.flatnonzero(only_left), np.flatnonzero(only_right)]), kind="stable"
        )
        lefts = np.concatenate([new_left[both], new_left[only_left], left[only_right]])
        rights = np.concatenate([new_right[both], right[only_left], new_right[only_right]])
        left, right = lefts[order], rights[order]
    starts = np.asarray(shard.doc_starts) + (np.arange(shard.num_documents + 1) if apart else 0)
    document = np.searchsorted(starts, left, side="right") - 1
    together = document == np.searchsorted(starts, right, side="right") - 1
    met: Ints = (left - document if apart else left)[together]
    return met
