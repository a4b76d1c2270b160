"""A batch of questions made ready: checked, matched, with what is left out; its targets in mixed form, by chunks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import singledispatch
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import left_out as gone
from corpus_index._kernels import mixed
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.jit import compile_beside
from corpus_index._kernels.target_arrays import WHOLE, BaseArrays, Documents, EstimatorArrays, GoneRows, Mixed
from corpus_index.core.answers import Match
from corpus_index.core.checks import as_array, as_starts, check_index, is_choice
from corpus_index.core.matching import Matcher
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.estimators.weighing import estimator_arrays
from corpus_index.manifest import RANKS_FILE
from corpus_index.targets.types import MixedTargets

LEAVE_OUT = (None, "self", "document")

_CHUNK = 1 << 12  # positions at a time: their targets stay in the cache until they are read
_PAIRS = 48  # room per position, on average
_AHEAD = 8
_MOST_PREPARED = 16  # estimators
_LONG = 1 << 16  # tokens of a document from which on what the base loses with it is remembered


class Request:
    """A batch of questions, checked and matched: what the kernels take."""

    def __init__(
        self,
        index: Matcher,
        input_ids: ArrayLike,
        next_ids: ArrayLike | None = None,
        *,
        estimator: EstimatorLike,
        max_order: int | None,
        leave_out: str | None = None,
        starts_document: bool | ArrayLike = False,
        positions: ArrayLike | None = None,
        only_last: bool = False,
        scores: bool = False,
    ) -> None:
        check_index(index)
        if not is_choice(leave_out, LEAVE_OUT):
            raise unknown_leave_out(leave_out)
        self.index, self.estimator, self.scores = index, fitted(index, estimator, max_order), scores
        if not (scores or self.estimator.excludes):
            group = "documents" if leave_out == "document" else "targets"
            compile_beside(group, [mixed.mixed_targets], wide=index.num_symbols > 2**16)
        ids, self.labels = labelled(index, input_ids, next_ids, leave_out, scores)
        self.leaves_out = leave_out is not None
        made = self.estimator
        prepared = prepare(index, made)
        self.arrays, self.base, self.base_distribution = prepared.arrays, prepared.base, prepared.base_distribution
        self.documents = Documents.empty(ids.size, index.array("next_tokens").dtype)
        if leave_out == "document":
            self.documents = _documents(index, made, self.base.counts, ids, self.labels, positions)
        match, depths = index.match_nodes(ids, max_order=made.max_order, starts_document=starts_document)
        if only_last:
            match, depths = Match(*(part[:, -1:] for part in match)), depths[:, -1:]
            self.labels = self.labels.reshape(ids.shape)[:, -1].copy()  # contiguous, as the kernels know them
            of, lost = (x.reshape(ids.shape)[:, -1].copy() for x in (self.documents.of, self.documents.label_lost))
            self.documents = self.documents._replace(of=of, label_lost=lost)
        self.lo, self.hi, self.depth = (np.ascontiguousarray(x).reshape(-1) for x in (match.lo, match.hi, depths))
        # 1 where the match includes the document's start, WHOLE where what precedes it isn't known
        self.started = self.depth - np.ascontiguousarray(match.match_len).reshape(-1)
        if leave_out is not None and made.uses_left_counts:
            held = np.arange(1, ids.shape[1] + 1)[-depths.shape[1] :]
            starts = as_starts(starts_document, ids.shape[0])
            whole = (depths == held) & ~starts[:, None]
            self.started[whole.reshape(-1) & (self.started == 0)] = WHOLE
        self.heavy = index.heavy_nodes(made.uses_left_counts)
        if leave_out == "document" and self.base.pull > 0.0:  # what is left of N is counted by the kernel
            self.base = self.base._replace(pull=self.base.pull / (1.0 + self.base.pull))
        self.gone: GoneRows | None = None
        self.gone_documents: set[int] = set()
        if leave_out == "document" and not made.excludes:
            memory = index.thread_memory
            self.gone, self.gone_documents = memory.take_gone(made.uses_left_counts, self.documents.numbers)

    @property
    def kinds(self) -> int:
        """Of counts that the estimator reads: occurrences, and left extensions."""
        return 1 + self.estimator.uses_left_counts

    def chunks(self) -> Iterator[tuple[Mixed, int, int]]:
        """By chunks (targets in mixed form, first position, end); of scores only their rest, the labels' probabilities.

        The arrays are reused: each chunk overwrites the one before, so copy what has to outlive it.
        """
        index = self.index
        scratch = index.thread_memory.scratch_of(index.num_symbols)
        deep = int(self.depth.max(initial=0)) >= self.heavy.deepest
        most = index.num_symbols if deep else self.heavy.light  # pairs of one position
        begin = 0
        while begin < self.lo.size:
            size = min(_CHUNK, self.lo.size - begin)
            pairs = 0 if self.scores else size * _PAIRS + most + 2
            refs = 0 if self.scores else size * 8 + self.heavy.deepest_chain + 1
            end = begin + size
            out = index.thread_memory.mixed_of(size, pairs, refs)
            done = mixed.mixed_targets(
                index.kernel_arrays(),
                index.array("next_tokens"),
                index.array("endings"),
                self.arrays,
                self.base,
                self.heavy,
                self.lo[begin:end],
                self.hi[begin:end],
                self.depth[begin:end],
                self.started[begin:end],
                self.labels[begin:end],
                self.leaves_out,
                self.documents_of(begin, end) if self.gone is not None else None,
                scratch,
                self.gone,
                True if self.scores else None,
                _AHEAD,
                out,
            )
            if done > 0:
                yield _head(out, done), begin, begin + done
            begin += done
            if self.gone is not None and self.gone.used[1:].any():
                self.gone = more_room(self.gone)
        if self.gone is not None:
            index.thread_memory.keep_gone(self.estimator.uses_left_counts, self.gone, self.gone_documents)

    def documents_of(self, begin: int, end: int) -> Documents:
        """The documents of positions begin .. end − 1."""
        documents = self.documents
        return documents._replace(of=documents.of[begin:end], label_lost=documents.label_lost[begin:end])

    def counted(self, counts: np.ndarray) -> np.ndarray:
        """The contexts' counts, with −1, which stands for the empty context, replaced by the tokens that are left."""
        gone = np.where(
            self.documents.of < 0, 1, np.append(self.documents.ends - self.documents.begins, 0)[self.documents.of]
        )
        gone = np.where((self.labels >= 0) & self.leaves_out, gone, 0)
        return np.where(counts < 0, self.index.num_tokens - gone, counts)

    def with_own_rows(self, targets: MixedTargets) -> MixedTargets:
        """Mixed targets whose rows all stand in `row_table`, or are their own: as they are."""
        return targets


