"""What is made of an index's files at the first use, and kept in memory with the opened index."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from corpus_index import files
from corpus_index._kernels import counting, exclusion_sums, target_arrays, walk
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.addresses import contradiction
from corpus_index.core.heavy import heavy_nodes
from corpus_index.core.mapped import OpenedIndex
from corpus_index.core.scratch import ThreadMemory
from corpus_index.manifest import RANKS_FILE

LANES = 32  # rows, or pieces of documents, that step together
_SAMPLE_SHIFT = 5  # ranks of every 32nd position are kept for `document_ranks`: an eighth of a byte a token


_SHARED_FROM = 1 << 20  # tokens: from here on processes share the ranks of positions in a file
_HEADER_BYTES = 4096  # of it: whose ranks they are


class _MadeMeanwhileError(Exception):
    """Another process has made the file."""


class Derived(OpenedIndex):
    """An opened index with its symbols counted, its positions ranked, and its stored rows made ready for targets."""

    def __init__(self, path: str | os.PathLike[str], check: str = "first") -> None:
        super().__init__(path, check)
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
        """The rank of every corpus position: shape (N,), uint32; made at the first use, O(N).

        Those of a large index are kept in its folder and mapped, so that all processes share them; where the folder
        can't be written, and of a small index, in the memory of this process.
        """
        if self._ranks is None:
            self._ranks = self._shared_ranks() if self.num_tokens >= _SHARED_FROM else None
        if self._ranks is None:
            self._ranks = self._made_ranks()
        return self._ranks

    def _made_ranks(self) -> np.ndarray:
        ranks = np.empty(self.num_tokens, np.uint32)
        try:
            ranks[self.array("order")] = np.arange(self.num_tokens, dtype=np.uint32)
        except IndexError as error:
            raise contradiction(self.path, "order holds a position outside of the corpus") from error
        return ranks

    def _shared_ranks(self) -> np.ndarray | None:
        """`position_ranks` from a file in the index's folder, which one process makes and others wait for."""
        path = self.path / RANKS_FILE
        found = self._mapped_ranks(path)
        if found is not None:
            return found
        made = None
        try:
            with files.whole_file(path) as file:
                found = self._mapped_ranks(path)
                if found is not None:  # another process has made it while this one waited for its turn
                    raise _MadeMeanwhileError
                made = self._made_ranks()
                file.write(self._ranks_header())
                file.write(made.astype("<u4", copy=False).data)
        except _MadeMeanwhileError:
            return found
        except OSError:  # a folder or a disk that can't be written
            return made
        return self._mapped_ranks(path)

    def _ranks_header(self) -> bytes:
        return self.fingerprint.encode().ljust(_HEADER_BYTES, b"\0")

    def _mapped_ranks(self, path: Path) -> np.ndarray | None:
        """The ranks in a file, or None where it isn't there, or another index's."""
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != _HEADER_BYTES + 4 * self.num_tokens:
                    return None
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        if mapped[:_HEADER_BYTES] != self._ranks_header():
            return None
        return np.frombuffer(mapped, "<u4", offset=_HEADER_BYTES)

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
            depth = np.ascontiguousarray(self.heavy_nodes(False).table[:, target_arrays.OWN_DEPTH])
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
