"""Recall: an estimator beside the memory of what the row itself has said so far.

An index knows what texts say in general; a text repeats its own names and phrases, which no corpus holds (Kuhn & De
Mori 1990; Jelinek et al. 1991). So the next token's distribution is a mixture, order by order, of the index's
estimator and of what followed the same last 0, 1, 2, 3 tokens earlier in the row:

    p_k(w) = λ_k · c_k(w) / c_k + (1 − λ_k) · p_{k−1}(w), the estimator below k = 0,

λ by order, bit length of c_k, and whether all continuations agree, fitted by expectation maximisation on rows of the
index with their documents left out. The label itself is never in its past, so nothing is to be left out of the latter.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import chains
from corpus_index._kernels import recall as kernel
from corpus_index.core.checks import as_array
from corpus_index.core.matching import Matcher
from corpus_index.errors import QueryError
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.fits import kept_values
from corpus_index.estimators.held_out_evidence import originals
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.targets.interpolated import next_probabilities, smoothed_targets
from corpus_index.targets.types import SparseTargets

ORDERS, LENGTHS = 4, 12  # contexts of 0 … 3 tokens; bit lengths of counts
_ROUNDS = 60
_ROW, _POSITIONS = 1024, 200_000  # of the evidence


@dataclass(frozen=True)
class Recall:
    """A fitted mixture of an estimator and a row's own past.

    Attributes
    ----------
    estimator : Estimator
        Of the index.
    weights : ndarray of shape (ORDERS · LENGTHS · 2,), float64
        λ by bucket, in [0, 1).
    nats : float
        Cross-entropy per token of the evidence.
    """

    estimator: Estimator
    weights: np.ndarray
    nats: float

    def next_probabilities(
        self,
        index: Matcher,
        input_ids: ArrayLike,
        next_ids: ArrayLike,
        *,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
    ) -> np.ndarray:
        """The probability of the token that follows each position: shape (Q,), float64; NaN where it is unknown.

        Parameters as in `corpus_index.targets.interpolated.next_probabilities`.

        Notes
        -----
        O(T) time a position for the row's past, beside the estimator's.
        """
        p = next_probabilities(
            index,
            input_ids,
            next_ids,
            estimator=self.estimator,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
        )
        rows, labels = _rows(index, input_ids), np.atleast_2d(np.asarray(next_ids)).astype(np.int64)
        buckets, shares = _shares(index, rows, labels)
        for k in range(ORDERS):
            weight = np.where(buckets[:, k] >= 0, self.weights[np.maximum(buckets[:, k], 0)], 0.0)
            p = weight * shares[:, k] + (1.0 - weight) * p
        return p

    def smoothed_targets(
        self,
        index: Matcher,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None = None,
        *,
        leave_out: str | None = None,
        top_k: int = 64,
        top_p: float = 1.0,
        shortlist: int | None = 64,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
        only_last: bool = False,
    ) -> SparseTargets:
        """The distribution at every position, sparse + rest · base, summing to 1 over V.

        Parameters as in `interpolated.smoothed_targets`. top_k, top_p and the shortlist bound the index's part; the
        tokens of the row's past are all explicit beside it.

        Raises
        ------
        QueryError
            As there.
        """
        rows = _rows(index, input_ids)
        found = smoothed_targets(
            index,
            rows,
            next_ids,
            estimator=self.estimator,
            leave_out=leave_out,
            top_k=top_k,
            top_p=top_p,
            shortlist=shortlist,
            starts_document=starts_document,
            positions=positions,
            only_last=only_last,
        )
        deepest, mass = np.full(index.vocab_size, -1, np.int64), np.zeros(index.vocab_size)
        offsets, kept = np.zeros(rows.size + 1, np.int64), np.ones(rows.size)
        arguments = (rows, _end(index), self.weights, ORDERS, LENGTHS, deepest, mass, kept, offsets)
        size = int(kernel.masses(*arguments, np.empty(0, np.int64), np.empty(0)))
        tokens, masses = np.empty(size, np.int64), np.empty(size)
        if size > 0:
            kernel.masses(*arguments, tokens, masses)
        if only_last:  # of what is recalled along each row, what its last position recalls
            last = np.arange(1, rows.shape[0] + 1) * rows.shape[1] - 1
            sizes = np.diff(offsets)[last]
            ends = np.cumsum(sizes)
            places = np.repeat(offsets[last] - (ends - sizes), sizes) + np.arange(int(sizes.sum()))
            tokens, masses, kept = tokens[places], masses[places], kept[last]
            offsets, size = np.append(0, ends), places.size
        room = size + found.token_ids.size
        out = np.zeros(kept.size + 1, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
        used = int(kernel.merge(found.offsets, found.token_ids, found.probs, kept, offsets, tokens, masses, *out))
        return found._replace(
            offsets=out[0],
            token_ids=out[1][:used].copy(),
            probs=out[2][:used].copy(),
            rest=(found.rest * kept).astype(np.float32),
            cut_mass=(found.cut_mass * kept).astype(np.float32),
        )


def fit_recall(index: Matcher, estimator: EstimatorLike = "auto", max_order: int | None = None) -> Recall:
    """Fit the mixture on rows of the index, each with its document left out; the same at every run.

    Parameters
    ----------
    index : CorpusIndex
        Of several documents.
    estimator, max_order
        As in `corpus_index.estimators.resolving.resolve_estimator`.

    Raises
    ------
    QueryError
        If there is no such estimator, or the index doesn't have two documents of two tokens and more.

    Notes
    -----
    About 200,000 positions in rows of 1,024 tokens, or whole documents that are shorter. The weights are kept beside
    the index; see `corpus_index.estimators.fits`.
    """
    made = fitted(index, estimator, max_order)
    with index.following_arrays():
        values = kept_values(index, "recall", made, functools.partial(_fit_weights, index, made))
    return Recall(made, np.array(values["weights"]), float(values["nats"]))


def _fit_weights(index: Matcher, made: Estimator) -> dict[str, Any]:
    """The weights by bucket, and the cross-entropy of the evidence."""
    documents, _ = originals(index)
    documents = documents[np.diff(index.doc_starts)[documents] > 1]
    if documents.size < 2:
        raise QueryError(f"{index.path} has no two documents to fit recall on: each is predicted without itself")
    rng = np.random.default_rng(0)
    weights = np.full(ORDERS * LENGTHS * 2, 0.1)
    parts: list[tuple[np.ndarray, ...]] = []
    asked = 0
    for number in rng.permutation(documents).tolist():
        begin, end = (int(place) for place in index.doc_starts[number : number + 2])
        if end - begin > _ROW + 1:
            begin += int(rng.integers(0, end - begin - _ROW - 1))
        symbols = np.minimum(index.array("tokens")[begin : min(end, begin + _ROW + 1)], index.num_symbols - 1)
        ids = index.ids_of(symbols).astype(np.int64)
        row, labels = ids[None, :-1], ids[None, 1:]
        p = next_probabilities(index, row, labels, estimator=made, leave_out="document", positions=np.array([begin]))
        parts.append((p, *_shares(index, row, labels)))
        asked += labels.size
        if asked >= _POSITIONS:
            break
    base, buckets, shares = (np.concatenate(column) for column in zip(*parts, strict=True))
    deepest_first = buckets[:, ::-1]
    there = deepest_first >= 0
    offsets = np.append(0, np.cumsum(there.sum(axis=1)))
    bucket, share = deepest_first[there], np.ascontiguousarray(shares[:, ::-1][there])
    below, used, reached = np.empty(bucket.size), np.empty(weights.size), np.empty(weights.size)
    for _ in range(_ROUNDS):
        used[:], reached[:] = 0.1, 1.0  # an occurrence's worth of the start, so that no weight is 0 or 1
        chains.expected_uses(offsets, share, bucket, weights, base, below, used, reached)
        weights = used / reached
    losses = np.empty(base.size)
    chains.chain_losses(offsets, weights[bucket] * share, 1.0 - weights[bucket], base, losses)
    return {"weights": weights.tolist(), "nats": float(losses.mean())}


def _rows(index: Matcher, input_ids: ArrayLike) -> np.ndarray:
    """Rows of ids (B, T), int64, below V."""
    rows = np.atleast_2d(as_array(input_ids, "input_ids"))
    if rows.ndim != 2 or rows.dtype.kind not in "ui":
        raise QueryError(f"input_ids must be integers of shape (B, T) or (T,), not {rows.dtype} of shape {rows.shape}")
    rows = np.ascontiguousarray(rows.astype(np.int64))
    if rows.size and not 0 <= int(rows.min()) <= int(rows.max()) < index.vocab_size:
        raise QueryError(f"token ids must be in 0 .. {index.vocab_size - 1}")
    return rows


def _shares(index: Matcher, rows: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Buckets and the labels' shares, (Q, ORDERS)."""
    buckets, shares = np.full((rows.size, ORDERS), -1, np.int64), np.zeros((rows.size, ORDERS))
    deepest = np.full(index.vocab_size, -1, np.int64)
    kernel.shares(rows, labels, _end(index), ORDERS, LENGTHS, deepest, buckets, shares)
    return buckets, shares


def _end(index: Matcher) -> int:
    return -1 if index.end_of_document is None else index.end_of_document
