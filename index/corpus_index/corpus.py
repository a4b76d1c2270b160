"""What the index takes as a corpus: one flat array of token ids and the starts of its documents.

Everything that a caller may hand over is checked here, so that the kernels can trust their input; a complaint names the
offending value and its place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from corpus_index.errors import CorpusError

MAX_TOKENS = 2**32 - 2
MAX_VOCAB = 2**31
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Corpus:
    """A checked corpus.

    Attributes
    ----------
    tokens : ndarray of shape (N,), any integer type
        Ids below vocab_size; N ≥ 1.
    doc_starts : ndarray of shape (D + 1,), int64
        Where each document starts, and N.
    vocab_size : int
    end_of_document : int or None
        Stands only at the end of documents.
    """

    tokens: np.ndarray
    doc_starts: np.ndarray
    vocab_size: int
    end_of_document: int | None

    @property
    def filled_starts(self) -> np.ndarray:
        """Starts of the documents that hold tokens, and N: shape (D' + 1,), int64."""
        return self.doc_starts[np.concatenate([np.diff(self.doc_starts) > 0, [True]])]


def check_corpus(
    tokens: np.ndarray,
    doc_starts: np.ndarray | None = None,
    vocab_size: int | None = None,
    end_of_document: int | None = None,
    *,
    most: int | None = MAX_TOKENS,
) -> Corpus:
    """Check a corpus and fill in what was left out; O(N) time, no copy of the tokens.

    most: how many tokens it may have; None: any number, for a corpus that is cut into shards.

    Raises
    ------
    CorpusError
        With the offending value, its place and the bound.
    """
    try:
        tokens = np.asarray(tokens)
    except (ValueError, OverflowError) as error:  # lists of different lengths
        raise CorpusError(
            "tokens must be a 1-D array of integers: concatenate the documents and pass doc_starts"
        ) from error
    if tokens.ndim != 1 or tokens.dtype.kind not in "ui":
        raise CorpusError(
            f"tokens must be a 1-D array of integers, not {tokens.ndim}-D of {tokens.dtype}: "
            "concatenate the documents and pass doc_starts"
        )
    if tokens.size == 0:
        raise CorpusError("the corpus holds no token: give at least one document with text")
    if most is not None and tokens.size > most:
        raise CorpusError(f"{tokens.size:,} tokens are more than one index holds ({most:,}): cut it into shards")
    for name, value in (("vocab_size", vocab_size), ("end_of_document", end_of_document)):
        check_integer(value, name, none=True)
    largest = _check_range(tokens, vocab_size)
    if vocab_size is None:
        vocab_size = max(largest, -1 if end_of_document is None else end_of_document) + 1
    if not 1 <= vocab_size <= MAX_VOCAB:
        raise CorpusError(f"vocab_size {vocab_size:,} is outside of 1 .. {MAX_VOCAB:,}")
    if end_of_document is not None and not 0 <= end_of_document < vocab_size:
        raise CorpusError(f"end_of_document {end_of_document} is outside of the vocabulary 0 .. {vocab_size - 1}")
    ends = None if end_of_document is None else _places_of(tokens, end_of_document)
    if doc_starts is None:
        inner = np.empty(0, np.int64) if ends is None else ends + 1
        starts = np.unique(np.concatenate([[0], inner, [tokens.size]])).astype(np.int64)
    else:
        starts = _check_starts(doc_starts, tokens.size)
        if ends is not None:
            stray = ends[~np.isin(ends + 1, starts)]
            if stray.size:
                raise CorpusError(
                    f"the end-of-document token {end_of_document} stands inside a document, at position {stray[0]:,}: "
                    "leave doc_starts out to split there, or name another token"
                )
    return Corpus(tokens, starts, int(vocab_size), end_of_document)


def _check_range(tokens: np.ndarray, vocab_size: int | None) -> int:
    """The largest id; raises if one is negative or ≥ the smaller of vocab_size and the largest vocabulary."""
    bound = MAX_VOCAB if vocab_size is None else min(vocab_size, MAX_VOCAB)
    largest = 0
    for start in range(0, tokens.size, _CHUNK):
        chunk = tokens[start : start + _CHUNK]
        high, low = int(chunk.max()), int(chunk.min())
        if high >= bound or low < 0:
            place = int(np.argmax((chunk >= bound) | (chunk < 0)))
            raise CorpusError(
                f"token id {int(chunk[place])} at position {start + place:,} is outside of the vocabulary "
                f"0 .. {bound - 1}: is this the right tokenizer, or vocab_size too small?"
            )
        largest = max(largest, high)
    return largest


def _places_of(tokens: np.ndarray, token: int) -> np.ndarray:
    places = [
        np.flatnonzero(tokens[start : start + _CHUNK] == token) + start for start in range(0, tokens.size, _CHUNK)
    ]
    return np.concatenate(places).astype(np.int64)


def check_integer(value: object, name: str, *, none: bool = False) -> None:
    """Refuse what isn't a whole number; none: None is one as well.

    Raises
    ------
    CorpusError
    """
    if not (none and value is None) and (isinstance(value, bool) or not isinstance(value, (int, np.integer))):
        raise CorpusError(f"{name} {value!r} must be a whole number")


def _check_starts(given: ArrayLike, num_tokens: int) -> np.ndarray:
    try:
        doc_starts = np.asarray(given)
    except (ValueError, OverflowError) as error:  # lists of different lengths
        raise CorpusError("doc_starts must be a 1-D integer array of D + 1 offsets") from error
    if doc_starts.ndim != 1 or doc_starts.dtype.kind not in "ui" or doc_starts.size < 2:
        raise CorpusError(
            f"doc_starts must be a 1-D integer array of D + 1 offsets, not {doc_starts.dtype} {doc_starts.shape}"
        )
    starts = doc_starts.astype(np.int64)
    if starts[0] != 0 or starts[-1] != num_tokens:
        raise CorpusError(
            f"doc_starts must run from 0 to the number of tokens ({num_tokens:,}), "
            f"not from {starts[0]:,} to {starts[-1]:,}"
        )
    steps = np.diff(starts)
    if (steps < 0).any():
        place = int(np.argmax(steps < 0))
        raise CorpusError(
            f"doc_starts must not decrease, but {starts[place]:,} is followed by {starts[place + 1]:,} "
            f"(entry {place + 1:,})"
        )
    return starts
