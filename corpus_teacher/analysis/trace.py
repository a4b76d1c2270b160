"""Which parts of a text stand verbatim in the corpus, how often, and where.

Naively: look for every n-gram of the text. Here: the longest match at every token, from one walk over the index; the
spans that can't be made longer on either side are those where a match ends that the next token doesn't continue.
OLMoTrace (Liu et al. 2025) shows such spans beside a model's output; the novelty curve is Rusty-DAWG's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, ShardedIndex

from corpus_teacher.analysis.matching import (
    Ints,
    TextMatches,
    covered,
    ending_tokens,
    longest_matches,
    maximal_spans,
    tokens_known,
)
from corpus_teacher.analysis.novelty import Novelty, corpus_novelty, novelty_curve
from corpus_teacher.analysis.reader import Occurrence, Reader
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, QueryError
from corpus_teacher.settings import is_whole
from corpus_teacher.storage import index_of

MIN_LENGTH = 6
"""Tokens of the shortest span that counts as copied, unless said otherwise."""

_LOOKED_AT = 64  # occurrences of a span, of which those in different documents are shown


@dataclass(frozen=True)
class Span:
    """A part of the text that stands verbatim in the corpus and would not if it were longer on either side.

    Parameters
    ----------
    begin, end : int
        Its tokens, half-open.
    text : str
    count : int
        How often it occurs in the corpus.
    occurrences : list of Occurrence
        Where, in different documents as far as possible.
    """

    begin: int
    end: int
    text: str
    count: int
    occurrences: list[Occurrence] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        """Its length."""
        return self.end - self.begin


@dataclass(frozen=True)
class Trace:
    """What of a text the corpus contains.

    Parameters
    ----------
    path : str
        Of the index.
    ids : list of int
        The text's tokens; of several texts, one after the other.
    tokens : list of str
        Each of them, for people.
    match_len : list of int
        Tokens of the longest n-gram ending at each token that occurs in the corpus.
    min_length : int
        Tokens of the shortest span that is reported and counts as copied.
    max_count : int, optional
        Spans that occur more often are neither reported nor count as copied.
    spans : list of Span
        Ascending.
    copied_tokens : int
        Tokens in any of the spans.
    longest : int
        Tokens of the longest match, whatever min_length.
    novelty : list of Novelty
        The share of n-grams that the corpus lacks, by n.
    baseline : list of Novelty
        The same of the text that was given to compare with, or of the corpus's own, each document against the others.
    baseline_of : str
        What the baseline is: "held-out text", "the corpus, each document against the others", or "" for none.
    """

    path: str
    ids: list[int]
    tokens: list[str]
    match_len: list[int]
    min_length: int
    max_count: int | None
    spans: list[Span]
    copied_tokens: int
    longest: int
    novelty: list[Novelty]
    baseline: list[Novelty] = field(default_factory=list)
    baseline_of: str = ""

    @property
    def num_tokens(self) -> int:
        """Of the text."""
        return len(self.ids)

    @property
    def copied_share(self) -> float:
        """The share of the text's tokens that lie in a span."""
        return self.copied_tokens / max(1, len(self.ids))

    def span_of_each(self) -> list[int]:
        """The number of the longest span that each token lies in; −1: none."""
        owner = [-1] * self.num_tokens
        for number in sorted(range(len(self.spans)), key=lambda one: self.spans[one].num_tokens):
            span = self.spans[number]
            owner[span.begin : span.end] = [number] * span.num_tokens
        return owner


