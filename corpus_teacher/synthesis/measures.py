"""What a sampled document is judged by: how much it repeats itself, and how much of it the corpus holds already.

Each measure is a pure function of the document's drawn tokens, without the prompt and the end of the document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

Tokens = npt.NDArray[np.integer[Any]]


def repeated_share(tokens: Tokens, n: int = 4) -> float:
    """The share of a document's n-grams that stood in it before: 1 − distinct / all; 0 where it has none.

    Parameters
    ----------
    tokens : ndarray of shape (T,), integer
    n : int

    Notes
    -----
    O(n · T log T).

    Examples
    --------
    >>> repeated_share(np.array([1, 2, 1, 2, 1]), 2)
    0.5
    """
    total = tokens.size - n + 1
    if total < 1:
        return 0.0
    grams = np.lib.stride_tricks.sliding_window_view(tokens, n)
    return 1.0 - np.unique(grams, axis=0).shape[0] / total


def longest_run(tokens: Tokens) -> int:
    """How often one token stands in a row at most; 0 for no tokens.

    Parameters
    ----------
    tokens : ndarray of shape (T,), integer

    Examples
    --------
    >>> longest_run(np.array([1, 2, 2, 2, 1, 1]))
    3
    """
    if tokens.size == 0:
        return 0
    changes = np.flatnonzero(np.diff(tokens)) + 1
    return int(np.diff(np.concatenate([[0], changes, [tokens.size]])).max())


def copied(match_len: npt.NDArray[np.integer[Any]], n: int) -> tuple[float, int]:
    """What of a document stands in the corpus.

    Parameters
    ----------
    match_len : ndarray of shape (T,), integer
        For each token, the length of the longest match that ends there; see `match_lengths`.
    n : int
        Tokens that a match must have to count as copied.

    Returns
    -------
    share : float
        Of the tokens, those inside of a match of at least n tokens; 0 for no tokens.
    longest : int
        Tokens of the longest match.

    Examples
    --------
    >>> copied(np.array([1, 2, 3, 1, 0]), 2)
    (0.6, 3)
    """
    if match_len.size == 0:
        return 0.0, 0
    ends = np.flatnonzero(match_len >= n)
    steps = np.zeros(match_len.size + 1, np.int64)
    np.add.at(steps, ends - match_len[ends] + 1, 1)
    np.add.at(steps, ends + 1, -1)
    return float((steps.cumsum()[:-1] > 0).mean()), int(match_len.max())


def match_lengths(index: CorpusIndex, documents: Sequence[Tokens]) -> list[npt.NDArray[np.int32]]:
    """For every token of each document, the length of the longest match that ends with it.

    A match is a part of the document that the corpus holds inside of a document, with a token after it: the context of
    a continuation.

    Parameters
    ----------
    index : CorpusIndex
    documents : sequence of ndarray of shape (T,), integer

    Returns
    -------
    list of ndarray of shape (T,), int32

    Raises
    ------
    QueryError
        A token outside of the index's vocabulary.

    Notes
    -----
    A few random reads a token, in one call.
    """
    sizes = [document.size for document in documents]
    if not any(sizes):
        return [np.zeros(0, np.int32) for _ in documents]
    rows = np.zeros((len(documents), max(sizes)), np.int64)  # what stands behind a document's end changes nothing in it
    for row, document in enumerate(documents):
        rows[row, : document.size] = document
    lengths = index.match(rows).match_len
    return [lengths[row, :size] for row, size in enumerate(sizes)]


def digest(tokens: Tokens) -> bytes:
    """16 bytes (BLAKE2b) that tell documents with other tokens apart.

    >>> digest(np.array([1, 2], np.uint16)) == digest(np.array([1, 2])), digest(np.array([1])) == digest(np.array([2]))
    (True, False)
    """
    return hashlib.blake2b(tokens.astype("<u4").tobytes(), digest_size=16).digest()
