"""How much of a benchmark stands in the corpus: for each item the longest match, the share of its n-grams, where.

Naively: look up every n-gram of every item. Here: the longest match at each token (`matching`), from which any n-gram
and any window of words or characters is told. Three ways of judging that others use stand side by side:

- the share of an item's n-grams of 8 and 13 tokens that occur;
- GPT-3's (Brown et al. 2020, appendix C): an item is dirty if any of its N-grams of *words* occurs, N being the fifth
  percentile of the items' lengths, at least 8 and at most 13. (They lower letters and drop punctuation; here the text
  must stand as it is, so less is found.)
- infini-gram mini's (Xu et al. 2025): windows of 50 characters, one at each word; an item is dirty if 80 % of its
  windows occur, suspicious from 20 % on.

A window of words or characters occurs where its tokens do, one after the other: those of whole words, cut as they are
in the item. A text that is cut into other tokens in the corpus is not found: mostly the first word, which has no blank
before it.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, working_s

from corpus_teacher.analysis.matching import Ints, TextMatches, longest_matches, tokens_known
from corpus_teacher.analysis.reader import Source
from corpus_teacher.data.benchmarks import BenchmarkItem, read_benchmark
from corpus_teacher.data.documents import UNPACK_RATIO, Progress, silent
from corpus_teacher.data.opening import index_tokenizer, open_index
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, InputError

NGRAM_LENGTHS = (8, 13)
THRESHOLDS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""Shares of found n-grams that items are counted at: more than 0, and at least the others."""

WINDOW_CHARACTERS = 50
_SUSPICIOUS, _DIRTY = 0.2, 0.8
_WORDS_LEAST, _WORDS_MOST, _PERCENTILE = 8, 13, 5
_ITEMS = 256  # at a time


@dataclass(frozen=True)
class ItemContamination:
    """One item of a benchmark.

    Parameters
    ----------
    name : str
    num_tokens, num_words : int
    longest : int
        Tokens of its longest match.
    longest_text : str
    longest_count : int
        How often that occurs in the corpus.
    ngram_shares : list of float
        The share of its n-grams that occur, for each n of `Contamination.ngrams`; 0 where it is shorter.
    ngram_counts : list of int
        How many n-grams it has.
    longest_words : int
        Words of its longest match, whole ones.
    window_share : float
        The share of its windows of 50 characters that occur.
    window_verdict : {"clean", "suspicious", "dirty"}
        By infini-gram mini's bounds.
    documents : list of Source
        Documents that contain the longest match, with how often each of those looked at does; none where it is shorter
        than the shortest n-gram.
    """

    name: str
    num_tokens: int
    num_words: int
    longest: int
    longest_text: str
    longest_count: int
    ngram_shares: list[float]
    ngram_counts: list[int]
    longest_words: int
    window_share: float
    window_verdict: str
    documents: list[Source] = field(default_factory=list)


@dataclass(frozen=True)
class ThresholdCount:
    """How many items are at or above a threshold of found n-grams (above 0 where it is 0), and their share."""

    n: int
    threshold: float
    items: int
    share: float


@dataclass(frozen=True)
class Contamination:
    """What `corpus-teacher index contamination` tells.

    Parameters
    ----------
    path : str
        Of the index.
    sources, fields : list of str
    num_tokens : int
        Of all items.
    ngrams : list of int
        Tokens of the n-grams.
    by_threshold : list of ThresholdCount
    gpt3_words : int
        GPT-3's N, words of an n-gram.
    gpt3_dirty : int
        Items with such an n-gram in the corpus.
    windows : dict of str to int
        Items that are clean, suspicious and dirty by infini-gram mini's windows.
    documents : list of Source
        The documents that hold the longest match of most items.
    items : list of ItemContamination
        In the order of the sources.
    matching_s, seconds : float
        Of the index's work, and of everything: most of the rest is the tokenizer.
    """

    path: str
    sources: list[str]
    fields: list[str]
    num_tokens: int
    ngrams: list[int]
    by_threshold: list[ThresholdCount]
    gpt3_words: int
    gpt3_dirty: int
    windows: dict[str, int]
    documents: list[Source]
    items: list[ItemContamination]
    matching_s: float
    seconds: float

    @property
    def num_items(self) -> int:
        """Of all sources."""
        return len(self.items)

    def gpt3_is_dirty(self, item: ItemContamination) -> bool:
        """Whether an item has an n-gram of `gpt3_words` words in the corpus."""
        return item.longest_words >= self.gpt3_words


