"""Smoothed distributions for a batch: what an estimator makes of the whole backoff chain of every position.

A smoothed distribution is never written out over V. It is `sparse + rest · base`: the tokens that the context's orders
have seen, explicitly, and the remaining mass on one base distribution that all contexts share.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import flatten, own_rows
from corpus_index._kernels.jit import compile_beside
from corpus_index._kernels.target_arrays import GoneRows, Mixed
from corpus_index.core.checks import check_index, check_seed, check_share, check_whole, is_choice
from corpus_index.core.matching import Matcher
from corpus_index.core.scratch import MOST_LEVELS
from corpus_index.errors import QueryError
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.targets.exclusion import exclusion_probabilities, exclusion_samples, exclusion_targets
from corpus_index.targets.request import LEAVE_OUT, request_of, unknown_leave_out
from corpus_index.targets.types import MixedTargets, RowTable, SparseTargets

_ROOM = 1 << 20  # pairs at a time
_SHORTLIST = 64  # by default; of a larger top_k shortlists are as long
_MOST_DRAWS = 1 << 28  # at once, of all positions


class _Pairs:
    """Pairs (symbol, probability) of all positions, in arrays that grow."""

    def __init__(self, room: int) -> None:
        self.symbols, self.probs = np.empty(room, np.int64), np.empty(room, np.float32)
        self.used = 0

    def make_room(self, more: int) -> None:
        """Grow the arrays where fewer than `more` entries are free."""
        if self.used + more > self.symbols.size:
            room = max(self.used + more, 2 * self.used)
            symbols, probs = np.empty(room, np.int64), np.empty(room, np.float32)
            symbols[: self.used], probs[: self.used] = self.symbols[: self.used], self.probs[: self.used]
            self.symbols, self.probs = symbols, probs

    def of(self, index: Matcher) -> tuple[np.ndarray, np.ndarray]:
        """Token ids and probabilities, without the spare room where that is large."""
        ids, probs = index.ids_of(self.symbols[: self.used]).astype(np.int64, copy=False), self.probs[: self.used]
        return (ids, probs) if 2 * self.used > self.probs.size else (ids.copy(), probs.copy())


def smoothed_targets(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike | None = None,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    top_k: int = 64,
    top_p: float = 1.0,
    shortlist: int | None = 64,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
    only_last: bool = False,
) -> SparseTargets:
    """The smoothed next-token distribution at every position of a batch, from the whole backoff chain.

    Parameters
    ----------
    index : Matcher
    input_ids : array_like of shape (B, T) or (T,), integer
        Token ids below V.
    next_ids : array_like of the same shape, integer, optional
        The token that truly follows each position, −1 where unknown; needed by leave_out.
    estimator : str, path, mapping or Estimator
        A name (fitted on this index at the first use), or see `resolving.resolve_estimator`.
    max_order : int, optional
        Symbols of the longest context that counts; default: no bound. An `Estimator` brings its own.
    leave_out : {None, "self", "document"}
        "self": one occurrence of (context, next token) is taken out at every order before the longest match is chosen,
        as is right for text that is in the index and whose documents don't repeat themselves. "document": all
        occurrences in the position's own document are, for honest evidence. Where the next token
        is unknown, "self" leaves nothing out, and both leave the base as it is. In the base distribution the leaving
        out is exact at the next token; the other tokens keep their proportions.
    top_k : int
        Explicit pairs a position at most; what is cut goes to the base and is reported.
    top_p : float
        Below 1: of these only the likeliest, as many as it takes for an explicit mass of top_p.
    shortlist : int or None
        Of a heavy context (more than `light` occurrences), only that many of the likeliest tokens of its smoothed
        distribution (and the one that follows) are made explicit, or top_k of them if that is above 64; the rest of
        its mass goes to the base and is reported as cut. The lists are made at a context's first use and kept. None:
        whole rows, as slow as they are long; likewise where top_k is the whole vocabulary, whose targets are exact.
        Estimators with exclusion always read whole rows.
    starts_document : bool or array_like of shape (B,), bool
        Which rows begin where a document begins.
    positions : array_like of shape (B,) or (B, T), integer
        Where in the corpus each row begins, or each token stands; needed by leave_out="document". Of shape (B, T) below
        0 for padding, which has no next token.
    only_last : bool
        Only the last position of each row, as generation wants it: Q = B.

    Returns
    -------
    SparseTargets
        Of Q = B · T positions, row by row.

    Raises
    ------
    QueryError
        If an id is out of range, or a shape, name or option is wrong.

    Notes
    -----
    O(rows of the chain) time a position.
    """
    check_whole(top_k, "top_k", 1)
    check_share(top_p, "top_p")
    check_whole(shortlist, "shortlist", 1, most=2**62, none="whole rows")
    check_index(index)
    if not is_choice(leave_out, LEAVE_OUT):
        raise unknown_leave_out(leave_out)
    group = "documents" if leave_out == "document" else "targets"
    compile_beside(group, [flatten.flat_targets], wide=index.num_symbols > 2**16)
    request = request_of(
        index,
        input_ids,
        next_ids,
        estimator=estimator,
        max_order=max_order,
        leave_out=leave_out,
        starts_document=starts_document,
        positions=positions,
        only_last=only_last,
    )
    if request.estimator.excludes:
        return exclusion_targets(request, top_k, top_p)
    nodes, memory = request.heavy, index.thread_memory
    longer, top_k = top_k > _SHORTLIST, min(top_k, index.num_symbols)
    if shortlist is not None and (longer or shortlist >= index.num_symbols):  # or the list would bound it, not top_k
        shortlist = None if top_k == index.num_symbols else max(min(shortlist, index.num_symbols), top_k)
    step = max(1, _ROOM // top_k)
    size = request.labels.size
    offsets = np.zeros(size + 1, np.int64)
    rest, cut = np.empty(size, np.float32), np.empty(size, np.float32)
    match_len, context_count = np.empty(size, np.int32), np.empty(size, np.int64)
    work, pairs = memory.work_of(index.num_symbols), _Pairs(size * min(top_k, 64) + 1)
    for part, begin, end in request.chunks():
        labels, outputs = request.labels[begin:end], (rest[begin:end], cut[begin:end])
        for first in range(0, end - begin, step):
            stop = min(first + step, end - begin)
            pairs.make_room((stop - first) * top_k + 1)
            options = (labels, request.leaves_out, top_k, top_p, first, stop, pairs.used, offsets[begin : end + 1])
            arrays = (pairs.symbols, pairs.probs, *outputs)
            if shortlist is None:
                dense = memory.dense_of(index.num_symbols)
                pairs.used = flatten.whole_targets(nodes, part, request.gone, *dense, work, *options, *arrays)
            else:
                lists = memory.lists_of(request.estimator, request.kinds, nodes, shortlist)
                ancestors = memory.ancestors_of(nodes)
                pairs.used = flatten.flat_targets(
                    request.arrays, nodes, part, request.gone, lists, MOST_LEVELS, work, ancestors, *options, *arrays
                )
        match_len[begin:end], context_count[begin:end] = part.match_len, part.context_count
    return SparseTargets(
        offsets,
        *pairs.of(index),
        rest,
        request.base_distribution,
        match_len,
        request.counted(context_count),
        cut,
    )


def sampled_targets(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike | None = None,
    *,
    draws: int,
    seed: int,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
) -> SparseTargets:
    """Random samples of the exact distributions as targets: each token's share of the draws, and no rest.

    Unbiased: the mean over seeds is the distribution itself, where a truncation's is not (Anshumann et al. 2025).

    Parameters
    ----------
    draws : int
        Draws a position, at least 1.
    seed : int
        The same seed and batch give the same draws.
    estimator, max_order, leave_out, starts_document, positions
        As in `smoothed_targets`.

    Notes
    -----
    O(whole rows of the chain) time a position.
    """
    check_whole(draws, "draws", 1)
    check_seed(seed)
    request = request_of(
        index,
        input_ids,
        next_ids,
        estimator=estimator,
        max_order=max_order,
        leave_out=leave_out,
        starts_document=starts_document,
        positions=positions,
    )
    size, memory = request.labels.size, index.thread_memory
    if draws * size > _MOST_DRAWS:
        raise QueryError(
            f"{draws:,} draws at {size:,} positions are too many at once: ask for at most "
            f"{_MOST_DRAWS // max(1, size):,} draws, or for fewer positions"
        )
    if request.estimator.excludes:
        return exclusion_samples(request, draws, seed)
    generator = np.random.default_rng(seed)
    base, lacking = request.base.probs[: index.num_symbols], index.vocab_size - index.num_symbols
    base_sums = np.cumsum(np.append(base, lacking * request.base.probs[-1]) if lacking else base)
    offsets, match_len = np.zeros(size + 1, np.int64), np.empty(size, np.int32)
    context_count = np.empty(size, np.int64)
    work, dense = memory.work_of(index.num_symbols), memory.dense_of(index.num_symbols)
    pairs = _Pairs(size * min(draws, 64))
    for part, begin, end in request.chunks():
        pairs.make_room((end - begin) * draws)
        chances = np.sort(generator.random((end - begin, draws)), axis=1)
        outputs = (offsets[begin : end + 1], pairs.symbols, pairs.probs)
        pairs.used = flatten.sampled_targets(
            request.heavy, part, request.gone, *dense, work, base_sums, chances, pairs.used, *outputs
        )
        match_len[begin:end], context_count[begin:end] = part.match_len, part.context_count
    nothing = np.zeros(size, np.float32)
    counts = request.counted(context_count)
    if lacking:
        offsets, ids, probs = _with_lacking(index, offsets, pairs, draws, generator)
    else:
        ids, probs = pairs.of(index)
    return SparseTargets(offsets, ids, probs, nothing, request.base_distribution, match_len, counts, nothing.copy())


def _with_lacking(
    index: Matcher, offsets: np.ndarray, pairs: _Pairs, draws: int, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Offsets, ids and shares of what was drawn; the highest symbol is any that the corpus lacks, evenly."""
    size, vocab_size, known = offsets.size - 1, index.vocab_size, index.ids_of(np.arange(index.num_symbols))
    symbols, shares = pairs.symbols[: pairs.used], pairs.probs[: pairs.used]
    rows, there = np.repeat(np.arange(size), np.diff(offsets)), symbols < known.size
    of = np.repeat(rows[~there], np.rint(shares[~there] * draws).astype(np.int64))
    lacked = generator.choice(np.setdiff1d(np.arange(vocab_size), known), of.size)
    keys, counts = np.unique(of * vocab_size + lacked, return_counts=True)
    keys = np.append(rows[there] * vocab_size + known[symbols[there]], keys)
    shares = np.append(shares[there], (counts / draws).astype(np.float32))
    order = np.argsort(keys)
    ends = np.cumsum(np.bincount(keys // vocab_size, minlength=size))
    return np.append(0, ends).astype(np.int64), keys[order] % vocab_size, shares[order]


def mixed_targets(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike | None = None,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
    only_last: bool = False,
) -> MixedTargets:
    """The smoothed distributions of a batch in mixed form: nothing is cut, and no row of a heavy context is copied.

    Parameters and errors as in `smoothed_targets`. O(occurrences of each position's contexts with at most `light` of
    them + heavy contexts of its chain) time a position.
    """
    request = request_of(
        index,
        input_ids,
        next_ids,
        estimator=estimator,
        max_order=max_order,
        leave_out=leave_out,
        starts_document=starts_document,
        positions=positions,
        only_last=only_last,
    )
    size = request.labels.size
    if request.estimator.excludes:  # pairs alone: a token's probability depends on all the rows that have seen it
        whole, none = exclusion_targets(request, index.num_symbols), np.empty(0, np.int64)
        no_rows = (np.zeros(size + 1, np.int64), none, np.empty((0, 4), np.float32), np.zeros(1, np.int64), none, none)
        return MixedTargets(*whole[:3], *no_rows, *whole[3:7])
    offsets, row_offsets = np.zeros(size + 1, np.int64), np.zeros(size + 1, np.int64)
    rest, match_len = np.empty(size, np.float32), np.empty(size, np.int32)
    context_count = np.empty(size, np.int64)
    tokens, probs = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    rows, coefficients = [np.empty(0, np.int64)], [np.empty((0, 4), np.float32)]
    own = _OwnRows(request.heavy.offsets.size - 1)
    for part, begin, end in request.chunks():
        offsets[begin + 1 : end + 1] = offsets[begin] + part.pair_offsets[1:]
        pairs = int(part.pair_offsets[-1])
        tokens.append(index.ids_of(part.pair_tokens[:pairs]).astype(np.int64))  # a copy
        masses, labelled = part.pair_masses[:pairs], part.label_pairs[: end - begin] >= 0
        masses[part.label_pairs[: end - begin][labelled]] += part.label_changes[: end - begin][labelled]
        probs.append(masses.astype(np.float32))
        more_rows, more_coefficients = own.references(part, request.gone, row_offsets[begin : end + 1])
        rows.append(more_rows)
        coefficients.append(more_coefficients)
        rest[begin:end] = part.rest
        match_len[begin:end], context_count[begin:end] = part.match_len, part.context_count
    found = MixedTargets(
        offsets,
        np.concatenate(tokens),
        np.concatenate(probs),
        row_offsets,
        np.concatenate(rows),
        np.concatenate(coefficients),
        *own.arrays(index, request.gone),
        rest,
        request.base_distribution,
        match_len,
        request.counted(context_count),
    )
    return request.with_own_rows(found)


class _OwnRows:
    """A batch's own rows as its references are written: two for each row and kind of count without a document."""

    def __init__(self, num_rows: int) -> None:
        self.num_rows, self.used = num_rows, 0
        self.numbering = np.empty((0, 2), np.int64)

    def references(self, part: Mixed, gone: GoneRows | None, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and coefficients of some positions; offsets: where each one's begin, filled from the second on."""
        refs = int(part.ref_offsets[-1])
        there = 0 if gone is None else int(gone.offsets.size)
        if there > self.numbering.shape[0]:
            more = there - self.numbering.shape[0]
            self.numbering = np.concatenate([self.numbering, np.full((more, 2), -1)])
        room = refs if gone is None else 3 * refs
        rows, coefficients = np.empty(room, np.int64), np.empty((room, 4), np.float32)
        self.used = int(
            own_rows.write_references(
                part,
                offsets.size - 1,
                self.num_rows,
                self.numbering,
                self.used,
                offsets,
                int(offsets[0]),
                rows,
                coefficients,
            )
        )
        size = int(offsets[-1] - offsets[0])
        return rows[:size], coefficients[:size]

    def arrays(self, index: Matcher, gone: GoneRows | None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Offsets, tokens and counts."""
        if gone is None:
            return np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
        chosen = np.empty((self.used, 2), np.int64)
        number, kind = np.nonzero(self.numbering >= 0)
        own = self.numbering[number, kind]
        chosen[own, 0], chosen[own, 1] = number, kind
        room = 2 * int((gone.offsets[chosen[:, 0] + 1] - gone.offsets[chosen[:, 0]]).sum()) + 1
        offsets = np.zeros(2 * self.used + 1, np.int64)
        tokens, counts = np.empty(room, np.int64), np.empty(room, np.int64)
        own_rows.fill_own_rows(gone, chosen, offsets, tokens, counts)
        tokens = index.ids_of(tokens[: offsets[-1]]).astype(np.int64, copy=False)
        return offsets, tokens, counts[: offsets[-1]]


def row_table(index: Matcher, estimator: EstimatorLike = "witten-bell") -> RowTable:
    """The rows that an estimator's mixed targets refer to: memory maps, and left extensions if it counts them."""
    left = index.stored_left_extensions()[0] if fitted(index, estimator).uses_left_counts else None
    return RowTable(
        index.array("row_offsets"), index.ids_of(index.array("row_tokens")), index.array("row_counts"), left
    )


def next_probabilities(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
) -> np.ndarray:
    """The probability of the token that follows each position: shape (Q,), float64; NaN where that is unknown (−1).

    Parameters and errors as in `smoothed_targets`, without making the targets.
    """
    request = request_of(
        index,
        input_ids,
        next_ids,
        estimator=estimator,
        max_order=max_order,
        leave_out=leave_out,
        starts_document=starts_document,
        positions=positions,
        scores=True,
    )
    answer = np.empty(request.labels.size, np.float64)
    if request.estimator.excludes:
        answer = exclusion_probabilities(request)
    else:
        for part, begin, end in request.chunks():
            answer[begin:end] = part.rest
    answer[request.labels < 0] = np.nan
    return answer
