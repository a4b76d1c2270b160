"""How much of a corpus repeats itself across documents: what an n-gram teacher of it can only copy.

A position whose context stands in another document too, 64 tokens long, say, is one where the teacher recites that
document. `near_duplicates` counts such positions for several lengths, and names the documents that hold most of them.

Naively: compare the context of every position with that of every position of another document, N² · length. Here: two
passes over the context order, O(N) (see `_kernels/duplicates.py`). Lengths up to 255 can be told apart, as in `common`.

Lee et al. 2022, "Deduplicating training data makes language models better", count tokens in repeated substrings of 50
tokens wherever they stand, the own document included; here only another document counts, since a repeat inside a
document is the document's own style and is what leave_out="document" takes away.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import singledispatch
from typing import NamedTuple

import numpy as np

from corpus_index._kernels import duplicates
from corpus_index._kernels.arrays import TextArrays
from corpus_index.core.checks import MOST, check_index, check_whole
from corpus_index.core.mapped import OpenedIndex
from corpus_index.errors import QueryError

LONGEST = 255
"""Longer matches are counted as this long."""

_AHEAD = 16


class NearDuplicates(NamedTuple):
    """What documents of a corpus share with each other.

    Attributes
    ----------
    lengths : ndarray of shape (L,), int64
        As asked for, ascending, in tokens.
    positions : ndarray of shape (L,), int64
        Positions whose last `length` tokens stand, in this order, before a position of another document as well.
    tokens : ndarray of shape (L,), int64
        Tokens inside a passage of at least that length that another document holds too.
    histogram : ndarray of shape (256,), int64
        Positions by the length that they share; the last entry is of 255 and more.
    top_length : int
        The length that the next two lists count.
    documents : ndarray of shape (n, 3), int64
        The documents with most such positions, descending: document, positions that share, length of the document.
    pairs : ndarray of shape (m, 3), int64
        The pairs with most: document, other document, positions of the first that share with the second. Where several
        others hold the same passage, one of them is taken.
    """

    lengths: np.ndarray
    positions: np.ndarray
    tokens: np.ndarray
    histogram: np.ndarray
    top_length: int
    documents: np.ndarray
    pairs: np.ndarray


@singledispatch
def shared_across_documents(index: OpenedIndex) -> tuple[np.ndarray, np.ndarray]:
    """For every position, the longest end of its context that stands in another document too, and which one.

    Returns
    -------
    shared : ndarray of shape (N,), uint8
        Tokens, at most 255.
    partner : ndarray of shape (N,), uint32
        A document that shares that many; of no meaning where shared is 0.

    Notes
    -----
    O(N) time; 10 bytes a token of memory while it runs, 5 of them for the answer.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> path = tempfile.mkdtemp() + "/index"
    >>> index = build_index(np.array([1, 2, 3, 4, 0, 2, 3, 4]), path, doc_starts=[0, 4, 8])
    >>> shared_across_documents(index)[0].tolist()
    [0, 0, 1, 2, 0, 0, 1, 2]
    """
    return shared_in_text(index.whole_text(), index.array("common"), duplicates.Ends.empty(0))


def shared_in_text(text: TextArrays, common: np.ndarray, ends: duplicates.Ends) -> tuple[np.ndarray, np.ndarray]:
    """`shared_across_documents`, where the given ends of documents count among the others as well."""
    size = common.size
    above, above_partner = np.empty(size, np.uint8), np.empty(size, np.uint32)
    duplicates.shared_above(text, common, ends, above, above_partner, _AHEAD)
    shared, partner = np.empty(size, np.uint8), np.empty(size, np.uint32)
    duplicates.shared_by_position(text, common, ends, above, above_partner, shared, partner, _AHEAD)
    return shared, partner


def _covered(index: OpenedIndex, lengths: np.ndarray) -> np.ndarray:
    """`NearDuplicates.tokens`: passages that end with their document count as well."""
    return np.asarray(duplicates.count_covered(index.doc_starts, *covered_parts(index), lengths))


@singledispatch
def covered_parts(index: OpenedIndex) -> tuple[np.ndarray, np.ndarray]:
    """What each position shares where ends of documents count as others' places too, and what each end shares: (D,)."""
    endings = index.array("endings")
    ends = duplicates.Ends.empty(endings.size)
    text = index.whole_text()
    duplicates.insert_ends(index.kernel_arrays()._replace(text=text), endings, ends)
    shared, _ = shared_in_text(text, index.array("common"), ends)
    at_end = np.zeros(index.num_documents, np.int64)
    at_end[ends.documents] = np.minimum(ends.shared, np.diff(index.doc_starts)[ends.documents])
    return shared, at_end


