"""Corpora that somebody else has tokenised, as streams of tokens: one file or many → one corpus.

Naively: read each file whole, check that its ids are in the vocabulary, append. Here a file is mapped where it lies
flat (`ReadyTokens`), or read piece by piece where its format packs documents (`TokenRows`); memory holds one piece, and
eight bytes per document.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index.names import numbered_names

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.pipeline import TokenFile, TokenWriter
from corpus_teacher.data.tokenizers import token_dtype
from corpus_teacher.errors import InputError
from corpus_teacher.storage import Place

Piece = tuple[npt.NDArray[Any], "npt.NDArray[np.int64] | None"]
"""Tokens, and after how many of them documents end; None where the file doesn't say, or says it elsewhere."""

_CHUNK_TOKENS = 1 << 22


@dataclass(frozen=True)
class ReadyTokens:
    """A tokenised corpus that lies flat on disk.

    Parameters
    ----------
    path : Path
    tokens : ndarray of shape (N,), integer
        A read-only map; what gives slices of a file behind a URL.
    doc_starts : ndarray of shape (D + 1,), int64, optional
        None where the file doesn't say.
    convention : str
        What it was taken for, for the summary.
    doubt : str, optional
        A sentence, where it looks like something else.
    """

    path: Place
    tokens: npt.NDArray[Any]
    doc_starts: npt.NDArray[np.int64] | None
    convention: str
    doubt: str | None = None

    @property
    def num_tokens(self) -> int:
        """N."""
        return len(self.tokens)

    def chunks(self, vocab_size: int | None = None) -> Iterator[npt.NDArray[Any]]:
        """The tokens in bounded pieces, each id checked to be in 0 .. vocab_size − 1 (2³¹ − 1 at most).

        Raises
        ------
        InputError
            At the first id outside, named with its position.
        """
        for begin in range(0, len(self.tokens), _CHUNK_TOKENS):
            chunk = self.tokens[begin : begin + _CHUNK_TOKENS]
            _check_ids(chunk, begin, str(self.path), vocab_size)
            yield chunk

    def pieces(self, vocab_size: int | None = None) -> Iterator[Piece]:
        """As `chunks`; where documents end stands in `doc_starts`."""
        return ((chunk, None) for chunk in self.chunks(vocab_size))


@dataclass(frozen=True)
class TokenRows:
    """A tokenised corpus whose file holds documents one by one: rows of a table, samples of a shard.

    Parameters
    ----------
    path : Path or str
    read : callable
        Reads the file from its beginning, in pieces of whole documents.
    convention : str
        What it was taken for, for the summary.
    """

    path: Place | str
    read: Callable[[], Iterable[Piece]]
    convention: str
    doubt: str | None = None
    num_tokens: int | None = None

    def pieces(self, vocab_size: int | None = None) -> Iterator[Piece]:
        """The tokens with the ends of documents, each id checked as in `ReadyTokens.chunks`.

        Raises
        ------
        InputError
            What the reader meets, and the first id outside of the vocabulary.
        """
        done = 0
        for tokens, ends in self.read():
            _check_ids(tokens, done, str(self.path), vocab_size)
            done += len(tokens)
            yield tokens, ends


TokenSource = ReadyTokens | TokenRows


def gathered(documents: Iterable[npt.NDArray[Any]]) -> Iterator[Piece]:
    """Documents, one array each, in pieces of many.

    >>> [(tokens.tolist(), ends.tolist()) for tokens, ends in gathered([np.arange(2), np.arange(3)])]
    [([0, 1, 0, 1, 2], [2, 5])]
    """
    held: list[npt.NDArray[Any]] = []
    size = 0
    for document in documents:
        held.append(document)
        size += len(document) + 16
        if size >= _CHUNK_TOKENS:
            yield _together(held)
            held, size = [], 0
    if held:
        yield _together(held)


def _together(documents: list[npt.NDArray[Any]]) -> Piece:
    return np.concatenate(documents), np.cumsum([len(document) for document in documents], dtype=np.int64)


def _check_ids(chunk: npt.NDArray[Any], begin: int, path: str, vocab_size: int | None) -> None:
    """Refuse an id outside of the vocabulary; `chunk` begins at token `begin` of the file."""
    if not len(chunk):
        return
    limit = vocab_size or 1 << 31
    low, high = int(chunk.min()), int(chunk.max())
    if low < 0 or high >= limit:
        place = int(np.argmax((chunk < 0) | (chunk >= limit)))
        bound = f"the vocabulary of {vocab_size}" if vocab_size else "the largest vocabulary, 2^31"
        raise InputError(
            f"{path}: token {begin + place} is {chunk[place]}, which is outside of {bound}; name the tokenizer or the "
            "vocab_size that the tokens were made with, and the right `dtype`"
        )


