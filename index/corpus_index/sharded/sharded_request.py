"""A batch of questions to several indexes: counted in each, added, and weighed once, for all that `targets` makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import exclusion, weighed
from corpus_index._kernels.exclusion import Flat
from corpus_index._kernels.exclusion_sums import ExclusionArrays, ExclusionScratch
from corpus_index._kernels.target_arrays import GONE_COLUMNS, BaseArrays, Documents, GoneRows, Mixed
from corpus_index.core.chains import TOTAL, ChainCounts, counts_of_chains
from corpus_index.core.checks import as_array
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.estimators.weighing import Excluded, excluded, root_of
from corpus_index.sharded.sharded_index import ShardedIndex
from corpus_index.targets.exclusion import added_count, fill
from corpus_index.targets.request import Request, labelled, prepare, request_of
from corpus_index.targets.types import MixedTargets

_PAIRS = 1 << 20  # of a chunk, at least
_CHUNK = 1 << 10  # positions that are weighed at a time


class ShardedRequest(Request):
    """`Request` over shards: its targets refer to the rows that the index has made so far, or write them as pairs."""

    index: ShardedIndex

    def __init__(
        self,
        index: ShardedIndex,
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
        self.index, self.estimator, self.scores = index, fitted(index, estimator, max_order), scores
        made = self.estimator
        ids, _ = labelled(index, input_ids, next_ids, leave_out, unseen=True)
        self.leaves_out = leave_out is not None
        self.chains = counts_of_chains(
            index,
            ids,
            None if next_ids is None else as_array(next_ids, "next_ids").reshape(ids.shape),
            max_order=made.max_order,
            leave_out=leave_out,
            starts_document=starts_document,
            positions=positions,
            left=made.uses_left_counts,
            only_last=only_last,
            stored=not made.excludes and (leave_out != "document" or _keeps_losses(index, made)),
        )
        self.labels = self.chains.labels
        if not scores:  # what the corpus lacks has no pair of its own
            self.labels = np.where(self.labels < index.num_symbols, self.labels, -1)
            self.chains = self.chains._replace(labels=self.labels)
        self.documents = Documents.empty(self.labels.size)
        self.heavy = index.row_store(made.uses_left_counts).heavy()
        prepared = prepare(index, made)
        self.arrays, self.base, self.base_distribution = prepared.arrays, prepared.base, prepared.base_distribution
        self.gone = None
        if leave_out == "document":
            self.gone = _gone_rows(self.chains, made.uses_left_counts)
        self.grown, self.drop = base_without(self.base, made, self.chains, leave_out)

    def chunks(self) -> Iterator[tuple[Mixed, int, int]]:
        """The targets in mixed form, chunk by chunk; see `Request.chunks`."""
        index, begin, size, targets = self.index, 0, self.labels.size, not self.scores
        scratch = index.thread_memory.scratch_of(index.num_symbols)
        met = index.thread_memory.scratch_of(index.num_symbols).tally
        rows = np.diff(self.chains.row_offsets)[self.chains.rows]
        rows[self.chains.offsets[1:] - 1] = 0  # the empty context's tokens are no pairs
        most = np.diff(np.append(0, np.cumsum(rows))[self.chains.offsets])
        room = max(_PAIRS, min(int(most.max(initial=0)), index.num_symbols) + 2) if targets else 0
        references = _CHUNK * 8 + int(np.diff(self.chains.offsets).max(initial=0)) if targets else 0
        while begin < size:
            out = index.thread_memory.mixed_of(_CHUNK, room, references)
            done = int(
                weighed.weigh_chains(
                    self.arrays,
                    self.chains,
                    self.base.probs,
                    self.grown,
                    self.drop,
                    self.heavy.offsets.size - 1,
                    begin,
                    targets,
                    scratch.masses,
                    met,
                    scratch.tokens,
                    scratch.words,
                    scratch.summary,
                    out,
                )
            )
            number = done - begin
            yield (
                out._replace(
                    pair_offsets=out.pair_offsets[: number + 1],
                    ref_offsets=out.ref_offsets[: number + 1],
                    rest=out.rest[:number],
                    match_len=out.match_len[:number],
                    context_count=out.context_count[:number],
                ),
                begin,
                done,
            )
            begin = done

    def with_own_rows(self, targets: MixedTargets) -> MixedTargets:
        """Mixed targets with the rows that they refer to as their own: what is kept grows, so no table has them."""
        heavy, kept = self.heavy, self.heavy.offsets.size - 1
        inner = targets.rows < 2 * kept
        used, which = np.unique(targets.rows[inner], return_inverse=True)
        rows = targets.rows - 2 * kept + used.size
        rows[inner] = which.reshape(-1)
        begins, sizes = heavy.offsets[used % kept], np.diff(heavy.offsets)[used % kept]
        ends = np.append(0, np.cumsum(sizes)).astype(np.int64)
        places = np.arange(int(ends[-1])) + np.repeat(begins - ends[:-1], sizes)
        counts = heavy.counts[places].astype(np.int64)
        left = np.repeat(used >= kept, sizes)
        counts[left] = heavy.lefts[places[left]]
        return targets._replace(
            rows=rows,
            own_offsets=np.append(ends, targets.own_offsets[1:] + ends[-1]),
            own_token_ids=np.append(heavy.tokens[places].astype(np.int64), targets.own_token_ids),
            own_counts=np.append(counts, targets.own_counts),
        )

    def counted(self, counts: np.ndarray) -> np.ndarray:
        """The contexts' counts, with −1, the empty context, replaced by the tokens that are left."""
        roots = self.chains.occurrences[self.chains.offsets[1:] - 1, TOTAL]
        return np.where(counts < 0, roots, counts)


