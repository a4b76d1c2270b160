"""How likely documents are under the corpus's n-gram model: nats, bits a byte, and a third of a crawl each.

CCNet (Wenzek et al. 2020) sorts web pages by the perplexity that a 5-gram model of Wikipedia gives them, into head,
middle and tail of even size. Here the model is an estimator over an index. Naively: the mean of −log p over each
document's tokens. Here many documents go through the index together, cut into rows that overlap by the longest context
and more, each token counted once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from corpus_index import CorpusIndex, EstimatorLike, Scorer

from corpus_teacher.data.opening import index_tokenizer
from corpus_teacher.data.tokenizers import Tokenizer
from corpus_teacher.errors import ConfigError, InputError
from corpus_teacher.storage import index_of

BUCKETS = ("head", "middle", "tail")
"""Likeliest documents first, as CCNet has them."""

ESTIMATOR, MAX_ORDER = "modified-kneser-ney", 4
"""A 5-gram model, as KenLM's in CCNet."""

_ROW, _ROWS = 512, 64
_OVERLAP = 64  # tokens that are context only, of an estimator without a bound
_LEAST_PROBABILITY = 1e-30  # of an estimator that gives a token none

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Thresholds:
    """Where middle and tail begin, in nats per token.

    Parameters
    ----------
    middle, tail : float

    Raises
    ------
    ConfigError
        If they don't ascend.

    Examples
    --------
    >>> Thresholds(4.0, 5.0).bucket(4.5)
    'middle'
    """

    middle: float
    tail: float

    def __post_init__(self) -> None:
        if not self.middle <= self.tail:
            raise ConfigError(
                f"the thresholds {self.middle:g} and {self.tail:g} don't ascend: give the lower one first"
            )

    def bucket(self, nats_per_token: float) -> str:
        """The bucket of a document; one without a token that counts is in the tail."""
        if nats_per_token != nats_per_token:
            return BUCKETS[2]
        return BUCKETS[int(nats_per_token >= self.middle) + int(nats_per_token >= self.tail)]


