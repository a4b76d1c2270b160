"""Smoothed distributions for a batch: what an estimator makes of the whole backoff chain of every position.

A smoothed distribution is never written out over V. It is `sparse + rest · base`: the tokens that the context's orders
have seen, explicitly, and the remaining mass on one base distribution that all contexts share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import counting, interpolate
from corpus_index.answers import Match
from corpus_index.errors import QueryError
from corpus_index.estimators import Estimator

if TYPE_CHECKING:
    from corpus_index.answers import Chains, NodeRows
    from corpus_index.query import CorpusIndex

LEAVE_OUT = (None, "self", "document")

_TARGETS: Any = interpolate.interpolated_targets

_CHUNK = 1 << 13  # positions whose chains are held at a time


class Root(NamedTuple):
    """What Kneser–Ney's base distribution is made of: counts, their sum, the sum of their cuts, 1 / words."""

    occurrences: np.ndarray
    counts: np.ndarray
    total: int
    cuts: float
    uniform: float


class HeavyRows(NamedTuple):
    """Of each stored row: counts of 1, of 2, and the sum, raw and of left extensions; places of the largest counts."""

    classes: np.ndarray
    left_classes: np.ndarray
    top_offsets: np.ndarray
    top_places: np.ndarray


class Documents(NamedTuple):
    """Documents to leave out: of each position which one (−1: its own occurrence), and of each its ranks and tokens.

    ranks and tokens are flat, document d's between offsets[d] and offsets[d + 1], each ascending.
    """

    of: np.ndarray
    offsets: np.ndarray
    ranks: np.ndarray
    tokens: np.ndarray
    longest: int


class LeftExtensions(NamedTuple):
    """What Kneser–Ney counts: left extensions of each continuation in stored and own rows; depths of stored rows."""

    stored: np.ndarray
    own: np.ndarray
    depth: np.ndarray


class SparseTargets(NamedTuple):
    """Distributions of Q positions: p(w) = Σ sparse(w) + rest · base(w), each summing to 1 over V.

    Attributes
    ----------
    offsets : ndarray of shape (Q + 1,), int64
        Position q's pairs are entries offsets[q] : offsets[q + 1] of the next two.
    token_ids : ndarray of shape (E,), int64
        Ascending within a position.
    probs : ndarray of shape (E,), float32
        May be a little below 0 at a token whose own occurrence was left out: p isn't.
    rest : ndarray of shape (Q,), float32
        The mass on the base.
    base : ndarray of shape (V,), float32
        The estimator's distribution of the empty context; see `Estimator.base`.
    match_len : ndarray of shape (Q,), int32
        Tokens of the longest context that counted.
    context_count : ndarray of shape (Q,), int64
        Its occurrences, after leaving out.
    cut_mass : ndarray of shape (Q,), float32
        What top_k moved from explicit tokens to the base.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    rest: np.ndarray
    base: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray
    cut_mass: np.ndarray


def smoothed_targets(
    index: CorpusIndex,
    input_ids: ArrayLike,
    next_ids: ArrayLike | None = None,
    *,
    estimator: str | Estimator = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    top_k: int = 64,
    shortlist: int | None = 64,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
    only_last: bool = False,
) -> SparseTargets:
    """The smoothed next-token distribution at every position of a batch, from the whole backoff chain.

    Parameters
    ----------
    index : CorpusIndex
    input_ids : array_like of shape (B, T) or (T,), integer
        Token ids below V.
    next_ids : array_like of the same shape, integer, optional
        The token that truly follows each position, −1 where unknown; needed by leave_out.
    estimator : str or Estimator
        A name (fitted on this index at the first use) or an estimator of `make_estimator`; see there.
    max_order : int, optional
        Symbols of the longest context that counts; default: no bound. An `Estimator` brings its own.
    leave_out : {None, "self", "document"}
        "self": one occurrence of (context, next token) is taken out at every order before the longest match is chosen,
        as is right for text that is in the index and whose documents don't repeat themselves. "document": all
        occurrences in the position's own document are (not with Kneser–Ney), for honest evidence. Where the next token
        is unknown, "self" leaves nothing out, and both leave the base as it is. In the base distribution the leaving
        out is exact at the next token; the other tokens keep their proportions.
    top_k : int
        Explicit pairs a position at most; what is cut goes to the base and is reported.
    shortlist : int or None
        Of a heavy context's row that is more than four times as long, only so many tokens with the largest counts (and
        the one that follows) are made explicit; the rest of the row's mass goes to the base and is reported as cut.
        None: whole rows, as slow as they are long.
    starts_document : bool or array_like of shape (B,), bool
        Which rows begin where a document begins.
    positions : array_like of shape (B,), integer
        Where in the corpus each row begins; needed by leave_out="document".
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
    if top_k < 1:
        raise QueryError(f"top_k {top_k} must be at least 1")
    if shortlist is not None and shortlist < 1:
        raise QueryError(f"shortlist {shortlist} must be at least 1 (None: whole rows)")
    fitted = index.fitted(estimator, max_order)
    ids, labels = _labelled(index, input_ids, next_ids, leave_out)
    top_k = min(top_k, index.num_symbols)
    documents = _documents(index, fitted, ids, leave_out, positions)
    if only_last:
        labels = labels.reshape(ids.shape)[:, -1:].reshape(-1)
        documents = documents._replace(of=documents.of.reshape(ids.shape)[:, -1:].reshape(-1))
    size = labels.size
    offsets = np.zeros(size + 1, np.int64)
    rest, cut = np.empty(size, np.float32), np.empty(size, np.float32)
    reached_len, reached_count = np.empty(size, np.int32), np.empty(size, np.int64)
    all_ids, all_probs = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    for part, begin, end in _parts(index, fitted, ids, starts_document, documents, shortlist, only_last):
        token_ids, probs = np.empty((end - begin) * top_k, np.int64), np.empty((end - begin) * top_k, np.float32)
        part_offsets = np.zeros(end - begin + 1, np.int64)
        used = _TARGETS(
            *part,
            labels[begin:end],
            leave_out is not None,
            top_k,
            part_offsets,
            token_ids,
            probs,
            rest[begin:end],
            cut[begin:end],
            reached_len[begin:end],
            reached_count[begin:end],
        )
        offsets[begin + 1 : end + 1] = offsets[begin] + part_offsets[1:]
        all_ids.append(index.ids_of(token_ids[:used]).astype(np.int64, copy=False))
        all_probs.append(probs[:used])
    left = np.where((labels >= 0) & (leave_out is not None), np.diff(documents.offsets, append=0)[documents.of], 0)
    left = np.where((documents.of < 0) & (labels >= 0) & (leave_out is not None), 1, left)
    reached_count = np.where(reached_count < 0, index.num_tokens - left, reached_count)
    base = index.base_distribution(fitted)
    return SparseTargets(
        offsets, np.concatenate(all_ids), np.concatenate(all_probs), rest, base, reached_len, reached_count, cut
    )


