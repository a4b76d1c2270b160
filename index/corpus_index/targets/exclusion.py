"""Targets of the estimators with exclusion: Katz's backoff, stupid backoff, PPM-C, and add-k at the longest match.

What `interpolated` is for the estimators that add all orders up. Here a token's probability comes from the longest
context that has seen it, so nearly all tokens of a row differ from what a shorter context's row says, and there is
nothing to share: targets are explicit tokens, largest first, and a rest on the base.

The tokens that no context has seen share what is left in the base's proportions. Written as sparse + rest · base, the
rest is that share for all of V, and an explicit pair is p(w) − rest · base(w), often below 0; p(w) itself is exact.
With top_k or top_p the tokens that are cut join those that share; all that stay explicit keep their p(w).
"""

from __future__ import annotations

from functools import singledispatch

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import exclusion
from corpus_index._kernels.exclusion import Flat
from corpus_index._kernels.exclusion_sums import CLASSES, ExclusionArrays, ExclusionScratch
from corpus_index.core.matching import Matcher
from corpus_index.estimators.estimator import Estimator, make_estimator
from corpus_index.targets.request import Request, request_of
from corpus_index.targets.types import SparseTargets

_CHUNK = 1 << 13  # positions at a time
_ROOM = 1 << 20  # pairs at a time at least
_MEMO = 4096  # stored rows whose sums without a document are remembered
_AHEAD = 8


def exclusion_targets(request: Request, top_k: int, top_p: float = 1.0) -> SparseTargets:
    """The targets of a batch.

    Notes
    -----
    O(whole rows of the chain) time a position. cut_mass is the mass of the tokens that were cut.
    """
    index = request.index
    top_k = min(top_k, index.num_symbols)
    size = request.labels.size
    whole = Flat(
        np.zeros(size + 1, np.int64),
        np.empty(0, np.int64),
        np.empty(0, np.float32),
        np.empty(size, np.float64),
        np.empty(size, np.float32),
        np.empty(size, np.int32),
        np.empty(size, np.int64),
    )
    tokens, probs = [whole.tokens], [whole.probs]
    begin = 0
    while begin < size:
        end = min(begin + _CHUNK, size)
        room = max(top_k + 1, min((end - begin) * (top_k + 1), _ROOM))
        part = Flat(
            np.zeros(end - begin + 1, np.int64),
            np.empty(room, np.int64),
            np.empty(room, np.float32),
            *(array[begin:end] for array in whole[3:]),
        )
        done = fill(request, begin, end, part, top_k, top_p)
        used = int(part.offsets[done])
        whole.offsets[begin + 1 : begin + done + 1] = whole.offsets[begin] + part.offsets[1 : done + 1]
        tokens.append(index.ids_of(part.tokens[:used]).astype(np.int64))
        probs.append(part.probs[:used].copy())
        begin += done
    return SparseTargets(
        whole.offsets,
        np.concatenate(tokens),
        np.concatenate(probs),
        whole.rest.astype(np.float32),
        request.base_distribution,
        whole.match_len,
        request.counted(whole.context_count),
        whole.cut,
    )


def exclusion_samples(request: Request, draws: int, seed: int) -> SparseTargets:
    """Each token's share of `draws` draws from the exact targets; see `interpolated.sampled_targets`.

    O(whole rows of the chain + V) time a position.
    """
    whole = exclusion_targets(request, request.index.num_symbols)
    generator, base = np.random.default_rng(seed), whole.base.astype(np.float64)
    offsets = np.zeros(whole.rest.size + 1, np.int64)
    tokens, probs = [whole.token_ids[:0]], [whole.probs[:0]]
    for q, rest in enumerate(whole.rest.astype(np.float64)):
        part = slice(whole.offsets[q], whole.offsets[q + 1])
        listed, others = whole.token_ids[part], rest * base
        masses = np.maximum(whole.probs[part] + others[listed], 0.0)
        others[listed] = 0.0
        masses = np.append(masses, others.sum())
        drawn = generator.multinomial(draws, masses / masses.sum())
        counts = np.zeros(base.size, np.int64)
        counts[listed] = drawn[:-1]
        if drawn[-1] > 0:
            counts += generator.multinomial(drawn[-1], others / others.sum())
        tokens.append(np.flatnonzero(counts))
        probs.append((counts[tokens[-1]] / draws).astype(np.float32))
        offsets[q + 1] = offsets[q] + tokens[-1].size
    nothing = np.zeros_like(whole.rest)
    return whole._replace(
        offsets=offsets,
        token_ids=np.concatenate(tokens),
        probs=np.concatenate(probs),
        rest=nothing,
        cut_mass=nothing.copy(),
    )


