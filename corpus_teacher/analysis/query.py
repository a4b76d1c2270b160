"""Questions to an index, answered as plain data: what it is, whether it is sound, what it knows of a text.

The command line shows these answers as tables or as JSON; nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, EstimatorLike, OrderShare, ShardedIndex, fit_file
from corpus_index.shard_changes import history_of

from corpus_teacher.analysis.nearby import NearbyForm, nearby_forms
from corpus_teacher.analysis.reader import Continuation, Occurrence, Reader, Source, sources_of
from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.opening import fitted_estimator, open_index
from corpus_teacher.errors import ConfigError, QueryError
from corpus_teacher.storage import local_index

_MOST_VOTES = 1 << 20

__all__ = [
    "BackoffStep",
    "Continuation",
    "Explained",
    "ExplainedToken",
    "IndexInfo",
    "Occurrence",
    "QueryAnswer",
    "Source",
    "index_info",
    "index_query",
    "index_verify",
]


@dataclass(frozen=True)
class ShardInfo:
    """A shard: its folder, where its documents and its text begin in the whole, its size, and what is removed of it."""

    name: str
    fingerprint: str
    first_document: int
    first_position: int
    num_documents: int
    num_tokens: int
    size_bytes: int
    removed_documents: int = 0
    removed_tokens: int = 0


@dataclass(frozen=True)
class IndexInfo:
    """What `corpus-teacher index info` tells.

    Parameters
    ----------
    path, fingerprint, tokenizer, created : str
    num_tokens, num_documents, vocab_size, num_bytes : int
        num_bytes: UTF-8 bytes of the text, 0 where only tokens were given, or documents were removed.
    end_of_document : int, optional
    size_bytes : dict of str to int
        Of each file.
    metadata : dict
        All that was stored.
    shards, history : list
        Of an index in shards, and of one that was changed.
    hot_bytes : int
        Of the files that targets read at every position; the others are read where a match breaks, and for places.
    layout : str
        "full" or "compact".
    """

    path: str
    fingerprint: str
    num_tokens: int
    num_documents: int
    vocab_size: int
    end_of_document: int | None
    tokenizer: str | None
    num_bytes: int
    size_bytes: dict[str, int]
    metadata: dict[str, Any]
    shards: list[ShardInfo] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    hot_bytes: int = 0
    layout: str = "full"

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(self.size_bytes.values())


@dataclass(frozen=True)
class BackoffStep:
    """One order of the backoff chain.

    Parameters
    ----------
    order : int
        Tokens of the context.
    context : str
        Their text.
    count : int
        How often a token follows this context.
    distinct : int
        How many different ones do.
    best : Continuation
        The most frequent of them.
    """

    order: int
    context: str
    count: int
    distinct: int
    best: Continuation


@dataclass(frozen=True)
class ExplainedToken:
    """A likely token: its probability, and what each order adds to it, from the base up."""

    token: int
    text: str
    probability: float
    contributions: list[float]


@dataclass(frozen=True)
class Explained:
    """An estimator's distribution, order by order.

    Parameters
    ----------
    estimator : str
    orders : list of OrderShare
        Count, distinct continuations, and the shares of the mass that an order keeps and passes on; from the base up.
    tokens : list of ExplainedToken
        The likeliest, descending.
    fit_file : str, optional
        Where the fit is kept, of an estimator whose fit takes long.
    """

    estimator: str
    orders: list[OrderShare]
    tokens: list[ExplainedToken]
    fit_file: str | None = None


@dataclass(frozen=True)
class QueryAnswer:
    """What the corpus says after a text.

    Parameters
    ----------
    tokens : list of Continuation-like pairs (id, text)
        How the text was tokenised.
    match_len : int
        Tokens of the longest suffix that the corpus holds often enough.
    match : str
        Its text.
    context_count, distinct : int
        How many tokens follow it in all, and how many different ones.
    continuations : list of Continuation
        The most frequent, descending.
    backoff : list of BackoffStep
        From the longest match to the empty context.
    num_occurrences : int
        How often the match stands in the corpus.
    occurrences : list of Occurrence
        The first few.
    explained : Explained, optional
        The distribution of the estimator that was asked for.
    sources : list of Source
        The documents that taught most of what follows; none where the match is the empty one, and none where it stands
        too often to count them in a moment (more than a million times).
    nearby : list of NearbyForm
        Other forms of the text that occur far more often: with other blanks at its ends, in other letters.
    """

    tokens: list[tuple[int, str]]
    match_len: int
    match: str
    context_count: int
    distinct: int
    continuations: list[Continuation]
    backoff: list[BackoffStep]
    num_occurrences: int
    occurrences: list[Occurrence]
    explained: Explained | None = None
    sources: list[Source] = field(default_factory=list)
    nearby: list[NearbyForm] = field(default_factory=list)


def text_bytes(index: CorpusIndex) -> int:
    """UTF-8 bytes of an index's text; 0 where that isn't known: of ready tokens, or since documents were removed."""
    if any(event["what"] == "remove" for event in history_of(index)):
        return 0
    return int(index.metadata.get("num_bytes") or 0)


def index_info(path: str | Path) -> IndexInfo:
    """Describe an index.

    Raises
    ------
    IndexFormatError
        If there is none.
    """
    with open_index(path) as index:
        described = index.metadata.get("tokenizer") or {}
        return IndexInfo(
            path=str(index.path),
            fingerprint=index.fingerprint,
            num_tokens=index.num_tokens,
            num_documents=index.num_documents,
            vocab_size=index.vocab_size,
            end_of_document=index.end_of_document,
            tokenizer=described.get("spec"),
            num_bytes=text_bytes(index),
            size_bytes=dict(index.size_bytes),
            hot_bytes=index.hot_bytes,
            metadata={key: value for key, value in index.metadata.items() if key != "history"},
            shards=_shards(index),
            history=history_of(index),
            layout=index.layout,
        )


def _shards(index: CorpusIndex) -> list[ShardInfo]:
    """The shards of an index; none of one that isn't cut."""
    if not isinstance(index, ShardedIndex):
        return []
    return [
        ShardInfo(
            name=shard.path.name,
            fingerprint=shard.fingerprint,
            first_document=int(first_document),
            first_position=int(first_position),
            num_documents=shard.num_documents,
            num_tokens=shard.num_tokens,
            size_bytes=sum(shard.size_bytes.values()),
            removed_documents=0 if entry.mask is None else entry.mask.documents,
            removed_tokens=0 if entry.mask is None else entry.mask.tokens,
        )
        for shard, entry, first_document, first_position in zip(
            index.shards, index.entries, index.first_documents, index.first_positions, strict=False
        )
    ]