@singledispatch
def request_of(index: Matcher, input_ids: ArrayLike, next_ids: ArrayLike | None = None, **options: Any) -> Request:
    """A batch of questions to an index, of either kind; parameters of `Request`."""
    return Request(index, input_ids, next_ids, **options)


def more_room(old: GoneRows) -> GoneRows:
    """A copy with at least twice the room of what there was too little of."""
    rows, entries, needed = old.totals.shape[0], old.tokens.size, old.tokens.size + int(old.used[1])
    rows *= 1 + (old.used[2] > 0)
    while entries < needed:
        entries *= 2
    new = GoneRows.empty(int(rows), entries, old.left_before.size > 0)
    used = int(old.used[0])
    new.totals[:used], new.offsets[: used + 1] = old.totals[:used], old.offsets[: used + 1]
    held = int(old.offsets[used])
    for name in ("tokens", "before", "after", "left_before", "left_after"):
        getattr(new, name)[:held] = getattr(old, name)[:held]
    new.used[0] = used
    gone.rehash(old.slots, new.slots)
    return new


def _head(part: Mixed, size: int) -> Mixed:
    """The first positions of a part."""
    return part._replace(
        pair_offsets=part.pair_offsets[: size + 1],
        ref_offsets=part.ref_offsets[: size + 1],
        rest=part.rest[:size],
        match_len=part.match_len[:size],
        context_count=part.context_count[:size],
    )


class Prepared(NamedTuple):
    """What an estimator asks of an index again and again: its parameters and its base, as kernels and targets want."""

    estimator: Estimator
    arrays: EstimatorArrays
    base: BaseArrays
    base_distribution: np.ndarray


_prepared: WeakKeyDictionary[Matcher, dict[int, Prepared]] = WeakKeyDictionary()


