"""What one shard answers to an index of many: each function runs where the shard is open; see `asking`.

All numbers that go in and out are the whole's or the shard's own as named; tokens are ids, never symbols, since a
shard's symbols may be its own.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import merged_ngrams, union_nodes, union_pairs
from corpus_index._kernels.arrays import TextArrays
from corpus_index.core.answers import DocumentVotes, Match
from corpus_index.core.chains import chains_of
from corpus_index.core.duplicates import LONGEST
from corpus_index.core.matching import Matcher
from corpus_index.sharded.masked_shard import MaskedShard
from corpus_index.sharded.tables import ranges

_AHEAD = 16
_DEEP = 2**31  # more than any depth
_LONG = 256  # codes of a node that numpy sorts
_CHUNK = 1 << 22  # tokens that are read at a time
START, NOTHING = merged_ngrams.START, merged_ngrams.NOTHING
"""The symbol before the first token of a document, and before that."""


class Pairs(NamedTuple):
    """Distinct (symbol before, token) and how often each occurs: codes, ascending, `token · (V + 1) + symbol + 1`."""

    codes: np.ndarray
    counts: np.ndarray


class ShardChains(NamedTuple):
    """One shard's chains: (B, T) matches and depths, and all nodes.

    Attributes
    ----------
    match : Match
    depth : ndarray of shape (B, T), int32
    keys : ndarray of shape (E,), int64
        position << 32 | how far from the deepest: ascending.
    lo, hi, depths : ndarrays of shape (E,), int64
    """

    match: Match
    depth: np.ndarray
    keys: np.ndarray
    lo: np.ndarray
    hi: np.ndarray
    depths: np.ndarray


class ShardNodes(NamedTuple):
    """One shard's part of the union's nodes.

    Attributes
    ----------
    lo, hi : ndarrays of shape (n,), int64
        Ranks; lo = hi: the shard has none.
    ends : ndarray of shape (n,), bool
        Whether its own node ends at the depth.
    depths : ndarray of shape (n,), int64
    """

    lo: np.ndarray
    hi: np.ndarray
    ends: np.ndarray
    depths: np.ndarray

    def but(self, rows: np.ndarray) -> ShardNodes:
        """All but some, which are as if they weren't there."""
        return self._replace(hi=np.where(rows, self.lo, self.hi))


def counts_of_ids(shard: Matcher) -> np.ndarray:
    """How often each id occurs: shape (V,), int64."""
    counts = np.zeros(shard.vocab_size, np.int64)
    counts[shard.ids_of(np.arange(shard.num_symbols))] += shard.symbol_counts
    return counts


def chains_in(
    shard: Matcher,
    input_ids: ArrayLike,
    max_order: int | None,
    starts_document: bool | ArrayLike,
    only_last: bool,
) -> ShardChains:
    """The chains of a batch; only_last: those of the last position of each row."""
    shape = np.shape(input_ids)
    if only_last and shape[-1] == 0:  # nothing is known but whether the document begins here
        match, depth = _at_start(shard, shape[0], max_order, bool(starts_document))
    else:
        match, depth = shard.match_nodes(input_ids, max_order=max_order, starts_document=starts_document)
    if only_last:
        match, depth = Match(*(np.ascontiguousarray(part[:, -1:]) for part in match)), depth[:, -1:].copy()
    offsets, lo, hi, depths = chains_of(shard, match.lo.reshape(-1), match.hi.reshape(-1), depth.reshape(-1))
    of = np.repeat(np.arange(offsets.size - 1), np.diff(offsets))
    return ShardChains(match, depth, (of << 32) + (_DEEP - depths), lo, hi, depths)


def _at_start(shard: Matcher, rows: int, max_order: int | None, starts: bool) -> tuple[Match, np.ndarray]:
    """The match of empty rows: the start of a document, or nothing."""
    begins = starts and max_order != 0
    hi = np.full((rows, 1), shard.num_starts if begins else shard.num_tokens)
    nothing = np.zeros((rows, 1), np.int64)
    return Match(nothing, hi, nothing.astype(np.int32)), np.full((rows, 1), int(begins), np.int32)