def split_after(tokens: npt.NDArray[Any], end_of_document: int) -> npt.NDArray[np.int64]:
    """Where documents end in a piece of tokens: after every end-of-document id.

    >>> split_after(np.array([5, 0, 7, 0]), 0).tolist()
    [2, 4]
    """
    return np.flatnonzero(tokens == end_of_document).astype(np.int64) + 1


def join_ready_tokens(
    files: list[TokenSource] | list[ReadyTokens],
    *,
    vocab_size: int | None,
    end_of_document: int | None,
    folder: Path,
    notes: list[str],
    progress: Progress = silent,
) -> tuple[TokenFile, int]:
    """Check the tokens of all files and put them one after the other.

    Parameters
    ----------
    files : list of ReadyTokens or TokenRows
        A single map of uint16 or uint32 stays where it lies; else a nameless copy is made in `folder`.
    vocab_size : int, optional
        Bound of the ids.
    end_of_document : int, optional
        Documents end after each such token, also where the file says where they end.
    notes : list of str
        Gets a sentence where a file is taken for one document.

    Returns
    -------
    corpus : TokenFile
    largest : int
        The largest id.

    Raises
    ------
    InputError
        At an id outside of the vocabulary.
    OutputError
        If the copy can't be written.
    """
    sizes = [file.num_tokens for file in files]
    total = None if None in sizes else sum(size or 0 for size in sizes)
    done, largest, whole = 0, 0, 0
    doc_starts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    with contextlib.ExitStack() as stack:
        writer = None
        kept = _kept_in_place(files)
        if kept is None:
            writer = stack.enter_context(TokenWriter(token_dtype(vocab_size or 1 << 31), folder=folder))
        for file in files:
            begin = done
            inner: list[npt.NDArray[np.int64]] = []
            known: list[npt.NDArray[np.int64]] = []
            for chunk, ends in file.pieces(vocab_size):
                largest = max(largest, int(chunk.max(initial=0)))
                if end_of_document is not None:
                    inner.append(split_after(chunk, end_of_document) + done)
                if ends is not None:
                    known.append(ends + done)
                if writer is not None:
                    writer.append(chunk)
                done += len(chunk)
                progress("read the tokens", done, total, done)
            if isinstance(file, ReadyTokens) and file.doc_starts is not None:
                known.append(file.doc_starts[1:] + begin)
            if not known:
                found = np.unique(np.concatenate([*inner, [done]]))
                whole += len(found) == 1
                doc_starts.append(found)
            else:
                said = np.concatenate(known)
                inside = np.setdiff1d(np.concatenate(inner), said) if inner else said[:0]
                if len(inside):
                    notes.append(
                        f"{Path(str(file.path)).name}: {len(inside):,} end-of-document ids ({end_of_document}) stand "
                        "inside documents, which are split there"
                    )
                    said = np.sort(np.concatenate([said, inside]), kind="stable")
                doc_starts.append(said)
        tokens = kept if kept is not None else writer.finish().tokens  # type: ignore[union-attr]
    notes.extend(file.doubt for file in files if file.doubt)
    if whole:
        reason = (
            f"no token is the end-of-document id {end_of_document}"
            if end_of_document is not None
            else "neither doc_offsets nor end_of_document says where documents end"
        )
        notes.append(f"{reason}: {'each file' if whole > 1 else 'the file'} is taken for one document")
    rules = [(len(ends), f"{file.path}, document ") for file, ends in zip(files, doc_starts[1:], strict=True)]
    names = numbered_names(rules, first=0)
    return TokenFile(tokens, np.concatenate(doc_starts), names=names), largest


def _kept_in_place(files: list[TokenSource] | list[ReadyTokens]) -> npt.NDArray[Any] | None:
    """The map of the only file, if an index can be built of it as it is."""
    (first, *others) = files
    tokens = first.tokens if isinstance(first, ReadyTokens) else None
    if others or not isinstance(tokens, np.ndarray) or tokens.dtype not in (np.uint16, np.uint32):
        return None
    return tokens
