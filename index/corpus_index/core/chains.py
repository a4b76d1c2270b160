"""The counts of a chain: all that an estimator has to know of a position, counted but not yet weighed.

A position's *chain* is its context's suffixes that the corpus holds, from the longest match to the empty one. Suffixes
that stand at the same places are one *node*: it stands for the orders from its depth down to the next node's plus one.
Naively: for every suffix, scan the corpus for the tokens that follow (`reference.chains`). Here: one match a position,
the widening ranges of its ranks, and the rows of continuations, each node's made once a batch.

The kernels of `targets` weigh as they count, which is faster and needs one index. Between counting and weighing stands
this type, so that counts of several indexes can be added before they are weighed: at a depth that one index's chain
doesn't reach, it adds nothing; else occurrences, the label's counts and rows of continuations add, token by token, and
classes are counted anew from the sum. (Left extensions are unions of symbols, not sums: they add where the indexes
share none, and else want the symbols themselves, the next deeper contexts.) `estimators.weighing` has the rules.

Cost: a step a position, O(continuations) a node of the batch; with a document left out, its ranks in each node.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import singledispatch
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import chain_nodes, left_out, union_nodes
from corpus_index._kernels.nodes import CAP, shared_by_ranks
from corpus_index.core.answers import Match
from corpus_index.core.checks import as_array
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError

LABEL, TOTAL, ONES, TWOS, MORE = range(5)
"""Columns of counts: of the label, their sum, and how many are 1, 2, 3 and more."""

_AHEAD = 8


class ChainCounts(NamedTuple):
    """The chains of Q positions, E nodes in all, counted after leaving out; tokens are symbols of the index.

    Attributes
    ----------
    offsets : ndarray of shape (Q + 1,), int64
        Position q's nodes are offsets[q] : offsets[q + 1] of the next arrays, the deepest first, the empty context
        last. Nodes that leaving out empties are not among them.
    depths, shallower : ndarrays of shape (E,), int64
        A node stands for the orders from depth down to shallower + 1; the empty context has 0 and −1.
    occurrences, lefts : ndarrays of shape (E, 5), int64
        By the columns LABEL … MORE: how often tokens follow; and after how many distinct symbols each does at the
        node's depth (0 everywhere where they weren't asked for; not to be used at max_order, which counts occurrences).
    from_start : ndarray of shape (Q,), bool
        Whether the position's deepest node begins with its document's start.
    counts_occurrences : ndarray of shape (Q,), bool
        Whether nothing can, or is known to, precede the deepest node, so that its left extensions are its occurrences.
    alone : ndarray of shape (Q,), bool
        Whether just the position's own occurrence is left out.
    labels : ndarray of shape (Q,), int64
        The symbol that follows; −1 where unknown, the number of symbols where the corpus lacks it.
    rows : ndarray of shape (E,), int64
        Where each node's continuations stand, before leaving out: row r is row_offsets[r] : row_offsets[r + 1] of
        row_tokens (ascending), row_counts and row_lefts. Nodes of one batch share rows.
    stored : ndarray of shape (rows,), int64
        Of a row that is empty here, since the index keeps it, the number by which it does; −1 of the others.
    gone : ndarray of shape (E,), int64
        Which list says what leaving out takes from each node; list 0 is empty. Nodes of one batch share lists.
    gone_offsets, gone_tokens, gone_counts, gone_lefts : ndarrays of shape (L + 1,), (G,), (G,), (G,), int64
        The lists: tokens, ascending, and the occurrences and left extensions that a row loses.
    gone_before : ndarray of shape (2, G), int64
        The occurrences and left extensions that the row has of these tokens before it loses them.
    """

    offsets: np.ndarray
    depths: np.ndarray
    shallower: np.ndarray
    occurrences: np.ndarray
    lefts: np.ndarray
    from_start: np.ndarray
    counts_occurrences: np.ndarray
    alone: np.ndarray
    labels: np.ndarray
    rows: np.ndarray
    row_offsets: np.ndarray
    row_tokens: np.ndarray
    row_counts: np.ndarray
    row_lefts: np.ndarray
    stored: np.ndarray
    gone: np.ndarray
    gone_offsets: np.ndarray
    gone_tokens: np.ndarray
    gone_counts: np.ndarray
    gone_lefts: np.ndarray
    gone_before: np.ndarray

    def gone_from(self, node: int) -> slice:
        """The entries of the gone arrays that are a node's."""
        return slice(int(self.gone_offsets[self.gone[node]]), int(self.gone_offsets[self.gone[node] + 1]))

    def continuations(self, node: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What follows a node after leaving out: symbols, ascending, counts and left extensions."""
        row = slice(int(self.row_offsets[self.rows[node]]), int(self.row_offsets[self.rows[node] + 1]))
        gone = self.gone_from(node)
        tokens, counts, lefts = self.row_tokens[row], self.row_counts[row].copy(), self.row_lefts[row].copy()
        places = np.searchsorted(tokens, self.gone_tokens[gone])
        counts[places] -= self.gone_counts[gone]
        lefts[places] -= self.gone_lefts[gone]
        kept = counts > 0
        return tokens[kept], counts[kept], lefts[kept]


class Losses(NamedTuple):
    """What nodes lose with stretches of text, each list of losses written once.

    Attributes
    ----------
    lists : ndarray of shape (E,), int64
        The list of each node; −1: it loses nothing.
    rows : ndarray of shape (L,), int64
        The row that a list is of.
    offsets, tokens, counts, lefts : ndarrays of shape (L + 1,), (G,), (G,), (G,), int64
        As in `ChainCounts`.
    """

    lists: np.ndarray
    rows: np.ndarray
    offsets: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    lefts: np.ndarray

    @classmethod
    def none(cls, nodes: int) -> Losses:
        """No list, for that many nodes."""
        nothing = np.zeros(0, np.int64)
        return cls(np.full(nodes, -1), nothing, np.zeros(1, np.int64), nothing, nothing, nothing)


class KeptRows(NamedTuple):
    """Rows that an index keeps, as kernels take them.

    Attributes
    ----------
    offsets : ndarray of shape (R + 1,), int64
    tokens, counts, lefts : ndarrays of shape (N,), uint16 or uint32, uint32, uint32
    classes : ndarray of shape (R, 2, 4), int64
        Of each row's occurrences, and of its left extensions: their sum, and how many are 1, 2, 3 and more.
    """

    offsets: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    lefts: np.ndarray
    classes: np.ndarray


def nothing_kept() -> KeptRows:
    """No row."""
    nothing = np.zeros(0, np.uint32)
    return KeptRows(np.zeros(1, np.int64), np.zeros(0, np.uint16), nothing, nothing, np.zeros((0, 2, 4), np.int64))


class Gathered(NamedTuple):
    """The chains of a batch before anything is left out; see `ChainCounts` for what has the same name.

    Attributes
    ----------
    match_len, depth : ndarrays of shape (B, T), int
        Of the longest matches: tokens, and symbols.
    offsets, depths, rows, row_offsets, row_tokens, row_counts, row_lefts : ndarrays
    without : callable
        From the number of a stretch for each node, (E,), −1: none, and the begins and ends of these stretches
        (corpus positions) to what the nodes lose with them, a `Losses`.
    stored, kept : ndarray and KeptRows, or None
        As in `ChainCounts`, and the rows that the index keeps.
    """

    match_len: np.ndarray
    depth: np.ndarray
    offsets: np.ndarray
    depths: np.ndarray
    rows: np.ndarray
    row_offsets: np.ndarray
    row_tokens: np.ndarray
    row_counts: np.ndarray
    row_lefts: np.ndarray
    without: Callable[[np.ndarray, np.ndarray, np.ndarray], Losses]
    stored: np.ndarray | None = None
    kept: KeptRows | None = None


@singledispatch
def gather(
    index: Matcher,
    input_ids: ArrayLike,
    *,
    max_order: int | None = None,
    starts_document: bool | ArrayLike = False,
    left: bool = False,
    only_last: bool = False,
    stored: bool = False,
) -> Gathered:
    """The chains of a batch in one index; `corpus_index.sharded.union` has those in several.

    only_last: of the last position of each row. stored: rows that the index keeps need not be written out.
    """
    del stored
    match, depth = index.match_nodes(input_ids, max_order=max_order, starts_document=starts_document)
    if only_last:
        match, depth = Match(*(np.ascontiguousarray(part[:, -1:]) for part in match)), depth[:, -1:].copy()
    offsets, lo, hi, depths = chains_of(index, match.lo.reshape(-1), match.hi.reshape(-1), depth.reshape(-1))
    unique, rows = np.unique(np.stack([lo, hi, depths], axis=1), axis=0, return_inverse=True)
    row_offsets, row_tokens, row_counts, row_lefts = _rows(index, unique, left)

    def without(units: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Losses:
        documents = np.where(units >= 0, index.document_of(begins)[units], -1) if begins.size else units
        return _without_documents(index, documents, rows.reshape(-1), lo, hi, depths, left)

    return Gathered(
        match.match_len,
        depth,
        offsets,
        depths,
        rows.reshape(-1),
        row_offsets,
        row_tokens,
        row_counts,
        row_lefts,
        without,
    )


def counts_of_chains(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike | None = None,
    *,
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
    left: bool = False,
    only_last: bool = False,
    stored: bool = False,
) -> ChainCounts:
    """Count the chain of every position of a batch.

    Parameters
    ----------
    index : Matcher
        One index, or a sharded one.
    input_ids, next_ids : array_like of shape (B, T) or (T,), integer
        Token ids below V, and the token that follows each position, −1 where unknown.
    max_order, starts_document
        As in `Matcher.match`.
    leave_out : {None, "self", "document"}
        Nothing; one occurrence of the context and the label, at every order; or all occurrences in the position's own
        document. Where the label is unknown nothing is left out.
    positions : array_like of shape (B,) or (B, T), integer
        Where in the corpus each row begins, or each token stands (below 0: nowhere, so that a label that is known
        leaves itself out); needed by "document".
    left : bool
        Whether left extensions are wanted.
    only_last : bool
        Only the last position of each row.
    stored : bool
        Whether rows that the index keeps may stay there; then `continuations` doesn't give them.

    Returns
    -------
    ChainCounts

    Raises
    ------
    QueryError
        If an id is out of range, or a shape or an option is wrong.
    """
    if leave_out not in (None, "self", "document"):
        raise QueryError(f"leave_out {leave_out!r} is unknown: choose None, 'self' or 'document'")
    if leave_out is not None and next_ids is None:
        raise QueryError(f"leave_out={leave_out!r} needs next_ids: the token that follows each position")
    ids = as_array(input_ids, "input_ids")
    shape = (1, *ids.shape) if ids.ndim == 1 else ids.shape
    gathered = gather(
        index,
        ids,
        max_order=max_order,
        starts_document=starts_document,
        left=left,
        only_last=only_last,
        stored=stored,
    )
    labels = _labels(index, next_ids, shape)
    units = begins = ends = np.full(labels.size, -1)
    if leave_out == "document":
        documents = _documents(index, positions, shape)
        numbers, units = np.unique(documents, return_inverse=True)
        units = np.where(documents >= 0, units.reshape(-1), -1)
        begins, ends = (np.asarray(index.doc_starts[np.maximum(numbers, 0) + more]) for more in (0, 1))
    held = np.broadcast_to(np.arange(1, shape[1] + 1), shape)
    if only_last:
        labels, held, units = labels.reshape(shape)[:, -1].copy(), held[:, -1:], units.reshape(shape)[:, -1].copy()
    begun = np.broadcast_to(np.asarray(starts_document, np.bool_), shape[:1])
    whole = ((gathered.depth == held) & ~begun[:, None]).reshape(-1)
    return count_gathered(gathered, labels, index.num_symbols, leave_out, (units, begins, ends), whole, left=left)


def count_gathered(
    gathered: Gathered,
    labels: np.ndarray,
    num_symbols: int,
    leave_out: str | None,
    stretches: tuple[np.ndarray, np.ndarray, np.ndarray],
    whole: np.ndarray,
    *,
    left: bool,
) -> ChainCounts:
    """Leave out, and count the labels and classes.

    Parameters
    ----------
    gathered : Gathered
    labels : ndarray of shape (Q,), int64
        As in `ChainCounts`.
    num_symbols : int
    leave_out : {None, "self", "document"}
        "document": the position's stretch of text, whether it is a document or not; itself where it has none.
    stretches : (units, begins, ends)
        The number of each position's stretch, (Q,), −1: none; where each stretch begins and ends.
    whole : ndarray of shape (Q,), bool
        Whether the deepest node is all that is known before the position.
    left : bool
        Whether left extensions are there.
    """
    offsets, depths, rows, row_offsets = gathered.offsets, gathered.depths, gathered.rows, gathered.row_offsets
    row_tokens, row_counts, row_lefts = gathered.row_tokens, gathered.row_counts, gathered.row_lefts
    of = np.repeat(np.arange(labels.size), np.diff(offsets))
    known = (labels >= 0) & (labels < num_symbols)
    stored = np.full(row_offsets.size - 1, -1) if gathered.stored is None else gathered.stored
    kept_rows = nothing_kept() if gathered.kept is None else gathered.kept
    occurrences, lefts = np.empty((of.size, 5), np.int64), np.zeros((of.size, 5), np.int64)
    union_nodes.count_labels(
        offsets,
        rows,
        labels,
        row_offsets,
        row_tokens,
        row_counts,
        row_lefts,
        stored,
        *kept_rows,
        left,
        np.zeros((stored.size, 2, 4), np.int64),
        occurrences,
        lefts,
    )
    own, own_left = occurrences[:, LABEL].copy(), lefts[:, LABEL].copy()
    alone = known & (leave_out is not None) & ((leave_out == "self") | (stretches[0] < 0))
    losses, before = Losses.none(of.size), np.zeros((2, 0), np.int64)
    if leave_out == "document":
        losses = gathered.without(np.where(known, stretches[0], -1)[of], *stretches[1:])
        losing = np.flatnonzero(losses.lists >= 0)
        before = np.empty((2, losses.tokens.size), np.int64)
        changes = np.zeros((losses.rows.size, 2, 4), np.int64)
        here = row_offsets, row_tokens, row_counts, row_lefts, stored
        union_nodes.count_losses(*losses[2:], losses.rows, *here, *kept_rows[:4], before, changes)
        lists = losses.lists[losing]
        own_lost = _of_tokens(lists, labels[of[losing]], *losses[2:])
        for side, (counts, lost_of_label) in enumerate(zip((occurrences, lefts), own_lost, strict=True)):
            counts[losing, TOTAL:] += changes[lists, side]
            counts[losing, LABEL] -= lost_of_label
    if alone.any():
        mine = np.flatnonzero((own > 0) & alone[of])
        deepest = np.zeros(of.size, np.bool_)
        deepest[offsets[:-1]] = True
        above = np.where(deepest[mine], -1, own[mine - 1])  # the label's count one node deeper
        gone = ((above == 1) | (own_left[mine] > own[mine] - 1)).astype(np.int64) * left
        one = np.ones(mine.size, np.int64)
        for counts, old, lost in ((occurrences, own[mine], one), (lefts, own_left[mine], gone)):
            counts[mine, TOTAL:] += _changes(old, old - lost)
            counts[mine, LABEL] -= lost
        losses = _with_own(losses, mine, rows[mine], labels[of[mine]], gone)
        before = np.concatenate([before, [own[mine], own_left[mine]]], axis=1)
    ends = np.zeros(of.size, np.bool_)
    ends[offsets[1:] - 1] = True
    kept = (occurrences[:, TOTAL] > 0) | ends
    from_start = gathered.depth.reshape(-1) > gathered.match_len.reshape(-1)
    deepest_stays = kept[offsets[:-1]] & (np.diff(offsets) > 1)
    shallower = np.append(depths[1:], -1)
    shallower[ends] = -1
    return ChainCounts(
        offsets=np.append(0, np.cumsum(kept))[offsets],
        depths=depths[kept],
        shallower=shallower[kept],
        occurrences=occurrences[kept],
        lefts=lefts[kept],
        from_start=from_start & deepest_stays,
        counts_occurrences=(from_start | (whole & alone)) & deepest_stays,
        alone=alone,
        labels=labels,
        rows=rows[kept],
        row_offsets=row_offsets,
        row_tokens=row_tokens,
        row_counts=row_counts,
        row_lefts=row_lefts,
        stored=stored,
        gone=losses.lists[kept] + 1,
        gone_offsets=np.append(0, losses.offsets),
        gone_tokens=losses.tokens,
        gone_counts=losses.counts,
        gone_lefts=losses.lefts,
        gone_before=before,
    )


def _with_own(losses: Losses, nodes: np.ndarray, rows: np.ndarray, labels: np.ndarray, gone: np.ndarray) -> Losses:
    """Losses with those of nodes that lose one occurrence of their label: a list each."""
    lists, one = losses.lists.copy(), np.ones(nodes.size, np.int64)
    lists[nodes] = losses.rows.size + np.arange(nodes.size)
    return Losses(
        lists,
        np.append(losses.rows, rows),
        np.append(losses.offsets, losses.offsets[-1] + np.cumsum(one)),
        np.append(losses.tokens, labels),
        np.append(losses.counts, one),
        np.append(losses.lefts, gone),
    )


def left_extensions(index: Matcher, lo: int, hi: int, depth: int) -> np.ndarray:
    """After how many distinct symbols each continuation of a node stands, by ascending token: its runs, O(ranks).

    A run is a range of ranks that share one symbol more.
    """
    shared = index.array("common")[lo:hi].astype(np.int64)
    if depth >= CAP:
        text = index.kernel_arrays().text
        for r in np.flatnonzero(shared[1:] == CAP) + 1:
            shared[r] = shared_by_ranks(text, np.int64(lo + r - 1), np.int64(lo + r))
    shared[0] = depth + 1
    runs = np.cumsum(shared == depth)
    symbols = np.minimum(index.array("next_tokens")[lo:hi], index.num_symbols - 1).astype(np.int64)
    distinct = np.unique(runs * index.num_symbols + symbols) % index.num_symbols
    return np.unique(distinct, return_counts=True)[1]


def _labels(index: Matcher, next_ids: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """The symbols that follow, flat; −1 where unknown, the number of symbols where the corpus lacks them."""
    size = int(np.prod(shape))
    if next_ids is None:
        return np.full(size, -1, np.int64)
    ids = as_array(next_ids, "next_ids").reshape(-1)
    if ids.size != size or ids.dtype.kind not in "ui":
        raise QueryError(f"next_ids must be integers of shape {shape}, not {ids.dtype} of shape {np.shape(next_ids)}")
    ids = ids.astype(np.int64)
    if ids.size and not -1 <= int(ids.min()) <= int(ids.max()) < index.vocab_size:
        raise QueryError(f"next_ids must be in −1 .. {index.vocab_size - 1}")
    symbols = np.where(ids >= 0, index.symbols_of(np.maximum(ids, 0)), -1)
    held = np.append(index.symbol_counts > 0, False)
    symbols[(symbols >= 0) & ~held[symbols]] = index.num_symbols
    return symbols


@singledispatch
def chains_of(index: Matcher, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> tuple[np.ndarray, ...]:
    """Offsets (Q + 1,), and the nodes (lo, hi, depth) of all chains, deepest first, the empty context last."""
    arrays, parts, sizes, begin = index.kernel_arrays(), [np.empty((3, 0), np.int64)], [np.empty(0, np.int64)], 0
    while begin < lo.size:
        room = max(int(depth[begin:].max()) + 1, 1 << 16)
        offsets, found = np.empty(lo.size - begin + 1, np.int64), np.empty((3, room), np.int64)
        stop = int(
            chain_nodes.backoff_chains(
                arrays.text, arrays.nodes, lo, hi, depth, begin, offsets, *found, index.num_tokens, _AHEAD
            )
        )
        parts.append(found[:, : offsets[stop - begin]])
        sizes.append(np.diff(offsets[: stop - begin + 1]))
        begin = stop
    ends = np.append(0, np.cumsum(np.concatenate(sizes))).astype(np.int64)
    return ends, *np.concatenate(parts, axis=1)


def _rows(index: Matcher, nodes: np.ndarray, left: bool) -> tuple[np.ndarray, ...]:
    """The continuations of nodes (lo, hi, depth): offsets, tokens, counts, left extensions (0: not asked for)."""
    lo, hi, depth = np.ascontiguousarray(nodes.T)
    made = index.rows_of_nodes(lo, hi, depth)
    stored = made.stored_offsets.size - 1
    stored_lefts, row_depths = index.stored_left_extensions() if left else (None, None)
    tokens, counts, lefts = [], [], []
    for node, number in enumerate(made.numbers.tolist()):
        if depth[node] == 0:
            ids = np.flatnonzero(index.symbol_counts > 0)
            tokens.append(ids)
            counts.append(index.symbol_counts[ids])
            lefts.append(index.left_counts[ids] if left else np.zeros(ids.size, np.int64))
            continue
        heavy = number < stored
        offsets = made.stored_offsets if heavy else made.offsets
        number = number if heavy else number - stored
        part = slice(int(offsets[number]), int(offsets[number + 1]))
        tokens.append((made.stored_symbols if heavy else made.symbols)[part].astype(np.int64))
        counts.append((made.stored_counts if heavy else made.counts)[part].astype(np.int64))
        if not left:
            lefts.append(np.zeros(tokens[-1].size, np.int64))
        elif heavy and stored_lefts is not None and row_depths is not None and 0 < row_depths[number] < CAP:
            same = int(row_depths[number]) == int(depth[node])
            lefts.append(stored_lefts[part].astype(np.int64) if same else np.ones(tokens[-1].size, np.int64))
        else:
            lefts.append(left_extensions(index, int(lo[node]), int(hi[node]), int(depth[node])))
    ends = np.append(0, np.cumsum([part.size for part in tokens])).astype(np.int64)
    empty = [np.empty(0, np.int64)]
    return ends, np.concatenate(tokens or empty), np.concatenate(counts or empty), np.concatenate(lefts or empty)


def _of_tokens(
    rows: np.ndarray, wanted: np.ndarray, offsets: np.ndarray, tokens: np.ndarray, counts: np.ndarray, lefts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The counts and left extensions of a token in each of some rows; 0 where it isn't there."""
    places = np.empty(rows.size, np.int64)
    union_nodes.find_in_rows(offsets, tokens, rows, wanted, places)
    there = places < offsets[rows + 1]
    there[there] = tokens[places[there]] == wanted[there]
    found, found_left = np.zeros(rows.size, np.int64), np.zeros(rows.size, np.int64)
    found[there], found_left[there] = counts[places[there]], lefts[places[there]]
    return found, found_left


def _changes(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """What the columns TOTAL … MORE of each row change by where one of its counts falls: shape (rows, 4)."""
    columns = [after - before]
    for low, high in ((1, 1), (2, 2), (3, np.iinfo(np.int64).max)):
        columns.append(((after >= low) & (after <= high)).astype(np.int64) - ((before >= low) & (before <= high)))
    return np.stack(columns, axis=1)


def _documents(index: Matcher, positions: ArrayLike | None, shape: tuple[int, ...]) -> np.ndarray:
    """The document of the token after each position, flat; −1 where there is none."""
    if positions is None:
        raise QueryError("leave_out='document' needs positions: where in the corpus each row begins")
    places = as_array(positions, "positions")
    if places.shape not in (shape[:1], shape) or places.dtype.kind not in "ui":
        raise QueryError(f"positions must be {shape[0]} integers, or {shape}, not {places.dtype} of {places.shape}")
    places = places.astype(np.int64)
    places = places if places.ndim == 2 else places[:, None] + np.arange(shape[1])
    labelled = places.reshape(-1) + 1
    if (labelled > index.num_tokens).any() or ((places[:, :1] < 0).any() and np.ndim(positions) == 1):
        raise QueryError(f"a row begins or ends outside of the corpus 0 .. {index.num_tokens - 1:,}")
    inside = np.clip(labelled, 0, index.num_tokens - 1)
    return np.where(labelled > 0, index.document_of(inside), -1)


def _without_documents(
    index: Matcher,
    documents: np.ndarray,
    rows: np.ndarray,
    lo: np.ndarray,
    hi: np.ndarray,
    depths: np.ndarray,
    left: bool,
) -> Losses:
    """What each node loses with its document."""
    numbers = np.unique(documents[documents >= 0])
    offsets, ranks = index.document_ranks(numbers)
    following = index.array("next_tokens")
    scratch, heavy = index.thread_memory.scratch_of(index.num_symbols), index.heavy_nodes(left)
    arrays, endings = index.kernel_arrays(), index.array("endings")
    for begin, end in pairwise(offsets.tolist()):
        ranks[begin:end].sort()
    tokens_of = np.minimum(following[ranks], index.num_symbols - 1).astype(np.int64)  # whatever an unchecked file says
    asked = np.flatnonzero(documents >= 0)
    key = np.stack([np.searchsorted(numbers, documents[asked]), rows[asked]], axis=1)
    unique, first, lists = np.unique(key, axis=0, return_index=True, return_inverse=True)
    parts = []
    for document, node in zip(unique[:, 0].tolist(), asked[first].tolist(), strict=True):
        begin, end = offsets[document], offsets[document + 1]
        a, e = begin + np.searchsorted(ranks[begin:end], [lo[node], hi[node]])
        n = left_out.tally_gone(arrays, following, endings, heavy, depths[node], left, ranks, tokens_of, a, e, scratch)
        tokens = scratch.gone_tokens[:n].copy()
        parts.append(
            (tokens, scratch.gone_counts[tokens].astype(np.int64), scratch.gone_lefts[tokens].astype(np.int64))
        )
        scratch.gone_counts[tokens] = scratch.gone_lefts[tokens] = 0
    of_nodes = np.full(documents.size, -1)
    of_nodes[asked] = lists.reshape(-1)
    ends = np.cumsum([0, *(part[0].size for part in parts)]).astype(np.int64)
    nothing = np.zeros(0, np.int64)
    tokens, counts, lefts = (np.concatenate(column) for column in zip((nothing, nothing, nothing), *parts, strict=True))
    return Losses(of_nodes, unique[:, 1], ends, tokens, counts, lefts)
