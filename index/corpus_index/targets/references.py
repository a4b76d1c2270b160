"""References to rows of counts, read where the rows lie: what losses of targets in mixed form need on a CPU.

The naive definition writes the rows out: with p the (Q, W) probabilities that the references alone give,
``(p * values).sum(1)`` and ``values -= factors[:, None] * p``. A row has thousands of entries, which other positions
share, so to write them out costs many times as much as to read them.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels import row_sums


class References(NamedTuple):
    """F references to rows of one table, as positions of a batch make them.

    Reference f gives s · x − k(x) to each token of its row, x being the token's count there.

    Attributes
    ----------
    token_ids : ndarray of shape (E,), int32
    counts : ndarray of shape (E,), float32
        The table's entries, row by row.
    begins, ends : ndarrays of shape (F,), int64
        Each reference is to entries begins : ends.
    coefficients : ndarray of shape (F, 4), float32
        s, and k for a count of 1, of 2, and of 3 and more.
    positions : ndarray of shape (F,), int64
        Whose they are, ascending.
    """

    token_ids: np.ndarray
    counts: np.ndarray
    begins: np.ndarray
    ends: np.ndarray
    coefficients: np.ndarray
    positions: np.ndarray

    def add_expectations(self, values: np.ndarray, begin: int, sums: np.ndarray) -> None:
        """Add Σ_w p(w) · values[q, w], p of the references alone, to sums.

        Parameters
        ----------
        values : ndarray of shape (Q, W), float32 or float64
            Of the positions begin … begin + Q − 1; W above every token.
        begin : int
        sums : ndarray of shape (Q,), as values
            In and out.

        Notes
        -----
        O(entries of the rows), without the GIL; each reference is summed in float64.
        """
        first, last = self._range(begin, begin + values.shape[0])
        if first < last:
            row_sums.add_expectations(self, first, last, begin, values, sums)

    def subtract(self, factors: np.ndarray, begin: int, values: np.ndarray) -> None:
        """``values[q, w] -= factors[q] · p(w)`` in place, p of the references alone.

        Parameters
        ----------
        factors : ndarray of shape (Q,), as values
        begin : int
        values : ndarray of shape (Q, W), float32 or float64
            Of the positions begin … begin + Q − 1; W above every token.

        Notes
        -----
        O(entries of the rows), without the GIL.
        """
        first, last = self._range(begin, begin + values.shape[0])
        if first < last:
            row_sums.subtract_rows(self, first, last, begin, factors, values)

    def _range(self, begin: int, end: int) -> tuple[int, int]:
        first, last = np.searchsorted(self.positions, [begin, end])
        return int(first), int(last)
