"""Smoothed distributions for a batch: what an estimator makes of the whole backoff chain of every position.

A smoothed distribution is never written out over V. It is `sparse + rest · base`: the tokens that the context's orders
have seen, explicitly, and the remaining mass on one base distribution that all contexts share.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import flatten, mixed
from corpus_index._kernels.mixed import BaseArrays, Documents, EstimatorArrays, Mixed
from corpus_index.answers import Match
from corpus_index.errors import QueryError
from corpus_index.estimators import Estimator
from corpus_index.heavy import MOST_LEVELS

if TYPE_CHECKING:
    from corpus_index.query import CorpusIndex

LEAVE_OUT = (None, "self", "document")

_CHUNK = 1 << 13  # positions at a time
_PAIRS = 48  # a position: room for so many on average
_AHEAD = 8


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
    asked = _Asked(index, input_ids, next_ids, estimator, max_order, leave_out, starts_document, positions, only_last)
    fitted, nodes, memory = asked.estimator, asked.heavy, index.thread_memory
    top_k = min(top_k, index.num_symbols)
    size = asked.labels.size
    offsets = np.zeros(size + 1, np.int64)
    rest, cut = np.empty(size, np.float32), np.empty(size, np.float32)
    match_len, context_count = np.empty(size, np.int32), np.empty(size, np.int64)
    all_ids, all_probs = [np.empty(0, np.int64)], [np.empty(0, np.float32)]
    work = memory.work_of(index.num_symbols)
    for part, begin, end in asked.chunks():
        room = (end - begin) * min(top_k, index.num_symbols)
        token_ids, probs = np.empty(room, np.int64), np.empty(room, np.float32)
        part_offsets = np.zeros(end - begin + 1, np.int64)
        outputs = (part_offsets, token_ids, probs, rest[begin:end], cut[begin:end])
        options = (work, asked.labels[begin:end], leave_out is not None, top_k, 0, end - begin, 0)
        if shortlist is None:
            used = flatten.whole_targets(nodes, part, *memory.dense_of(index.num_symbols), *options, *outputs)
        else:
            lists = memory.lists_of(fitted, nodes, shortlist)
            ancestors = np.empty(nodes.offsets.size, np.int64)
            used = flatten.flat_targets(
                asked.arrays, nodes, part, lists, MOST_LEVELS, work, ancestors, *options[1:], *outputs
            )
        offsets[begin + 1 : end + 1] = offsets[begin] + part_offsets[1:]
        all_ids.append(index.ids_of(token_ids[:used]).astype(np.int64, copy=False))
        all_probs.append(probs[:used])
        match_len[begin:end], context_count[begin:end] = part.match_len, part.context_count
    return SparseTargets(
        offsets,
        np.concatenate(all_ids),
        np.concatenate(all_probs),
        rest,
        index.base_distribution(fitted),
        match_len,
        asked.counted(context_count),
        cut,
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
    asked = _Asked(index, input_ids, next_ids, estimator, max_order, leave_out, starts_document, positions, unseen=True)
    answer = np.empty(asked.labels.size, np.float64)
    for part, begin, end in asked.chunks(targets=False):
        answer[begin:end] = part.rest
    answer[asked.labels < 0] = np.nan
    return answer


class _Asked:
    """A batch of questions, checked and matched: what the kernels take."""

    def __init__(
        self,
        index: CorpusIndex,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None,
        estimator: str | Estimator,
        max_order: int | None,
        leave_out: str | None,
        starts_document: bool | ArrayLike,
        positions: ArrayLike | None,
        only_last: bool = False,
        unseen: bool = False,
    ) -> None:
        self.index, self.estimator = index, index.fitted(estimator, max_order)
        ids, self.labels = _labelled(index, input_ids, next_ids, leave_out, unseen)
        self.leaves = leave_out is not None
        self.documents = _documents(index, self.estimator, ids, leave_out, positions)
        fitted = self.estimator
        match, depths = index.match_nodes(ids, max_order=fitted.max_order, starts_document=starts_document)
        if only_last:
            match, depths = Match(*(part[:, -1:] for part in match)), depths[:, -1:]
            self.labels = self.labels.reshape(ids.shape)[:, -1:].reshape(-1)
            self.documents = self.documents._replace(of=self.documents.of.reshape(ids.shape)[:, -1:].reshape(-1))
        self.lo, self.hi, self.depth = (np.ascontiguousarray(x).reshape(-1) for x in (match.lo, match.hi, depths))
        self.started = self.depth - match.match_len.reshape(-1)  # 1 where the match includes the document's start
        self.heavy = index.heavy_nodes(fitted.is_kneser_ney)
        self.arrays = EstimatorArrays(
            fitted.rule,
            np.array(fitted.discounts or [(0.0, 0.0, 0.0)], np.float64),
            np.array(fitted.strengths or [(0.0,)], np.float64),
            fitted.is_kneser_ney,
            -1 if fitted.max_order is None else fitted.max_order,
        )
        self.base = _base(index, fitted, leave_out)

    def chunks(self, targets: bool = True) -> Iterator[tuple[Mixed, int, int]]:
        """The targets in mixed form, so many positions at a time: (targets, first position, end)."""
        index, nothing = self.index, np.empty(0, np.int64)
        scratch = index.thread_memory.scratch_of(index.num_symbols)
        begin = 0
        while begin < self.lo.size:
            size = min(_CHUNK, self.lo.size - begin)
            pairs = size * _PAIRS + self.heavy.light + self.documents.tokens.size + 2 if targets else 0
            refs = size * 8 + self.heavy.deepest_chain + 1 if targets else 0
            end = begin + size
            out = Mixed(
                np.empty(size + 1, np.int64) if targets else nothing,
                np.empty(pairs, np.int64),
                np.empty(pairs, np.float64),
                np.empty(pairs, np.float64),
                np.empty(size + 1, np.int64) if targets else nothing,
                np.empty(refs, np.int64),
                np.empty((refs, 4), np.float64),
                np.empty(size, np.float64),
                np.empty(size, np.int32),
                np.empty(size, np.int64),
            )
            done = mixed.mixed_targets(
                index.kernel_arrays(),
                index.array("next_tokens"),
                index.array("endings"),
                self.arrays,
                self.base,
                self.heavy,
                self.lo[begin:end],
                self.hi[begin:end],
                self.depth[begin:end],
                self.started[begin:end],
                self.labels[begin:end],
                self.leaves,
                self.documents._replace(of=self.documents.of[begin:end]),
                scratch,
                targets,
                _AHEAD,
                out,
            )
            yield out if done == size else _head(out, done, targets), begin, begin + done
            begin += done

    def counted(self, counts: np.ndarray) -> np.ndarray:
        """The contexts' counts, where all of the corpus counted included."""
        left = np.where(self.documents.of < 0, 1, np.diff(self.documents.offsets, append=0)[self.documents.of])
        left = np.where((self.labels >= 0) & self.leaves, left, 0)
        return np.where(counts < 0, self.index.num_tokens - left, counts)