def fit_thresholds(nats_per_token: npt.ArrayLike) -> Thresholds:
    """The thresholds that part documents into three buckets of even size.

    Raises
    ------
    InputError
        If there is no document.

    Examples
    --------
    >>> fit_thresholds([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    Thresholds(middle=3.0, tail=5.0)
    """
    values = np.sort(np.asarray(nats_per_token, np.float64))
    values = values[np.isfinite(values)]
    if values.size == 0:
        raise InputError("no document has a token that counts: there is nothing to part")
    return Thresholds(float(values[values.size // 3]), float(values[2 * values.size // 3]))


class DocumentScorer:
    """Scores texts or tokens under an index; a filter for `datasets.map` as it is.

    Parameters
    ----------
    index : CorpusIndex or path
    estimator : str, path, mapping or Estimator
    max_order : int, optional
        The longest context in tokens, at most 64, or None for no bound. None and more are exact up to 64 tokens.
    tokenizer : str, optional
        For an index of ready tokens.
    thresholds : Thresholds or pair of float, optional
        Adds a bucket to what `__call__` gives.
    text_field : str
        What `__call__` scores.
    tables : bool
        Score from a table of all n-grams (`CorpusIndex.scorer`): some three to five times as fast, to seven digits.
        Making it takes as long as scoring a seventh of the corpus does without, and 8 to 12 bytes of memory for each
        token of the corpus. For (modified) Kneser–Ney with a bound, over an index that isn't sharded.

    Raises
    ------
    IndexFormatError, TokenizerError, QueryError, ConfigError

    Notes
    -----
    Pickles as the path of its index. Calls from several threads run side by side.

    Examples
    --------
    >>> import tempfile
    >>> from corpus_teacher.data import ByteTokenizer, build_index_from_documents
    >>> path = tempfile.mkdtemp() + "/index"
    >>> build_index_from_documents(["once upon a time", "once more"], ByteTokenizer(), path, name="tales").close()
    >>> scorer = DocumentScorer(path, thresholds=(1.0, 3.0))
    >>> scorer({"text": ["once upon", "zzzz"]})["bucket"]
    ['head', 'tail']
    """

    def __init__(
        self,
        index: CorpusIndex | str | Path,
        *,
        estimator: EstimatorLike = ESTIMATOR,
        max_order: int | None = MAX_ORDER,
        tokenizer: str | None = None,
        thresholds: Thresholds | Sequence[float] | None = None,
        text_field: str = "text",
        tables: bool = False,
    ) -> None:
        self.index = index_of(index)
        self.estimator = self.index.fitted(estimator, max_order)
        has_words = tokenizer is not None or bool(self.index.metadata.get("tokenizer"))
        self.tokenizer: Tokenizer | None = index_tokenizer(self.index, tokenizer) if has_words else None
        if thresholds is not None and not isinstance(thresholds, Thresholds):
            if len(thresholds) != 2:
                raise ConfigError(f"there are {len(thresholds)} thresholds: give two, where middle and tail begin")
            thresholds = Thresholds(*map(float, thresholds))
        self.thresholds = thresholds
        self.text_field = text_field
        self._scorer = self.index.scorer(self.estimator) if tables else None

    def __reduce__(self) -> tuple[Any, ...]:
        made = str(self.index.path), self.estimator, self.thresholds, self.text_field, self._scorer is not None
        return _reopened, made

    def score_tokens(self, documents: Sequence[npt.NDArray[np.integer]]) -> tuple[Floats, Ints]:
        """The sum of −log p over each document's tokens, in nats, and how many were counted.

        Parameters
        ----------
        documents : sequence of ndarrays of shape (T,), integer
            Token ids, with the end-of-document token where the index has one: it is predicted as well. Without one a
            document's first token has no context and isn't counted.

        Returns
        -------
        nats : ndarray of shape (D,), float64
        tokens : ndarray of shape (D,), int64
        """
        if self._scorer is not None:
            return self._score_by_tables(self._scorer, documents)
        pieces = [piece for number, ids in enumerate(documents) for piece in self._pieces(number, ids)]
        pieces.sort(key=lambda piece: -piece[0].size)
        nats, tokens = np.zeros(len(documents)), np.zeros(len(documents), np.int64)
        for first in range(0, len(pieces), _ROWS):
            batch = pieces[first : first + _ROWS]
            length = batch[0][0].size - 1
            rows, following = np.zeros((len(batch), length), np.int64), np.full((len(batch), length), -1, np.int64)
            for row, (stream, skipped, _, _) in enumerate(batch):
                rows[row, : stream.size - 1] = stream[:-1]
                following[row, skipped : stream.size - 1] = stream[1 + skipped :]
            starts = np.array([begins for _, _, begins, _ in batch])
            chances = self.index.next_probabilities(
                rows, following, estimator=self.estimator, starts_document=starts
            ).reshape(rows.shape)
            counted = following >= 0
            losses = -np.log(np.maximum(chances, _LEAST_PROBABILITY), where=counted, out=np.zeros(rows.shape))
            for row, (_, _, _, number) in enumerate(batch):
                nats[number] += losses[row].sum()
                tokens[number] += int(counted[row].sum())
        return nats, tokens

    def _score_by_tables(self, scorer: Scorer, documents: Sequence[npt.NDArray[np.integer]]) -> tuple[Floats, Ints]:
        tokens = np.array([ids.size for ids in documents], np.int64)
        offsets = np.append(0, np.cumsum(tokens))
        losses = np.zeros(int(offsets[-1]) + 1)  # a zero at the end, for empty documents there
        if losses.size > 1:
            chances = scorer.document_probabilities(np.concatenate(documents), offsets)
            np.negative(np.log(np.maximum(chances, _LEAST_PROBABILITY)), out=losses[:-1])
        if self.index.end_of_document is None:  # a first token has no context
            losses[offsets[:-1]] = 0.0
            tokens = np.maximum(tokens - 1, 0)
        nats = np.add.reduceat(losses, offsets[:-1]) if tokens.size else np.zeros(0)
        nats[np.diff(offsets) == 0] = 0.0  # of which reduceat gives the next one's first
        return nats, tokens

    def score_texts(self, texts: list[str]) -> tuple[Floats, Ints, Ints]:
        """Nats, tokens counted and UTF-8 bytes of each text.

        Raises
        ------
        TokenizerError
            Where the index has no tokenizer.
        """
        if self.tokenizer is None:
            raise InputError("the index holds no tokenizer: name one (`tokenizer`), or give ready tokens")
        end = self.index.end_of_document
        tail = np.array([] if end is None else [end], np.int64)
        ids = [np.concatenate([one.astype(np.int64), tail]) for one in self.tokenizer.encode_batch(texts)]
        nats, tokens = self.score_tokens(ids)
        return nats, tokens, np.array([len(text.encode()) for text in texts], np.int64)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Columns for a batch of `datasets.map(scorer, batched=True)`, or of one example without `batched`.

        Returns
        -------
        dict
            nats_per_token, bits_per_byte, tokens, and bucket where there are thresholds.
        """
        given = batch[self.text_field]
        columns = score_columns(*self.score_texts([given] if isinstance(given, str) else list(given)), self.thresholds)
        if isinstance(given, str):
            return {name: values[0] for name, values in columns.items()}
        return columns

    def keeps(self, *buckets: str) -> _Keeps:
        """A function for `datasets.filter`: whether a document lies in one of the buckets.

        Raises
        ------
        ConfigError
            An unknown bucket, or no thresholds.
        """
        for name in buckets:
            if name not in BUCKETS:
                raise ConfigError(f"there is no bucket {name!r}: give head, middle or tail")
        if self.thresholds is None:
            raise ConfigError("buckets need thresholds: give them, or fit them with `fit_thresholds`")
        return _Keeps(self, buckets)

    def _pieces(self, number: int, ids: npt.NDArray[np.integer]) -> Iterable[tuple[Ints, int, bool, int]]:
        """A document in rows: tokens with the one after them, how many are context only, whether it begins there."""
        end = self.index.end_of_document
        stream = ids.astype(np.int64) if end is None else np.concatenate([[end], ids]).astype(np.int64)
        order = self.estimator.max_order
        overlap = _OVERLAP if order is None else min(order, _OVERLAP)
        for begin in range(0, max(1, stream.size - 1 - overlap), _ROW):
            piece = stream[begin : begin + _ROW + overlap + 1]
            if piece.size > 1:
                yield piece, overlap if begin else 0, begin == 0, number


@dataclass(frozen=True)
class _Keeps:
    """Whether one example is in a bucket; pickles, for `datasets.filter` in several processes."""

    scorer: DocumentScorer
    buckets: tuple[str, ...]

    def __call__(self, example: Mapping[str, Any]) -> bool:
        return cast("str", self.scorer({self.scorer.text_field: [example[self.scorer.text_field]]})["bucket"][0]) in (
            self.buckets
        )


def score_columns(nats: Floats, tokens: Ints, num_bytes: Ints, thresholds: Thresholds | None) -> dict[str, list[Any]]:
    """What is said of documents, column by column; None where a mean isn't known."""
    per_token = np.divide(nats, tokens, out=np.full(nats.shape, np.nan), where=tokens > 0)
    bits = np.divide(nats, np.log(2) * num_bytes, out=np.full(nats.shape, np.nan), where=num_bytes > 0)
    columns: dict[str, list[Any]] = {
        "nats_per_token": [None if one != one else one for one in per_token.tolist()],
        "bits_per_byte": [None if one != one else one for one in bits.tolist()],
        "tokens": tokens.tolist(),
    }
    if thresholds is not None:
        columns["bucket"] = [thresholds.bucket(one) for one in per_token.tolist()]
    return columns


def _reopened(
    path: str, estimator: Any, thresholds: Thresholds | None, text_field: str, tables: bool
) -> DocumentScorer:
    return DocumentScorer(path, estimator=estimator, thresholds=thresholds, text_field=text_field, tables=tables)
