"""The chains of a batch in several indexes at once: counted in each, and added node by node at the union of depths.

Naively: index all documents together and ask that. Here every shard matches the batch and gives the nodes of its own
chains. The suffixes of a context stand at the same places in the whole corpus just where they do so in every shard, so
the nodes of the whole are at the union of the shards' depths. At such a depth a shard whose match is shorter adds
nothing, any other the node that spans it: occurrences and continuations add, token by token. Left extensions are a
union of (symbol before, token) pairs: those of a node that ends at this depth are read from the text before its
occurrences, and a node that goes on has one symbol before all of them.

All whole numbers are those that one index over all documents counts, and so are the orders of every sum after them.

Cost: that of each shard's match and rows; with left extensions, the occurrences of every node (a cold read each).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import union_nodes, union_pairs
from corpus_index.core.chains import Gathered, Losses
from corpus_index.core.matching import Matcher
from corpus_index.sharded.asking import ask_all
from corpus_index.sharded.row_store import RowStore
from corpus_index.sharded.shard_answers import Pairs, ShardChains, ShardNodes, chains_in, entries_in, losses_in
from corpus_index.sharded.tables import added, merged, ranges


def union_chains(
    shards: Sequence[Matcher],
    first_positions: np.ndarray,
    root: tuple[np.ndarray, np.ndarray],
    root_pairs: Pairs | None,
    input_ids: ArrayLike,
    *,
    max_order: int | None,
    starts_document: bool | ArrayLike,
    left: bool,
    only_last: bool,
    store: RowStore | None = None,
) -> Gathered:
    """The chains of a batch in the union of some indexes.

    Parameters
    ----------
    shards : sequence of Matcher
        Of one vocabulary.
    first_positions : ndarray of shape (S + 1,), int64
        Where each shard's text begins in the whole, and the end.
    root : (symbol_counts, left_counts)
        Of the whole: (V,) int64 each; left_counts only where they are wanted.
    root_pairs : Pairs or None
        Of the whole; needed for left extensions.
    input_ids, max_order, starts_document, left, only_last
        As in `core.chains.gather`.
    store : RowStore, optional
        Where rows of wide contexts are looked for, and kept.
    """

    question = partial(
        chains_in,
        input_ids=input_ids,
        max_order=max_order,
        starts_document=starts_document,
        only_last=only_last,
    )
    symbol_counts, left_counts = root
    found = ask_all(question, shards)
    depth, match_len = _deepest(found)
    offsets, depths, rows, unique, first = _spanned(found)
    nodes = [
        ShardNodes(unique[:, 3 * k], unique[:, 3 * k + 1], unique[:, 3 * k + 2] > 0, unique[:, -1])
        for k in range(len(shards))
    ]
    stored, wide, asked = np.full(unique.shape[0] + 1, -1), np.zeros(0, np.int64), nodes
    if store is not None:
        wide = np.flatnonzero((unique[:, 1:-1:3] - unique[:, :-1:3]).sum(axis=1) > store.light)
        wide = wide[np.argsort(unique[wide, -1], kind="stable")]
        stored[wide] = store.find(unique, wide)
        asked = [node.but(stored[:-1] >= 0) for node in nodes]
    parts = ask_all(entries_in, shards, [(node, left) for node in asked])
    pairs = merged(parts)
    row, token, count = pairs
    lefts = np.zeros(row.size, np.int64)
    if left:
        row, token, count, lefts = _summed(pairs, shards[0].vocab_size + 1)
    if store is not None:
        new = wide[(stored[wide] < 0) & (np.bincount(row, minlength=unique.shape[0])[wide] > 1)]
        if new.size:
            above = first[new] + 1  # the next shorter context of some position
            kept = pairs if left and store.keeps_pairs else None
            _keep_rows(store, new, unique, stored, rows[above], depths[above], (row, token, count, lefts), kept)
            here = stored[row] < 0
            row, token, count, lefts = row[here], token[here], count[here], lefts[here]
    there = np.flatnonzero(symbol_counts)
    sizes = np.append(np.bincount(row, minlength=unique.shape[0]), there.size)

    def without(units: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Losses:
        totals = None
        if left and root_pairs is not None:
            totals = partial(_totals, unique.shape[0], pairs, root_pairs, left_counts, stored, store)
        return _without(shards, first_positions, nodes, rows, units, (begins, ends), totals)

    return Gathered(
        match_len=match_len,
        depth=depth,
        offsets=offsets,
        depths=depths,
        rows=rows,
        row_offsets=np.append(0, np.cumsum(sizes)).astype(np.int64),
        row_tokens=np.concatenate([token, there]),
        row_counts=np.concatenate([count, symbol_counts[there]]),
        row_lefts=np.concatenate([lefts, left_counts[there] if left else np.zeros(there.size, np.int64)]),
        without=without,
        stored=stored,
        kept=None if store is None else store.stored(),
    )


def _deepest(found: Sequence[ShardChains]) -> tuple[np.ndarray, np.ndarray]:
    """The depth and length of each position's longest match."""
    depth, match_len = found[0].depth.copy(), found[0].match.match_len.copy()
    for chains in found[1:]:
        deeper = chains.depth > depth
        depth[deeper], match_len[deeper] = chains.depth[deeper], chains.match.match_len[deeper]
    return depth, match_len