def trace(
    index: CorpusIndex | str | Path,
    ids: npt.ArrayLike | str | Sequence[npt.ArrayLike | str],
    *,
    min_length: int = MIN_LENGTH,
    max_count: int | None = None,
    snippets: int = 3,
    held_out: npt.ArrayLike | str | Sequence[npt.ArrayLike | str] | None = None,
    baseline: bool | Sequence[Novelty] = True,
    tokenizer: str | Tokenizer | None = None,
) -> Trace:
    """Find the maximal spans of a text that stand verbatim in the corpus: how often, and where.

    Parameters
    ----------
    index : CorpusIndex or path
    ids : array_like of shape (T,), integer; str; or a list of those
        The text, as ids or in words: a model's output, for example. Of several texts each is matched by itself.
    min_length : int
        Tokens of the shortest span that is reported.
    max_count : int, optional
        Leave out spans that occur more often than that: phrases that everybody uses.
    snippets : int
        Occurrences to show of each span at most.
    held_out : as ids, optional
        Text that is not in the corpus, for the baseline of the novelty curve.
    baseline : bool or sequence of Novelty
        Without held_out: compare with the corpus's own text, each passage against all documents but its own
        (`corpus_novelty`, which may be given where it is known).
    tokenizer : str or Tokenizer, optional
        For an index of ready tokens; with none, texts are ids and are shown as ids.

    Returns
    -------
    Trace

    Raises
    ------
    QueryError
        If an id is out of range, or the text is empty.
    ConfigError
        If an option is out of range.
    IndexFormatError, TokenizerError

    Notes
    -----
    A step of the index a token, and O(snippets) look-ups a span. No span crosses an end-of-document token.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from corpus_index import build_index
    >>> index = build_index(np.array([1, 2, 3, 4, 5, 1, 2, 6]), tempfile.mkdtemp() + "/index", doc_starts=[0, 5, 8])
    >>> found = trace(index, [9 - 9, 1, 2, 3, 6, 1, 2, 6], min_length=2)
    >>> [(span.begin, span.end, span.count) for span in found.spans]
    [(1, 4, 1), (5, 8, 1)]
    >>> found.copied_share, found.longest
    (0.75, 3)
    """
    for name, value, least in (("min_length", min_length, 1), ("max_count", max_count, 1), ("snippets", snippets, 0)):
        if value is not None and (not is_whole(value) or value < least):
            raise ConfigError(f"`{name}` is {value!r}: it must be a whole number of at least {least}")
    if not isinstance(baseline, bool):
        baseline = _novelties(baseline)
    opened = index_of(index)
    try:
        has_words = tokenizer is not None or bool(opened.metadata.get("tokenizer"))
        if isinstance(tokenizer, Tokenizer):
            reader = Reader(opened, None, ids=False, tokenizer=tokenizer)
        else:
            reader = Reader(opened, tokenizer, ids=not has_words)
        texts = _texts(reader, ids)
        if not sum(text.size for text in texts):
            raise QueryError("the text is empty: give at least one token")
        matches = longest_matches(opened, texts)
        spans: list[Span] = []
        first = copied = 0
        for text, found in zip(texts, matches, strict=True):
            begin, end, counts = _counted(opened, text, found, min_length, max_count)
            copied += int(covered(text.size, begin, end).sum())
            for left, right, count in zip(begin.tolist(), end.tolist(), counts.tolist(), strict=True):
                places = _places(opened, text[left:right], found, right - 1, snippets)
                said = list(reader.places(opened, places, right - left))
                spans.append(Span(first + left, first + right, reader.text(text[left:right]), count, said))
            first += text.size
        curve = _curve(opened, texts, matches)
        other, what = [], ""
        if held_out is not None:
            given = [text for text in _texts(reader, held_out) if text.size]
            other, what = _curve(opened, given, longest_matches(opened, given)), "held-out text"
        elif baseline:
            other = corpus_novelty(opened) if isinstance(baseline, bool) else list(baseline)
            what = "the corpus, each document against the others" if other else ""
        whole = np.concatenate(texts)
        lengths = np.concatenate([found.length for found in matches])
        return Trace(
            path=str(opened.path),
            ids=whole.tolist(),
            tokens=[reader.token(token) for token in whole.tolist()],
            match_len=lengths.tolist(),
            min_length=min_length,
            max_count=max_count,
            spans=spans,
            copied_tokens=copied,
            longest=int(lengths.max()),
            novelty=curve,
            baseline=other,
            baseline_of=what,
        )
    finally:
        if opened is not index:
            opened.close()


def _novelties(given: object) -> list[Novelty]:
    """A baseline that was made before."""
    if not isinstance(given, (list, tuple)) or not all(isinstance(one, Novelty) for one in given):
        raise ConfigError(f"`baseline` is {type(given).__name__}: give true, false, or a list of Novelty")
    return list(given)


def _texts(reader: Reader, given: npt.ArrayLike | str | Sequence[npt.ArrayLike | str]) -> list[Ints]:
    """Token ids of one text or of several."""
    if isinstance(given, str):
        if reader.tokenizer is None:
            raise QueryError("the index holds no tokenizer: give token ids, or name the tokenizer")
        return [reader.encode(given)]
    if isinstance(given, (list, tuple)) and any(isinstance(one, str) or np.ndim(one) for one in given):
        return [text for one in given for text in _texts(reader, one)]
    ids = np.asarray(given)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "ui"):
        raise QueryError(f"a text must be one sequence of token ids, not {ids.dtype} of shape {ids.shape}")
    return [ids.astype(np.int64)]


def _counted(
    index: CorpusIndex, text: Ints, found: TextMatches, min_length: int, max_count: int | None
) -> tuple[Ints, Ints, Ints]:
    """The spans that are long and rare enough, and how often each occurs."""
    begin, end = maximal_spans(found.length)
    long = end - begin >= min_length
    begin, end = begin[long], end[long]
    counts = found.hi[end - 1] - found.lo[end - 1]
    for place in np.flatnonzero((counts == 0) | (ending_tokens(index).size > 0)).tolist():  # some may end documents
        counts[place] = index.count(text[begin[place] : end[place]])
    rare = np.ones(counts.size, np.bool_) if max_count is None else counts <= max_count
    return begin[rare], end[rare], counts[rare]


def _places(index: CorpusIndex, ngram: Ints, found: TextMatches, last: int, limit: int) -> Ints:
    """Where a span stands: positions of its first token, in different documents as far as possible."""
    lo, hi = int(found.lo[last]), int(found.hi[last])
    if hi > lo and not isinstance(index, ShardedIndex):  # whose ranks are a shard's own
        ranks = np.unique(np.linspace(lo, hi - 1, min(_LOOKED_AT, hi - lo)).astype(np.int64))
        places = np.asarray(index.array("order")[ranks], np.int64) - ngram.size
    else:
        places = index.positions(ngram, limit=_LOOKED_AT)
    _, first = np.unique(index.document_of(places), return_index=True)
    others = np.setdiff1d(np.arange(places.size), first)
    return places[np.concatenate([first, others])[:limit]]


def _curve(index: CorpusIndex, texts: list[Ints], matches: list[TextMatches]) -> list[Novelty]:
    pairs = zip(texts, matches, strict=True)
    return novelty_curve((found.length, tokens_known(text, index.end_of_document)) for text, found in pairs)
