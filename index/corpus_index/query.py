"""The index, opened: counts, positions, continuations and matches, for one context or a whole batch.

One query is a batch of one. All arrays are read-only memory maps; the kernels release the GIL, so threads and worker
processes share one copy in the page cache.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import counting, rows, target_arrays, walk
from corpus_index._kernels.arrays import IndexArrays, NodeArrays, StepArrays, TextArrays
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index.answers import Chains, Match, NextTokens, NextTokensBatch, NodeRows
from corpus_index.asked import Prepared, prepare
from corpus_index.backing_off import backoff_scores, row_sums
from corpus_index.errors import IndexFormatError, QueryError
from corpus_index.estimators import ESTIMATORS, Estimator
from corpus_index.explain import Explanation, explain
from corpus_index.heavy import HeavyRows, ThreadMemory, heavy_nodes
from corpus_index.resolving import EstimatorLike, resolve_estimator
from corpus_index.smoothing import (
    MixedTargets,
    RowTable,
    SparseTargets,
    mixed_targets,
    next_probabilities,
    sampled_targets,
    smoothed_targets,
)
from corpus_index.store import DEEPEST, map_array, read_manifest

BLOCK = 64
_LANES = 32
_AHEAD = 16
_SAMPLE_SHIFT = 5  # ranks of every 32nd position are kept for `document_ranks`: an eighth of a byte a token


class CorpusIndex:
    """An index on disk, opened for reading; make one with `build_index` or `CorpusIndex.open`.

    A context manager; `close` lets go of the files. Pickles as its path, so that workers open their own map.

    Attributes
    ----------
    path : Path
    num_tokens, num_documents, vocab_size : int
        N, D and V.
    end_of_document : int or None
        The token after which a context starts anew.
    metadata : dict
        What the builder wanted kept.
    fingerprint : str
        Identifies the index's content (SHA-256, hex).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(os.path.abspath(path))
        self._manifest = read_manifest(self.path)
        manifest = self._manifest
        self.num_tokens: int = manifest["num_tokens"]
        self.num_documents: int = manifest["num_documents"]
        self.vocab_size: int = manifest["vocab_size"]
        self.metadata: dict[str, Any] = manifest["metadata"]
        self.end_of_document: int | None = self.metadata.get("end_of_document")
        self.fingerprint: str = manifest["fingerprint"]
        self._counts: np.ndarray | None = None
        self._left_counts: np.ndarray | None = None
        self._first_ranks: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None
        self._heavy: dict[tuple[bool, int | None], HeavyRows] = {}
        self._left: tuple[np.ndarray, np.ndarray] | None = None
        self._heavy_nodes: dict[bool, HeavyNodes] = {}
        self._row_sums: np.ndarray | None = None
        self._ranks: np.ndarray | None = None
        self.thread_memory = ThreadMemory()
        self._estimators: dict[Any, Estimator] = {}
        self.prepared: dict[int, Prepared] = {}
        self._num_symbols: int = manifest["num_symbols"]
        self._arrays: dict[str, np.ndarray] = {
            name: map_array(self.path, name, entry) for name, entry in manifest["arrays"].items()
        }
        array = self.array
        self._index: IndexArrays | None = IndexArrays(
            TextArrays(
                array("order"),
                array("tokens"),
                array("doc_starts"),
                array("doc_directory"),
                manifest["document_shift"],
            ),
            NodeArrays(array("common"), array("minima"), _levels(self.num_tokens)),
            StepArrays(array("symbols").reshape(-1), array("near"), array("far"), array("occurrence_directory")),
            manifest["num_starts"],
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> CorpusIndex:
        """Open the index at path; a few milliseconds, whatever its size.

        Raises
        ------
        IndexFormatError
            If there is no index, it is damaged or foreign, or of a newer format.
        """
        return cls(path)

    def close(self) -> None:
        """Let go of the files; the index can't be asked any more."""
        self._arrays = {}
        self._index = None

    def __enter__(self) -> CorpusIndex:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (str(self.path), self.fingerprint)

    def __repr__(self) -> str:
        return (
            f"CorpusIndex({str(self.path)!r}: {self.num_tokens:,} tokens, "
            f"{self.num_documents:,} documents, vocabulary {self.vocab_size:,})"
        )

    def array(self, name: str) -> np.ndarray:
        """One of the arrays of the format (index/README.md), read-only; for kernels and curious readers."""
        try:
            return self._arrays[name]
        except KeyError:
            if not self._arrays:
                raise QueryError(f"the index at {self.path} is closed: open it again") from None
            raise QueryError(f"the format has no array {name!r}: see index/README.md") from None

    @property
    def size_bytes(self) -> dict[str, int]:
        """Bytes on disk by file."""
        sizes = {f"{name}.bin": entry["bytes"] for name, entry in self._manifest["arrays"].items()}
        return sizes | {name: entry["bytes"] for name, entry in self._manifest["attachments"].items()}

    @property
    def num_starts(self) -> int:
        """Documents that hold at least one token."""
        return int(self._manifest["num_starts"])

    @property
    def light(self) -> int:
        """Contexts with more occurrences, and more than one distinct continuation, have a stored row."""
        return int(self._manifest["light"])

    @property
    def deepest(self) -> int:
        """Contexts of more symbols may have no stored row, whatever their occurrences."""
        return int(self._manifest.get("deepest", DEEPEST))

    @property
    def tokens(self) -> np.ndarray:
        """The corpus: shape (N,), uint16 or uint32 ids, read-only.

        A `numpy.memmap` of its file, so that datasets over it can be pickled as a path (an array in memory where the
        vocabulary is far larger than the corpus).
        """
        symbols = self.array("tokens")
        if "alphabet" in self._arrays:
            return self.ids_of(symbols)
        return np.memmap(self.path / "tokens.bin", symbols.dtype, "r", shape=symbols.shape)

    @property
    def doc_starts(self) -> np.ndarray:
        """Offsets of the documents: shape (D + 1,), int64."""
        return self.array("doc_starts")

    def attachment(self, name: str) -> bytes:
        """An extra file that was stored with the index, such as its tokenizer.

        Raises
        ------
        IndexFormatError
            If the index has none of that name.
        """
        if name not in self._manifest["attachments"]:
            known = ", ".join(self._manifest["attachments"]) or "none"
            raise IndexFormatError(f"{self.path} holds no {name!r}; its attachments: {known}")
        return (self.path / name).read_bytes()

    # one context

    def count(self, ngram: ArrayLike) -> int:
        """How often an n-gram stands in the corpus, inside documents; the empty one N times.

        Parameters
        ----------
        ngram : array_like of shape (n,), integer
            Token ids below V.

        Notes
        -----
        A step a token, independent of the number of occurrences.
        """
        lo, hi, ends = self._ranks_of(ngram)
        return (hi - lo) + ends.size

    def positions(self, ngram: ArrayLike, limit: int | None = None) -> np.ndarray:
        """Where an n-gram stands: corpus positions of its first token, ascending, shape (count,), int64.

        With a limit, that many of them: always the same ones, but not the first.
        """
        length = _context(ngram, self.vocab_size).size
        lo, hi, ends = self._ranks_of(ngram)
        if limit is not None:
            if limit < 0:
                raise QueryError(f"limit {limit} is negative")
            hi = min(hi, lo + limit)
            ends = ends[: limit - (hi - lo)]
        order = self.array("order")
        places = np.concatenate(
            [order[lo:hi].astype(np.int64) - length, order[ends].astype(np.int64) - max(0, length - 1)]
        )
        return np.sort(places)

    def document_of(self, positions: ArrayLike) -> np.ndarray:
        """The number of the document that holds each corpus position: int64, the shape of positions."""
        places = np.asarray(positions)
        if places.dtype.kind not in "ui" and places.size:
            raise QueryError(f"positions must be integers, not {places.dtype}")
        if places.size and (int(places.min()) < 0 or int(places.max()) >= self.num_tokens):
            bad = int(places.min()) if int(places.min()) < 0 else int(places.max())
            raise QueryError(f"position {bad:,} is outside of the corpus 0 .. {self.num_tokens - 1:,}")
        return np.searchsorted(self.doc_starts, places, side="right") - 1

    def next_tokens(
        self,
        context: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool = False,
    ) -> NextTokens:
        """All continuations of the longest suffix of a context that occurs at least min_count times, exact.

        Parameters
        ----------
        context : array_like of shape (n,), integer
            Token ids below V, oldest first; may be empty.
        max_order : int, optional
            Symbols of the suffix at most; default: no bound.
        min_count : int
            Occurrences (with a continuation) that the suffix must have; the empty one is always good enough.
        starts_document : bool
            Whether the context is the whole of its document so far; then its start can match as well.

        Raises
        ------
        QueryError
            If an id is out of range or an option is wrong.

        Examples
        --------
        >>> import tempfile, numpy as np
        >>> from corpus_index import build_index
        >>> index = build_index(np.array([1, 2, 1, 2, 3]), tempfile.mkdtemp() + "/index")
        >>> answer = index.next_tokens([0, 1, 2])
        >>> answer.token_ids.tolist(), answer.counts.tolist(), answer.match_len, answer.context_count
        ([1, 3], [1, 1], 2, 2)
        """
        ids = _context(context, self.vocab_size)
        if ids.size == 0:
            _check_options(min_count, max_order)
            whole_start = starts_document and self.num_starts >= min_count and max_order != 0
            hi = self.num_starts if whole_start else self.num_tokens
            match = Match(np.zeros((1, 1), np.int64), np.full((1, 1), hi), np.zeros((1, 1), np.int32))
            return self.rows_of(match).at(0, 0)
        match = self.match(ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document)
        return self.rows_of(Match(*(part[:, -1:] for part in match))).at(0, 0)

    # batches

    def match(
        self,
        input_ids: ArrayLike,
        *,
        min_count: int = 1,
        max_order: int | None = None,
        starts_document: bool | ArrayLike = False,
    ) -> Match:
        """What the corpus knows of every context input_ids[b, : t + 1]: its longest suffix, as a range of ranks.

        Parameters
        ----------
        input_ids : array_like of shape (B, T) or (T,), integer
            Token ids below V. A context starts anew after the end-of-document token.
        min_count, max_order
            As in `next_tokens`.
        starts_document : bool or array_like of shape (B,), bool
            Which rows begin where a document begins.

        Returns
        -------
        Match
            Arrays of shape (B, T).

        Raises
        ------
        QueryError
            If an id is out of range, or the shape or an option is wrong.

        Notes
        -----
        A constant number of random reads a position (more where a match breaks), and rows step together to hide their
        latency: fastest from some 16 rows on. Releases the GIL.
        """
        return self.match_nodes(input_ids, min_count=min_count, max_order=max_order, starts_document=starts_document)[0]

    def match_nodes(
        self,
        input_ids: ArrayLike,
        *,
        min_count: int = 1,
        max_order: int | None = None,
        starts_document: bool | ArrayLike = False,
    ) -> tuple[Match, np.ndarray]:
        """`match`, and the depth of each match, (B, T) int32: match_len, plus 1 where the start matched too."""
        ids = self._batch(input_ids)
        _check_options(min_count, max_order)
        starts = np.broadcast_to(np.asarray(starts_document, np.bool_), ids.shape[:1]).copy()
        lo, hi = np.empty(ids.shape, np.int64), np.empty(ids.shape, np.int64)
        depth, match_len = np.empty(ids.shape, np.int32), np.empty(ids.shape, np.int32)
        walk.match_rows(
            self.kernel_arrays(),
            ids,
            starts,
            self._end_symbol(),
            min_count,
            -1 if max_order is None else max_order,
            self.thread_memory.walkers_of(_LANES),
            lo,
            hi,
            depth,
            match_len,
        )
        return Match(lo, hi, match_len), depth

    def next_tokens_batch(
        self,
        input_ids: ArrayLike,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool | ArrayLike = False,
    ) -> NextTokensBatch:
        """`next_tokens` for every context input_ids[b, : t + 1]; parameters as in `match`."""
        match = self.match(input_ids, max_order=max_order, min_count=min_count, starts_document=starts_document)
        return self.rows_of(match)

    def rows_of(self, match: Match) -> NextTokensBatch:
        """All continuations of matches, exact; long rows of heavy contexts are referred to, not copied.

        Notes
        -----
        O(occurrences) for a context with at most `light` occurrences, one look-up for others.
        """
        flat = [np.ascontiguousarray(part).reshape(-1) for part in match]
        made = self.rows_of_nodes(*flat)
        return NextTokensBatch(
            match,
            made.numbers.reshape(match.lo.shape),
            made.offsets,
            self.ids_of(made.symbols),
            made.counts,
            made.stored_offsets,
            self.ids_of(made.stored_symbols),
            made.stored_counts,
        )

    def rows_of_nodes(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> NodeRows:
        """The continuation rows of Q nodes given flat: ranges of ranks, and the symbols each shares (or one less)."""
        width = hi - lo
        capacity = int(np.minimum(width, self.light).sum())
        deep = depth >= self.deepest  # the rows of such contexts are not stored: all their ranks are read
        if deep.any():
            capacity += int(np.minimum(width, self._num_symbols)[deep].sum())
        next_tokens = self.array("next_tokens")
        numbers, offsets = np.empty(lo.size, np.int64), np.empty(lo.size + 1, np.int64)
        symbols, counts = np.empty(capacity, next_tokens.dtype), np.empty(capacity, np.uint32)
        made = rows.rows_of_nodes(
            next_tokens,
            self._num_symbols,
            self.light,
            self.deepest,
            self.array("row_bounds").reshape(-1),
            self.array("row_directory"),
            self._manifest["row_shift"],
            lo,
            hi,
            depth,
            _AHEAD,
            numbers,
            offsets,
            symbols,
            counts,
        )
        used = int(offsets[made])
        return NodeRows(
            numbers,
            offsets[: made + 1],
            symbols[:used],
            counts[:used],
            self.array("row_offsets"),
            self.array("row_tokens"),
            self.array("row_counts"),
        )

    def chains_of(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray, begin: int, end: int) -> tuple[int, Chains]:
        """The backoff chains of the matches begin .. end − 1, or of as many as fit in memory set aside for them.

        Parameters
        ----------
        lo, hi, depth : ndarrays of shape (Q,)
            Nodes, as `match_nodes` gives them, flat.

        Returns
        -------
        stop : int
            The first match whose chain is not among them; begin < stop ≤ end.
        chains : Chains
        """
        depth = depth[:end]
        room = max(int(depth[begin:].max(initial=0)), min(int(depth[begin:].sum()), 64 * (end - begin)))
        offsets = np.empty(end - begin + 1, np.int64)
        chain_lo, chain_hi = np.empty(room, np.int64), np.empty(room, np.int64)
        chain_depth = np.empty(room, np.int64)
        stop = int(
            walk.backoff_chains(
                self.kernel_arrays(),
                lo[:end],
                hi[:end],
                depth,
                begin,
                offsets,
                chain_lo,
                chain_hi,
                chain_depth,
                _AHEAD,
            )
        )
        used = int(offsets[stop - begin])
        return stop, Chains(offsets[: stop - begin + 1], chain_lo[:used], chain_hi[:used], chain_depth[:used])

    def smoothed_targets(
        self, input_ids: ArrayLike, next_ids: ArrayLike | None = None, **options: Any
    ) -> SparseTargets:
        """Smoothed next-token distributions of a batch; see `corpus_index.smoothing.smoothed_targets`."""
        return smoothed_targets(self, input_ids, next_ids, **options)

    def sampled_targets(self, input_ids: ArrayLike, next_ids: ArrayLike | None = None, **options: Any) -> SparseTargets:
        """Random samples of smoothed distributions as targets; see `corpus_index.smoothing.sampled_targets`."""
        return sampled_targets(self, input_ids, next_ids, **options)

    def mixed_targets(self, input_ids: ArrayLike, next_ids: ArrayLike | None = None, **options: Any) -> MixedTargets:
        """Smoothed distributions of a batch in mixed form; see `corpus_index.smoothing.mixed_targets`."""
        return mixed_targets(self, input_ids, next_ids, **options)

    def row_table(self, estimator: EstimatorLike = "witten-bell") -> RowTable:
        """The rows that an estimator's mixed targets refer to: memory maps, and left extensions if it counts them."""
        left = self.stored_left_extensions()[0] if self.fitted(estimator).uses_left_counts else None
        tokens = self.ids_of(self.array("row_tokens"))
        return RowTable(self.array("row_offsets"), tokens, self.array("row_counts"), left)

    def next_probabilities(self, input_ids: ArrayLike, next_ids: ArrayLike, **options: Any) -> np.ndarray:
        """Smoothed probabilities of the tokens that follow; see `corpus_index.smoothing.next_probabilities`."""
        return next_probabilities(self, input_ids, next_ids, **options)

    def backoff_scores(self, input_ids: ArrayLike, next_ids: ArrayLike, **options: Any) -> np.ndarray:
        """Scores of stupid backoff, as published; see `corpus_index.backing_off.backoff_scores`."""
        return backoff_scores(self, input_ids, next_ids, **options)

    def explain(self, context: ArrayLike, **options: Any) -> Explanation:
        """An estimator's distribution after one context, order by order; see `corpus_index.explain.explain`."""
        return explain(self, context, **options)

    # the whole corpus

    @property
    def num_symbols(self) -> int:
        """V, or the number of distinct tokens where the vocabulary is far larger than the corpus."""
        return self._num_symbols

    @property
    def symbol_counts(self) -> np.ndarray:
        """How often each symbol occurs: shape (num_symbols,), int64."""
        if self._counts is None:
            first = self.array("symbols")[:, 0].astype(np.int64)
            ends = (self.array("endings") >> np.uint64(32)).astype(np.int64)
            self._counts = np.diff(first) + np.bincount(ends, minlength=self._num_symbols)
        return self._counts

    @property
    def left_counts(self) -> np.ndarray:
        """After how many distinct symbols each symbol stands: shape (num_symbols,), int64; O(N) at the first use."""
        if self._left_counts is None:
            counts = np.zeros(self._num_symbols, np.int64)
            counting.distinct_left(self.array("next_tokens"), self.array("common"), self._num_symbols, counts)
            self._left_counts = counts
        return self._left_counts

    def fitted(self, estimator: EstimatorLike, max_order: int | None = None) -> Estimator:
        """An estimator (see `resolve_estimator`), fitted on this index at its first use if need be, then remembered.

        Raises
        ------
        QueryError
            If there is no such estimator, or it was fitted on another index.
        IndexFormatError
            If a file holds none, or one of another index.
        """
        name = (estimator, max_order) if isinstance(estimator, str) and estimator in ESTIMATORS else None
        if name in self._estimators:
            return self._estimators[name]
        made = resolve_estimator(estimator, self, max_order)
        if made.is_fitted and name is None:
            return made
        if made not in self._estimators:
            self._estimators[made] = made.fit(self)
        self._estimators[name or made] = self._estimators[made]
        return self._estimators[made]

    def base_distribution(self, estimator: EstimatorLike = "witten-bell") -> np.ndarray:
        """The distribution of an estimator's empty context: shape (V,), float32; see `Estimator.base`."""
        return prepare(self, self.fitted(estimator)).base_distribution

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
                self._num_symbols,
                self.array("row_bounds"),
                self.array("row_offsets"),
                self.array("row_tokens"),
                depth,
                out,
            )
            self._left = out, depth
        return self._left

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
            arrays, sampled, _SAMPLE_SHIFT, _LANES, starts, first_ranks[filled].astype(np.int64), offsets, ranks
        )
        return offsets, ranks

    @property
    def row_shift(self) -> int:
        """Ranks a bucket of `row_directory`, as a power of two."""
        return int(self._manifest["row_shift"])

    def position_ranks(self) -> np.ndarray:
        """The rank of every corpus position: shape (N,), uint32; made at the first use, O(N), and kept in memory."""
        if self._ranks is None:
            ranks = np.empty(self.num_tokens, np.uint32)
            ranks[self.array("order")] = np.arange(self.num_tokens, dtype=np.uint32)
            self._ranks = ranks
        return self._ranks

    def heavy_nodes(self, left: bool) -> HeavyNodes:
        """The stored rows, made ready for targets at the first use; left: with left extensions."""
        if left not in self._heavy_nodes:
            self._heavy_nodes[left] = heavy_nodes(self, left)
        return self._heavy_nodes[left]

    def row_sums(self) -> np.ndarray:
        """Sums of the stored rows for estimators with exclusion, made at the first use; see `backing_off.row_sums`."""
        if self._row_sums is None:
            self._row_sums = row_sums(self)
        return self._row_sums

    def heavy_rows(self, left: bool, shortlist: int | None) -> HeavyRows:
        """Totals of the stored rows, and the places of their largest counts; made at the first use, O(entries)."""
        key = (left, shortlist)
        if key not in self._heavy:
            offsets, counts = self.array("row_offsets"), self.array("row_counts")
            num_rows = offsets.size - 1
            classes, left_classes = np.zeros((num_rows, 3), np.int64), np.zeros((num_rows, 3), np.int64)
            counting.row_classes(offsets, counts, classes)
            if left:
                counting.row_classes(offsets, self.stored_left_extensions()[0], left_classes)
            top_offsets, top_places = np.zeros(num_rows + 1, np.int64), np.empty(0, np.int64)
            if shortlist is not None:
                longest = 4 * shortlist
                top_places = np.empty(shortlist * int((np.diff(offsets) > longest).sum()), np.int64)
                counting.top_entries(offsets, counts, shortlist, longest, top_offsets, top_places)
            self._heavy[key] = HeavyRows(classes, left_classes, top_offsets, top_places)
        return self._heavy[key]

    # helpers

    def kernel_arrays(self) -> IndexArrays:
        """The arrays as kernels take them."""
        if self._index is None:
            raise QueryError(f"the index at {self.path} is closed: open it again")
        return self._index

    def ids_of(self, symbols: np.ndarray) -> np.ndarray:
        """Token ids of symbols."""
        return self._arrays["alphabet"][symbols] if "alphabet" in self._arrays else symbols

    def symbols_of(self, ids: np.ndarray) -> np.ndarray:
        """Symbols of token ids; num_symbols for one that the corpus lacks."""
        if "alphabet" not in self._arrays:
            return ids
        alphabet = self._arrays["alphabet"]
        symbols = np.searchsorted(alphabet, ids)
        known = alphabet[np.minimum(symbols, alphabet.size - 1)] == ids
        return np.where(known, symbols, self._num_symbols)

    def _end_symbol(self) -> int:
        if self.end_of_document is None:
            return -1
        symbol = int(self.symbols_of(np.array([self.end_of_document], np.int64))[0])
        return symbol if symbol < self._num_symbols else -1

    def _batch(self, input_ids: ArrayLike) -> np.ndarray:
        ids = np.asarray(input_ids)
        if ids.ndim == 1:
            ids = ids[None]
        if ids.ndim != 2:
            raise QueryError(f"input_ids must have the shape (B, T) or (T,), not {ids.shape}")
        return np.ascontiguousarray(self.symbols_of(_checked(ids, self.vocab_size)))

    def _ranks_of(self, ngram: ArrayLike) -> tuple[int, int, np.ndarray]:
        """Ranks lo, hi whose contexts end in the n-gram, and the ranks that its other occurrences end at.

        The others are those at the end of their document: there the n-gram's last token is the continuation.
        """
        ids = _context(ngram, self.vocab_size)
        none = (0, 0, np.empty(0, np.int64))
        if ids.size == 0:
            return 0, self.num_tokens, none[2]
        symbols = self.symbols_of(ids)
        lo, hi = 0, self.num_tokens
        table, array = self.array("symbols"), self.array
        for place, symbol in enumerate(symbols.tolist()):
            if symbol >= self._num_symbols:
                return none
            last = place == symbols.size - 1
            ends = none[2]
            if last:
                keys = np.array([lo, hi], np.uint64) | (np.uint64(symbol) << np.uint64(32))
                a, e = np.searchsorted(array("endings"), keys)
                ends = (array("endings")[a:e] & np.uint64(2**32 - 1)).astype(np.int64)
            if table[symbol, 0] == table[symbol + 1, 0]:
                lo = hi = 0
            else:
                lo, hi = walk.step_range(self.kernel_arrays().steps, symbol, lo, hi)
            if last:
                return int(lo), int(hi), ends
            if lo >= hi:
                return none
        raise AssertionError("unreachable")