def _spanned(found: Sequence[ShardChains]) -> tuple[np.ndarray, ...]:
    """The nodes of the union: offsets, depths and lines of each position's; the distinct lines, where each is first."""
    bounds = np.append(0, np.cumsum([chains.keys.size for chains in found]))
    keys, lo, hi, depths = (
        np.concatenate(part) for part in zip(*((one.keys, one.lo, one.hi, one.depths) for one in found), strict=True)
    )
    room, scratch = keys.size, np.empty((2, len(found)), np.int64)
    offsets, union_depths, rows, first = (
        np.empty(size, np.int64) for size in (found[0].depth.size + 1, room, room, room)
    )
    lines = np.empty((room, 3 * len(found) + 1), np.int64)
    places = np.full(1 << (2 * room).bit_length(), union_nodes.FREE, np.int64)
    size = union_nodes.span_nodes(
        bounds, keys, lo, hi, depths, *scratch, offsets, union_depths, rows, lines, first, places
    )
    used = int(offsets[-1])
    return offsets, union_depths[:used], rows[:used], lines[:size], first[:size]


def _summed(pairs: tuple[np.ndarray, ...], width: int) -> tuple[np.ndarray, ...]:
    """(row, token, count, distinct symbols before) of pairs."""
    row, token, count, lefts = np.empty((4, pairs[0].size), np.int64)
    used = union_pairs.sum_pairs(*pairs, width, row, token, count, lefts)
    return row[:used], token[:used], count[:used], lefts[:used]


def _joined(parts: Sequence[tuple[np.ndarray, ...]]) -> list[np.ndarray]:
    """The columns of several tables, one below the other."""
    return [np.concatenate(column) for column in zip(*parts, strict=True)]


def _keep_rows(
    store: RowStore,
    new: np.ndarray,
    unique: np.ndarray,
    stored: np.ndarray,
    above: np.ndarray,
    above_depths: np.ndarray,
    entries: tuple[np.ndarray, ...],
    pairs: tuple[np.ndarray, ...] | None,
) -> None:
    """Keep the rows `new`, ascending in depth; above: the rows of their next shorter contexts. Fills `stored`."""
    place_of = np.full(unique.shape[0] + 1, -1)
    place_of[new] = np.arange(new.size)
    parents = np.where(stored[above] >= 0, stored[above], -2 - place_of[above])
    orphans = (stored[above] < 0) & (place_of[above] < 0)
    parents[orphans] = -2 - np.flatnonzero(orphans)  # of itself, which has no number yet: it isn't kept
    parents[above_depths == 0] = -1
    begin, end = np.searchsorted(entries[0], new), np.searchsorted(entries[0], new, side="right")
    _, places = ranges(begin, end)
    sizes = np.append(0, np.cumsum(end - begin))
    token, count, lefts = (part[places] for part in entries[1:])
    kept = None
    if pairs is not None:
        begin, end = np.searchsorted(pairs[0], new), np.searchsorted(pairs[0], new, side="right")
        _, places = ranges(begin, end)
        kept = np.append(0, np.cumsum(end - begin)), pairs[1][places], pairs[2][places]
    stored[new] = store.keep(unique[new], unique[new, -1], parents, above_depths, sizes, token, count, lefts, kept)


