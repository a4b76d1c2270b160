"""What a thread keeps between calls: scratch memory of the kernels, and the shortlists of the estimator used last."""

from __future__ import annotations

import threading

import numpy as np

from corpus_index._kernels import label_places as look_up
from corpus_index._kernels import target_arrays as columns
from corpus_index._kernels.exclusion_sums import ExclusionScratch
from corpus_index._kernels.flatten import FlatWork
from corpus_index._kernels.selection import MOST_LOWEST
from corpus_index._kernels.shortlists import HEADER, MOST_CHAIN, Shortlists
from corpus_index._kernels.target_arrays import HeavyNodes, Mixed, Scratch
from corpus_index._kernels.walk import Walkers

MOST_LEVELS = 12  # of a shortlist; what shallower contexts add to its tokens counts as cut
_MEMO = 4096  # wide contexts with one continuation whose runs are remembered
_LIST_BYTES = 256 << 20  # of one thread's shortlists at most


class ThreadMemory(threading.local):
    """What one thread keeps between calls: scratch memory, and the shortlists of the estimator it used last."""

    def __init__(self) -> None:
        self.walkers: Walkers | None = None
        self.scratch: Scratch | None = None
        self.mixed: Mixed | None = None
        self.ancestors: np.ndarray | None = None
        self.dense: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self.work: FlatWork | None = None
        self.exclusion: ExclusionScratch | None = None
        self.lists: tuple[object, int, Shortlists] | None = None

    def walkers_of(self, lanes: int) -> Walkers:
        """Scratch memory of `walk.match_rows`."""
        if self.walkers is None:
            self.walkers = Walkers(
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.bool_),
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.int64),
                np.zeros(lanes, np.int64),
                np.zeros((lanes, 2), np.int64),
                np.zeros(lanes, np.int8),
            )
        return self.walkers

    def scratch_of(self, num_symbols: int) -> Scratch:
        """Scratch memory of `mixed_targets`."""
        if self.scratch is None:
            self.scratch = Scratch(
                np.zeros(num_symbols, np.uint32),
                np.zeros(num_symbols, np.uint32),
                np.full(num_symbols, columns.NOWHERE, np.uint32),
                np.zeros(num_symbols, np.float64),
                np.zeros(num_symbols + 1, np.int64),
                np.zeros(num_symbols + 1, np.int64),
                np.zeros(num_symbols, np.int64),
                np.zeros(num_symbols, np.int64),
                np.zeros(num_symbols, np.int64),
                np.full((_MEMO, 3), -1, np.int64),
                np.zeros(_MEMO, np.int64),
                np.zeros((look_up.BLOCK, look_up.LEVELS + 1), np.int64),
                np.zeros((look_up.BLOCK, look_up.LEVELS + 1), np.int64),
                np.zeros((3, look_up.BLOCK), np.int64),
                np.zeros((num_symbols >> 6) + 1, np.uint64),
                np.zeros((num_symbols >> 12) + 1, np.uint64),
            )
        return self.scratch

    def mixed_of(self, positions: int, pairs: int, refs: int) -> Mixed:
        """Room for targets in mixed form, at least so much."""
        if self.mixed is None or positions > self.mixed.rest.size:
            self.mixed = Mixed(
                np.empty(positions + 1, np.int64),
                np.empty(0, np.int64),
                np.empty(0, np.float64),
                np.empty(positions, np.int64),
                np.empty(positions, np.float64),
                np.empty(positions + 1, np.int64),
                np.empty(0, np.int64),
                np.empty((0, 4), np.float64),
                np.empty(0, np.int64),
                np.empty(positions, np.float64),
                np.empty(positions, np.int32),
                np.empty(positions, np.int64),
            )
        if pairs > self.mixed.pair_tokens.size:
            self.mixed = self.mixed._replace(
                pair_tokens=np.empty(pairs, np.int64),
                pair_masses=np.empty(pairs, np.float64),
            )
        if refs > self.mixed.ref_rows.size:
            self.mixed = self.mixed._replace(
                ref_rows=np.empty(refs, np.int64),
                ref_coefficients=np.empty((refs, 4), np.float64),
                ref_gone=np.empty(refs, np.int64),
            )
        return self.mixed

    def work_of(self, num_symbols: int) -> FlatWork:
        """Scratch memory of `flat_targets` and `whole_targets`."""
        if self.work is None:
            room = 2 * num_symbols + 2
            self.work = FlatWork(
                np.zeros(room, np.int64),
                np.zeros(room, np.float64),
                np.zeros(room, np.float64),
                np.zeros(room, np.int64),
                np.zeros(room, np.int64),
                np.zeros(room, np.float64),
                np.zeros(room, np.int64),
                np.zeros(room, np.float64),
                np.zeros(room, np.int64),
                np.zeros(MOST_LOWEST),
                np.zeros(MOST_LOWEST, np.int64),
            )
        return self.work

    def ancestors_of(self, nodes: HeavyNodes) -> np.ndarray:
        """Room for a stored row's ancestors."""
        if self.ancestors is None:
            self.ancestors = np.empty(nodes.deepest_chain + 1, np.int64)
        return self.ancestors

    def dense_of(self, num_symbols: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Zeros by symbol, and by the bits of symbols."""
        if self.dense is None:
            self.dense = (
                np.zeros(num_symbols, np.float64),
                np.zeros((num_symbols >> 6) + 1, np.uint64),
                np.zeros((num_symbols >> 12) + 1, np.uint64),
            )
        return self.dense

    def lists_of(self, owner: object, kinds: int, nodes: HeavyNodes, size: int) -> Shortlists:
        """The shortlists of an estimator, their owner, which reads so many kinds of counts; another one's are freed."""
        if self.lists is None or self.lists[0] is not owner or self.lists[1] != size:
            num_rows = nodes.offsets.size - 1
            usual, longest = (HEADER + size * (1 + kinds * levels) for levels in (3, MOST_LEVELS))
            chain = min(nodes.deepest_chain, MOST_CHAIN)
            most = max(min(num_rows, _LIST_BYTES // (4 * usual)), 2 * chain)
            room = max(most * usual, 2 * chain * longest)
            made = Shortlists(
                np.full(num_rows, -1, np.int64),
                np.empty(room, np.uint32),
                np.empty((most, size), np.float32),
                np.zeros(2, np.int64),
            )
            self.lists = (owner, size, made)
        return self.lists[2]