def entries_in(shard: Matcher, nodes: ShardNodes, left: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The continuations of nodes: (node, token id, count), ascending; for left extensions, (node, pair, count)."""
    return _pairs(shard, nodes) if left else _continuations(shard, nodes)


def _continuations(shard: Matcher, nodes: ShardNodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    there = np.flatnonzero(nodes.hi > nodes.lo)
    made = shard.rows_of_nodes(
        np.ascontiguousarray(nodes.lo[there]), np.ascontiguousarray(nodes.hi[there]), nodes.depths[there]
    )
    stored = made.stored_offsets.size - 1
    heavy = made.numbers < stored
    at = np.where(heavy, made.numbers, made.numbers - stored)
    begin, end = np.zeros(at.size, np.int64), np.zeros(at.size, np.int64)
    begin[heavy], end[heavy] = made.stored_offsets[at[heavy]], made.stored_offsets[at[heavy] + 1]
    begin[~heavy], end[~heavy] = made.offsets[at[~heavy]], made.offsets[at[~heavy] + 1]
    of, places = ranges(begin, end)
    from_stored = heavy[of]
    tokens, counts = np.empty(of.size, np.int64), np.empty(of.size, np.int64)
    tokens[from_stored] = shard.ids_of(made.stored_symbols[places[from_stored]])
    counts[from_stored] = made.stored_counts[places[from_stored]]
    tokens[~from_stored] = shard.ids_of(made.symbols[places[~from_stored]])
    counts[~from_stored] = made.counts[places[~from_stored]]
    return there[of], tokens, counts


def _pairs(shard: Matcher, nodes: ShardNodes) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The pairs of nodes: read before each occurrence, or once where a node goes on with one symbol before all."""
    there = np.flatnonzero(nodes.hi > nodes.lo)
    lo, hi, ends, depths = (np.ascontiguousarray(part[there]) for part in nodes)
    offsets = np.append(0, np.cumsum(hi - lo))
    node, code, count = np.empty((3, int(offsets[-1])), np.int64)
    text = _text_of(shard)
    if text is not None:
        ids = np.asarray(shard.ids_of(np.arange(shard.num_symbols)), np.int64)
        width = shard.vocab_size + 1
        union_pairs.fill_pairs(text, shard.array("next_tokens"), ids, lo, hi, ends, depths, width, _AHEAD, code)
    else:
        of, ranks = ranges(lo, hi)
        read = np.flatnonzero(ends[of] | (ranks == lo[of]))
        before = _symbols_before(shard, ranks[read], depths[of[read]])
        before = np.repeat(before, np.diff(np.append(read, ranks.size)))
        code[:] = _codes(shard, shard.array("next_tokens")[ranks], before)
    for one in np.flatnonzero(hi - lo > _LONG).tolist():
        code[offsets[one] : offsets[one + 1]].sort()  # ten times as fast as the kernel's
    used = union_nodes.count_codes(offsets, _LONG, code, node, count)
    return there[node[:used]], code[:used], count[:used]


def pairs_in(shard: Matcher) -> Pairs:
    """All pairs of a shard; O(N log N) time, some 32 N bytes of memory while it runs."""
    whole = shard.whole if isinstance(shard, MaskedShard) else shard
    table, following = whole.array("symbols")[:, 0].astype(np.int64), whole.array("next_tokens")
    before = np.full(whole.num_tokens, START, np.int64)
    first = int(table[0])
    before[first:] = np.repeat(whole.ids_of(np.arange(whole.num_symbols)).astype(np.int64), np.diff(table))
    codes = _codes(whole, following, before)
    if isinstance(shard, MaskedShard):
        codes = np.delete(codes, shard.mask.ranks)
    return Pairs(*np.unique(codes, return_counts=True))


def losses_in(
    shard: Matcher,
    begins: np.ndarray,
    ends: np.ndarray,
    bounds: np.ndarray,
    lo: np.ndarray,
    hi: np.ndarray,
    depths: np.ndarray,
    left: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What nodes lose with stretches of the shard's text.

    Parameters
    ----------
    shard : Matcher
    begins, ends : ndarrays of shape (U,), int64
        The stretches, positions of the shard.
    bounds : ndarray of shape (U + 1,), int64
        Nodes bounds[u] : bounds[u + 1] lose stretch u.
    lo, hi, depths : ndarrays of shape (n,), int64
        The nodes.
    left : bool
        Whether the symbols before are wanted.

    Returns
    -------
    nodes, codes, counts : ndarrays of shape (G,), int64
        Distinct (node, pair) that are lost, ascending, and how often each is; pairs as `Pairs` codes them, with 0 in
        place of the symbol before + 1 where that isn't wanted.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for unit, (first, stop) in enumerate(pairwise(bounds.tolist())):
        ranks = shard.stretch_ranks(int(begins[unit]), int(ends[unit]))
        codes = shard.ids_of(shard.array("next_tokens")[ranks]).astype(np.int64) * (shard.vocab_size + 1)
        places = of_document = around = np.zeros(0, np.int64)
        if left and ranks.size:
            places = shard.array("order")[ranks].astype(np.int64)
            of_document = _starts_of(shard, places, int(begins[unit]), int(ends[unit]))
            origin = int(of_document.min())
            around = shard.ids_of(shard.array("tokens")[origin : int(places.max()) + 1]).astype(np.int64)
            places, of_document = places - origin, of_document - origin
        mine = slice(first, stop)
        begin, end = np.searchsorted(ranks, lo[mine]), np.searchsorted(ranks, hi[mine])
        offsets = np.append(0, np.cumsum(end - begin))
        node, code, count = np.empty((3, int(offsets[-1])), np.int64)
        union_nodes.fill_codes(codes, places, of_document, around, left, begin, end, depths[mine], code)
        for one in np.flatnonzero(end - begin > _LONG).tolist():
            code[offsets[one] : offsets[one + 1]].sort()  # ten times as fast as the kernel's
        used = union_nodes.count_codes(offsets, _LONG, code, node, count)
        found.append((node[:used] + first, code[:used], count[:used]))
    nothing = np.zeros(0, np.int64)
    nodes, codes, counts = (np.concatenate(column) for column in zip((nothing, nothing, nothing), *found, strict=True))
    return nodes, codes, counts


def _starts_of(shard: Matcher, places: np.ndarray, begin: int, end: int) -> np.ndarray:
    """Where the document of each place starts, all of them in begin .. end − 1."""
    first, last = shard.document_of(np.array([begin, end - 1])).tolist()
    if first == last:
        return np.full(places.size, int(shard.doc_starts[first]))
    return shard.doc_starts[shard.document_of(places)].astype(np.int64)


def votes_in(
    shard: Matcher, context: np.ndarray, next_token: int | None, order: int, starts_document: bool
) -> DocumentVotes | None:
    """Which of the shard's documents taught what follows a context whose match is that deep; None: it has none such."""
    votes = shard.documents_of(context, next_token, max_order=order, starts_document=starts_document)
    if context.size:
        depths = shard.match_nodes(context[None], max_order=order, starts_document=starts_document)[1]
        if int(depths[0, -1]) != order:  # its own longest match is a shorter one
            return None
    return votes


def ngrams_in(shard: Matcher, first: int, stop: int, size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """The distinct n-grams of `size` tokens that end with an id of first .. stop − 1, in lists, each ascending.

    The last token of an n-gram stands first; where its document begins, START, and NOTHING beyond that.

    Returns
    -------
    list of (ngrams, counts)
        (n, size) and (n,) int64 each: ids, and how often each is there.
    """
    text = _text_of(shard)
    if text is None:
        return [_read_ngrams(shard, first, stop, size)]
    lo, hi = np.searchsorted(shard.ids_of(np.arange(shard.num_symbols)), [first, stop]).tolist()
    begin, end = np.append(shard.array("symbols")[:, 0].astype(np.int64), shard.num_tokens)[[lo, hi]].tolist()
    endings = shard.array("endings")
    last = endings[slice(*np.searchsorted(endings >> np.uint64(32), [lo, hi]).tolist())]
    ranks = np.minimum(last & np.uint64(2**32 - 1), shard.num_tokens - 1).astype(np.int64)
    lists = []
    # no rank is beyond the last token of a document, so what ends with it is listed apart
    for places, back in ((np.arange(begin, end), 1), (ranks, 0)):
        ngrams, counts = np.empty((places.size, size), np.int64), np.empty(places.size, np.int64)
        used = merged_ngrams.list_ngrams(text, places, back, _AHEAD, ngrams, counts)
        ngrams = ngrams[:used]
        if "alphabet" in shard.array_shapes():
            there = ngrams >= 0
            ngrams[there] = shard.ids_of(ngrams[there])
        lists.append((ngrams, counts[:used]))
    return lists


def _read_ngrams(shard: Matcher, first: int, stop: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`ngrams_in` by reading the text: of shards whose ranks aren't stored, or are those of other documents too."""
    tokens, starts = shard.array("tokens"), shard.doc_starts
    parts = []
    for begin in range(0, shard.num_tokens, _CHUNK):
        part = shard.ids_of(tokens[begin : begin + _CHUNK])
        places = np.flatnonzero((part >= first) & (part < stop)) + begin
        first_of = starts[np.searchsorted(starts, places, side="right") - 1]
        columns = [part[places - begin].astype(np.int64)]
        for back in range(1, size):
            at = places - back
            symbol = shard.ids_of(tokens[np.maximum(at, 0)]).astype(np.int64)
            columns.append(np.where(at >= first_of, symbol, np.where(at == first_of - 1, START, NOTHING)))
        parts.append(np.stack(columns, axis=1))
    found = np.concatenate(parts)
    found = found[np.lexsort(found.T[::-1])]
    distinct = np.flatnonzero(np.append(True, (found[1:] != found[:-1]).any(axis=1)))[: found.shape[0]]
    return found[distinct], np.diff(np.append(distinct, found.shape[0]))


def longer_in(shard: Matcher, rows: np.ndarray, than: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the contexts of some rows (B, T) have longer matches than known: places, lengths, documents that have them.

    than: (B, T − 1), of all positions but the last. Places are those of its entries, flat.
    """
    match, _ = shard.match_nodes(rows, max_order=LONGEST)
    length = match.match_len[:, :-1].reshape(-1)
    better = np.flatnonzero(length > than.reshape(-1))
    at = shard.array("order")[match.lo[:, :-1].reshape(-1)[better]]
    return better, length[better], shard.document_of(at)


def tails_in(shard: Matcher) -> list[tuple[int, np.ndarray]]:
    """The last tokens of each document that has some, by its number."""
    tokens, starts = shard.array("tokens"), shard.doc_starts
    return [
        (number, shard.ids_of(tokens[max(begin, end - LONGEST) : end]).astype(np.int64))
        for number, (begin, end) in enumerate(pairwise(starts.tolist()))
        if begin < end
    ]


def sharers_in(shard: Matcher, tails: list[np.ndarray], least: int) -> list[tuple[int, list[tuple[np.ndarray, int]]]]:
    """What the ends of others' documents share with the shard's text.

    Of each tail, its longest match, and (positions, tokens shared) of contexts that end as it does, from `least` on.
    """
    found = []
    for tail in tails:
        match, depth = shard.match_nodes(tail[None], max_order=LONGEST)
        lo, hi = (part[0, -1:] for part in match[:2])
        nodes = chains_of(shard, lo.copy(), hi.copy(), depth[0, -1:].astype(np.int32))[1:]
        sharers = [
            (shard.array("order")[a:e].astype(np.int64), min(shares, LONGEST))
            for a, e, shares in reversed(list(zip(*(part.tolist() for part in nodes), strict=True)))
            if shares >= least
        ]
        found.append((int(match.match_len[0, -1]), sharers))
    return found


def _text_of(shard: Matcher) -> TextArrays | None:
    """The text as kernels read it; None where ranks aren't stored, or are those of other documents too."""
    text = None if isinstance(shard, MaskedShard) else shard.kernel_arrays().text
    return text if isinstance(text, TextArrays) else None


def _symbols_before(shard: Matcher, ranks: np.ndarray, depths: np.ndarray) -> np.ndarray:
    """The token that stands before the last `depth` symbols of each rank's context; `START` where there is none."""
    positions = shard.array("order")[ranks].astype(np.int64)
    starts = shard.doc_starts[shard.document_of(positions)]
    places = positions - depths - 1
    return np.where(
        places >= starts, shard.ids_of(shard.array("tokens")[np.maximum(places, 0)]).astype(np.int64), START
    )


def _codes(shard: Matcher, tokens: np.ndarray, before: np.ndarray) -> np.ndarray:
    symbols = np.minimum(tokens, shard.num_symbols - 1)  # whatever an unchecked file says
    return np.asarray(shard.ids_of(symbols), np.int64) * (shard.vocab_size + 1) + before + 1
