"""What is made of an index's files at the first use, and kept in memory with the opened index."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import counting, exclusion_sums, target_arrays, walk
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.core.heavy import heavy_nodes
from corpus_index.core.mapped import OpenedIndex
from corpus_index.core.scratch import ThreadMemory

LANES = 32  # rows, or pieces of documents, that step together
_SAMPLE_SHIFT = 5  # ranks of every 32nd position are kept for `document_ranks`: an eighth of a byte a token


class Derived(OpenedIndex):
    """An opened index with its symbols counted, its positions ranked, and its stored rows made ready for targets."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        self.thread_memory = ThreadMemory()
        self._counts: np.ndarray | None = None
        self._left_counts: np.ndarray | None = None
        self._ranks: np.ndarray | None = None
        self._first_ranks: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._left: tuple[np.ndarray, np.ndarray] | None = None
        self._heavy_nodes: dict[bool, HeavyNodes] = {}
        self._row_sums: np.ndarray | None = None

    @property
    def symbol_counts(self) -> np.ndarray:
        """How often each symbol occurs: shape (num_symbols,), int64."""
        if self._counts is None:
            first = self.array("symbols")[:, 0].astype(np.int64)
            ends = (self.array("endings") >> np.uint64(32)).astype(np.int64)
            self._counts = np.diff(first) + np.bincount(ends, minlength=self.num_symbols)
        return self._counts

    @property
    def left_counts(self) -> np.ndarray:
        """After how many distinct symbols each symbol stands: shape (num_symbols,), int64; O(N) at the first use."""
        if self._left_counts is None:
            counts = np.zeros(self.num_symbols, np.int64)
            counting.distinct_left(self.array("next_tokens"), self.array("common"), self.num_symbols, counts)
            self._left_counts = counts
        return self._left_counts

    def position_ranks(self) -> np.ndarray:
        """The rank of every corpus position: shape (N,), uint32; made at the first use, O(N), and kept in memory."""
        if self._ranks is None:
            ranks = np.empty(self.num_tokens, np.uint32)
            ranks[self.array("order")] = np.arange(self.num_tokens, dtype=np.uint32)
            self._ranks = ranks
        return self._ranks

    def document_ranks(self, documents: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
        """The ranks of all positions of some documents, in the order of the text.

        Returns
        -------
        offsets : ndarray of shape (n + 1,), int64
            The i-th document's are entries offsets[i] : offsets[i + 1] of ranks.
        ranks : ndarray, int64

        Notes
        -----
        A step a token. Keeps the rank of every 32nd position from the first use on: O(N) once, N / 8 bytes.
        """
        numbers = np.asarray(documents, np.int64).reshape(-1)
        starts = self.doc_starts[numbers]
        lengths = self.doc_starts[numbers + 1] - starts
        if self._first_ranks is None:
            first = np.array(self.array("order")[: self.num_starts], np.int64)
            sampled = np.zeros((self.num_tokens >> _SAMPLE_SHIFT) + 1, np.uint32)
            walk.sample_ranks(self.array("order"), _SAMPLE_SHIFT, sampled)
            self._first_ranks = np.sort(first), np.argsort(first), sampled
        places, first_ranks, sampled = self._first_ranks
        filled = np.minimum(np.searchsorted(places, starts), places.size - 1)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        ranks = np.empty(int(offsets[-1]), np.int64)
        arrays = self.kernel_arrays()
        walk.document_ranks(
            arrays, sampled, _SAMPLE_SHIFT, LANES, starts, first_ranks[filled].astype(np.int64), offsets, ranks
        )
        return offsets, ranks

    def stored_left_extensions(self) -> tuple[np.ndarray, np.ndarray]:
        """For each entry of the stored rows, after how many distinct symbols it stands; each row's depth (0: unknown).

        Made at the first use: O(ranks of all heavy nodes).
        """
        if self._left is None:
            depth = self.heavy_nodes(False).table[:, target_arrays.OWN_DEPTH]
            out = np.empty(self.array("row_counts").size, np.uint32)
            counting.stored_left_extensions(
                self.array("next_tokens"),
                self.array("common"),
                self.num_symbols,
                self.array("row_bounds"),
                self.array("row_offsets"),
                self.array("row_tokens"),
                depth,
                out,
            )
            self._left = out, depth
        return self._left

    def heavy_nodes(self, left: bool) -> HeavyNodes:
        """The stored rows, made ready for targets at the first use; left: with left extensions."""
        if left not in self._heavy_nodes:
            self._heavy_nodes[left] = heavy_nodes(self, self.stored_left_extensions()[0] if left else None)
        return self._heavy_nodes[left]

    def row_sums(self) -> np.ndarray:
        """Sums of the stored rows' counts, and of their parents' counts of their tokens, for estimators with exclusion.

        Made at the first use; see `fill_row_sums`.
        """
        if self._row_sums is None:
            sums = np.zeros((self.array("row_bounds").shape[0], 2, exclusion_sums.SUMS), np.int64)
            exclusion_sums.fill_row_sums(self.heavy_nodes(False), self.symbol_counts, sums)
            self._row_sums = sums
        return self._row_sums
