"""Estimators: from the counts of a context and its suffixes to a distribution over the vocabulary.

A smoothed distribution is never written out over V. It is `sparse + rest · base`: the tokens that the context's orders
have seen, explicitly, and the remaining mass on one base distribution that all contexts share.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import smoothing
from corpus_index.errors import QueryError

if TYPE_CHECKING:
    from corpus_index.query import CorpusIndex

ESTIMATORS = ("witten-bell",)
"""Names that `smoothed_targets` knows."""

LEAVE_OUT = (None, "self")

_CHUNK = 1 << 13  # positions whose chains are held at a time


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
        The unigram distribution, interpolated with the uniform one.
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
    estimator: str = "witten-bell",
    max_order: int | None = None,
    leave_out: str | None = None,
    top_k: int = 64,
    starts_document: bool | ArrayLike = False,
) -> SparseTargets:
    """The smoothed next-token distribution at every position of a batch, from the whole backoff chain.

    Parameters
    ----------
    index : CorpusIndex
    input_ids : array_like of shape (B, T) or (T,), integer
        Token ids below V.
    next_ids : array_like of the same shape, integer, optional
        The token that truly follows each position, −1 where unknown; needed by leave_out.
    estimator : {"witten-bell"}
    max_order : int, optional
        Symbols of the longest context that counts; default: no bound.
    leave_out : {None, "self"}
        "self": one occurrence of (context, next token) is taken out at every order before the longest match is chosen,
        as is right for text that is in the index. A position whose next token is unknown is left as it is.
    top_k : int
        Explicit pairs a position at most; what is cut goes to the base and is reported.
    starts_document : bool or array_like of shape (B,), bool
        Which rows begin where a document begins.

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
    Witten–Bell (Bell, Cleary & Witten 1990; method C of Witten & Bell 1991), interpolated:
    p_n(w) = (c_n(w) + T_n · p_{n−1}(w)) / (c_n + T_n), where c_n counts the context of n symbols and T_n its distinct
    continuations. O(Σ T_n) time a position.
    """
    if estimator not in ESTIMATORS:
        raise QueryError(f"there is no estimator {estimator!r}: choose one of {', '.join(ESTIMATORS)}")
    if leave_out not in LEAVE_OUT:
        raise QueryError(f"leave_out {leave_out!r} is unknown: choose None or 'self'")
    if top_k < 1:
        raise QueryError(f"top_k {top_k} must be at least 1")
    ids = np.atleast_2d(np.asarray(input_ids))
    labels = np.full(ids.size, -1, np.int64)
    if leave_out == "self":
        if next_ids is None:
            raise QueryError("leave_out='self' needs next_ids: the token that follows each position (−1: unknown)")
        labels = np.atleast_2d(np.asarray(next_ids)).astype(np.int64).reshape(-1)
        if labels.size != ids.size:
            raise QueryError(f"next_ids must have the shape of input_ids {ids.shape}, not {np.shape(next_ids)}")
        if labels.size and not -1 <= int(labels.min()) <= int(labels.max()) < index.vocab_size:
            bad = int(labels.min()) if int(labels.min()) < -1 else int(labels.max())
            raise QueryError(f"next id {bad} is outside of −1 .. {index.vocab_size - 1}")
        labels = np.where(labels >= 0, index.symbols_of(np.maximum(labels, 0)), -1)
        labels[labels == index.num_symbols] = -1  # the corpus lacks it: nothing to leave out
    match, depth = index.match_nodes(ids, max_order=max_order, starts_document=starts_document)
    return _targets(
        index, match.lo.reshape(-1), match.hi.reshape(-1), depth.reshape(-1), match.match_len, labels, top_k
    )


def _targets(
    index: CorpusIndex,
    lo: np.ndarray,
    hi: np.ndarray,
    depth: np.ndarray,
    match_len: np.ndarray,
    labels: np.ndarray,
    top_k: int,
) -> SparseTargets:
    num_positions = lo.size
    top_k = min(top_k, index.num_symbols)
    started = depth - match_len.reshape(-1)  # 1 where the match includes the document's start
    offsets = np.zeros(num_positions + 1, np.int64)
    rest, cut = np.empty(num_positions, np.float32), np.empty(num_positions, np.float32)
    reached_len, reached_count = np.empty(num_positions, np.int32), np.empty(num_positions, np.int64)
    unigrams = index.symbol_counts
    pull = 1.0 / max(1, index.num_tokens - 1 + int((unigrams > 0).sum()))
    all_ids, all_probs = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    done = 0
    while done < num_positions:
        stop, chains = index.chains_of(lo, hi, depth, done, min(num_positions, done + _CHUNK))
        rows = index.rows_of_nodes(chains.lo, chains.hi, chains.depth)
        token_ids = np.empty((stop - done) * top_k, np.int64)
        probs = np.empty((stop - done) * top_k, np.float32)
        part_offsets = np.zeros(stop - done + 1, np.int64)
        used = smoothing.witten_bell_targets(
            chains.offsets,
            chains.depth,
            chains.hi - chains.lo,
            rows.numbers,
            rows.stored_offsets.size - 1,
            rows.stored_offsets,
            rows.stored_symbols,
            rows.stored_counts,
            rows.offsets,
            rows.symbols,
            rows.counts,
            labels[done:stop],
            unigrams,
            pull,
            started[done:stop],
            top_k,
            part_offsets,
            token_ids,
            probs,
            rest[done:stop],
            cut[done:stop],
            reached_len[done:stop],
            reached_count[done:stop],
        )
        offsets[done + 1 : stop + 1] = offsets[done] + part_offsets[1:]
        all_ids.append(index.ids_of(token_ids[:used]).astype(np.int64, copy=False))
        all_probs.append(probs[:used])
        done = stop
    return SparseTargets(
        offsets,
        np.concatenate(all_ids),
        np.concatenate(all_probs),
        rest,
        index.base_distribution(),
        reached_len,
        reached_count,
        cut,
    )