def index_verify(path: str | Path, *, full: bool = False) -> list[str]:
    """Names of the checks that an index passed.

    Raises
    ------
    IndexFormatError
        At the first that it doesn't pass.
    """
    from corpus_index import verify_index

    return verify_index(local_index(path), full=full)


def index_query(
    path: str | Path,
    text: str,
    *,
    tokenizer: str | None = None,
    ids: bool = False,
    max_order: int | None = None,
    min_count: int = 1,
    top: int = 10,
    snippets: int = 5,
    estimator: EstimatorLike | None = None,
    progress: Progress = silent,
) -> QueryAnswer:
    """What the corpus says after a text: continuations, the backoff chain, and where it stands.

    Parameters
    ----------
    path : str or Path
        Of the index.
    text : str
        The context; the end of it counts.
    tokenizer : str, optional
        Must be the index's own; needed only where the index was built from ready tokens.
    ids : bool
        The text is token ids, separated by spaces or commas.
    max_order, min_count : int
        Longest context in tokens, and how often it must be followed by a token.
    top, snippets : int
        How many continuations and occurrences to give at most.
    estimator : str, path, mapping or Estimator, optional
        Also give this estimator's distribution, order by order.
    progress : callable
        Is told of a fit that takes long.

    Raises
    ------
    IndexFormatError, TokenizerError, QueryError, ConfigError
    """
    with open_index(path) as index:
        reader = Reader(index, tokenizer, ids=ids)
        context = parse_ids(text) if ids else reader.encode(text)
        if estimator is not None:
            fitted_estimator(index, estimator, max_order, progress)
        return answer_query(
            index,
            reader,
            context,
            text=None if ids else text,
            max_order=max_order,
            min_count=min_count,
            top=top,
            snippets=snippets,
            estimator=estimator,
        )