def _keeps_losses(index: ShardedIndex, estimator: Estimator) -> bool:
    """Whether kept rows say what they lose with a document."""
    return not estimator.uses_left_counts or index.row_store(True).keeps_pairs


@request_of.register
def _(index: ShardedIndex, input_ids: ArrayLike, next_ids: ArrayLike | None = None, **options: Any) -> Request:
    return ShardedRequest(index, input_ids, next_ids, **options)


def base_without(
    base: BaseArrays, estimator: Estimator, chains: ChainCounts, leave_out: str | None
) -> tuple[np.ndarray, np.ndarray]:
    """(grown, drop), (Q,) float64 each: the base without what is left out is grown · base − drop at the label.

    As `_kernels.mixed` has it, to the last bit but for the cuts that a document takes, which are added up in another
    order.
    """
    size, left = chains.labels.size, estimator.uses_left_counts
    grown, drop = np.ones(size), np.zeros(size)
    by_type = left and estimator.max_order != 0
    pull = base.pull / (1.0 + base.pull) if leave_out == "document" else base.pull
    lists = chains.gone[chains.offsets[1:] - 1]
    at = np.flatnonzero((lists > 0) & (chains.gone_offsets[lists + 1] > chains.gone_offsets[lists]))
    labels, lists = chains.labels[at], lists[at]
    used, which = np.unique(lists, return_inverse=True)
    sizes = np.diff(chains.gone_offsets)[used]
    ends = np.append(0, np.cumsum(sizes)).astype(np.int64)
    places = np.arange(int(ends[-1])) + np.repeat(chains.gone_offsets[used] - ends[:-1], sizes)
    of = np.repeat(np.arange(used.size), sizes)
    tokens, losses = chains.gone_tokens[places], (chains.gone_lefts if by_type else chains.gone_counts)[places]
    width = base.counts.size + 2
    found = np.searchsorted(of * width + tokens, which.reshape(-1) * width + labels)
    found = np.minimum(found, max(0, tokens.size - 1))
    same = (of[found] == which.reshape(-1)) & (tokens[found] == labels)
    lost = np.where(same, losses[found], 0)
    lost_total = np.bincount(of, losses, used.size).astype(np.int64)[which.reshape(-1)]
    probs, oneself = base.probs[labels], chains.alone[at]
    if left:
        discounts = np.array([0.0, *estimator.discounts[0]])
        counts = base.counts[tokens]
        cuts = discounts[np.minimum(counts, 3)] - discounts[np.minimum(counts - losses, 3)]
        lost_cuts = np.bincount(of, cuts, used.size)[which.reshape(-1)]
        count, total = base.counts[labels], base.total - lost_total
        cut = discounts[np.minimum(count - lost, 3)]
        whole = count - lost - cut + (base.cuts - lost_cuts) * base.uniform
        without = np.where(total > 0, whole / np.maximum(total, 1), base.uniform)
        changes = ~(oneself & (lost == 0))  # else its predecessor is there without it
    else:
        kept = 1.0 - lost_total * pull
        without = np.where(kept > 0.0, (probs - lost * pull) / np.where(kept > 0.0, kept, 1.0), base.uniform)
        changes = ~oneself
    changes &= probs < 1.0
    some = at[changes]
    grown[some] = (1.0 - without[changes]) / (1.0 - probs[changes])
    drop[some] = grown[some] * probs[changes] - without[changes]
    if not left:
        own = at[oneself & (probs < 1.0)]
        grown[own], drop[own] = 1.0 + pull, pull
    return grown, drop


