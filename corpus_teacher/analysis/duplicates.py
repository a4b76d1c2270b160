"""What a corpus repeats across its documents, as plain data: shares by length, and the documents that repeat most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from corpus_index import CorpusIndex, near_duplicates

from corpus_teacher.data.opening import open_index
from corpus_teacher.data.tokenizer_loading import load_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer

_BEGINNING_TOKENS = 16


@dataclass(frozen=True)
class RepeatedLength:
    """How much is repeated at one length.

    Parameters
    ----------
    length : int
        In tokens.
    positions, position_share : int, float
        Positions whose last `length` tokens stand before a position of another document too: where a teacher without a
        bound on its order follows another document.
    tokens, token_share : int, float
        Tokens inside a passage of at least that length that another document holds.
    """

    length: int
    positions: int
    position_share: float
    tokens: int
    token_share: float


@dataclass(frozen=True)
class RepeatedDocument:
    """A document, its tokens, the positions that repeat another one, their share, how it begins, and its name."""

    document: int
    num_tokens: int
    positions: int
    share: float
    begins: str
    name: str | None = None


@dataclass(frozen=True)
class RepeatedPair:
    """Two documents: positions of the first that repeat the second, their share of it, how both begin, their names."""

    document: int
    other: int
    positions: int
    share: float
    begins: str
    other_begins: str
    name: str | None = None
    other_name: str | None = None


@dataclass(frozen=True)
class RepeatsAnswer:
    """What `corpus-teacher index near-duplicates` tells.

    Parameters
    ----------
    path : str
    num_tokens, num_documents : int
    lengths : list of RepeatedLength
    curve : list of float
        Share of positions that share at least 0, 1, … 255 tokens with another document.
    top_length : int
        What the documents and pairs are judged by.
    documents : list of RepeatedDocument
    pairs : list of RepeatedPair
        Where several documents hold the same passage, one of them is named.
    """

    path: str
    num_tokens: int
    num_documents: int
    lengths: list[RepeatedLength]
    curve: list[float]
    top_length: int
    documents: list[RepeatedDocument]
    pairs: list[RepeatedPair]


def index_repeats(
    path: str | Path, lengths: Sequence[int] = (16, 32, 64, 128), *, top: int = 10, top_length: int = 64
) -> RepeatsAnswer:
    """Count what the documents of an index share; see `corpus_index.near_duplicates`.

    Raises
    ------
    IndexFormatError, QueryError
    """
    with open_index(path) as index:
        tokenizer = load_tokenizer(index) if index.metadata.get("tokenizer") else None
        return repeats_of(index, tokenizer, lengths, top=top, top_length=top_length)


def repeats_of(
    index: CorpusIndex,
    tokenizer: Tokenizer | None,
    lengths: Sequence[int] = (16, 32, 64, 128),
    *,
    top: int = 10,
    top_length: int = 64,
) -> RepeatsAnswer:
    """`index_repeats` of an open index."""
    found = near_duplicates(index, lengths, top=top, top_length=top_length)
    total, sizes = index.num_tokens, np.diff(index.doc_starts)
    at_least = found.histogram[::-1].cumsum()[::-1] / total
    return RepeatsAnswer(
        path=str(index.path),
        num_tokens=total,
        num_documents=index.num_documents,
        lengths=[
            RepeatedLength(length, positions, positions / total, tokens, tokens / total)
            for length, positions, tokens in zip(
                found.lengths.tolist(), found.positions.tolist(), found.tokens.tolist(), strict=True
            )
        ],
        curve=at_least.tolist(),
        top_length=top_length,
        documents=[
            RepeatedDocument(
                document,
                size,
                positions,
                positions / size,
                _begins(index, tokenizer, document),
                index.document(document).name,
            )
            for document, positions, size in found.documents.tolist()
        ],
        pairs=[
            RepeatedPair(
                document,
                other,
                positions,
                positions / int(sizes[document]),
                _begins(index, tokenizer, document),
                _begins(index, tokenizer, other),
                index.document(document).name,
                index.document(other).name,
            )
            for document, other, positions in found.pairs.tolist()
        ],
    )


def _begins(index: CorpusIndex, tokenizer: Tokenizer | None, document: int) -> str:
    """How a document begins, in words or in ids."""
    start, end = (int(place) for place in index.doc_starts[document : document + 2])
    tokens = index.tokens[start : min(end, start + _BEGINNING_TOKENS)]
    return tokenizer.decode(tokens) if tokenizer else " ".join(map(str, tokens.tolist()))
