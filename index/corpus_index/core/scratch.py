"""What a thread keeps between calls: scratch memory of the kernels, and the shortlists of the estimator used last."""

from __future__ import annotations

import threading

import numpy as np

from corpus_index._kernels.exclusion_sums import ExclusionScratch
from corpus_index._kernels.flatten import FlatWork
from corpus_index._kernels.shortlists import HEADER, MOST_CHAIN, Shortlists
from corpus_index._kernels.target_arrays import GoneRows, HeavyNodes, Mixed, Scratch
from corpus_index._kernels.walk import Walkers

MOST_LEVELS = 12  # of a shortlist; what shallower contexts add to its tokens counts as cut
_GONE_ROWS, _GONE_ROOM = 1 << 11, 1 << 14  # rows without documents at first, and their entries
_GONE_ENTRIES = 1 << 20  # of rows without documents, some 30 bytes each, that a thread keeps
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
        self.gone: dict[bool, tuple[GoneRows, set[int]]] = {}
        self.lists: tuple[object, int, Shortlists] | None = None

    def walkers_of(self, lanes: int) -> Walkers:
        """Scratch memory of `walk.match_rows`."""
        if self.walkers is None:
            self.walkers = Walkers.empty(lanes)
        return self.walkers

    def scratch_of(self, num_symbols: int) -> Scratch:
        """Scratch memory of `mixed_targets`."""
        if self.scratch is None:
            self.scratch = Scratch.empty(num_symbols)
        return self.scratch

    def mixed_of(self, positions: int, pairs: int, refs: int) -> Mixed:
        """Room for targets in mixed form, at least that much."""
        if self.mixed is None or positions > self.mixed.rest.size:
            self.mixed = Mixed.empty(positions)
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
            self.work = FlatWork.empty(num_symbols)
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

    def take_gone(self, left: bool, documents: np.ndarray) -> tuple[GoneRows, set[int]]:
        """Room for rows without documents, and whose rows are there: from earlier calls that knew one of these.

        Who takes it gives it back with `keep_gone`; what isn't given back is made anew.
        """
        asked = set(documents.tolist())
        rows, known = self.gone.pop(left, (None, asked))
        if rows is None or rows.tokens.size > 2 * _GONE_ENTRIES:
            return GoneRows.empty(_GONE_ROWS, _GONE_ROOM, left), asked
        if known.isdisjoint(asked) or rows.offsets[rows.used[0]] + rows.used[0] > _GONE_ENTRIES:
            rows.slots[:] = 0
            rows.used[:] = 0
            return rows, asked
        return rows, known | asked

    def keep_gone(self, left: bool, rows: GoneRows, documents: set[int]) -> None:
        """Keep rows without documents for the next call."""
        self.gone[left] = rows, documents

    def lists_of(self, owner: object, kinds: int, nodes: HeavyNodes, size: int) -> Shortlists:
        """The shortlists of an estimator, the owner, which reads `kinds` kinds of counts; another owner's are freed."""
        num_rows = nodes.offsets.size - 1
        known = self.lists is not None and self.lists[0] is owner and self.lists[1] == size
        if self.lists is None or not known or self.lists[2].places.size != num_rows:
            usual, longest = (HEADER + size * (1 + kinds * levels) for levels in (3, MOST_LEVELS))
            chain = min(nodes.deepest_chain, MOST_CHAIN)
            most = max(min(num_rows, _LIST_BYTES // (4 * usual)), 2 * chain)
            room = max(most * usual, 2 * chain * longest)
            self.lists = (owner, size, Shortlists.empty(num_rows, most, size, room))
        return self.lists[2]
