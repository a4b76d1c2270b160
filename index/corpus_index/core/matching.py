"""Where contexts occur: counts, positions, continuations and longest matches, for one context or a whole batch.

In the field's words: backward search and matching statistics, by LF steps over the Burrows–Wheeler transform of the
reversed text. index/README.md names the arrays.

Naively: scan the corpus for each question. Here: every token of a context is one step through the context order (see
`_kernels/walk.py`), so a question costs a step a token, whatever the number of occurrences. One query is a batch of
one. The kernels release the GIL.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from corpus_index._kernels import compact_walk, rows, walk
from corpus_index.core.answers import DocumentVotes, Match, NextTokens, NextTokensBatch, NodeRows
from corpus_index.core.checks import MOST, as_array, as_starts, check_match_options, check_whole
from corpus_index.core.derived import LANES, Derived
from corpus_index.errors import QueryError

_AHEAD = 16
_CHUNK = 1 << 22


class Matcher(Derived):
    """An opened index that answers where contexts occur; what an estimator makes of that lies on floors above."""

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
        length = as_context(ngram, self.vocab_size).size
        lo, hi, ends = self._ranks_of(ngram)
        if limit is not None:
            check_whole(limit, "limit", 0, most=2**62, none="all")
            hi = min(hi, lo + limit)
            ends = ends[: limit - (hi - lo)]
        order = self.array("order")
        places = np.concatenate(
            [order[lo:hi].astype(np.int64) - length, order[ends].astype(np.int64) - max(0, length - 1)]
        )
        return np.sort(places)

    def stretch_ranks(self, begin: int, end: int) -> np.ndarray:
        """The ranks of positions begin .. end − 1, ascending: int64; O(tokens of their documents)."""
        if begin >= end:
            return np.zeros(0, np.int64)
        first, last = self.document_of(np.array([begin, end - 1])).tolist()
        lo, hi = int(self.doc_starts[first]), int(self.doc_starts[last + 1])
        ranks = self.sorted_ranks()[0][lo:hi].astype(np.int64)
        if (lo, hi) != (begin, end):
            positions = self.array("order")[ranks]
            ranks = ranks[(positions >= begin) & (positions < end)]
        return ranks if first == last else np.sort(ranks)

    def document_of(self, positions: ArrayLike) -> np.ndarray:
        """The number of the document that holds each corpus position: int64, the shape of positions."""
        places = as_array(positions, "positions")
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
        ids = as_context(context, self.vocab_size)
        if ids.size == 0:
            check_match_options(min_count, max_order)
            whole_start = starts_document and self.num_starts >= min_count and max_order != 0
            hi = self.num_starts if whole_start else self.num_tokens
            match = Match(np.zeros((1, 1), np.int64), np.full((1, 1), hi), np.zeros((1, 1), np.int32))
            return self.rows_of(match).at(0, 0)
        match = self.match(ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document)
        return self.rows_of(Match(*(part[:, -1:] for part in match))).at(0, 0)

    def documents_of(
        self,
        context: ArrayLike,
        next_token: int | None = None,
        *,
        max_order: int | None = None,
        min_count: int = 1,
        starts_document: bool = False,
        leave_out: int | None = None,
        limit: int | None = None,
    ) -> DocumentVotes:
        """Which documents taught what follows a context: those that contain its longest match, with how often.

        Parameters
        ----------
        context, max_order, min_count, starts_document
            As in `next_tokens`: the same match votes.
        next_token : int, optional
            Count the votes for this token only.
        leave_out : int, optional
            A document whose votes don't count: the one that the context was taken from.
        limit : int, optional
            That many documents at most, those with most votes; of equals the first.

        Raises
        ------
        QueryError

        Notes
        -----
        O(occurrences of the match).

        Examples
        --------
        >>> import tempfile, numpy as np
        >>> from corpus_index import build_index
        >>> path = tempfile.mkdtemp() + "/index"
        >>> index = build_index(np.array([1, 2, 1, 2, 3, 1, 2]), path, doc_starts=[0, 2, 5, 7])
        >>> votes = index.documents_of([1], next_token=2)
        >>> votes.documents.tolist(), votes.counts.tolist()
        ([0, 1, 2], [1, 1, 1])
        """
        check_whole(limit, "limit", 0, most=2**62, none="all")
        ids = as_context(context, self.vocab_size)
        lo, hi, match_len = 0, self.num_tokens, 0
        if ids.size:
            match = self.match(ids[None], max_order=max_order, min_count=min_count, starts_document=starts_document)
            lo, hi, match_len = (int(part[0, -1]) for part in match)
        elif starts_document and self.num_starts >= min_count and max_order != 0:
            hi = self.num_starts
        symbol = -1
        if next_token is not None:
            check_whole(next_token, "next_token", -MOST)
            symbol = int(self.symbols_of(as_context([next_token], self.vocab_size))[0])
        counts = np.zeros(0, np.int64)
        documents = np.zeros(0, np.int64)
        order, following = self.array("order"), self.array("next_tokens")
        for begin in range(lo, hi, _CHUNK):
            part = slice(begin, min(hi, begin + _CHUNK))
            places = order[part] if next_token is None else order[part][following[part] == symbol]
            found, votes = np.unique(self.document_of(places), return_counts=True)
            documents, where = np.unique(np.concatenate([documents, found]), return_inverse=True)
            weights = np.concatenate([counts, votes])
            counts = np.bincount(where.reshape(-1), weights, documents.size).astype(np.int64)
        if leave_out is not None:
            documents, counts = documents[documents != leave_out], counts[documents != leave_out]
        first = np.argsort(-counts, kind="stable")[:limit]
        return DocumentVotes(documents[first], counts[first], match_len, int(counts.sum()))

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
        check_match_options(min_count, max_order)
        starts = as_starts(starts_document, ids.shape[0])
        lo, hi = np.empty(ids.shape, np.int64), np.empty(ids.shape, np.int64)
        depth, match_len = np.empty(ids.shape, np.int32), np.empty(ids.shape, np.int32)
        match_rows = walk.match_rows if self.layout == "full" else compact_walk.match_rows
        match_rows(
            self.kernel_arrays(),
            ids,
            starts,
            self._end_symbol(),
            min_count,
            -1 if max_order is None else max_order,
            self.thread_memory.walkers_of(LANES),
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
        return self.rows_of_nodes(*flat).of_batch(match, self.ids_of)

    def rows_of_nodes(self, lo: np.ndarray, hi: np.ndarray, depth: np.ndarray) -> NodeRows:
        """The continuation rows of Q nodes.

        Parameters
        ----------
        lo, hi : ndarrays of shape (Q,), int64
            Ranges of ranks.
        depth : ndarray of shape (Q,), int
            The symbols that each range shares: its depth, or match_len, which leaves the start symbol out.
        """
        width = hi - lo
        capacity = int(np.minimum(width, self.light).sum())
        deep = depth >= self.deepest  # the rows of such contexts are not stored: all their ranks are read
        if deep.any():
            capacity += int(np.minimum(width, self.num_symbols)[deep].sum())
        next_tokens = self.array("next_tokens")
        numbers, offsets = np.empty(lo.size, np.int64), np.empty(lo.size + 1, np.int64)
        symbols, counts = np.empty(capacity, next_tokens.dtype), np.empty(capacity, np.uint32)
        made = rows.rows_of_nodes(
            next_tokens,
            self.num_symbols,
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

    # helpers

    def _end_symbol(self) -> int:
        """The symbol that resets a context in `_batch`'s rows; −1: none. One of its own where the corpus lacks it."""
        if self.end_of_document is None:
            return -1
        symbol = int(self.symbols_of(np.array([self.end_of_document], np.int64))[0])
        return symbol if symbol < self.num_symbols else self.num_symbols + 1

    def _batch(self, input_ids: ArrayLike) -> np.ndarray:
        ids = as_array(input_ids, "input_ids")
        if ids.ndim == 1:
            ids = ids[None]
        if ids.ndim != 2:
            raise QueryError(f"input_ids must have the shape (B, T) or (T,), not {ids.shape}")
        ids = _checked(ids, self.vocab_size)
        symbols = np.ascontiguousarray(self.symbols_of(ids))
        end = self._end_symbol()
        if end > self.num_symbols:
            symbols[ids == self.end_of_document] = end
        return symbols

    def _ranks_of(self, ngram: ArrayLike) -> tuple[int, int, np.ndarray]:
        """Ranks lo, hi whose contexts end in the n-gram, and the ranks that its other occurrences end at.

        The others are those at the end of their document: there the n-gram's last token is the continuation.
        """
        ids = as_context(ngram, self.vocab_size)
        none = np.empty(0, np.int64)
        if ids.size == 0:
            return 0, self.num_tokens, none
        symbols = self.symbols_of(ids).astype(np.int64)
        steps = self.kernel_arrays().steps
        lo, hi = walk.step_through(steps, symbols[:-1], np.int64(0), np.int64(self.num_tokens))
        if lo >= hi or symbols[-1] >= self.num_symbols:
            return 0, 0, none
        endings = self.array("endings")
        first, stop = np.searchsorted(
            endings, np.array([lo, hi], np.uint64) | (symbols[-1:].astype(np.uint64) << np.uint64(32))
        )
        ends = (endings[first:stop] & np.uint64(2**32 - 1)).astype(np.int64)
        lo, hi = walk.step_through(steps, symbols[-1:], lo, hi)
        return int(lo), int(hi), ends


def as_context(context: ArrayLike, vocab_size: int) -> np.ndarray:
    """One sequence of token ids below V: shape (n,), int64."""
    ids = as_array(context, "a context")
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
