"""What distributions are like, exactly: their entropy and their likeliest token, with nothing cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import measures as kernel
from corpus_index._kernels.arrays import read_only
from corpus_index.core.checks import as_array, as_starts
from corpus_index.core.matching import Matcher
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.targets.interpolated import mixed_targets, row_table
from corpus_index.targets.request import base_distribution
from corpus_index.targets.types import RowTable

_POSITIONS = 1024  # at a time, or one row: estimators with exclusion list all that their contexts have seen


class Measures(NamedTuple):
    """Of Q distributions.

    Attributes
    ----------
    entropy : ndarray of shape (Q,), float64
        Nats.
    top_token : ndarray of shape (Q,), int64
        The likeliest token; the smaller id where several are.
    top_prob : ndarray of shape (Q,), float64
    match_len : ndarray of shape (Q,), int32
    context_count : ndarray of shape (Q,), int64
        As in `SparseTargets`.
    """

    entropy: np.ndarray
    top_token: np.ndarray
    top_prob: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray


def measure(
    index: Matcher,
    input_ids: ArrayLike,
    *,
    estimator: EstimatorLike = "witten-bell",
    max_order: int | None = None,
    starts_document: bool | ArrayLike = False,
) -> Measures:
    """Measure the exact distribution after every position of a batch.

    Parameters
    ----------
    index : CorpusIndex
    input_ids, estimator, max_order, starts_document
        As in `corpus_index.targets.interpolated.smoothed_targets`.

    Raises
    ------
    QueryError
        If an id is out of range, or a shape, name or option is wrong.

    Notes
    -----
    O(continuations of all contexts of the chain) time a position: some 10,000 positions a second on large corpora.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index, measure
    >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
    >>> answer = measure(index, [1, 2], max_order=1)
    >>> answer.top_token.tolist(), answer.top_prob.round(3).tolist(), answer.entropy.round(3).tolist()
    ([2, 1], [0.781, 0.422], [0.74, 1.178])
    """
    made = fitted(index, estimator, max_order)
    ids = np.atleast_2d(as_array(input_ids, "input_ids"))
    starts = as_starts(starts_document, ids.shape[0])
    base = base_distribution(index, made)
    logs = base.astype(np.float64)
    logs *= np.log(logs, out=np.zeros(logs.size), where=logs > 0)
    descending = np.argsort(-base, kind="stable")
    table = row_table(index, made)
    lefts = table.counts if table.left_extensions is None else table.left_extensions
    table = RowTable(*map(read_only, (*table[:3], lefts)))
    mass, seen = np.zeros(base.size), np.full(base.size, -1, np.int64)
    step = max(1, _POSITIONS // max(1, ids.shape[1]))
    parts = []
    for begin in range(0, ids.shape[0], step):
        rows = slice(begin, begin + step)
        found = mixed_targets(index, ids[rows], estimator=made, starts_document=starts[rows])
        size = found.rest.size
        entropy, token, prob = np.empty(size), np.empty(size, np.int64), np.empty(size)
        num_rows = table.offsets.size - 1
        kernel.measure(found, table, num_rows, logs, logs.sum(), descending, mass, seen, entropy, token, prob)
        parts.append((entropy, token, prob, found.match_len, found.context_count))
    return Measures(*(np.concatenate(column) for column in zip(*parts, strict=True)))
