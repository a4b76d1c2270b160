"""What is made of an index's files at the first use, and kept in memory with the opened index."""

from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index import files
from corpus_index._kernels import counting, document_ranks, exclusion_sums, left_out, target_arrays, walk
from corpus_index._kernels.arrays import CompactText, IndexArrays, StepArrays, TextArrays
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.addresses import contradiction
from corpus_index.core.compact import all_ranks, stretch_ranks
from corpus_index.core.heavy import heavy_nodes
from corpus_index.core.mapped import OpenedIndex
from corpus_index.core.scratch import ThreadMemory
from corpus_index.manifest import LOSSES_FILE, RANKS_FILE
from corpus_index.occurrences import occurrence_lists

LANES = 32  # rows, or pieces of documents, that step together
_SAMPLE_SHIFT = 5  # ranks of every 32nd position are kept for `document_ranks`: an eighth of a byte a token


_SHARED_FROM = 1 << 20  # tokens: from here on processes share what documents are left out with in files
_REMEMBERED = 16  # documents
_HEADER_BYTES = 4096  # of such a file: whose it is


class _MadeMeanwhileError(Exception):
    """Another process has made the file."""


class Derived(OpenedIndex):
    """An opened index with its symbols counted, its positions ranked, and its stored rows made ready for targets."""

    def __init__(self, path: str | os.PathLike[str], check: str = "first") -> None:
        super().__init__(path, check)
        self.thread_memory = ThreadMemory()
        self._counts: np.ndarray | None = None
        self._left_counts: np.ndarray | None = None
        self._ranks: tuple[np.ndarray, ...] | None = None
        self._lost_from: np.ndarray | None = None
        self._base_losses: dict[tuple[int, bool], tuple[np.ndarray, np.ndarray]] = {}
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

    def sorted_ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """The ranks of each document's positions, ascending, and the symbol after each; made at the first use, O(N).

        Those of a large index are kept in its folder and mapped, so that all processes share them; where the folder
        can't be written, and of a small index, in the memory of this process.

        Returns
        -------
        ranks : ndarray of shape (N,), uint32
            Document d's are entries doc_starts[d] : doc_starts[d + 1].
        following : ndarray of shape (N,), uint16 or uint32
        """
        if self._ranks is None:
            types = "<u4", self.array("next_tokens").dtype.str
            self._ranks = self._shared(RANKS_FILE, types, self._fill_ranks)
        return self._ranks[0], self._ranks[1]

    def listed_arrays(self) -> IndexArrays:
        """The arrays for kernels that read the lists of ranks; of a compact index these are made, in memory."""
        arrays = self.kernel_arrays()
        if not isinstance(arrays.text, CompactText):
            return arrays
        last = np.sort((self.array("endings") & np.uint64(2**32 - 1)).astype(np.int64))
        parts, next_tokens = [(0, self.num_tokens)], self.array("next_tokens")

        def each(function: Callable[..., Any], arguments: list[tuple[Any, ...]]) -> list[Any]:
            return [function(*given) for given in arguments]

        lists = occurrence_lists(next_tokens, last, self.num_symbols, self.num_starts, parts, each)
        for array in lists.values():
            array.flags.writeable = False  # as mapped ones: kernels are compiled for one kind
        directory, nothing = self.array("doc_directory"), next_tokens[:0]
        text = TextArrays(arrays.text.order, nothing, self.doc_starts, directory, self.document_shift, self.num_tokens)
        near, far, lists_of = lists["near"], lists["far"], lists["occurrence_directory"]
        return arrays._replace(text=text, steps=StepArrays(lists["symbols"].reshape(-1), near, far, lists_of))

    def position_ranks(self) -> np.ndarray:
        """The rank of every corpus position: shape (N,), uint32; made anew by each call, O(N)."""
        text = self.kernel_arrays().text
        if isinstance(text, CompactText):
            return all_ranks(text)
        ranks = np.empty(self.num_tokens, np.uint32)
        try:
            ranks[self.array("order")] = np.arange(self.num_tokens, dtype=np.uint32)
        except IndexError as error:
            raise contradiction(self.path, "order holds a position outside of the corpus") from error
        return ranks

    def lost_from(self) -> np.ndarray:
        """From which depth on a node loses a left extension with each of `sorted_ranks`: shape (N,), uint8.

        See `fill_lost_from`; made at the first use, O(N), and kept as `sorted_ranks`.
        """
        if self._lost_from is None:
            self._lost_from = self._shared(LOSSES_FILE, ("u1",), self._fill_lost_from)[0]
        return self._lost_from

    def base_losses(self, document: int, by_left: bool) -> tuple[np.ndarray, np.ndarray]:
        """What the empty context's counts, or left extensions, lose with a document; of the last few remembered.

        Returns
        -------
        lost : ndarray of shape (num_symbols,), int64
        tokens : ndarray, int64
            Those that lose something, in any order.
        """
        found = self._base_losses.pop((document, by_left), None)
        if found is None:
            lost, tokens = np.zeros(self.num_symbols, np.int64), np.empty(self.num_symbols + 1, np.int64)
            following = self.sorted_ranks()[1]
            lost_from = self.lost_from() if by_left else np.zeros(0, np.uint8)
            lost_from.flags.writeable = False
            begin, end = self.doc_starts[document : document + 2].tolist()
            size = left_out.count_document(following, lost_from, by_left, begin, end, lost, tokens)
            found = lost, tokens[:size].copy()
        self._base_losses[document, by_left] = found
        while len(self._base_losses) > _REMEMBERED:
            self._base_losses.pop(next(iter(self._base_losses), (document, by_left)), None)
        return found

    def _fill_ranks(self, ranks: np.ndarray, following: np.ndarray) -> None:
        ends = np.array(self.doc_starts[:-1])
        text, next_tokens = self.whole_text(), self.array("next_tokens")
        if not document_ranks.fill_sorted_ranks(text, next_tokens, ends, ranks, following):
            raise contradiction(self.path, "order holds a position twice")

    def _fill_lost_from(self, lost_from: np.ndarray) -> None:
        arrays, size = self.kernel_arrays(), self.num_symbols
        document_ranks.fill_lost_from(
            self.whole_text(),
            self.array("next_tokens"),
            arrays.nodes.common,
            np.zeros(257, np.int64),
            np.zeros(257, np.int64),
            np.full(size, -1, np.int64),
            np.zeros(size, np.int64),
            np.zeros(size, np.uint8),
            np.empty(self.num_tokens, np.uint8),
            np.array(self.doc_starts[1:]),
            lost_from,
        )

    def _shared(self, name: str, types: tuple[str, ...], fill: Callable[..., None]) -> tuple[np.ndarray, ...]:
        """Arrays of N entries from a file in the index's folder, which one process makes and others wait for."""
        found = self._in_file(self.path / name, types, fill) if self.num_tokens >= _SHARED_FROM else None
        if found is None:
            found = tuple(np.zeros(self.num_tokens, dtype) for dtype in types)
            fill(*found)
            for array in found:
                array.flags.writeable = False  # as mapped ones: kernels are compiled for one kind
        return found

    def _in_file(self, path: Path, types: tuple[str, ...], fill: Callable[..., None]) -> tuple[np.ndarray, ...] | None:
        """Arrays from a file, made where it isn't there; None where it can't be."""
        found = self._mapped(path, types)
        if found is not None:
            return found
        try:
            with files.whole_file(path) as file:
                found = self._mapped(path, types)
                if found is not None:  # another process has made it while this one waited for its turn
                    raise _MadeMeanwhileError
                file.write(self._stamp())
                file.flush()
                size = self._file_bytes(types)
                if hasattr(os, "posix_fallocate"):  # a full disk is an error now, not a fault later
                    os.posix_fallocate(file.fileno(), 0, size)
                else:
                    file.truncate(size)
                with mmap.mmap(file.fileno(), size) as mapped:
                    arrays = self._arrays_in(mapped, types)
                    fill(*arrays)
                    del arrays
                file.seek(size)
        except _MadeMeanwhileError:
            return found
        except OSError:  # a folder or a disk that can't be written
            return None
        return self._mapped(path, types)

    def _stamp(self) -> bytes:
        return self.fingerprint.encode().ljust(_HEADER_BYTES, b"\0")

    def _file_bytes(self, types: tuple[str, ...]) -> int:
        return _HEADER_BYTES + sum(self.num_tokens * np.dtype(dtype).itemsize for dtype in types)

    def _arrays_in(self, mapped: mmap.mmap, types: tuple[str, ...]) -> tuple[np.ndarray, ...]:
        arrays, place = [], _HEADER_BYTES
        for dtype in types:
            arrays.append(np.frombuffer(mapped, dtype, self.num_tokens, place))
            place += arrays[-1].nbytes
        return tuple(arrays)

    def _mapped(self, path: Path, types: tuple[str, ...]) -> tuple[np.ndarray, ...] | None:
        """The arrays in a file, or None where it isn't there, or another index's."""
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size != self._file_bytes(types):
                    return None
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):
            return None
        return self._arrays_in(mapped, types) if mapped[:_HEADER_BYTES] == self._stamp() else None

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
        text = self.kernel_arrays().text
        if isinstance(text, CompactText):
            offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
            return offsets, stretch_ranks(text, starts.astype(np.int64), offsets)
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