def _head(part: Mixed, size: int, targets: bool) -> Mixed:
    """The first positions of a part."""
    offsets = {"pair_offsets": part.pair_offsets[: size + 1], "ref_offsets": part.ref_offsets[: size + 1]}
    each = {"rest": part.rest[:size], "match_len": part.match_len[:size], "context_count": part.context_count[:size]}
    return part._replace(**each, **(offsets if targets else {}))


def _base(index: CorpusIndex, estimator: Estimator, leave_out: str | None) -> BaseArrays:
    unigrams = index.symbol_counts
    probs = estimator.base(index)
    if estimator.is_kneser_ney:
        counts, cuts, uniform = estimator.root(index)
        return BaseArrays(probs, 0.0, unigrams, counts, int(counts.sum()), float(cuts.sum()), uniform)
    smooth = 0 if estimator.name == "mle" else int((unigrams > 0).sum())
    pull = 1.0 / max(1, index.num_tokens - (leave_out != "document") + smooth)
    return BaseArrays(probs, pull, unigrams, unigrams, 0, 0.0, 0.0)


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
        offsets = np.zeros(1, np.int64)
        return Documents(np.full(ids.size, -1), offsets, nothing, offsets, nothing, nothing, nothing, np.empty(0))
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
    token_offsets = np.zeros(numbers.size + 1, np.int64)
    tokens, lost = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    for d, number in enumerate(numbers.tolist()):
        start, stop = index.doc_starts[number : number + 2]
        distinct, counts = np.unique(index.array("tokens")[start:stop], return_counts=True)
        tokens.append(distinct.astype(np.int64))
        lost.append(counts)
        token_offsets[d + 1] = token_offsets[d] + distinct.size
        ranks[offsets[d] : offsets[d + 1]].sort()
    lengths = np.diff(offsets)
    return Documents(
        of.reshape(-1),
        offsets,
        ranks,
        token_offsets,
        np.concatenate(tokens),
        np.concatenate(lost),
        lengths,
        np.zeros(lengths.size),
    )
