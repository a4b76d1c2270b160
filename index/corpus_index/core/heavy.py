"""The nodes whose rows are stored, made ready for targets: their ancestors, totals and left extensions.

Made at the first use, O(entries of the rows), and kept with the index; and, for each thread, the shortlists and the
scratch memory of the kernels.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from corpus_index._kernels import counting, heavy
from corpus_index._kernels import label_places as look_up
from corpus_index._kernels import target_arrays as columns
from corpus_index._kernels.exclusion_sums import ExclusionScratch
from corpus_index._kernels.flatten import FlatWork
from corpus_index._kernels.selection import MOST_LOWEST
from corpus_index._kernels.shortlists import HEADER, MOST_CHAIN, Shortlists
from corpus_index._kernels.target_arrays import HeavyNodes, Mixed, Scratch
from corpus_index._kernels.walk import Walkers

if TYPE_CHECKING:
    from corpus_index.core.derived import IndexTables
    from corpus_index.estimators.estimator import Estimator

MOST_LEVELS = 12  # of a shortlist; what shallower contexts add to its tokens counts as cut
_MEMO = 4096  # wide contexts with one continuation whose runs are remembered
_LIST_BYTES = 256 << 20  # of one thread's shortlists at most


class HeavyRows(NamedTuple):
    """Of each stored row: counts of 1, of 2, and the sum, raw and of left extensions; places of the largest counts."""

    classes: np.ndarray
    left_classes: np.ndarray
    top_offsets: np.ndarray
    top_places: np.ndarray


def heavy_nodes(index: IndexTables, left: bool) -> HeavyNodes:
    """The stored rows as kernels take them; left: with left extensions, as Kneser–Ney wants them."""
    bounds, offsets = index.array("row_bounds"), index.array("row_offsets")
    num_rows = bounds.shape[0]
    table = _aligned_zeros(num_rows, columns.COLUMNS)
    arrays = index.kernel_arrays()
    flat, directory, shift = bounds.reshape(-1), index.array("row_directory"), index.row_shift
    outer_first = np.lexsort((-bounds[:, 1].astype(np.int64), bounds[:, 0]))
    chain = int(heavy.fill_ancestors(arrays.text, arrays.nodes, flat, outer_first, table))
    heavy.fill_depths(arrays.nodes.common, table)
    widths = table[:, columns.HI] - table[:, columns.LO]
    widest_first = np.argsort(widths, kind="stable")[::-1]
    narrowest = np.empty((index.num_tokens >> columns.BLOCK_BITS) + 3, np.uint32)
    heavy.fill_narrowest(table, widest_first[widths[widest_first] < index.num_tokens], narrowest)
    classes = np.zeros((num_rows, 3), np.int64)
    counting.row_classes(offsets, index.array("row_counts"), classes)
    table[:, columns.RAW_1 : columns.RAW_2 + 1] = classes[:, :2]
    lefts = np.zeros(0, np.uint32)
    if left:
        lefts = index.stored_left_extensions()[0]
        classes[:] = 0
        counting.row_classes(offsets, lefts, classes)
        table[:, columns.LEFT_1 : columns.LEFT_TOTAL + 1] = classes
    tokens, counts = index.array("row_tokens"), index.array("row_counts")
    buckets = np.zeros(look_up.place_buckets(offsets, index.num_symbols, table), np.uint32)
    look_up.fill_buckets(tokens, table, offsets, buckets)
    return HeavyNodes(
        table,
        narrowest,
        buckets,
        flat,
        directory,
        shift,
        index.light,
        index.deepest,
        chain,
        offsets,
        tokens,
        counts,
        lefts,
    )


def _aligned_zeros(num_rows: int, num_columns: int) -> np.ndarray:
    """Rows of u32 that don't straddle cache lines more than they must."""
    room = np.zeros(num_rows * num_columns + 15, np.uint32)
    skip = (-room.ctypes.data // 4) % 16
    return room[skip : skip + num_rows * num_columns].reshape(num_rows, num_columns)


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
        self.lists: tuple[Estimator, int, Shortlists] | None = None

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

    def lists_of(self, estimator: Estimator, nodes: HeavyNodes, size: int) -> Shortlists:
        """The shortlists of an estimator; those of another one are let go."""
        if self.lists is None or self.lists[0] is not estimator or self.lists[1] != size:
            num_rows, kinds = nodes.offsets.size - 1, 1 + estimator.uses_left_counts
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
            self.lists = (estimator, size, made)
        return self.lists[2]
