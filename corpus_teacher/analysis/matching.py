"""For every token of some texts, the longest n-gram ending there that stands verbatim in the corpus.

In the field's words: matching statistics. Naively: for each token try ever longer n-grams and count each. Here: the
index's own walk, texts of like length side by side. It knows occurrences that a token follows; an n-gram that ends its
document is added, which matters only where documents don't end in an end-of-document token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

Ints = npt.NDArray[np.int64]

_ROWS = 64
_MOST_TOKENS = 1 << 18  # of a batch, padding included
_endings: WeakKeyDictionary[CorpusIndex, Ints] = WeakKeyDictionary()


class TextMatches(NamedTuple):
    """The longest match that ends at each token of one text.

    Attributes
    ----------
    length : ndarray of shape (T,), int64
        Tokens of the match.
    lo, hi : ndarrays of shape (T,), int64
        Ranks of its occurrences that a token follows. An empty range where it only ends documents, or where it begins
        right after an end-of-document token: there the walk knows the occurrences at documents' starts alone.
    """

    length: Ints
    lo: Ints
    hi: Ints


def longest_matches(index: CorpusIndex, texts: Sequence[npt.NDArray[np.integer]]) -> list[TextMatches]:
    """The longest match at every token of several texts, each text by itself.

    Parameters
    ----------
    index : CorpusIndex
    texts : sequence of ndarrays of shape (T,), integer
        Token ids below V. No match crosses an end-of-document token.

    Raises
    ------
    QueryError
        If an id is out of range.

    Notes
    -----
    A step of the index a token; texts of like length step together.
    """
    answers: list[TextMatches | None] = [None] * len(texts)
    ending = ending_tokens(index)
    for numbers in _batches(texts):
        ids = np.zeros((len(numbers), max(texts[number].size for number in numbers)), np.int64)
        for row, number in enumerate(numbers):
            ids[row, : texts[number].size] = texts[number]
        match = index.match(ids)
        for row, number in enumerate(numbers):
            size = texts[number].size
            length, lo, hi = match.match_len[row, :size].astype(np.int64), match.lo[row, :size], match.hi[row, :size]
            known = tokens_known(ids[row, :size], index.end_of_document)
            starts = (length == known) & (known <= np.arange(size))
            lo[starts] = hi[starts] = 0
            answers[number] = _with_endings(index, ids[row, :size], TextMatches(length, lo, hi), ending)
    return [answer for answer in answers if answer is not None]


def tokens_known(ids: npt.NDArray[np.integer], end_of_document: int | None) -> Ints:
    """How many tokens a text, or the document in it, has up to each token; 0 at an end-of-document token.

    >>> tokens_known(np.array([5, 6, 9, 7]), 9).tolist()
    [1, 2, 0, 1]
    """
    places = np.arange(1, ids.size + 1)
    if end_of_document is None:
        return places
    ends = np.where(ids == end_of_document, places, 0)
    return places - np.maximum.accumulate(ends)


def _batches(texts: Sequence[npt.NDArray[np.integer]]) -> Iterator[list[int]]:
    """Numbers of texts of like length, the longest first."""
    batch: list[int] = []
    for number in np.argsort([-text.size for text in texts], kind="stable").tolist():
        longest = texts[batch[0]].size if batch else texts[number].size
        if len(batch) == _ROWS or (batch and longest * (len(batch) + 1) > _MOST_TOKENS):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def ending_tokens(index: CorpusIndex) -> Ints:
    """The tokens, other than the end-of-document token, that documents end with; (K,) ascending; O(D) once."""
    if index not in _endings:
        starts = np.asarray(index.doc_starts)
        full = starts[1:][np.diff(starts) > 0]
        last = np.unique(index.tokens[full - 1]).astype(np.int64)
        _endings[index] = last if index.end_of_document is None else last[last != index.end_of_document]
    return _endings[index]


def _with_endings(index: CorpusIndex, ids: Ints, found: TextMatches, ending: Ints) -> TextMatches:
    """The matches, made longer where a longer n-gram stands at the end of documents only."""
    if ending.size == 0:
        return found
    length, lo, hi = found.length, found.lo.copy(), found.hi.copy()
    before = np.concatenate([[0], length[:-1]])  # as the index knows them: what a match can grow from
    longer = length.copy()
    for place in np.flatnonzero(np.isin(ids, ending) & (length <= before)).tolist():
        if ids[place] == index.end_of_document:
            continue
        least, most = int(length[place]), int(before[place]) + 1
        while least < most:  # a shorter suffix of what occurs occurs
            middle = (least + most + 1) // 2
            if index.count(ids[place + 1 - middle : place + 1]):
                least = middle
            else:
                most = middle - 1
        if least > length[place]:
            longer[place], lo[place], hi[place] = least, 0, 0
    return TextMatches(longer, lo, hi)


def maximal_spans(length: Ints) -> tuple[Ints, Ints]:
    """The spans that can't be made longer on either side: where they begin and end, half-open, ascending.

    Parameters
    ----------
    length : ndarray of shape (T,), int64
        Of the longest match at each token.

    Examples
    --------
    >>> begin, end = maximal_spans(np.array([1, 2, 1, 2, 3, 0]))
    >>> list(zip(begin.tolist(), end.tolist()))
    [(0, 2), (2, 5)]
    """
    following = np.concatenate([length[1:], [0]])
    last = np.flatnonzero((length > 0) & (following <= length))
    return last + 1 - length[last], last + 1


def covered(size: int, begin: Ints, end: Ints) -> npt.NDArray[np.bool_]:
    """Which tokens lie in any of the spans; (size,) bool."""
    steps = np.bincount(begin, minlength=size + 1) - np.bincount(end, minlength=size + 1)
    return np.asarray(steps.cumsum()[:size] > 0)