def next_probabilities(
    index: CorpusIndex,
    input_ids: ArrayLike,
    next_ids: ArrayLike,
    *,
    estimator: str | Estimator = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
) -> np.ndarray:
    """The probability of the token that follows each position: shape (Q,), float64; NaN where that is unknown (−1).

    Parameters and errors as in `smoothed_targets`, without making the targets.
    """
    fitted = index.fitted(estimator, max_order)
    ids, labels = _labelled(index, input_ids, next_ids, leave_out, unseen=True)
    answer = np.empty(ids.size, np.float64)
    nothing = np.empty(0, np.float32)
    lengths, counts = np.empty(ids.size, np.int32), np.empty(ids.size, np.int64)
    documents = _documents(index, fitted, ids, leave_out, positions)
    for part, begin, end in _parts(index, fitted, ids, starts_document, documents):
        _TARGETS(
            *part,
            labels[begin:end],
            leave_out is not None,
            0,
            np.empty(0, np.int64),
            np.empty(0, np.int64),
            nothing,
            answer[begin:end],
            nothing,
            lengths[begin:end],
            counts[begin:end],
        )
    answer[labels < 0] = np.nan
    return answer


def _labelled(
    index: CorpusIndex, input_ids: ArrayLike, next_ids: ArrayLike | None, leave_out: str | None, unseen: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, T), and the symbols that follow, flat: −1 where unknown; unseen ones S if wanted, else −1."""
    if leave_out not in LEAVE_OUT:
        raise QueryError(f"leave_out {leave_out!r} is unknown: choose None, 'self' or 'document'")
    ids = np.atleast_2d(np.asarray(input_ids))
    if next_ids is None:
        if leave_out is not None:
            raise QueryError(
                f"leave_out={leave_out!r} needs next_ids: the token that follows each position (−1: unknown)"
            )
        return ids, np.full(ids.size, -1, np.int64)
    labels = np.atleast_2d(np.asarray(next_ids)).astype(np.int64).reshape(-1)
    if labels.size != ids.size:
        raise QueryError(f"next_ids must have the shape of input_ids {ids.shape}, not {np.shape(next_ids)}")
    if labels.size and not -1 <= int(labels.min()) <= int(labels.max()) < index.vocab_size:
        bad = int(labels.min()) if int(labels.min()) < -1 else int(labels.max())
        raise QueryError(f"next id {bad} is outside of −1 .. {index.vocab_size - 1}")
    symbols = np.where(labels >= 0, index.symbols_of(np.maximum(labels, 0)), -1)
    held = np.append(index.symbol_counts > 0, False)  # the last entry: also what −1 looks up
    symbols[(symbols >= 0) & ~held[symbols]] = index.num_symbols if unseen else -1
    return ids, symbols


def _documents(
    index: CorpusIndex,
    estimator: Estimator,
    ids: np.ndarray,
    leave_out: str | None,
    positions: ArrayLike | None,
) -> Documents:
    """The documents that the tokens after each position stand in, with their ranks and tokens."""
    nothing = np.empty(0, np.int64)
    if leave_out != "document":
        return Documents(np.full(ids.size, -1), np.zeros(1, np.int64), nothing, nothing, 0)
    if estimator.is_kneser_ney:
        raise QueryError(f"leave_out='document' is not to be had with {estimator.name}: choose 'self'")
    if positions is None:
        raise QueryError("leave_out='document' needs positions: where in the corpus each row begins")
    begins = np.asarray(positions).reshape(-1)
    if begins.shape != ids.shape[:1] or begins.dtype.kind not in "ui":
        raise QueryError(
            f"positions must be {ids.shape[0]} integers, not {begins.dtype} of shape {np.shape(positions)}"
        )
    following = (begins[:, None] + 1 + np.arange(ids.shape[1])).reshape(-1)
    inside = np.clip(following, 0, index.num_tokens - 1)
    if (inside < following - 1).any() or (following < 1).any():
        raise QueryError(f"a row begins or ends outside of the corpus 0 .. {index.num_tokens - 1:,}")
    numbers, of = np.unique(index.document_of(inside), return_inverse=True)
    offsets, ranks = index.document_ranks(numbers)
    tokens = np.empty(ranks.size, np.int64)
    for a, e, number in zip(offsets[:-1], offsets[1:], numbers, strict=True):
        start = index.doc_starts[number]
        tokens[a:e] = np.sort(index.array("tokens")[start : start + (e - a)])
        ranks[a:e].sort()
    return Documents(of.reshape(-1), offsets, ranks, tokens, int(np.diff(offsets).max(initial=1)))


def _parts(
    index: CorpusIndex,
    estimator: Estimator,
    ids: np.ndarray,
    starts_document: bool | ArrayLike,
    documents: Documents,
    shortlist: int | None = None,
    only_last: bool = False,
) -> Any:
    """The arguments of the kernel, for so many positions at a time as chains have room for."""
    match, depths = index.match_nodes(ids, max_order=estimator.max_order, starts_document=starts_document)
    if only_last:
        match, depths = Match(*(part[:, -1:] for part in match)), depths[:, -1:]
    lo, hi, depth = match.lo.reshape(-1), match.hi.reshape(-1), depths.reshape(-1)
    started = depth - match.match_len.reshape(-1)  # 1 where the match includes the document's start
    unigrams = index.symbol_counts
    pull = 0.0
    if not estimator.is_kneser_ney:
        smooth = 0 if estimator.name == "mle" else int((unigrams > 0).sum())
        leaves_self = documents.longest == 0
        pull = 1.0 / max(1, index.num_tokens - leaves_self + smooth)
    base = estimator.base(index)
    root = Root(unigrams, unigrams, 0, 0.0, 0.0)
    if estimator.is_kneser_ney:
        counts, cuts, uniform = estimator.root(index)
        root = Root(unigrams, counts, int(counts.sum()), float(cuts.sum()), uniform)
    discounts = np.array(estimator.discounts or [(0.0, 0.0, 0.0)], np.float64)
    strengths = np.array(estimator.strengths or [(0.0,)], np.float64)
    max_order = -1 if estimator.max_order is None else estimator.max_order
    heavy = index.heavy_rows(estimator.is_kneser_ney, shortlist)
    next_tokens = index.array("next_tokens")
    begin = 0
    while begin < lo.size:
        end, chains = index.chains_of(lo, hi, depth, begin, min(lo.size, begin + _CHUNK))
        rows = index.rows_of_nodes(chains.lo, chains.hi, chains.depth)
        left = _left_extensions(index, estimator, chains, rows)
        yield (
            (
                *(estimator.rule, discounts, strengths, estimator.is_kneser_ney, max_order),
                *(index.num_symbols, base, pull, root, chains, started[begin:end], next_tokens),
                *(documents._replace(of=documents.of[begin:end]), rows, left, heavy),
            ),
            begin,
            end,
        )
        begin = end


def _left_extensions(index: CorpusIndex, estimator: Estimator, chains: Chains, rows: NodeRows) -> LeftExtensions:
    none = np.empty(0, np.uint32)
    if not estimator.is_kneser_ney:
        return LeftExtensions(none, none, np.empty(0, np.uint8))
    stored, depth = index.stored_left_extensions()
    own = np.empty(rows.counts.size, np.uint32)
    counting.own_left_extensions(
        index.array("next_tokens"),
        index.array("common"),
        index.num_symbols,
        chains,
        rows.numbers,
        rows.stored_offsets.size - 1,
        rows.offsets,
        rows.symbols,
        own,
    )
    return LeftExtensions(stored, own, depth)
