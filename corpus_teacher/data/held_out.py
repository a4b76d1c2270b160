"""Held-out text → rows of tokens with what follows each: every token predicted once, with enough of its context.

Naively: for each token of each document, all tokens before it in the document. Here the stream is cut into rows of T
tokens that overlap, so that a position at a row's start still sees the last tokens of the row before; what overlaps is
context only and isn't counted again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.pipeline import TokenFile
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.data.sources import Inventory
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.data.tokens import read_tokens
from corpus_teacher.errors import ConfigError

_DECODED_TOKENS = 1 << 16


class HeldOutBatch(NamedTuple):
    """Rows of a held-out text.

    Attributes
    ----------
    input_ids : ndarray of shape (B, T), int64
    next_ids : ndarray of shape (B, T), int64
        The token that follows each position; −1 where it isn't counted: padding, or context from the row before.
    starts_document : ndarray of shape (B,), bool
        Which rows begin where a document begins.
    """

    input_ids: npt.NDArray[np.int64]
    next_ids: npt.NDArray[np.int64]
    starts_document: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class HeldOut:
    """A tokenised text that an index is asked about.

    Parameters
    ----------
    corpus : TokenFile
        Its `num_bytes` is 0 where the text is unknown.
    end_of_document : int, optional
        Of the index. It leads each document, so that the document's first token is predicted too; without it that
        token has nothing before it and isn't counted.
    """

    corpus: TokenFile
    end_of_document: int | None

    @property
    def num_predicted(self) -> int:
        """Tokens that are predicted."""
        return sum(begin.size - 1 for begin in self._streams())

    def batches(
        self, *, length: int = 1024, rows: int = 64, overlap: int = 64, sample: int | None = None
    ) -> Iterator[HeldOutBatch]:
        """All tokens, each counted once.

        Parameters
        ----------
        length : int
            T.
        rows : int
            B, at most.
        overlap : int
            Tokens that a row takes over from the one before as context: a counted position sees at least that many,
            or all of its document.
        sample : int, optional
            About that many tokens, in rows that are spread evenly over the text; all by default.
        """
        if not 0 <= overlap < length:
            raise ConfigError(f"an overlap of {overlap} tokens doesn't fit rows of {length}")
        share = 1.0 if sample is None else min(1.0, sample / max(1, self.num_predicted))
        passed = taken = 0
        held: list[tuple[npt.NDArray[Any], bool, int]] = []
        for stream in self._streams():
            for begin in range(0, max(1, stream.size - 1 - overlap), length - overlap):
                piece = stream[begin : begin + length + 1]
                skipped = overlap if begin else 0
                counted = piece.size - 1 - skipped
                passed += counted
                if share < 1.0 and taken + counted / 2 > passed * share:
                    continue
                taken += counted
                held.append((piece, begin == 0, skipped))
                if len(held) == rows:
                    yield _batch(held, length)
                    held = []
        if held:
            yield _batch(held, length)

    def _streams(self) -> Iterator[npt.NDArray[Any]]:
        """What is read in one go: all documents if an end-of-document token parts them, else each by itself."""
        tokens, starts, end = self.corpus.tokens, self.corpus.doc_starts, self.end_of_document
        full = starts[1:][np.diff(starts) > 0]
        if end is not None and (tokens[full - 1] == end).all():
            yield np.concatenate([[end], tokens]).astype(tokens.dtype)
            return
        for begin, stop in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            document = tokens[begin:stop]
            if end is not None:
                document = np.concatenate([[end], document]).astype(tokens.dtype)
            if document.size > 1:
                yield document


def _batch(held: list[tuple[npt.NDArray[Any], bool, int]], length: int) -> HeldOutBatch:
    ids = np.zeros((len(held), length), np.int64)
    following = np.full((len(held), length), -1, np.int64)
    for row, (piece, _, skipped) in enumerate(held):
        ids[row, : piece.size - 1] = piece[:-1]
        following[row, skipped : piece.size - 1] = piece[1 + skipped :]
    return HeldOutBatch(ids, following, np.array([starts for _, starts, _ in held]))


def read_held_out(
    index: CorpusIndex,
    specs: list[str] | Inventory,
    tokenizer: Tokenizer | None,
    *,
    read: ReadOptions | None = None,
    dtype: str = "auto",
    limit: int | None = None,
    progress: Progress = silent,
) -> HeldOut:
    """Read text with the index's own tokenizer, or tokens that are ready.

    Parameters
    ----------
    index : CorpusIndex
    specs : list of str, or Inventory
        See `find_sources`, or what it found; .npy and .bin are ready tokens.
    tokenizer : Tokenizer, optional
        The index's; text needs it.
    read, dtype : optional
        As in `BuildOptions`.
    limit : int, optional
        Only the first tokens.

    Raises
    ------
    InputError, TokenizerError, CorpusError, ConfigError
    """
    if limit is not None and limit < 2:
        raise ConfigError(f"a limit of {limit} tokens leaves nothing to predict: take at least 2")
    corpus, ready = read_tokens(
        specs,
        tokenizer,
        vocab_size=index.vocab_size,
        end_of_document=index.end_of_document,
        read=read,
        dtype=dtype,
        without_tokenizer=f"{index.path} holds no tokenizer: name one (`tokenizer`), or give ready tokens",
        progress=progress,
    )
    cut = False
    if limit is not None and limit < len(corpus.tokens):
        cut = True
        starts = np.append(corpus.doc_starts[corpus.doc_starts < limit], limit)
        corpus = TokenFile(corpus.tokens[:limit], starts)
    if tokenizer is not None and (ready or cut):
        corpus = TokenFile(corpus.tokens, corpus.doc_starts, _text_bytes(corpus.tokens, tokenizer))
    return HeldOut(corpus, index.end_of_document)


def _text_bytes(tokens: npt.NDArray[Any], tokenizer: Tokenizer) -> int:
    """UTF-8 bytes of the text of tokens, without ends of documents; a character cut in two counts a little off."""
    total = 0
    for begin in range(0, len(tokens), _DECODED_TOKENS):
        piece = np.asarray(tokens[begin : begin + _DECODED_TOKENS])
        total += len(tokenizer.decode(piece[piece != tokenizer.end_of_document]).encode())
    return total
