"""How good the corpus teacher is: its estimators, order by order, on text that is not in the index.

Naively: write out each distribution over V, and average −log p(next), whether the most probable token is the next one,
and −Σ p log p. Here the loss comes from the probability of the next token alone, and top-1 and entropy from the mixed
form, in which nothing is cut; or, if so many explicit tokens are asked for, from the targets as a teacher gives them:
of sparse + rest · base, the tokens outside of the sparse part have closed sums over the base.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from corpus_index import ESTIMATORS, CorpusIndex, Estimator, EstimatorLike, Recall, fit_recall, measure, working_s

from corpus_teacher.data.documents import Progress, silent
from corpus_teacher.data.held_out import HeldOut, HeldOutBatch, read_held_out
from corpus_teacher.data.opening import check_estimator, index_tokenizer, open_index
from corpus_teacher.data.readers import ReadOptions
from corpus_teacher.errors import ConfigError, InputError

MAX_ORDERS = (1, 2, 3, 5, 8)
"""Orders that are evaluated unless others are named."""

NUM_BINS = 15
"""Of the calibration error: equal parts of 0 .. 1."""

_RECITED = 32  # tokens of a match that counts as repeating a document
_NAMED = 10  # documents that are named
_COVERED = 64  # coverage is reported for matches of 0 .. this many tokens; the rows overlap by as many
_SAMPLED_ROW = 256  # tokens that a row of a sample counts
_RECALL_TOP_K = 64
_MATCH_EDGES = (0, 1, 2, 3, 4, 5, 8, 16, 32)
_COUNT_EDGES = (0, 1, 2, 3, 5, 9, 17, 65, 257, 1025, 16385)


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability diagram: share of positions, mean top-1 probability, how often top-1 is right."""

    share: float
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Bucket:
    """Positions of similar evidence.

    Parameters
    ----------
    label : str
        "5–7", for matches of 5 to 7 tokens, or for contexts that the corpus continues 5 to 7 times.
    share : float
        Of all positions.
    cross_entropy_nats, top1 : float
        Nats per token, and how often the most probable token is the next one.
    """

    label: str
    share: float
    cross_entropy_nats: float
    top1: float


@dataclass(frozen=True)
class EstimatorScore:
    """One estimator at one order.

    Parameters
    ----------
    estimator : str
    max_order : int, optional
        None: no bound.
    cross_entropy_nats : float
        Nats per token; infinite if any token has probability 0.
    bits_per_byte : float, optional
        Of the text; None where its bytes are unknown.
    zero_share : float
        Share of tokens with probability 0.
    top1 : float
        How often the most probable token is the next one; the smaller id where several tie.
    calibration_error : float
        Expected calibration error of the top-1 probability: Σ over the bins share · |accuracy − confidence|.
    entropy_nats : float
        Mean entropy of the distributions, or of the targets with `top_k` explicit tokens.
    cut_mass : float
        Mean mass that this top_k moved to the base; 0 where there is none.
    reliability : list of Bin
    by_match_len : list of Bucket
        By the longest match without a bound on the order: the same positions for all estimators.
    by_context_count : list of Bucket
        By how often the corpus continues the longest context within the order.
    seconds : float
    """

    estimator: str
    max_order: int | None
    cross_entropy_nats: float
    bits_per_byte: float | None
    zero_share: float
    top1: float
    calibration_error: float
    entropy_nats: float
    cut_mass: float
    reliability: list[Bin]
    by_match_len: list[Bucket]
    by_context_count: list[Bucket]
    seconds: float


@dataclass(frozen=True)
class RecitedDocument:
    """A document of the index that the held-out text repeats: its number and name, and at how many positions."""

    document: int
    name: str | None
    positions: int


@dataclass(frozen=True)
class Evaluation:
    """What `corpus-teacher teacher eval` tells.

    Parameters
    ----------
    path, fingerprint : str
        Of the index.
    sources : list of str
    num_tokens : int
        Of the held-out text, those that were predicted.
    num_documents, num_bytes : int
        Of the held-out text, UTF-8 bytes 0 where they are unknown.
    index_tokens : int
    top_k : int, optional
        Explicit tokens of the targets that top-1, calibration and entropy are of; None: the exact distributions.
    coverage : list of float
        Share of positions with a match of length ≥ n, for n = 0, 1, … 64.
    scores : list of EstimatorScore
    recited : list of RecitedDocument
        The documents of the index that most held-out positions repeat, those that follow a match of 32 tokens or more:
        what a leak between the two would come from. A passage that several documents contain is put down to one.
    text_tokens : int
        Of the whole text, predicted or not.
    """

    path: str
    fingerprint: str
    sources: list[str]
    num_tokens: int
    num_documents: int
    num_bytes: int
    index_tokens: int
    top_k: int | None
    coverage: list[float]
    scores: list[EstimatorScore]
    recited: list[RecitedDocument] = field(default_factory=list)
    text_tokens: int = 0