def index_contamination(
    path: str | Path,
    sources: Sequence[str],
    *,
    fields: Sequence[str] = (),
    name_field: str | None = None,
    ngrams: Sequence[int] = NGRAM_LENGTHS,
    documents: int = 3,
    tokenizer: str | None = None,
    unpack_ratio: float = UNPACK_RATIO,
    progress: Progress = silent,
) -> Contamination:
    """Look for the items of benchmarks in a corpus.

    Parameters
    ----------
    path : str or Path
        Of the index.
    sources : sequence of str
        JSON lines or Parquet.
    fields : sequence of str
        What of each record counts, each field a text of its own; all texts by default.
    name_field : str, optional
        What items are called.
    ngrams : sequence of int
        Lengths in tokens.
    documents : int
        How many documents to name for an item.
    tokenizer : str, optional
        For an index of ready tokens.
    unpack_ratio : float
        Of packed files; see `ReadOptions`.

    Raises
    ------
    IndexFormatError, TokenizerError, InputError, ConfigError

    Notes
    -----
    A step of the index a token; memory for the answers only.
    """
    if not ngrams or min(ngrams) < 1:
        raise ConfigError(f"`ngrams` {list(ngrams)} are no lengths: give one or more whole numbers above 0")
    if documents < 0:
        raise ConfigError(f"`documents` {documents} is too small: it must be at least 0")
    lengths = sorted(set(ngrams))
    begin, matching, tokens = working_s(), 0.0, 0
    items: list[ItemContamination] = []
    with open_index(path) as index:
        words = index_tokenizer(index, tokenizer)
        for batch in _batched(read_benchmark(sources, fields, name_field=name_field, unpack_ratio=unpack_ratio)):
            texts = [text for item in batch for text in item.texts]
            encoded = words.encode_batch_with_offsets(texts)
            ids = [one[0].astype(np.int64) for one in encoded]
            before = working_s()
            found = longest_matches(index, ids)
            matching += working_s() - before
            first = 0
            for item in batch:
                part = slice(first, first + len(item.texts))
                parts = list(zip(texts[part], encoded[part], ids[part], found[part], strict=True))
                items.append(_judged(index, words, item.name, parts, lengths, documents))
                first = part.stop
            tokens += sum(one.size for one in ids)
            progress("look up", len(items), None, tokens)
        if not items:
            raise InputError(f"{', '.join(sources)} holds no item")
        least = int(np.percentile([item.num_words for item in items], _PERCENTILE))
        gpt3_words = min(max(least, _WORDS_LEAST), _WORDS_MOST)
        verdicts = Counter(item.window_verdict for item in items)
        holders = Counter({one.document: 0 for item in items for one in item.documents})
        for judged in items:
            holders.update({one.document for one in judged.documents})
        return Contamination(
            path=str(index.path),
            sources=list(sources),
            fields=list(fields),
            num_tokens=tokens,
            ngrams=lengths,
            by_threshold=[_at(items, place, n, at) for place, n in enumerate(lengths) for at in THRESHOLDS],
            gpt3_words=gpt3_words,
            gpt3_dirty=sum(item.longest_words >= gpt3_words for item in items),
            windows={name: verdicts[name] for name in ("clean", "suspicious", "dirty")},
            documents=[Source(one, index.document(one).name, count) for one, count in holders.most_common(10)],
            items=items,
            matching_s=matching,
            seconds=working_s() - begin,
        )


def found_shares(
    index: CorpusIndex, texts: Sequence[npt.NDArray[np.integer]], n: int
) -> tuple[npt.NDArray[np.float64], Ints]:
    """The share of each text's n-grams that occur in the corpus, and how many it has; 0 where it is shorter.

    Parameters
    ----------
    index : CorpusIndex
    texts : sequence of ndarrays of shape (T,), integer
        Token ids; an n-gram doesn't cross an end-of-document token.
    n : int

    Returns
    -------
    shares : ndarray of shape (len(texts),), float64
    counts : ndarray of shape (len(texts),), int64
    """
    shares, counts = np.zeros(len(texts)), np.zeros(len(texts), np.int64)
    for number, (ids, found) in enumerate(zip(texts, longest_matches(index, texts), strict=True)):
        whole = tokens_known(ids, index.end_of_document) >= n
        counts[number] = whole.sum()
        shares[number] = (found.length[whole] >= n).mean() if whole.any() else 0.0
    return shares, counts


