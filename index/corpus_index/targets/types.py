"""Distributions of a batch as arrays: sparse + rest · base, or pairs and references to shared rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class SparseTargets(NamedTuple):
    """Distributions of Q positions: p(w) = Σ sparse(w) + rest · base(w), each summing to 1 over V.

    Attributes
    ----------
    offsets : ndarray of shape (Q + 1,), int64
        Position q's pairs are entries offsets[q] : offsets[q + 1] of the next two.
    token_ids : ndarray of shape (E,), int64
        Ascending within a position.
    probs : ndarray of shape (E,), float32
        May be a little below 0 at a token whose own occurrence was left out, and far below under estimators with
        exclusion (`exclusion`), whose pairs are p(w) − rest · base(w): p isn't.
    rest : ndarray of shape (Q,), float32
        The mass on the base.
    base : ndarray of shape (V,), float32
        The estimator's distribution of the empty context; see `Estimator.base`.
    match_len : ndarray of shape (Q,), int32
        Tokens of the longest context that counted.
    context_count : ndarray of shape (Q,), int64
        Its occurrences, after leaving out.
    cut_mass : ndarray of shape (Q,), float32
        What top_k moved from explicit tokens to the base; under estimators with exclusion, what the cut tokens had.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    rest: np.ndarray
    base: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray
    cut_mass: np.ndarray

    def entropy(self) -> np.ndarray:
        """The entropy of each distribution in nats, exact: shape (Q,), float64; O(E + V).

        −Σ p log p over the explicit tokens; over the others, with p = r b, it is −r (log r · Σ b + Σ b log b), where
        both sums are those over V less those over the explicit tokens.
        """
        size, tokens = self.rest.size, self.token_ids
        number, whole = self._explicit()
        base, rest = self.base.astype(np.float64), self.rest.astype(np.float64)
        logs = _p_log_p(base)
        mass = np.maximum(base.sum() - np.bincount(number, base[tokens], size), 0.0)
        inner = logs.sum() - np.bincount(number, logs[tokens], size)
        explicit = np.bincount(number, _p_log_p(np.maximum(whole, 0.0)), size)
        return np.asarray(-(explicit + _p_log_p(rest) * mass + rest * inner), np.float64)

    def top_tokens(self) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token of each distribution, (Q,) int64, and its probability, (Q,) float64; O(E + V).

        The smaller id where explicit ones tie. Among the other tokens only the base's largest can win: if that one is
        explicit, its own probability is larger yet.
        """
        size = self.rest.size
        number, whole = self._explicit()
        top = int(np.argmax(self.base))
        best = self.rest.astype(np.float64) * float(self.base[top])
        token = np.full(size, top, np.int64)
        largest = np.full(size, -1.0)
        filled = np.flatnonzero(np.diff(self.offsets))
        if filled.size:
            largest[filled] = np.maximum.reduceat(whole, self.offsets[filled])
            places = np.flatnonzero(whole == largest[number])[::-1]
            explicit = np.zeros(size, np.int64)
            explicit[number[places]] = self.token_ids[places]  # the last write is the first place
            wins = largest >= best
            token[wins], best[wins] = explicit[wins], largest[wins]
        return token, best

    def dense(self) -> np.ndarray:
        """Every distribution written out: shape (Q, V), float64; for small batches and tests."""
        number, _ = self._explicit()
        out = self.rest.astype(np.float64)[:, None] * self.base.astype(np.float64)
        np.add.at(out, (number, self.token_ids), self.probs.astype(np.float64))
        return out

    def _explicit(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each explicit pair, the number of its distribution, and the token's whole probability."""
        number = np.repeat(np.arange(self.rest.size), np.diff(self.offsets))
        whole = self.probs.astype(np.float64) + self.rest[number] * self.base[self.token_ids].astype(np.float64)
        return number, whole