def prepare(index: Matcher, estimator: Estimator) -> Prepared:
    """An estimator made ready; remembered for the last few."""
    known_here = _prepared.setdefault(index, {})
    # by id: estimators may be large to compare; each is kept with its preparation, so its id stays its own
    known = known_here.get(id(estimator))
    if known is None:
        while len(known_here) >= _MOST_PREPARED:
            known_here.pop(next(iter(known_here)), None)
        arrays = estimator_arrays(estimator)
        base = _base(index, estimator)
        dense = np.full(index.vocab_size, base.probs[-1])
        dense[index.ids_of(np.arange(index.num_symbols))] = base.probs[:-1]
        known = Prepared(estimator, arrays, base, dense.astype(np.float32))
        known_here[id(estimator)] = known
    return known


def base_distribution(index: Matcher, estimator: EstimatorLike = "witten-bell") -> np.ndarray:
    """The distribution of an estimator's empty context: shape (V,), float32; see `Estimator.base`."""
    return prepare(index, fitted(index, estimator)).base_distribution


def _base(index: Matcher, estimator: Estimator) -> BaseArrays:
    unigrams = index.symbol_counts
    probs = estimator.base(index)
    if estimator.uses_left_counts:
        counts, cuts, uniform = estimator.root(index)
        return BaseArrays(
            probs=probs,
            pull=0.0,
            occurrences=unigrams,
            counts=counts,
            total=int(counts.sum()),
            cuts=float(cuts.sum()),
            uniform=uniform,
        )
    smooth = 0 if estimator.row.base == "counts" else int((unigrams > 0).sum())
    pull = 1.0 / max(1, index.num_tokens - 1 + smooth)
    return BaseArrays(
        probs=probs,
        pull=pull,
        occurrences=unigrams,
        counts=unigrams,
        total=0,
        cuts=0.0,
        uniform=1.0 / index.vocab_size,
    )


def unknown_leave_out(leave_out: object) -> QueryError:
    """The sentence about a word that says nothing."""
    return QueryError(f"leave_out {leave_out!r} is unknown: choose None, 'self' or 'document'")