def copied_shares(index: OpenedIndex, length: int) -> np.ndarray:
    """Of each document, the share of positions after that many tokens of another one: shape (D,), float64; O(N)."""
    counts = np.zeros(index.num_documents, np.int64)
    duplicates.count_by_document(index.doc_starts, shared_across_documents(index)[0], length, counts)
    return counts / np.maximum(1, np.diff(index.doc_starts))


@singledispatch
def near_duplicates(
    index: OpenedIndex,
    lengths: Sequence[int] = (16, 32, 64, 128),
    *,
    top: int = 10,
    top_length: int = 64,
) -> NearDuplicates:
    """How much of the corpus lies in matches of at least some lengths across documents, and where most of it is.

    Parameters
    ----------
    index : CorpusIndex
    lengths : sequence of int
        In tokens, each 1 to 255.
    top : int
        How many documents and pairs to name.
    top_length : int
        The length that they are judged by.

    Raises
    ------
    QueryError
        If a length is out of range, or there is none.

    Notes
    -----
    O(N · (2 + lengths)) time, and 255 tokens compared at each document's end.
    """
    check_index(index)
    wanted = check_lengths(lengths, top, top_length)
    shared, partner = shared_across_documents(index)
    histogram = np.zeros(256, np.int64)
    duplicates.count_shared(shared, histogram)
    at_least = histogram[::-1].cumsum()[::-1]
    return NearDuplicates(
        wanted,
        at_least[wanted],
        _covered(index, wanted),
        histogram,
        top_length,
        named_documents(index, shared, top_length, top),
        named_pairs(index, shared, partner, top_length, top),
    )


def check_lengths(lengths: Sequence[int], top: int, top_length: int) -> np.ndarray:
    """The lengths, ascending; wrong ones are refused, and so is a wrong top."""
    if not isinstance(lengths, Iterable) or isinstance(lengths, (str, bytes)):
        raise QueryError(f"lengths {lengths!r} must be a list of whole numbers")
    for length in (*lengths, top_length):
        check_whole(length, "length", -MOST)
    wanted = np.array(sorted(set(lengths)), np.int64)
    for length in (*wanted.tolist(), top_length):
        if not 1 <= length <= LONGEST:
            raise QueryError(f"length {length} is outside of 1 .. {LONGEST}, the lengths that the index can tell apart")
    if wanted.size == 0:
        raise QueryError("there is no length to count: name at least one, 64 for example")
    check_whole(top, "top", 0)
    return wanted


def named_documents(index: OpenedIndex, shared: np.ndarray, length: int, top: int) -> np.ndarray:
    """The documents with most positions that share so much; see `NearDuplicates`."""
    counts = np.zeros(index.num_documents, np.int64)
    duplicates.count_by_document(index.doc_starts, shared, length, counts)
    first = np.argsort(-counts, kind="stable")[:top]
    first = first[counts[first] > 0]
    return np.stack([first, counts[first], np.diff(index.doc_starts)[first]], axis=1)


def named_pairs(index: OpenedIndex, shared: np.ndarray, partner: np.ndarray, length: int, top: int) -> np.ndarray:
    """The (document, other) with most positions; see `NearDuplicates`."""
    none = np.empty(0, np.int64)
    runs = duplicates.partner_runs(index.doc_starts, shared, partner, length, none, none, none)
    documents, partners, counts = (np.empty(runs, np.int64) for _ in range(3))
    if runs:
        duplicates.partner_runs(index.doc_starts, shared, partner, length, documents, partners, counts)
    keys, places = np.unique(documents * index.num_documents + partners, return_inverse=True)
    totals = np.bincount(places.reshape(-1), weights=counts, minlength=keys.size).astype(np.int64)
    first = np.argsort(-totals, kind="stable")[:top]
    return np.stack([keys[first] // index.num_documents, keys[first] % index.num_documents, totals[first]], axis=1)