def _gone_rows(chains: ChainCounts, left: bool) -> GoneRows:
    """What documents take from kept rows, as `flatten` reads it: by list of losses."""
    none = np.zeros(0, np.uint32)
    lists = np.full(chains.gone_offsets.size - 1, -1)
    lists[chains.gone] = chains.stored[chains.rows]
    there = np.repeat(lists, np.diff(chains.gone_offsets)) >= 0
    before = np.where(there, chains.gone_before, 0)
    after = before - np.where(there, [chains.gone_counts, chains.gone_lefts], 0)
    before, after = before.astype(np.uint32), after.astype(np.uint32)
    return GoneRows(
        slots=np.zeros((2, 2), np.int64),
        totals=np.zeros((0, GONE_COLUMNS), np.uint32),
        offsets=chains.gone_offsets,
        tokens=chains.gone_tokens.astype(np.int32),
        before=before[0],
        after=after[0],
        left_before=before[1] if left else none,
        left_after=after[1] if left else none,
        used=np.array([chains.gone_offsets.size - 1, 0, 0]),
    )


# estimators with exclusion


@fill.register
def _(request: ShardedRequest, begin: int, end: int, out: Flat, top_k: int, top_p: float, raw: bool = False) -> int:
    """Targets by exclusion, position by position in Python: exact, and slow."""
    index, estimator = request.index, request.estimator
    root = root_of(index, False)
    uniform = estimator.row.base == "uniform" and estimator.max_order != 0
    occurrences = index.symbol_counts
    nothing = np.empty((0, 2, 0), np.int64)
    arrays = ExclusionArrays(
        rule=estimator.rule,
        ratios=np.ones((1, 5)),
        alpha=float(estimator.alpha),  # whose type is compiled for
        added=0.0 if raw else added_count(estimator, index),
        vocab_size=index.vocab_size,
        raw=raw,
        unigrams=np.zeros_like(occurrences) if uniform else occurrences,
        total=0 if uniform else index.num_tokens,
        occurrences=occurrences,
        num_tokens=index.num_tokens,
        whole=uniform,
        base=estimator.base(index).astype(np.float32),
        row_sums=nothing,
    )
    memory = index.thread_memory
    if memory.exclusion is None:
        memory.exclusion = ExclusionScratch.empty(index.num_symbols, 1)
    used, targets = 0, out.offsets.size > 0
    for number, q in enumerate(range(begin, end)):
        if targets and used + min(top_k, index.vocab_size) + 1 > out.tokens.size:
            return number
        said = excluded(estimator, request.chains, root, q, raw=raw)
        node = int(request.chains.offsets[q])
        top = node < int(request.chains.offsets[q + 1]) - 1
        out.match_len[number] = request.chains.depths[node] - int(request.chains.from_start[q]) if top else 0
        out.context_count[number] = request.chains.occurrences[node, TOTAL]
        label = int(request.labels[q])
        if not targets:
            out.rest[number] = said.of_label if label >= 0 else 0.0
            continue
        used = _listed(request, arrays, memory.exclusion, said, number, q, used, (top_k, top_p), out)
        out.offsets[number + 1] = used
    return end - begin


def _listed(
    request: ShardedRequest,
    arrays: ExclusionArrays,
    scratch: ExclusionScratch,
    said: Excluded,
    number: int,
    q: int,
    used: int,
    cut: tuple[int, float],
    out: Flat,
) -> int:
    """Write one position's pairs; returns the end."""
    label = int(request.labels[q])
    always = label if request.leaves_out and 0 <= label < request.index.num_symbols else -1
    others = said.tokens != always
    tokens, masses = said.tokens[others], said.masses[others]
    first = np.sort(np.argsort(-masses, kind="stable")[: cut[0] - (always >= 0)])
    scratch.best_tokens[: first.size], scratch.best_masses[: first.size] = tokens[first], masses[first]
    return int(
        exclusion.write_flat(
            arrays,
            scratch,
            first.size,
            always,
            said.of_label,
            bool((said.tokens == label).any()),
            said.tokens.size,
            said.rest,
            float(said.masses.sum()),
            *cut,
            number,
            used,
            out,
        )
    )