def labelled(
    index: Matcher, input_ids: ArrayLike, next_ids: ArrayLike | None, leave_out: str | None, unseen: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, T), and the symbols that follow, flat: −1 where unknown; unseen ones S if wanted, else −1."""
    if not is_choice(leave_out, LEAVE_OUT):
        raise unknown_leave_out(leave_out)
    ids = np.atleast_2d(as_array(input_ids, "input_ids"))
    if next_ids is None:
        if leave_out is not None:
            raise QueryError(
                f"leave_out={leave_out!r} needs next_ids: the token that follows each position (−1: unknown)"
            )
        return ids, np.full(ids.size, -1, np.int64)
    following = as_array(next_ids, "next_ids")
    if following.size and following.dtype.kind not in "ui":
        raise QueryError(f"next_ids must be integers, not {following.dtype}")
    labels = following.astype(np.int64).reshape(-1)
    if labels.size != ids.size:
        raise QueryError(f"next_ids must have the shape of input_ids {ids.shape}, not {np.shape(next_ids)}")
    if labels.size and not -1 <= int(labels.min()) <= int(labels.max()) < index.vocab_size:
        bad = int(labels.min()) if int(labels.min()) < -1 else int(labels.max())
        raise QueryError(f"next id {bad} is outside of −1 .. {index.vocab_size - 1}")
    symbols = np.where(labels >= 0, index.symbols_of(np.maximum(labels, 0)), -1)
    held = np.append(index.symbol_counts > 0, False)  # the last entry: also what −1 looks up
    symbols[(symbols >= 0) & ~held[symbols]] = index.num_symbols if unseen else -1
    return ids, symbols


def _documents(
    index: Matcher,
    estimator: Estimator,
    base_counts: np.ndarray,
    ids: np.ndarray,
    labels: np.ndarray,
    positions: ArrayLike | None,
) -> Documents:
    """The documents that the tokens after each position stand in, with their ranks and tokens."""
    of, numbers = _document_numbers(index, ids, positions)
    begins, ends = index.doc_starts[numbers], index.doc_starts[numbers + 1]
    by_left = estimator.uses_left_counts and estimator.max_order != 0
    ranks, following = index.sorted_ranks()
    if numbers.size and int(ranks[ends[ends > begins] - 1].max(initial=0)) >= index.num_tokens:
        raise IndexFormatError(f"{index.path / RANKS_FILE} was changed after it was written: remove it")
    documents = Documents.empty(ids.size)._replace(
        of=of, numbers=numbers, begins=begins, ends=ends, first=begins, last=ends, ranks=ranks, following=following
    )
    if estimator.uses_left_counts:
        documents = documents._replace(lost_from=index.lost_from())
    documents = documents._replace(
        ranks=read_only(documents.ranks),
        following=read_only(documents.following),
        lost_from=read_only(documents.lost_from),
    )
    return documents._replace(**_losses(index, estimator, by_left, base_counts, labels, documents))


def _document_numbers(index: Matcher, ids: np.ndarray, positions: ArrayLike | None) -> tuple[np.ndarray, np.ndarray]:
    """Of each position, flat, which of the documents (their numbers: the second array) is left out; −1: none."""
    if positions is None:
        raise QueryError("leave_out='document' needs positions: where in the corpus each row begins")
    given = as_array(positions, "positions")
    begins = given if given.ndim == 2 else given.reshape(-1)
    if begins.shape not in (ids.shape[:1], ids.shape) or begins.dtype.kind not in "ui":
        raise QueryError(
            f"positions must be {ids.shape[0]} integers, or one for each token, not {begins.dtype} of shape "
            f"{np.shape(positions)}"
        )
    known = np.ones(ids.size, np.bool_)
    if begins.ndim == 2:
        labelled, known = begins.reshape(-1).astype(np.int64) + 1, begins.reshape(-1) >= 0
    else:
        labelled = (begins[:, None] + 1 + np.arange(ids.shape[1])).reshape(-1)
    inside = np.clip(labelled, 0, index.num_tokens - 1)
    if ((inside < labelled - 1) | (labelled < 1))[known].any():
        raise QueryError(f"a row begins or ends outside of the corpus 0 .. {index.num_tokens - 1:,}")
    of = np.full(ids.size, -1)
    numbers, of[known] = np.unique(index.document_of(inside[known]), return_inverse=True)
    return of, numbers


def _losses(
    index: Matcher,
    estimator: Estimator,
    by_left: bool,
    base_counts: np.ndarray,
    labels: np.ndarray,
    documents: Documents,
) -> dict[str, np.ndarray]:
    """What the base's counts lose with each document: the last fields of `Documents`."""
    size, scratch = documents.numbers.size, index.thread_memory.scratch_of(index.num_symbols)
    if estimator.excludes:
        lengths = documents.last - documents.first
        token_offsets, most = np.zeros(size + 1, np.int64), int(np.minimum(lengths, index.num_symbols).sum())
        tokens, lost = np.empty(most, np.int64), np.empty(most, np.int64)
        gone.lost_by_documents(
            index.kernel_arrays(),
            index.array("next_tokens"),
            index.array("endings"),
            index.heavy_nodes(False),
            False,
            documents.first,
            documents.last,
            documents.ranks,
            documents.following,
            scratch,
            token_offsets,
            tokens,
            lost,
        )
        return {"token_offsets": token_offsets, "tokens": tokens, "lost": lost, "lost_total": lengths}
    by_document = np.argsort(documents.of, kind="stable")
    by_document = by_document[np.searchsorted(documents.of[by_document], 0) :]
    ends = np.searchsorted(documents.of[by_document], np.arange(size), side="right")
    totals = np.zeros((size, 17), np.int64)
    label_lost = np.zeros(labels.size, np.int64)
    documents = documents._replace(label_lost=label_lost)
    room = scratch.gone_counts, scratch.gone_tokens
    gone.label_losses(documents, by_left, base_counts, labels, by_document, ends, _LONG, *room, totals)
    for d in np.flatnonzero(documents.last - documents.first > _LONG).tolist():
        lost, tokens = index.base_losses(int(documents.numbers[d]), by_left)
        own = by_document[ends[d - 1] if d else 0 : ends[d]]
        known = (labels[own] >= 0) & (labels[own] < lost.size)
        label_lost[own[known]] = lost[labels[own[known]]]
        gone.add_losses(base_counts, lost, tokens, tokens.size, totals[d])
    by_class = np.array([0.0, *estimator.discounts[0]]) if estimator.uses_left_counts else np.zeros(4)
    cuts = totals[:, :16] @ (by_class[:, None] - by_class).reshape(-1)
    return {"label_lost": label_lost, "lost_total": totals[:, 16].copy(), "lost_cuts": cuts}