def evaluate_index(
    path: str | Path,
    sources: Sequence[str],
    *,
    estimators: Sequence[EstimatorLike] = ESTIMATORS,
    max_orders: Sequence[int | None] = MAX_ORDERS,
    top_k: int | None = None,
    recall: bool = False,
    limit: int | None = None,
    sample: int | None = None,
    read: ReadOptions | None = None,
    dtype: str = "auto",
    tokenizer: str | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate estimators of an index on held-out text.

    Parameters
    ----------
    path : str or Path
        Of the index.
    sources : sequence of str
        Text, tokenised in the index's own way, or ready tokens; see `read_held_out`.
    estimators : sequence of str, path, mapping or Estimator
        See `corpus_index.resolve_estimator`; those that have their own order are evaluated at it alone.
    max_orders : sequence of int or None
        Tokens of the longest context; None: no bound.
    top_k : int, optional
        Measure entropy, top-1 and calibration of targets with that many explicit tokens, as a teacher gives them: many
        times as fast. None: of the exact distributions. The cross-entropy is always exact.
    recall : bool
        Evaluate each estimator with recall as well (`corpus_index.fit_recall`), fitted here; top_k is 64 unless given.
    limit : int, optional
        Only the first tokens of the text.
    sample : int, optional
        Of these about that many, in rows that are spread evenly over the text.

    Raises
    ------
    IndexFormatError, InputError, TokenizerError, QueryError, ConfigError
    """
    for order in max_orders:
        if order is not None and order < 0:
            raise ConfigError(f"max_order {order} is too small: it must be at least 0")
    if sample is not None and sample < 2:
        raise ConfigError(f"a sample of {sample} tokens is too small: take at least 2")
    if recall and top_k is None:
        top_k = _RECALL_TOP_K
    with open_index(path) as index:
        knows = tokenizer is not None or bool(index.metadata.get("tokenizer"))
        words = index_tokenizer(index, tokenizer) if knows else None
        orders = sorted(set(max_orders), key=lambda order: (order is None, order))
        for one in estimators:  # a wrong name fails before the text is read, a wrong path before anything is fitted
            check_estimator(index, one, orders[0])
        held_out = read_held_out(index, list(sources), words, read=read, dtype=dtype, limit=limit, progress=progress)
        if held_out.num_predicted == 0:
            raise InputError("the held-out text has no token that follows another: give more of it")
        rows: dict[str, Any] = {"overlap": _COVERED}
        if sample is not None and sample < held_out.num_predicted:
            rows |= {"sample": sample, "length": _COVERED + _SAMPLED_ROW}
        asked = [(one, order) for one in estimators for order in orders]
        fitted: dict[Estimator, None] = {}
        for number, (one, order) in enumerate(asked):
            progress("fit", number, len(asked))
            fitted[index.fitted(one, order)] = None
        progress("fit", len(asked), len(asked))
        judged: list[Estimator | Recall] = list(fitted)
        if recall:
            judged += [fit_recall(index, one) for one in fitted]
        total, coverage, recited = _coverage(index, held_out, rows)
        text_tokens = held_out.num_predicted
        scores = []
        for number, each in enumerate(judged):
            tally = _Tally()
            done, begin = number * total, working_s()
            for batch in held_out.batches(**rows):
                counted = tally.add(index, each, batch, top_k)
                done += counted
                progress("evaluate", done, total * len(judged), done)
            seconds = working_s() - begin
            scores.append(tally.score(each, held_out.corpus.num_bytes / text_tokens, seconds))
        return Evaluation(
            path=str(index.path),
            fingerprint=index.fingerprint,
            sources=list(sources),
            num_tokens=total,
            num_documents=held_out.corpus.num_documents,
            num_bytes=held_out.corpus.num_bytes,
            index_tokens=index.num_tokens,
            top_k=top_k,
            coverage=coverage,
            scores=scores,
            recited=recited,
            text_tokens=text_tokens,
        )


def _coverage(
    index: CorpusIndex, held_out: HeldOut, rows: dict[str, Any]
) -> tuple[int, list[float], list[RecitedDocument]]:
    """How many positions are counted, the share of them with a match of length ≥ 0, 1, … 64, and whom they repeat."""
    lengths = np.zeros(_COVERED + 1, np.int64)
    documents: Counter[int] = Counter()
    for batch in held_out.batches(**rows):
        match = index.match(batch.input_ids, starts_document=batch.starts_document)
        found, counted = match.match_len, batch.next_ids >= 0
        lengths += np.bincount(np.minimum(found[counted], _COVERED), minlength=_COVERED + 1)
        places = index.array("order")[match.lo[counted & (found >= _RECITED)]]
        documents.update(index.document_of(places).tolist())
    shares: list[float] = (lengths[::-1].cumsum()[::-1] / lengths.sum()).tolist()
    recited = [RecitedDocument(one, index.document(one).name, count) for one, count in documents.most_common(_NAMED)]
    return int(lengths.sum()), shares, recited


def _measured(
    index: CorpusIndex, one: Estimator | Recall, batch: HeldOutBatch, top_k: int | None
) -> tuple[npt.NDArray[Any], ...]:
    """Of each position the likeliest token, its probability, the entropy, what is cut, and the context's count."""
    options: dict[str, Any] = {"starts_document": batch.starts_document}
    if isinstance(one, Recall):
        targets = one.smoothed_targets(index, batch.input_ids, **options, top_k=top_k or _RECALL_TOP_K)
        return *targets.top_tokens(), targets.entropy(), targets.cut_mass, targets.context_count
    options["estimator"] = one
    if top_k is None:
        found = measure(index, batch.input_ids, **options)
        return found.top_token, found.top_prob, found.entropy, np.zeros(found.entropy.size), found.context_count
    targets = index.smoothed_targets(batch.input_ids, **options, top_k=top_k)
    return *targets.top_tokens(), targets.entropy(), targets.cut_mass, targets.context_count


class _Tally:
    """Sums over positions of one estimator at one order."""

    def __init__(self) -> None:
        self.count = 0
        self.sums = np.zeros(4)  # nats, zeros, entropy, cut mass
        self.bins = np.zeros((NUM_BINS, 3))  # positions, confidence, right
        self.by_match = np.zeros((len(_MATCH_EDGES), 3))  # positions, nats, right
        self.by_count = np.zeros((len(_COUNT_EDGES), 3))

    def add(self, index: CorpusIndex, one: Estimator | Recall, batch: HeldOutBatch, top_k: int | None) -> int:
        """Score the counted positions of a batch; returns how many."""
        counted = batch.next_ids.reshape(-1) >= 0
        labels = batch.next_ids.reshape(-1)[counted]
        rows = (batch.input_ids, batch.next_ids)
        if isinstance(one, Recall):
            p = one.next_probabilities(index, *rows, starts_document=batch.starts_document)[counted]
        else:
            p = index.next_probabilities(*rows, estimator=one, starts_document=batch.starts_document)[counted]
        nats = -np.log(p, out=np.full(p.size, -np.inf), where=p > 0)
        token, confidence, entropy, cut, known = (part[counted] for part in _measured(index, one, batch, top_k))
        right = token == labels
        self.count += labels.size
        self.sums += nats.sum(), (p <= 0).sum(), entropy.sum(), cut.sum()
        _add(self.bins, np.minimum((confidence * NUM_BINS).astype(np.int64), NUM_BINS - 1), confidence, right)
        longest = index.match(batch.input_ids, starts_document=batch.starts_document).match_len.reshape(-1)[counted]
        _add(self.by_match, np.searchsorted(_MATCH_EDGES, longest, side="right") - 1, nats, right)
        _add(self.by_count, np.searchsorted(_COUNT_EDGES, known, side="right") - 1, nats, right)
        return int(labels.size)

    def score(self, one: Estimator | Recall, bytes_per_token: float, seconds: float) -> EstimatorScore:
        """The averages."""
        estimator = one.estimator if isinstance(one, Recall) else one
        nats, zeros, entropy, cut = (float(value) / self.count for value in self.sums)
        share, confidence, accuracy = _means(self.bins)
        return EstimatorScore(
            estimator=estimator.name + (" + recall" if isinstance(one, Recall) else ""),
            max_order=estimator.max_order,
            cross_entropy_nats=nats,
            bits_per_byte=nats / np.log(2) / bytes_per_token if bytes_per_token else None,
            zero_share=zeros,
            top1=float(self.bins[:, 2].sum()) / self.count,
            calibration_error=float((share * np.abs(accuracy - confidence)).sum()),
            entropy_nats=entropy,
            cut_mass=cut,
            reliability=[Bin(*row) for row in zip(*map(np.ndarray.tolist, _means(self.bins)), strict=True)],
            by_match_len=_buckets(self.by_match, _MATCH_EDGES),
            by_context_count=_buckets(self.by_count, _COUNT_EDGES),
            seconds=seconds,
        )


def _add(table: npt.NDArray[np.float64], places: Any, values: Any, right: Any) -> None:
    for column, weights in enumerate((None, values, right)):
        table[:, column] += np.bincount(places, weights, table.shape[0])


def _means(table: npt.NDArray[np.float64]) -> tuple[Any, Any, Any]:
    """Shares of the rows, and the means of their two sums; 0 where a row is empty."""
    counts = np.maximum(table[:, 0], 1)
    return table[:, 0] / max(table[:, 0].sum(), 1), table[:, 1] / counts, table[:, 2] / counts


def _buckets(table: npt.NDArray[np.float64], edges: Sequence[int]) -> list[Bucket]:
    """The buckets that hold a position, named by their first and last value."""
    labels = []
    for low, following in zip(edges, (*edges[1:], None), strict=True):
        last = "" if following is None else f"{following - 1:,}"
        labels.append(f"{low:,} +" if following is None else last if following == low + 1 else f"{low:,}–{last}")
    columns = (part.tolist() for part in _means(table))
    return [Bucket(*row) for row in zip(labels, *columns, strict=True) if row[1] > 0]
