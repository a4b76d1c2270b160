"""What the index answers with: named tuples of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class NextTokens(NamedTuple):
    """What follows a context in the corpus.

    Attributes
    ----------
    token_ids : ndarray of shape (K,), uint16 or uint32
        The distinct continuations, ascending.
    counts : ndarray of shape (K,), uint32
        How often each follows.
    match_len : int
        Tokens of the context that matched: its longest suffix with enough occurrences.
    context_count : int
        Occurrences of that suffix that a token of the same document follows: the sum of counts.
    """

    token_ids: np.ndarray
    counts: np.ndarray
    match_len: int
    context_count: int


class DocumentInfo(NamedTuple):
    """A document of the corpus.

    Attributes
    ----------
    number : int
    name : str or None
        Where it comes from; None in an index that was built without names.
    fields : dict
        What else the builder kept of it.
    start, num_tokens : int
        Its place in the corpus.
    """

    number: int
    name: str | None
    fields: dict[str, Any]
    start: int
    num_tokens: int


class DocumentVotes(NamedTuple):
    """The documents that taught what follows a context.

    Attributes
    ----------
    documents : ndarray of shape (K,), int64
        Their numbers, most votes first.
    counts : ndarray of shape (K,), int64
        How often a token follows the context in each.
    match_len : int
        Tokens of the context that matched.
    context_count : int
        The votes of all documents together, those beyond a limit included.
    """

    documents: np.ndarray
    counts: np.ndarray
    match_len: int
    context_count: int


class Match(NamedTuple):
    """The longest match of every position of a batch.

    Attributes
    ----------
    lo, hi : ndarray of shape (B, T), int64
        The range of ranks in context order, half-open; hi − lo is the match's count of occurrences with a continuation.
    match_len : ndarray of shape (B, T), int32
        Tokens that match.
    """

    lo: np.ndarray
    hi: np.ndarray
    match_len: np.ndarray


class NextTokensBatch(NamedTuple):
    """The continuations of every position of a batch, as rows of flat arrays.

    Positions refer to rows by number. Rows below R = stored_offsets.size − 1 are those of heavy contexts, kept with the
    index and shared by all batches; the others were made for this batch.

    Attributes
    ----------
    match : Match
        Ranges and lengths of the matches.
    rows : ndarray of shape (B, T), int64
        The row of each position; from R on a row of the batch, number rows − R.
    offsets, token_ids, counts : ndarrays of shape (own rows + 1,), (E,), (E,)
        The batch's rows: row k is token_ids[offsets[k] : offsets[k + 1]], ascending, with its counts.
    stored_offsets, stored_token_ids, stored_counts : ndarrays
        The index's rows, in the same form (memory maps; don't copy them).
    """

    match: Match
    rows: np.ndarray
    offsets: np.ndarray
    token_ids: np.ndarray
    counts: np.ndarray
    stored_offsets: np.ndarray
    stored_token_ids: np.ndarray
    stored_counts: np.ndarray

    def at(self, row: int, position: int) -> NextTokens:
        """The continuations of one position; no copy."""
        number, num_stored = int(self.rows[row, position]), self.stored_offsets.size - 1
        width = int(self.match.hi[row, position] - self.match.lo[row, position])
        match_len = int(self.match.match_len[row, position])
        if number < num_stored:
            part = slice(int(self.stored_offsets[number]), int(self.stored_offsets[number + 1]))
            return NextTokens(self.stored_token_ids[part], self.stored_counts[part], match_len, width)
        part = slice(int(self.offsets[number - num_stored]), int(self.offsets[number - num_stored + 1]))
        return NextTokens(self.token_ids[part], self.counts[part], match_len, width)


class NodeRows(NamedTuple):
    """Continuation rows of Q nodes, as in `NextTokensBatch`, in symbols of the index (`CorpusIndex.ids_of`)."""

    numbers: np.ndarray
    offsets: np.ndarray
    symbols: np.ndarray
    counts: np.ndarray
    stored_offsets: np.ndarray
    stored_symbols: np.ndarray
    stored_counts: np.ndarray

    def of_batch(self, match: Match, ids_of: Callable[[np.ndarray], np.ndarray]) -> NextTokensBatch:
        """The rows of a match's Q = B · T nodes, in token ids."""
        return NextTokensBatch(
            match,
            self.numbers.reshape(match.lo.shape),
            self.offsets,
            ids_of(self.symbols),
            self.counts,
            self.stored_offsets,
            ids_of(self.stored_symbols),
            self.stored_counts,
        )