def _reopen(path: str, fingerprint: str) -> CorpusIndex:
    index = CorpusIndex.open(path)
    if index.fingerprint != fingerprint:
        raise IndexFormatError(f"the index at {path} was replaced since it was pickled: open it again")
    return index


def _levels(num_tokens: int) -> np.ndarray:
    """Where each level of block minima begins in `minima`, and the end."""
    starts, size = [0], num_tokens
    while len(starts) == 1 or size > BLOCK:
        size = -(-size // BLOCK)
        starts.append(starts[-1] + size)
    return np.array(starts, np.int64)


def _context(context: ArrayLike, vocab_size: int) -> np.ndarray:
    ids = np.asarray(context)
    if ids.size == 0:
        return np.empty(0, np.int64)
    if ids.ndim != 1:
        raise QueryError(f"a context must be one sequence of token ids, not an array of shape {ids.shape}")
    return _checked(ids, vocab_size)


def _checked(ids: np.ndarray, vocab_size: int) -> np.ndarray:
    if ids.size and ids.dtype.kind not in "ui":
        raise QueryError(f"token ids must be integers, not {ids.dtype}")
    ids = ids.astype(np.int64)
    if ids.size and (int(ids.min()) < 0 or int(ids.max()) >= vocab_size):
        bad = int(ids.min()) if int(ids.min()) < 0 else int(ids.max())
        raise QueryError(
            f"token id {bad} is outside of the index's vocabulary 0 .. {vocab_size - 1}: is this the index's tokenizer?"
        )
    return ids


def _check_options(min_count: int, max_order: int | None) -> None:
    if min_count < 1:
        raise QueryError(f"min_count {min_count} must be at least 1")
    if max_order is not None and max_order < 0:
        raise QueryError(f"max_order {max_order} must be 0 or more (None: no bound)")