def added_pairs(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of a union."""
    codes, where = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
    counts = np.zeros(codes.size, np.int64)
    np.add.at(counts, where.reshape(-1), np.concatenate([part.counts for part in parts]))
    return Pairs(codes, counts)


def _without(
    shards: Sequence[Matcher],
    first_positions: np.ndarray,
    nodes: Sequence[ShardNodes],
    rows: np.ndarray,
    units: np.ndarray,
    stretches: tuple[np.ndarray, np.ndarray],
    totals: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
) -> Losses:
    """What the union's nodes lose with stretches of text, each inside of one shard; see `Gathered`.

    totals: how often the union has pairs in rows, where left extensions count: a pair is lost where all that the union
    has of it are lost.
    """
    num_rows = int(nodes[0].lo.size)
    asked = np.flatnonzero(units >= 0)
    question, where = np.unique(units[asked] * (num_rows + 1) + rows[asked], return_inverse=True)
    unit_of, row_of = question // (num_rows + 1), question % (num_rows + 1)
    used = np.unique(unit_of)
    shard_of = np.searchsorted(first_positions, stretches[0][used], side="right") - 1
    holders = np.unique(shard_of).tolist()
    mine, arguments = [], []
    for k in holders:
        here = used[shard_of == k]
        mine.append(np.flatnonzero(np.isin(unit_of, here)))
        row, first = row_of[mine[-1]], first_positions[k]
        inner = row < num_rows
        lo, hi = np.zeros(row.size, np.int64), np.full(row.size, first_positions[k + 1] - first)
        depths = np.zeros(row.size, np.int64)
        lo[inner], hi[inner], depths[inner] = (part[row[inner]] for part in (nodes[k].lo, nodes[k].hi, nodes[k].depths))
        bounds = np.append(np.searchsorted(unit_of[mine[-1]], here), row.size)
        begins, ends = (places[here] - first for places in stretches)
        arguments.append((begins, ends, bounds, lo, hi, depths, totals is not None))
    answers = ask_all(losses_in, [shards[k] for k in holders], arguments)
    nothing = np.zeros(0, np.int64)
    found = [(which[of], codes, counts) for which, (of, codes, counts) in zip(mine, answers, strict=True)]
    key, code, count = added(*_joined([(nothing, nothing, nothing), *found]))
    width = shards[0].vocab_size + 1
    gone = np.zeros(count.size, np.int64)
    if totals is not None and count.size:
        gone = (totals(row_of[key], code) == count).astype(np.int64)
    key, token, occurrences, lefts = added(key, code // width, count, gone)
    lists = np.full(units.size, -1)
    lists[asked] = where.reshape(-1)
    offsets = np.searchsorted(key, np.arange(question.size + 1))
    return Losses(lists, row_of, offsets, token, occurrences, lefts)


def _totals(
    num_rows: int,
    pairs: tuple[np.ndarray, ...],
    root_pairs: Pairs,
    left_counts: np.ndarray,
    stored: np.ndarray,
    store: RowStore | None,
    rows: np.ndarray,
    codes: np.ndarray,
) -> np.ndarray:
    """How often the union has each (row, pair)."""
    totals = np.empty(rows.size, np.int64)
    numbers, tokens = stored[rows], codes // (left_counts.size + 1)
    at_root, in_store = rows == num_rows, numbers >= 0
    here = ~at_root & ~in_store
    of_rows = np.searchsorted(pairs[0], np.arange(num_rows + 1))
    of_tokens = np.append(0, np.cumsum(left_counts))
    asked = [
        (at_root, root_pairs, of_tokens[tokens[at_root]], of_tokens[tokens[at_root] + 1]),
        (here, Pairs(*pairs[1:]), of_rows[rows[here]], of_rows[rows[here] + 1]),
    ]
    if store is not None:
        kept = store.pairs()
        begins, ends = np.empty((2, int(in_store.sum())), np.int64)
        union_pairs.find_tokens(kept, numbers[in_store], tokens[in_store], begins, ends)
        asked.append((in_store, Pairs(kept.codes, kept.counts), begins, ends))
    for which, known, begins, ends in asked:
        found = np.empty(begins.size, np.int64)
        union_pairs.count_pairs(known.codes, known.counts, begins, ends, codes[which], found)
        totals[which] = found
    return totals