def write_csv(answer: Contamination) -> str:
    """A line an item."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    shares = [f"found_{n}grams" for n in answer.ngrams]
    head = ("item", "tokens", "words", "longest_tokens", "longest_words", "longest_count", *shares)
    writer.writerow([*head, f"gpt3_{answer.gpt3_words}words_dirty", "windows_found", "windows_verdict", "documents"])
    for item in answer.items:
        named = "; ".join(one.name or f"document {one.document}" for one in item.documents)
        found = [f"{share:.6g}" for share in item.ngram_shares]
        numbers = (item.num_tokens, item.num_words, item.longest, item.longest_words, item.longest_count)
        verdicts = (int(answer.gpt3_is_dirty(item)), f"{item.window_share:.6g}", item.window_verdict)
        writer.writerow([item.name, *numbers, *found, *verdicts, named])
    return file.getvalue()


def _batched(items: Iterable[BenchmarkItem]) -> Iterator[list[BenchmarkItem]]:
    batch: list[BenchmarkItem] = []
    for item in items:
        batch.append(item)
        if len(batch) == _ITEMS:
            yield batch
            batch = []
    if batch:
        yield batch


def _judged(
    index: CorpusIndex,
    words: Tokenizer,
    name: str,
    parts: Sequence[tuple[str, tuple[npt.NDArray[Any], Ints, Ints], Ints, TextMatches]],
    lengths: list[int],
    documents: int,
) -> ItemContamination:
    """An item from its texts, their tokens' places and their matches."""
    found = {n: [0, 0] for n in lengths}
    windows = [0, 0]
    num_words = longest_words = longest = 0
    best: tuple[Ints, TextMatches, int] | None = None
    for text, (_, begins, ends), ids, match in parts:
        if ids.size == 0:
            continue
        for n in lengths:
            tail = match.length[n - 1 :]
            found[n][0] += int((tail >= n).sum())
            found[n][1] += tail.size
        last = int(match.length.argmax())
        if best is None or match.length[last] > longest:
            best, longest = (ids, match, last), int(match.length[last])
        spans = _words(text)
        num_words += len(spans)
        longest_words = max(longest_words, _longest_words(spans, begins, ends, match.length))
        there = _windows(text, spans, begins, ends, match.length)
        windows[0] += int(there.sum())
        windows[1] += there.size
    share = windows[0] / max(1, windows[1])
    said, count, holders = "", 0, []
    if best is not None and longest:
        ids, match, last = best
        ngram = ids[last + 1 - longest : last + 1]
        said, count = words.decode(ngram), index.count(ngram)
        if longest >= lengths[0]:
            where = index.document_of(index.positions(ngram, limit=64))
            numbers, votes = np.unique(where, return_counts=True)
            first = np.argsort(-votes, kind="stable")[:documents].tolist()
            holders = [
                Source(int(numbers[one]), index.document(int(numbers[one])).name, int(votes[one])) for one in first
            ]
    return ItemContamination(
        name=name,
        num_tokens=sum(ids.size for _, _, ids, _ in parts),
        num_words=num_words,
        longest=longest,
        longest_text=said,
        longest_count=count,
        ngram_shares=[found[n][0] / max(1, found[n][1]) for n in lengths],
        ngram_counts=[found[n][1] for n in lengths],
        longest_words=longest_words,
        window_share=share,
        window_verdict="dirty" if share >= _DIRTY else "suspicious" if share >= _SUSPICIOUS else "clean",
        documents=holders,
    )


def _words(text: str) -> Ints:
    """Where the words of a text, runs of characters that are no white space, begin and end; (W, 2)."""
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)
    inside = np.pad(~_white()[np.minimum(codes, _white().size - 1)], 1)
    return np.flatnonzero(inside[1:] != inside[:-1]).reshape(-1, 2)


@cache
def _white() -> npt.NDArray[np.bool_]:
    """Which characters are white space; the last entry stands for all above."""
    return np.array([chr(code).isspace() for code in range(0x3002)])


def _longest_words(spans: Ints, begins: Ints, ends: Ints, length: Ints) -> int:
    """Words of the longest run of whole words that one match covers."""
    if len(spans) == 0:
        return 0
    first = np.searchsorted(ends, spans[:, 0], side="right")  # each word's first token, and its last
    last = np.searchsorted(begins, spans[:, 1], side="left") - 1
    reach = last + 1 - length[last]  # what a match that ends with the word begins with
    return int((np.arange(len(spans)) - np.searchsorted(first, reach, side="left") + 1).max())


def _windows(text: str, spans: Ints, begins: Ints, ends: Ints, length: Ints) -> npt.NDArray[np.bool_]:
    """Which windows of 50 characters occur, one at each word that so many follow; a shorter text is one window."""
    starts = spans[spans[:, 0] + WINDOW_CHARACTERS <= len(text), 0] if len(spans) else np.zeros(0, np.int64)
    stops = starts + WINDOW_CHARACTERS
    if starts.size == 0:
        starts, stops = np.zeros(1, np.int64), np.array([len(text)])
    first = np.searchsorted(ends, starts, side="right")
    last = np.searchsorted(ends, stops, side="right") - 1  # tokens that end inside
    there = last >= first
    return np.asarray(there & (length[np.maximum(last, 0)] >= last - first + 1))


def _at(items: list[ItemContamination], place: int, n: int, threshold: float) -> ThresholdCount:
    shares = np.array([item.ngram_shares[place] for item in items])
    reached = int((shares >= threshold).sum() if threshold else (shares > 0).sum())
    return ThresholdCount(n, threshold, reached, reached / len(items))