def exclusion_probabilities(request: Request, *, raw: bool = False) -> np.ndarray:
    """The labels' probabilities, or scores of stupid backoff: shape (Q,), float64; 0 where a label is unknown.

    O(ranks of the contexts with few occurrences, contexts of the chain) time a position: no stored row is read.
    """
    size, nothing = request.labels.size, np.empty(0, np.int64)
    answer = np.empty(size, np.float64)
    ignored = np.empty(size, np.float32), np.empty(size, np.int32), np.empty(size, np.int64)
    part = Flat(nothing, nothing, np.empty(0, np.float32), answer, *ignored)
    fill(request, 0, size, part, 1, 1.0, raw)
    return answer


def backoff_scores(
    index: Matcher,
    input_ids: ArrayLike,
    next_ids: ArrayLike,
    *,
    alpha: float = 0.4,
    max_order: int | None = None,
    leave_out: str | None = None,
    starts_document: bool | ArrayLike = False,
    positions: ArrayLike | None = None,
) -> np.ndarray:
    """Stupid backoff as it was published: the score of the token that follows each position.

    S(w) = c(w) / c at the longest suffix of the context that w follows, times α for each symbol by which the longest
    match is longer; c(w) / N at the empty one (Brants et al. 2007, equation 5). Scores, not probabilities: they don't
    sum to 1; the estimator "stupid-backoff" is what they become divided by their sum.

    Parameters
    ----------
    index : Matcher
    input_ids, next_ids : array_like of shape (B, T) or (T,), integer
        Token ids below V, and the token that follows each position, −1 where unknown.
    alpha : float
        In (0, 1].
    max_order, leave_out, starts_document, positions
        As in `corpus_index.targets.interpolated.smoothed_targets`.

    Returns
    -------
    ndarray of shape (Q,), float64
        NaN where the token is unknown.

    Raises
    ------
    QueryError
        If an id is out of range, or a shape or an option is wrong.

    Notes
    -----
    Brants et al. start at the full context, which multiplies all scores of a position by the same power of α.
    """
    estimator = make_estimator("stupid-backoff", max_order, alpha=alpha)
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
    scores = exclusion_probabilities(request, raw=True)
    scores[request.labels < 0] = np.nan
    return scores


def added_count(estimator: Estimator, index: Matcher) -> float:
    """What each id of the vocabulary counts on top in the base: k, or T / V of Witten–Bell's unigrams."""
    if estimator.row.base == "uniform":
        return float(estimator.k)
    return int((index.symbol_counts > 0).sum()) / index.vocab_size


@singledispatch
def fill(request: Request, begin: int, end: int, out: Flat, top_k: int, top_p: float, raw: bool = False) -> int:
    """Fill the targets of positions begin … end − 1; returns how many there was room for."""
    index, estimator = request.index, request.estimator
    occurrences = index.symbol_counts
    uniform = estimator.row.base == "uniform" and estimator.max_order != 0
    ratios = np.ones((max(1, len(estimator.ratios)), CLASSES), np.float64)
    for order, row in enumerate(estimator.ratios):
        ratios[order, : len(row)] = row
    arrays = ExclusionArrays(
        rule=estimator.rule,
        ratios=ratios,
        alpha=float(estimator.alpha),  # whose type is compiled for
        added=0.0 if raw else added_count(estimator, index),
        vocab_size=index.vocab_size,
        raw=raw,
        unigrams=np.zeros_like(occurrences) if uniform else occurrences,
        total=0 if uniform else index.num_tokens,
        occurrences=occurrences,
        num_tokens=index.num_tokens,
        whole=uniform,
        base=estimator.base(index).astype(np.float32),
        row_sums=index.row_sums(),
    )
    return int(
        exclusion.exclusion_targets(
            index.kernel_arrays(),
            index.array("next_tokens"),
            arrays,
            request.heavy,
            request.lo[begin:end],
            request.hi[begin:end],
            request.depth[begin:end],
            request.started[begin:end],
            request.labels[begin:end],
            request.leaves_out,
            request.documents._replace(of=request.documents.of[begin:end]),
            _scratch(index),
            top_k,
            top_p,
            _AHEAD,
            out,
        )
    )


def _scratch(index: Matcher) -> ExclusionScratch:
    """Scratch memory, kept for each thread."""
    memory, size = index.thread_memory, index.num_symbols
    if memory.exclusion is None:
        memory.exclusion = ExclusionScratch.empty(size, _MEMO)
    return memory.exclusion
