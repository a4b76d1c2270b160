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
from corpus_index import CorpusIndex, ShardedIndex

Ints = npt.NDArray[np.int64]

_ROWS = 64
_MOST_TOKENS = 1 << 18  # of a batch, padding included
_endings: WeakKeyDictionary[CorpusIndex, _Endings] = WeakKeyDictionary()


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
    for numbers in _batches(texts):
        sizes = np.array([texts[number].size for number in numbers])
        ids = np.zeros((len(numbers), max(int(sizes[0]), 1)), np.int64)
        for row, number in enumerate(numbers):
            ids[row, : texts[number].size] = texts[number]
        match = index.match(ids)
        found = TextMatches(match.match_len.astype(np.int64), match.lo, match.hi)
        longer = _longest_at_ends(index, ids, found, np.arange(ids.shape[1]) < sizes[:, None])
        known = tokens_known(ids, index.end_of_document)
        starts = (found.length == known) & (known <= np.arange(ids.shape[1]))
        unranked = starts | (longer > found.length)
        found = TextMatches(longer, np.where(unranked, 0, found.lo), np.where(unranked, 0, found.hi))
        for row, number in enumerate(numbers):
            answers[number] = TextMatches(*(part[row, : texts[number].size] for part in found))
    return [answer for answer in answers if answer is not None]


def tokens_known(ids: npt.NDArray[np.integer], end_of_document: int | None) -> Ints:
    """How many tokens a text, or the document in it, has up to each token; 0 at an end-of-document token.

    ids: (T,), or (B, T), texts beside each other.

    >>> tokens_known(np.array([5, 6, 9, 7]), 9).tolist()
    [1, 2, 0, 1]
    """
    places = np.broadcast_to(np.arange(1, ids.shape[-1] + 1), ids.shape)
    if end_of_document is None:
        return places
    ends = np.where(ids == end_of_document, places, 0)
    return np.asarray(places - np.maximum.accumulate(ends, axis=-1))


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


class _Endings(NamedTuple):
    """The documents' ends by what stands there: tokens, those that documents end with but the end-of-document token.

    keys, positions: of each document that isn't empty, symbol << 32 | rank, ascending, and where its last token is.
    first: where that document begins. Empty of a sharded index.
    """

    tokens: Ints
    keys: npt.NDArray[np.uint64]
    positions: Ints
    first: Ints


def ending_tokens(index: CorpusIndex) -> Ints:
    """The tokens, other than the end-of-document token, that documents end with; (K,) ascending; O(D) once."""
    return _ends_of(index).tokens


def _ends_of(index: CorpusIndex) -> _Endings:
    if index not in _endings:
        starts = np.asarray(index.doc_starts)
        full = starts[1:][np.diff(starts) > 0]
        last = np.unique(index.tokens[full - 1]).astype(np.int64)
        tokens = last if index.end_of_document is None else last[last != index.end_of_document]
        keys, positions = np.empty(0, np.uint64), np.empty(0, np.int64)
        if not isinstance(index, ShardedIndex) and tokens.size:
            keys = np.asarray(index.array("endings"))
            positions = np.asarray(index.array("order")[(keys & np.uint64(2**32 - 1)).astype(np.int64)], np.int64)
        first = starts[np.searchsorted(starts, positions, side="right") - 1].astype(np.int64)
        _endings[index] = _Endings(tokens, keys, positions, first)
    return _endings[index]


def _longest_at_ends(index: CorpusIndex, ids: Ints, found: TextMatches, there: npt.NDArray[np.bool_]) -> Ints:
    """The lengths of the matches (B, T), longer where a longer n-gram stands at the end of documents only.

    Such an n-gram is a suffix of what matched at the token before, and a document's last token. there: (B, T), whether
    a row has a token there.
    """
    ends, longer = _ends_of(index), found.length.copy()
    if ends.tokens.size == 0:
        return longer
    can_end = np.zeros(index.vocab_size, np.bool_)
    can_end[ends.tokens] = True
    before = np.pad(found.length[:, :-1], ((0, 0), (1, 0)))  # what a match can grow from
    rows, places = np.nonzero(there & can_end[ids] & (found.length <= before))
    if isinstance(index, ShardedIndex):
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            longer[row, place] = _searched(
                index, ids[row], place, int(found.length[row, place]), int(before[row, place])
            )
        return longer
    symbols = index.symbols_of(ids)
    whole = places == 0
    lo = np.where(whole, 0, found.lo[rows, places - 1]).astype(np.uint64)
    hi = np.where(whole, index.num_tokens, found.hi[rows, places - 1]).astype(np.uint64)
    key = symbols[rows, places].astype(np.uint64) << np.uint64(32)
    at, stop = np.searchsorted(ends.keys, key | lo), np.searchsorted(ends.keys, key | hi)
    shared = np.where(at < stop, before[rows, places], -1)
    tokens = index.array("tokens")
    for end in (at - 1, stop):  # no other document's end shares more with the text than those beside the match do
        ask = np.flatnonzero((shared < 0) | (shared < before[rows, places]))
        ask = ask[(end[ask] >= 0) & (end[ask] < ends.keys.size)]
        ask = ask[ends.keys[end[ask]] >> np.uint64(32) == key[ask] >> np.uint64(32)]
        length = np.zeros(ask.size, np.int64)
        going = np.arange(ask.size)
        while going.size:
            one, size = ask[going], length[going]
            inside = (size < before[rows[one], places[one]]) & (ends.positions[end[one]] - size > ends.first[end[one]])
            going, one, size = going[inside], one[inside], size[inside]
            same = np.asarray(tokens[ends.positions[end[one]] - 1 - size]) == symbols[rows[one], places[one] - 1 - size]
            going = going[same]
            length[going] += 1
        shared[ask] = np.maximum(shared[ask], length)
    longer[rows, places] = np.maximum(longer[rows, places], shared + 1)
    return longer


def _searched(index: CorpusIndex, ids: Ints, place: int, least: int, before: int) -> int:
    """The longest n-gram that ends at a place, at least as long as is known; a suffix of what occurs occurs."""
    most = before + 1
    while least < most:
        middle = (least + most + 1) // 2
        if index.count(ids[place + 1 - middle : place + 1]):
            least = middle
        else:
            most = middle - 1
    return least


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
