"""Tokens of an index as text, and back: what every question in words goes through."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, DocumentVotes

from corpus_teacher.data.opening import index_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer

SNIPPET_TOKENS = 24  # on either side of a match


@dataclass(frozen=True)
class Continuation:
    """A token that follows the match: its id and text, how often, and its share of all that follow."""

    token: int
    text: str
    count: int
    share: float


@dataclass(frozen=True)
class Occurrence:
    """One place where the match stands.

    Parameters
    ----------
    document : int
        Number of the document.
    position, offset : int
        Of the match's first token, in the corpus and in the document.
    before, match, after : str
        The text there, inside the document.
    cut_before, cut_after : bool
        Whether the document goes on beyond them.
    name : str, optional
        What the document is called, where the index knows it.
    """

    document: int
    position: int
    offset: int
    before: str
    match: str
    after: str
    cut_before: bool
    cut_after: bool
    name: str | None = None


@dataclass(frozen=True)
class Source:
    """A document that taught a target: its number and name, and how many of the votes are its."""

    document: int
    name: str | None
    count: int


def sources_of(index: CorpusIndex, votes: DocumentVotes) -> list[Source]:
    """Votes with the documents' names."""
    pairs = zip(votes.documents.tolist(), votes.counts.tolist(), strict=True)
    return [Source(document, index.document(document).name, count) for document, count in pairs]


class Reader:
    """Token ids as text; as `<id>` where the index has no tokenizer and ids were asked for.

    Parameters
    ----------
    index : CorpusIndex
    spec : str, optional
        A tokenizer; must be the index's own if it has one.
    ids : bool
        Whether ids will do where there is no tokenizer.
    tokenizer : Tokenizer, optional
        The index's own, where it is loaded already.

    Raises
    ------
    TokenizerError
        As `index_tokenizer`.
    """

    def __init__(self, index: CorpusIndex, spec: str | None, *, ids: bool, tokenizer: Tokenizer | None = None) -> None:
        self.tokenizer = tokenizer
        if tokenizer is not None:
            return
        if not ids or spec is not None or index.metadata.get("tokenizer"):
            self.tokenizer = index_tokenizer(index, spec)

    def encode(self, text: str) -> npt.NDArray[np.int64]:
        """Token ids of a text."""
        assert self.tokenizer is not None
        return self.tokenizer.encode(text).astype(np.int64)

    def text(self, ids: npt.NDArray[Any]) -> str:
        """The text of token ids."""
        return self.tokenizer.decode(ids) if self.tokenizer else " ".join(map(str, ids))

    def token(self, token: int) -> str:
        """One token for a person to read."""
        if self.tokenizer is None or token >= self.tokenizer.vocab_size:
            return f"<{token}>"
        return self.tokenizer.token_text(int(token))

    def ranked(self, found: Any, top: int) -> list[Continuation]:
        """The most frequent continuations, descending; ties by id."""
        order = np.argsort(-found.counts.astype(np.int64), kind="stable")[:top]
        total = max(int(found.context_count), 1)
        return [
            Continuation(int(token), self.token(int(token)), int(count), int(count) / total)
            for token, count in zip(found.token_ids[order], found.counts[order], strict=True)
        ]

    def occurrences(self, index: CorpusIndex, match: npt.NDArray[np.int64], limit: int) -> Iterator[Occurrence]:
        """The first places of a match, with the text around it, inside its document."""
        yield from self.places(index, index.positions(match, limit=limit), len(match))

    def places(self, index: CorpusIndex, positions: npt.NDArray[np.int64], num_tokens: int) -> Iterator[Occurrence]:
        """That many tokens at some positions of the corpus, with the text around them, inside their document."""
        for position, document in zip(positions.tolist(), index.document_of(positions).tolist(), strict=True):
            begin, end = int(index.doc_starts[document]), int(index.doc_starts[document + 1])
            after = position + num_tokens
            yield Occurrence(
                document=document,
                position=position,
                offset=position - begin,
                before=self.text(index.tokens[max(begin, position - SNIPPET_TOKENS) : position]),
                match=self.text(index.tokens[position:after]),
                after=self.text(index.tokens[after : min(end, after + SNIPPET_TOKENS)]),
                cut_before=position - SNIPPET_TOKENS > begin,
                cut_after=after + SNIPPET_TOKENS < end,
                name=index.document(document).name,
            )