class RowTable(NamedTuple):
    """The continuation rows of heavy contexts, kept once for all: what `MixedTargets` refer to.

    Attributes
    ----------
    offsets : ndarray of shape (R + 1,), int64
        Row r's entries are offsets[r] : offsets[r + 1] of the next arrays.
    token_ids : ndarray of shape (E,), uint16 or uint32
        Ascending within a row.
    counts : ndarray of shape (E,), uint32
        How often each token follows the row's context.
    left_extensions : ndarray of shape (E,), uint32, or None
        After how many distinct symbols it does, for estimators of the Kneser–Ney family.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    counts: np.ndarray
    left_extensions: np.ndarray | None


class MixedTargets(NamedTuple):
    """Distributions of Q positions, exact: p(w) = pairs(w) + Σ rows(w) + rest · base(w), each summing to 1 over V.

    A reference to a row adds s · x − k(x) to each of the row's tokens, x being its count, and k the second, third or
    fourth of the coefficients for x = 1, 2, 3 and more.

    Attributes
    ----------
    offsets : ndarray of shape (Q + 1,), int64
        Position q's pairs are entries offsets[q] : offsets[q + 1] of the next two.
    token_ids : ndarray of shape (E,), int64
        Ascending within a position.
    probs : ndarray of shape (E,), float32
        Below 0 where something was left out of what the rows say.
    row_offsets : ndarray of shape (Q + 1,), int64
        Position q's references are entries row_offsets[q] : row_offsets[q + 1] of the next two.
    rows : ndarray of shape (F,), int64
        Rows of `CorpusIndex.row_table`; from R on row − R, with left extensions for x; from 2 R on own rows.
    coefficients : ndarray of shape (F, 4), float32
        s, k1, k2, k3.
    own_offsets, own_token_ids, own_counts : ndarrays of shape (own rows + 1,), (G,), (G,), int64
        The batch's own rows: what leaving documents out changes in the others, as it was (with the coefficients
        negated) and as it is.
    rest, base, match_len, context_count
        As in `SparseTargets`.
    """

    offsets: np.ndarray
    token_ids: np.ndarray
    probs: np.ndarray
    row_offsets: np.ndarray
    rows: np.ndarray
    coefficients: np.ndarray
    own_offsets: np.ndarray
    own_token_ids: np.ndarray
    own_counts: np.ndarray
    rest: np.ndarray
    base: np.ndarray
    match_len: np.ndarray
    context_count: np.ndarray

    def dense(self, table: RowTable) -> np.ndarray:
        """Every distribution written out: shape (Q, V), float64; for small batches and tests.

        Parameters
        ----------
        table : RowTable
            The rows that are referred to: `CorpusIndex.row_table` of the same estimator.
        """
        out = self.rest.astype(np.float64)[:, None] * self.base.astype(np.float64)
        number = np.repeat(np.arange(self.rest.size), np.diff(self.offsets))
        np.add.at(out, (number, self.token_ids), self.probs.astype(np.float64))
        stored = table.offsets.size - 1
        lefts = table.counts if table.left_extensions is None else table.left_extensions
        kinds = (
            (table.offsets, table.token_ids, table.counts),
            (table.offsets, table.token_ids, lefts),
            (self.own_offsets, self.own_token_ids, self.own_counts),
        )
        for q in range(self.rest.size):
            for place in range(int(self.row_offsets[q]), int(self.row_offsets[q + 1])):
                kind = min(int(self.rows[place]) // stored, 2) if stored else 2
                offsets, ids, counts = kinds[kind]
                row = int(self.rows[place]) - kind * stored
                entries = slice(int(offsets[row]), int(offsets[row + 1]))
                scale, *cuts = self.coefficients[place].astype(np.float64)
                x = counts[entries].astype(np.int64)
                out[q, ids[entries]] += scale * x - np.array(cuts)[np.minimum(x, 3) - 1]
        return out

    def entropy(self, table: RowTable) -> np.ndarray:
        """The entropy of each distribution in nats: shape (Q,), float64; O(Q · V), see `measure` for large batches."""
        return np.asarray(-_p_log_p(np.maximum(self.dense(table), 0.0)).sum(axis=1))

    def top_tokens(self, table: RowTable) -> tuple[np.ndarray, np.ndarray]:
        """The likeliest token of each distribution, (Q,) int64, and its probability, (Q,) float64; O(Q · V)."""
        dense = self.dense(table)
        token = dense.argmax(axis=1)
        return token, np.take_along_axis(dense, token[:, None], axis=1)[:, 0]


def _p_log_p(p: np.ndarray) -> np.ndarray:
    """P log p, 0 where p is 0."""
    return p * np.log(p, out=np.zeros(p.shape), where=p > 0)
