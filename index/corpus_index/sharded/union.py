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
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels.jit import processors
from corpus_index.core.answers import Match
from corpus_index.core.chains import Gathered, Losses, chains_of
from corpus_index.core.matching import Matcher
from corpus_index.sharded.row_store import WIDE, RowStore

_DEEP = 2**31  # more than any depth
START = -1
"""The symbol before the first token of a document."""

_One = TypeVar("_One")
_Other = TypeVar("_Other")


class Pairs(NamedTuple):
    """Distinct (symbol before, token) and how often each occurs: codes, ascending, `token · (V + 1) + symbol + 1`."""

    codes: np.ndarray
    counts: np.ndarray


class _Chains(NamedTuple):
    """One shard's chains."""

    match: Match
    depth: np.ndarray
    keys: np.ndarray  # position << 32 | how far from the deepest: ascending
    lo: np.ndarray
    hi: np.ndarray
    depths: np.ndarray


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

    shape = np.shape(input_ids)

    def ask(shard: Matcher) -> _Chains:
        if only_last and shape[-1] == 0:  # nothing is known but whether the document begins here
            match, depth = _at_start(shard, shape[0], max_order, bool(starts_document))
        else:
            match, depth = shard.match_nodes(input_ids, max_order=max_order, starts_document=starts_document)
        if only_last:
            match, depth = Match(*(np.ascontiguousarray(part[:, -1:]) for part in match)), depth[:, -1:].copy()
        offsets, lo, hi, depths = chains_of(shard, match.lo.reshape(-1), match.hi.reshape(-1), depth.reshape(-1))
        of = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
        return _Chains(match, depth, (of << 32) + (_DEEP - depths), lo, hi, depths)

    found = side_by_side(ask, shards)
    keys = np.sort(np.concatenate([chains.keys for chains in found]), kind="stable")  # which merges what is in order
    keys = keys[np.append(True, keys[1:] != keys[:-1])] if keys.size else keys
    depths = _DEEP - (keys & (2**32 - 1))
    positions = found[0].depth.size
    offsets = np.searchsorted(keys >> 32, np.arange(positions + 1))
    deepest = np.argmax(np.stack([chains.depth for chains in found]), axis=0)
    depth, match_len = (
        np.take_along_axis(np.stack(parts), deepest[None], axis=0)[0]
        for parts in ([one.depth for one in found], [one.match.match_len for one in found])
    )
    # the node of each shard that spans each node of the union
    columns = []
    for chains in found:
        node = np.searchsorted(chains.keys, keys, side="right") - 1
        there = (node >= 0) & (chains.keys[node] >> 32 == keys >> 32)
        lo, hi = np.where(there, chains.lo[node], 0), np.where(there, chains.hi[node], 0)
        columns += [lo, hi, there & (chains.depths[node] == depths)]
    inner = depths > 0
    table = np.stack([*columns, np.where(inner, depths, 0)], axis=1).astype(np.int64)
    unique, first, numbers = _distinct(table[inner])
    rows = np.full(keys.size, unique.shape[0])  # the last row is the empty context's
    rows[inner] = numbers
    nodes = [
        _Nodes(shard, unique[:, 3 * k], unique[:, 3 * k + 1], unique[:, 3 * k + 2] > 0, unique[:, -1])
        for k, shard in enumerate(shards)
    ]
    stored, wide, asked = np.full(unique.shape[0] + 1, -1), np.zeros(0, np.int64), nodes
    if store is not None:
        wide = np.flatnonzero((unique[:, 1:-1:3] - unique[:, :-1:3]).sum(axis=1) > WIDE)
        wide = wide[np.argsort(unique[wide, -1], kind="stable")]
        stored[wide] = store.find(unique[wide])
        asked = [node.but(stored[:-1] >= 0) for node in nodes]
    parts = side_by_side(_Nodes.entries, asked)
    row, token, count = _added(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    lefts, pairs = np.zeros(row.size, np.int64), None
    if left:
        found_pairs = [node.pairs(*part) for node, part in zip(asked, parts, strict=True)]
        pairs = _added(*(np.concatenate(column) for column in zip(*found_pairs, strict=True)))
        lefts = _run_lengths(pairs[0], pairs[1] // (shards[0].vocab_size + 1))
    if store is not None:
        new = wide[(stored[wide] < 0) & (np.bincount(row, minlength=unique.shape[0])[wide] > 1)]
        if new.size:
            above = np.flatnonzero(inner)[first[new]] + 1  # the next shorter context of some position
            kept = pairs if store.keeps_pairs else None
            _keep_rows(store, new, unique, stored, rows[above], depths[above], (row, token, count, lefts), kept)
            here = stored[row] < 0
            row, token, count, lefts = row[here], token[here], count[here], lefts[here]
    symbol_counts, left_counts = root
    there = np.flatnonzero(symbol_counts)
    sizes = np.append(np.bincount(row, minlength=unique.shape[0]), there.size)

    def without(units: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Losses:
        shard_of = np.searchsorted(first_positions, begins, side="right") - 1
        local = begins - first_positions[shard_of]
        totals = None
        if pairs is not None and root_pairs is not None:
            totals = partial(_totals, unique.shape[0], pairs, root_pairs, stored, store)
        return _without(nodes, shard_of, rows, units, local, ends - begins, totals)

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
    _, places = _ranges(begin, end)
    sizes = np.append(0, np.cumsum(end - begin))
    token, count, lefts = (part[places] for part in entries[1:])
    kept = None
    if pairs is not None:
        begin, end = np.searchsorted(pairs[0], new), np.searchsorted(pairs[0], new, side="right")
        _, places = _ranges(begin, end)
        kept = np.append(0, np.cumsum(end - begin)), pairs[1][places], pairs[2][places]
    stored[new] = store.keep(unique[new], unique[new, -1], parents, above_depths, sizes, token, count, lefts, kept)


def _at_start(shard: Matcher, rows: int, max_order: int | None, starts: bool) -> tuple[Match, np.ndarray]:
    """The match of empty rows: the start of a document, or nothing."""
    begins = starts and max_order != 0
    hi = np.full((rows, 1), shard.num_starts if begins else shard.num_tokens)
    nothing = np.zeros((rows, 1), np.int64)
    return Match(nothing, hi, nothing.astype(np.int32)), np.full((rows, 1), int(begins), np.int32)


def side_by_side(function: Callable[[_One], _Other], asked: Sequence[_One]) -> list[_Other]:
    """Call a function on each of some things, in as many threads as there are processors; kernels release the GIL.

    The threads end with the call, so that a process may be forked at any time.
    """
    workers = min(processors(), len(asked))
    if workers < 2:
        return [function(one) for one in asked]
    with ThreadPoolExecutor(workers, thread_name_prefix="shard") as pool:
        return list(pool.map(function, asked))


def pairs_of_shard(shard: Matcher) -> Pairs:
    """All pairs of one index; O(N log N) time, some 32 N bytes of memory while it runs."""
    table, following = shard.array("symbols")[:, 0].astype(np.int64), shard.array("next_tokens")
    before = np.full(shard.num_tokens, START, np.int64)
    first = int(table[0])
    before[first:] = np.repeat(shard.ids_of(np.arange(shard.num_symbols)).astype(np.int64), np.diff(table))
    codes, counts = np.unique(_codes(shard, following, before), return_counts=True)
    return Pairs(codes, counts)


def added_pairs(parts: Sequence[Pairs]) -> Pairs:
    """The pairs of a union."""
    codes, where = np.unique(np.concatenate([part.codes for part in parts]), return_inverse=True)
    counts = np.zeros(codes.size, np.int64)
    np.add.at(counts, where.reshape(-1), np.concatenate([part.counts for part in parts]))
    return Pairs(codes, counts)


class _Nodes(NamedTuple):
    """One shard's part of the union's nodes: ranks (lo = hi: none), whether its own node ends at their depth."""

    shard: Matcher
    lo: np.ndarray
    hi: np.ndarray
    ends: np.ndarray
    depths: np.ndarray

    def but(self, rows: np.ndarray) -> _Nodes:
        """All but some, which are as if they weren't there."""
        return self._replace(hi=np.where(rows, self.lo, self.hi))

    def entries(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The continuations: (node, token id, count), ascending."""
        shard, there = self.shard, np.flatnonzero(self.hi > self.lo)
        made = shard.rows_of_nodes(
            np.ascontiguousarray(self.lo[there]), np.ascontiguousarray(self.hi[there]), self.depths[there]
        )
        stored = made.stored_offsets.size - 1
        heavy = made.numbers < stored
        at = np.where(heavy, made.numbers, made.numbers - stored)
        begin, end = np.zeros(at.size, np.int64), np.zeros(at.size, np.int64)
        begin[heavy], end[heavy] = made.stored_offsets[at[heavy]], made.stored_offsets[at[heavy] + 1]
        begin[~heavy], end[~heavy] = made.offsets[at[~heavy]], made.offsets[at[~heavy] + 1]
        of, places = _ranges(begin, end)
        from_stored = heavy[of]
        tokens, counts = np.empty(of.size, np.int64), np.empty(of.size, np.int64)
        tokens[from_stored] = shard.ids_of(made.stored_symbols[places[from_stored]])
        counts[from_stored] = made.stored_counts[places[from_stored]]
        tokens[~from_stored] = shard.ids_of(made.symbols[places[~from_stored]])
        counts[~from_stored] = made.counts[places[~from_stored]]
        return there[of], tokens, counts

    def pairs(self, nodes: np.ndarray, tokens: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        """The pairs of each node: (node, code, occurrences); the arguments: what `entries` gave."""
        there = self.hi > self.lo
        going_on = np.flatnonzero(there & ~self.ends)
        before = np.full(self.lo.size, START, np.int64)
        before[going_on] = symbols_before(self.shard, self.lo[going_on], self.depths[going_on])
        spanned = ~self.ends[nodes]
        one = nodes[spanned], tokens[spanned] * (self.shard.vocab_size + 1) + before[nodes[spanned]] + 1
        ending = np.flatnonzero(there & self.ends)
        of, ranks = _ranges(self.lo[ending], self.hi[ending])
        symbols = symbols_before(self.shard, ranks, self.depths[ending][of])
        many = ending[of], _codes(self.shard, self.shard.array("next_tokens")[ranks], symbols)
        found = _counted(*many)
        return (
            np.concatenate([one[0], found[0]]),
            np.concatenate([one[1], found[1]]),
            np.concatenate([counts[spanned], found[2]]),
        )


def symbols_before(shard: Matcher, ranks: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """The token that stands before the last `depth` symbols of each rank's context; `START` where there is none."""
    positions = shard.array("order")[ranks].astype(np.int64)
    starts = shard.doc_starts[shard.document_of(positions)]
    places = positions - depths - 1
    return np.where(
        places >= starts, shard.ids_of(shard.array("tokens")[np.maximum(places, 0)]).astype(np.int64), START
    )


def _without(
    nodes: Sequence[_Nodes],
    shard_of: np.ndarray,
    rows: np.ndarray,
    units: np.ndarray,
    begins: np.ndarray,
    lengths: np.ndarray,
    totals: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
) -> Losses:
    """What the union's nodes lose with stretches of text; see `Gathered`.

    begins: positions in the shard that shard_of names. totals: how often the union has pairs in rows, where left
    extensions count: a pair is lost where all that the union has of it are lost.
    """
    num_rows = int(nodes[0].lo.size)
    asked = np.flatnonzero(units >= 0)
    question, where = np.unique(units[asked] * (num_rows + 1) + rows[asked], return_inverse=True)
    wanted = np.stack([question // (num_rows + 1), question % (num_rows + 1)], axis=1)
    found: list[tuple[np.ndarray, ...]] = []
    for unit in np.unique(wanted[:, 0]).tolist():
        node, begin, end = nodes[shard_of[unit]], int(begins[unit]), int(begins[unit] + lengths[unit])
        shard = node.shard
        ranks = np.sort(np.asarray(shard.position_ranks()[begin:end], np.int64))
        mine = np.flatnonzero(wanted[:, 0] == unit)
        row = wanted[mine, 1]
        inner = row < num_rows
        lo, hi = np.zeros(row.size, np.int64), np.full(row.size, shard.num_tokens)
        lo[inner], hi[inner] = node.lo[row[inner]], node.hi[row[inner]]
        depths = np.zeros(row.size, np.int64)
        depths[inner] = node.depths[row[inner]]
        of, places = _ranges(np.searchsorted(ranks, lo), np.searchsorted(ranks, hi))
        tokens = shard.ids_of(shard.array("next_tokens")[ranks[places]]).astype(np.int64)
        before = np.zeros(tokens.size, np.int64)
        if totals is not None:
            before = symbols_before(shard, ranks[places], depths[of]) + 1
        found.append((mine[of], tokens, before))
    nothing = np.zeros(0, np.int64)
    found.append((nothing, nothing, nothing))
    question, tokens, before = (np.concatenate(column) for column in zip(*found, strict=True))
    width = nodes[0].shard.vocab_size + 1
    key, code, count = _counted(question, tokens * width + before)
    gone = np.zeros(count.size, np.int64)
    if totals is not None and count.size:
        gone = (totals(wanted[key, 1], code) == count).astype(np.int64)
    key, token, occurrences, lefts = _added(key, code // width, count, gone)
    lists = np.full(units.size, -1)
    lists[asked] = where.reshape(-1)
    offsets = np.searchsorted(key, np.arange(wanted.shape[0] + 1))
    return Losses(lists, wanted[:, 1], offsets, token, occurrences, lefts)


def _totals(
    num_rows: int,
    pairs: tuple[np.ndarray, ...],
    root_pairs: Pairs,
    stored: np.ndarray,
    store: RowStore | None,
    rows: np.ndarray,
    codes: np.ndarray,
) -> np.ndarray:
    """How often the union has each (row, pair)."""
    total = np.zeros(rows.size, np.int64)
    at_root = rows >= num_rows
    total[at_root] = root_pairs.counts[np.searchsorted(root_pairs.codes, codes[at_root])]
    in_store = stored[rows] >= 0
    if store is not None:
        total[in_store] = store.pair_counts(stored[rows[in_store]], codes[in_store])
    here = ~at_root & ~in_store
    numbers, asked = pairs[1], codes[here]
    most = int(numbers.max(initial=0)) + 1
    if num_rows >= 2**62 // most:  # too large for one number of both: numbered by what there is
        known, places = np.unique(np.concatenate([numbers, asked]), return_inverse=True)
        numbers, asked = places.reshape(-1)[: numbers.size], places.reshape(-1)[numbers.size :]
        most = known.size
    if asked.size:
        total[here] = pairs[2][np.searchsorted(pairs[0] * most + numbers, rows[here] * most + asked)]
    return total


def _codes(shard: Matcher, tokens: np.ndarray, before: np.ndarray) -> np.ndarray:
    symbols = np.minimum(tokens, shard.num_symbols - 1)  # whatever an unchecked file says
    return np.asarray(shard.ids_of(symbols), np.int64) * (shard.vocab_size + 1) + before + 1


def _distinct(table: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The distinct lines of a table of whole numbers, where each is first, and which one each line is."""
    weights = np.random.default_rng(0).integers(0, 2**63, table.shape[1], np.uint64) | np.uint64(1)
    key = (table.astype(np.uint64) * weights).sum(axis=1, dtype=np.uint64)
    _, first, which = np.unique(key, return_index=True, return_inverse=True)
    which = which.reshape(-1)
    if not np.array_equal(table[first[which]], table):  # two lines with one key
        _, first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)
        which = which.reshape(-1)
    return table[first], first, which


def _run_lengths(rows: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """How many neighbours have the same (row, token), for each run of them."""
    if rows.size == 0:
        return rows
    first = np.flatnonzero(np.append(True, (rows[1:] != rows[:-1]) | (tokens[1:] != tokens[:-1])))
    return np.diff(np.append(first, rows.size))


def _ranges(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All whole numbers of some half-open ranges, and the number of the range that each is of."""
    sizes = ends - begins
    of = np.repeat(np.arange(sizes.size), sizes)
    return of, np.arange(of.size) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


def _added(rows: np.ndarray, codes: np.ndarray, *counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Entries of (row, code) in order, those that are equal added up."""
    if rows.size == 0:
        return rows, codes, *counts
    most = int(codes.max()) + 1
    if int(rows.max()) < 2**62 // most:  # one number for both sorts several times faster
        key = rows * most + codes
        order = np.argsort(key)
        key = key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    else:
        order = np.lexsort((codes, rows))
        first = np.flatnonzero(np.append(True, (np.diff(rows[order]) != 0) | (np.diff(codes[order]) != 0)))
    places = order[first]
    return rows[places], codes[places], *(np.add.reduceat(part[order], first) for part in counts)


def _counted(rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (row, code) in order, and how often each is there."""
    most = int(codes.max(initial=0)) + 1
    if int(rows.max(initial=0)) >= 2**62 // most:
        row, code, count = _added(rows, codes, np.ones(rows.size, np.int64))
        return row, code, count
    key, count = np.unique(rows * most + codes, return_counts=True)
    return key // most, key % most, count
