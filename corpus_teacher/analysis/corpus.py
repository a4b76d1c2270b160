"""A corpus to ask in words: its index, its tokenizer and its documents together, so that a notebook needs no ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex
from corpus_index.integrity import Check

from corpus_teacher.analysis.reader import Continuation, Occurrence, Reader, Source, sources_of
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import QueryError
from corpus_teacher.storage import index_of


@dataclass(frozen=True)
class NextWords:
    """What follows a text.

    Parameters
    ----------
    match : str
        The longest end of the text that the corpus contains.
    count : int
        How often a token follows it.
    tokens : list of Continuation
        The most frequent ones, descending.
    """

    match: str
    count: int
    tokens: list[Continuation]

    def __str__(self) -> str:
        rows = [f"{one.text!r:>16} {one.count:>9,} {one.share:7.1%}" for one in self.tokens]
        return "\n".join([f"after {self.match!r}, {self.count:,} times:", *rows])


@dataclass(frozen=True)
class DocumentText:
    """A document: its number, its name, what else was kept of it, and its text without the end token."""

    number: int
    name: str | None
    fields: dict[str, Any]
    text: str


class Corpus:
    """An index with the tokenizer that it was built with; made by `open_corpus`, a context manager.

    Attributes
    ----------
    index : CorpusIndex
        For questions in ids, and whole batches.
    """

    def __init__(self, path: CorpusIndex | str | Path, *, tokenizer: str | None = None, check: Check = "first") -> None:
        self.index = index_of(path, check=check)
        try:
            self._reader = Reader(self.index, tokenizer, ids=False)
        except BaseException:
            self.index.close()
            raise

    @property
    def tokenizer(self) -> Tokenizer:
        """What makes tokens of text."""
        assert self._reader.tokenizer is not None
        return self._reader.tokenizer

    def __repr__(self) -> str:
        size = f"{self.index.num_tokens:,} tokens, {self.index.num_documents:,} documents"
        return f"Corpus({str(self.index.path)!r}: {size}, tokenizer {self.tokenizer.spec!r})"

    def __enter__(self) -> Corpus:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self.index.close()

    def next(self, text: str, *, top: int = 10, max_order: int | None = None, min_count: int = 1) -> NextWords:
        """What follows a text, or the longest end of it that the corpus contains.

        Parameters
        ----------
        text : str
        top : int
            How many continuations to give at most.
        max_order, min_count : int
            The longest context in tokens, and how often a token must follow it.

        Raises
        ------
        QueryError
        """
        if top < 1:
            raise QueryError(f"top {top} is too small: ask for at least 1 continuation")
        context = self._reader.encode(text)
        found = self.index.next_tokens(context, max_order=max_order, min_count=min_count)
        match = self._reader.text(context[len(context) - int(found.match_len) :])
        return NextWords(match, int(found.context_count), self._reader.ranked(found, top))

    def count(self, text: str) -> int:
        """How often a text occurs, cut into the tokens that it has by itself."""
        return self.index.count(self._tokens(text))

    def where(self, text: str, *, limit: int = 5) -> list[Occurrence]:
        """Places where a text occurs: document, its name, and the text around."""
        return list(self._reader.occurrences(self.index, self._tokens(text), limit))

    def document(self, number: int) -> DocumentText:
        """A document by its number, with its text.

        Raises
        ------
        QueryError
            If there is no such document.
        """
        found = self.index.document(number)
        tokens = self.index.tokens[found.start : found.start + found.num_tokens]
        if len(tokens) and self.index.end_of_document is not None and int(tokens[-1]) == self.index.end_of_document:
            tokens = tokens[:-1]
        return DocumentText(number, found.name, found.fields, self._reader.text(tokens))

    def documents_of(
        self, text: str, following: str | None = None, *, limit: int = 10, max_order: int | None = None
    ) -> list[Source]:
        """Which documents taught what follows a text; see `CorpusIndex.documents_of`.

        Parameters
        ----------
        text : str
        following : str, optional
            Count only where this follows, by its first token.
        limit : int
            How many documents to name at most.
        """
        context = self._reader.encode(text)
        token = None
        if following is not None:
            whole, token = self._reader.encode(text + following), None
            if len(whole) > len(context) and np.array_equal(whole[: len(context)], context):
                token = int(whole[len(context)])
            else:
                token = int(self._tokens(following)[0])
        return sources_of(self.index, self.index.documents_of(context, token, limit=limit, max_order=max_order))

    def _tokens(self, text: str) -> npt.NDArray[np.int64]:
        tokens = self._reader.encode(text)
        if tokens.size == 0:
            raise QueryError("the text is empty: give at least one character")
        return tokens


def open_corpus(path: CorpusIndex | str | Path, *, tokenizer: str | None = None, check: Check = "first") -> Corpus:
    """Open an index together with its tokenizer and the names of its documents, to ask in words.

    Parameters
    ----------
    path : str or Path, or CorpusIndex
        The folder of the index, or an index that is open, such as one whose shards are elsewhere.
    tokenizer : str, optional
        Needed only for an index of ready tokens, which carries none: a tokenizer.json, a folder or a name.
    check : {"first", "always", "never"}
        When the index's files are compared with their checksums; see `CorpusIndex.open`.

    Raises
    ------
    IndexFormatError
        If there is no index, or a file of it is damaged.
    TokenizerError
        If there is no tokenizer, or it isn't the index's.

    Examples
    --------
    >>> import tempfile
    >>> from corpus_teacher.data import ByteTokenizer, build_index_from_documents
    >>> path = tempfile.mkdtemp() + "/index"
    >>> build_index_from_documents(["once upon a time", "once more"], ByteTokenizer(), path, name="tales").close()
    >>> corpus = open_corpus(path)
    >>> corpus.count("once"), corpus.next("once upon").tokens[0].text, corpus.where("upon")[0].name
    (2, ' ', 'tales, document 1')
    """
    return Corpus(path, tokenizer=tokenizer, check=check)