def answer_query(
    index: CorpusIndex,
    reader: Reader,
    context: npt.NDArray[np.int64],
    *,
    text: str | None = None,
    max_order: int | None = None,
    min_count: int = 1,
    top: int = 10,
    snippets: int = 5,
    estimator: EstimatorLike | None = None,
) -> QueryAnswer:
    """`index_query` of an open index; nearby forms are looked for where the text is given."""
    for name, value, least in (
        ("max_order", max_order, 0),
        ("min_count", min_count, 1),
        ("top", top, 1),
        ("snippets", snippets, 0),
    ):
        if value is not None and value < least:
            raise ConfigError(f"`{name}` {value} is too small: it must be at least {least}")
    found = index.next_tokens(context, max_order=max_order, min_count=min_count)
    length = int(found.match_len)
    match = context[len(context) - length :]
    counts = length > 0 and int(found.context_count) <= _MOST_VOTES
    near = text is not None and reader.tokenizer is not None
    return QueryAnswer(
        tokens=[(int(token), reader.token(token)) for token in context],
        match_len=length,
        match=reader.text(match),
        context_count=int(found.context_count),
        distinct=len(found.token_ids),
        continuations=reader.ranked(found, top),
        backoff=list(_backoff(index, reader, context, length)),
        num_occurrences=index.count(match),
        occurrences=list(reader.occurrences(index, match, snippets)) if length else [],
        explained=None if estimator is None else _explained(index, reader, context, estimator, max_order, top),
        nearby=nearby_forms(index, reader.tokenizer, text) if near else [],  # type: ignore[arg-type]
        sources=sources_of(index, index.documents_of(match, max_order=length, limit=snippets)) if counts else [],
    )


def _explained(
    index: CorpusIndex,
    reader: Reader,
    context: npt.NDArray[np.int64],
    spec: EstimatorLike,
    max_order: int | None,
    top: int,
) -> Explained:
    found = index.explain(context, estimator=spec, max_order=max_order, top=top)
    rows = zip(found.token_ids.tolist(), found.probs.tolist(), found.contributions.tolist(), strict=True)
    kept = fit_file(index, index.fitted(spec, max_order))
    return Explained(
        found.estimator,
        list(found.orders),
        [ExplainedToken(token, reader.token(token), probability, parts) for token, probability, parts in rows],
        None if kept is None or not kept.is_file() else str(kept),
    )


def _backoff(index: CorpusIndex, reader: Reader, context: npt.NDArray[np.int64], length: int) -> Iterator[BackoffStep]:
    """Every order from the longest match down to the empty context."""
    for order in range(length, -1, -1):
        symbols = context[len(context) - order :]
        found = index.next_tokens(symbols, max_order=order)
        yield BackoffStep(
            order,
            reader.text(symbols),
            int(found.context_count),
            len(found.token_ids),
            reader.ranked(found, 1)[0],
        )


def parse_ids(text: str) -> npt.NDArray[np.int64]:
    """Token ids from "17 4, 99"."""
    try:
        return np.array([int(word) for word in text.replace(",", " ").split()], dtype=np.int64)
    except (ValueError, OverflowError) as error:
        raise QueryError(f"{text!r} is not a list of token ids: write them with spaces or commas between") from error
