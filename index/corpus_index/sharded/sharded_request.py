"""A batch of questions to several indexes: counted in each, added, and weighed once, for all that `targets` makes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import exclusion, weighed
from corpus_index._kernels.exclusion import Flat
from corpus_index._kernels.exclusion_sums import ExclusionArrays, ExclusionScratch
from corpus_index._kernels.target_arrays import BaseArrays, Documents, Mixed
from corpus_index.core.chains import TOTAL, ChainCounts, counts_of_chains
from corpus_index.core.checks import as_array
from corpus_index.estimators.estimator import Estimator
from corpus_index.estimators.resolving import EstimatorLike, fitted
from corpus_index.estimators.weighing import Excluded, excluded, root_of
from corpus_index.sharded.sharded_index import ShardedIndex
from corpus_index.targets.exclusion import added_count, fill
from corpus_index.targets.request import Request, labelled, prepare, request_of

_PAIRS = 1 << 20  # of a chunk, at least
_CHUNK = 1 << 10  # positions that are weighed at a time


class ShardedRequest(Request):
    """`Request` over shards: its targets have no references to rows, all their tokens are pairs."""

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
        unseen: bool = False,
    ) -> None:
        self.index, self.estimator = index, fitted(index, estimator, max_order)
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
        )
        self.labels = self.chains.labels
        if not unseen:  # what the corpus lacks has no pair of its own
            self.labels = np.where(self.labels < index.num_symbols, self.labels, -1)
            self.chains = self.chains._replace(labels=self.labels)
        self.documents = Documents.empty(self.labels.size)
        self.heavy = index.heavy_nodes(made.uses_left_counts)
        prepared = prepare(index, made)
        self.arrays, self.base, self.base_distribution = prepared.arrays, prepared.base, prepared.base_distribution
        self.gone = None
        self.grown, self.drop = base_without(self.base, made, self.chains, leave_out)

    def chunks(self, targets: bool = True) -> Iterator[tuple[Mixed, int, int]]:
        """The targets in mixed form, chunk by chunk; see `Request.chunks`."""
        index, begin, size = self.index, 0, self.labels.size
        scratch = index.thread_memory.scratch_of(index.num_symbols)
        met = index.thread_memory.scratch_of(index.num_symbols).tally
        rows = np.diff(self.chains.row_offsets)[self.chains.rows]
        rows[self.chains.offsets[1:] - 1] = 0  # the empty context's tokens are no pairs
        most = np.diff(np.append(0, np.cumsum(rows))[self.chains.offsets])
        room = max(_PAIRS, min(int(most.max(initial=0)), index.num_symbols) + 2) if targets else 0
        while begin < size:
            out = index.thread_memory.mixed_of(_CHUNK, room, 0)
            done = int(
                weighed.weigh_chains(
                    self.arrays,
                    self.chains,
                    self.base.probs,
                    self.grown,
                    self.drop,
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

    def counted(self, counts: np.ndarray) -> np.ndarray:
        """The contexts' counts, with −1, the empty context, replaced by the tokens that are left."""
        roots = self.chains.occurrences[self.chains.offsets[1:] - 1, TOTAL]
        return np.where(counts < 0, roots, counts)


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
    size = chains.labels.size
    grown, drop = np.ones(size), np.zeros(size)
    left = estimator.uses_left_counts
    by_type = left and estimator.max_order != 0
    pull = base.pull / (1.0 + base.pull) if leave_out == "document" else base.pull
    discounts = np.array([0.0, *(estimator.discounts[0] if left else (0.0, 0.0, 0.0))])
    roots = chains.offsets[1:] - 1
    first, end = chains.gone_offsets[roots], chains.gone_offsets[roots + 1]
    for q in np.flatnonzero(end > first).tolist():
        label, part = int(chains.labels[q]), slice(int(first[q]), int(end[q]))
        if base.probs[label] >= 1.0:
            continue
        tokens = chains.gone_tokens[part]
        losses = (chains.gone_lefts if by_type else chains.gone_counts)[part]
        lost, lost_total = int(losses[tokens == label].sum()), int(losses.sum())
        oneself = bool(chains.alone[q])
        if oneself and not left:
            grown[q], drop[q] = 1.0 + pull, pull
            continue
        if oneself and lost == 0:
            continue  # its predecessor is there without it
        without = base.uniform
        if left:
            counts = base.counts[tokens]
            cuts = discounts[np.minimum(counts, 3)] - discounts[np.minimum(counts - losses, 3)]
            count, total = int(base.counts[label]), base.total - lost_total
            if total > 0:
                cut = discounts[min(count - lost, 3)]
                without = (count - lost - cut + (base.cuts - float(cuts.sum())) * base.uniform) / total
        else:
            kept = 1.0 - lost_total * pull
            if kept > 0.0:
                without = (base.probs[label] - lost * pull) / kept
        grown[q] = (1.0 - without) / (1.0 - base.probs[label])
        drop[q] = grown[q] * base.probs[label] - without
    return grown, drop


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
        alpha=estimator.alpha,
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
