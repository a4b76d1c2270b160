"""Rows of the union's wide contexts, made when they are first asked for and kept: few, and asked again and again.

In the form of an index's own stored rows (`HeavyNodes`), so that targets refer to them and shortlists are made of them.
A context is known by the ranges of ranks that it has in each shard.
"""

from __future__ import annotations

import threading
from typing import NamedTuple

import numpy as np

from corpus_index._kernels import target_arrays as columns
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.target_arrays import HeavyNodes

WIDE = 128  # occurrences in all shards; a wider context of several continuations is kept
_ROWS, _ENTRIES = 1 << 12, 1 << 20  # room at first; it doubles
_MOST_ENTRIES = 1 << 25  # what comes then is made anew for each batch


class StoredRows(NamedTuple):
    """The rows as counting reads them.

    Attributes
    ----------
    keys : ndarray of shape (N,), int64
        `row · (V + 2) + token` of each entry, ascending.
    counts, lefts : ndarrays of shape (N,), uint32
    classes : ndarray of shape (R, 2, 4), int64
        Of each row's occurrences, and of its left extensions: their sum, and how many are 1, 2, 3 and more.
    """

    keys: np.ndarray
    counts: np.ndarray
    lefts: np.ndarray
    classes: np.ndarray


class RowStore:
    """The rows that were kept so far; safe to be used by several threads.

    Parameters
    ----------
    num_symbols : int
        V.
    left : bool
        Whether rows have left extensions: then the pairs that these count are kept too, where V is below 2 million.
    """

    def __init__(self, num_symbols: int, left: bool = False) -> None:
        self._lock = threading.Lock()
        self._known: dict[bytes, int] = {}
        self._width = num_symbols + 2
        kind = np.uint16 if num_symbols <= 2**16 else np.uint32
        self._rows = self._entries = 0
        self._table = np.zeros((_ROWS, columns.COLUMNS), np.uint32)
        self._classes = np.zeros((_ROWS, 2, 4), np.int64)
        self._offsets = np.zeros(_ROWS + 1, np.int64)
        self._keys = np.zeros(_ENTRIES, np.int64)
        self._tokens, self._counts = np.zeros(_ENTRIES, kind), np.zeros(_ENTRIES, np.uint32)
        self._lefts = np.zeros(_ENTRIES, np.uint32)
        self._pair_width = (num_symbols + 1) ** 2
        self.keeps_pairs = left and num_symbols < 1 << 21
        self._pairs = 0
        self._pair_keys, self._pair_counts = np.zeros(_ENTRIES, np.int64), np.zeros(_ENTRIES, np.uint32)

    def heavy(self) -> HeavyNodes:
        """The rows as targets take them."""
        nothing = read_only(np.zeros(0, np.uint32))
        with self._lock:
            return HeavyNodes(
                table=self._table,
                narrowest=np.zeros(0, np.uint32),
                buckets=np.zeros(0, np.uint32),
                bounds=nothing,
                directory=nothing,
                shift=0,
                light=WIDE,
                deepest=0,
                deepest_chain=64,
                offsets=read_only(self._offsets),
                tokens=read_only(self._tokens),
                counts=read_only(self._counts),
                lefts=read_only(self._lefts),
            )

    def stored(self) -> StoredRows:
        """The rows as counting takes them."""
        with self._lock:
            end = self._entries
            return StoredRows(self._keys[:end], self._counts[:end], self._lefts[:end], self._classes[: self._rows])

    def pair_counts(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """How often each of some pairs occurs in a kept row, which has it."""
        with self._lock:
            keys, counts = self._pair_keys[: self._pairs], self._pair_counts
        return counts[np.searchsorted(keys, rows * self._pair_width + codes)].astype(np.int64)

    def find(self, nodes: np.ndarray) -> np.ndarray:
        """The rows of nodes, one line of numbers each; −1 where there is none."""
        with self._lock:
            return np.array([self._known.get(node.tobytes(), -1) for node in nodes], np.int64)

    def keep(
        self,
        nodes: np.ndarray,
        depths: np.ndarray,
        parents: np.ndarray,
        parent_depths: np.ndarray,
        offsets: np.ndarray,
        tokens: np.ndarray,
        counts: np.ndarray,
        lefts: np.ndarray,
        pairs: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
    ) -> np.ndarray:
        """Keep rows; returns their numbers, −1 of those that have no place.

        Parameters
        ----------
        nodes : ndarray of shape (n, k), int64
            What they are known by, ascending in depth.
        depths, parent_depths : ndarrays of shape (n,), int64
        parents : ndarray of shape (n,), int64
            The row of the next shorter context; below 0: −1, none; −2 − i, the i-th of these.
        offsets, tokens, counts, lefts
            Row i is offsets[i] : offsets[i + 1] of the others.
        pairs : (offsets, codes, counts) or None
            The pairs of each row in the same form, codes ascending.
        """
        numbers = np.full(depths.size, -1, np.int64)
        with self._lock:
            for i, node in enumerate(nodes):
                key = node.tobytes()
                parent = int(parents[i])
                if parent <= -2:
                    parent = int(numbers[-2 - parent])
                    if parent < 0:
                        continue
                part = slice(int(offsets[i]), int(offsets[i + 1]))
                if key not in self._known and int(counts[part].sum()) < 2**32:
                    row = tokens[part], counts[part], lefts[part]
                    begun = self._rows
                    own = slice(0, 0) if pairs is None else slice(int(pairs[0][i]), int(pairs[0][i + 1]))
                    if self._pairs + own.stop - own.start <= _MOST_ENTRIES:
                        self._add(key, int(depths[i]), parent, int(parent_depths[i]), *row)
                    if pairs is not None and self._rows > begun:
                        self._add_pairs(begun, pairs[1][own], pairs[2][own])
                numbers[i] = self._known.get(key, -1)
        return numbers

    def _add(
        self,
        key: bytes,
        depth: int,
        parent: int,
        parent_depth: int,
        tokens: np.ndarray,
        counts: np.ndarray,
        lefts: np.ndarray,
    ) -> None:
        row, begin, end = self._rows, self._entries, self._entries + tokens.size
        if end > _MOST_ENTRIES:
            return
        if row == self._table.shape[0]:
            self._table, self._classes = _doubled(self._table), _doubled(self._classes)
            self._offsets = np.append(self._offsets, np.zeros(row, np.int64))
        while end > self._tokens.size:
            self._keys, self._tokens = _doubled(self._keys), _doubled(self._tokens)
            self._counts, self._lefts = _doubled(self._counts), _doubled(self._lefts)
        self._keys[begin:end] = row * self._width + tokens
        self._tokens[begin:end], self._counts[begin:end], self._lefts[begin:end] = tokens, counts, lefts
        self._offsets[row + 1] = end
        for number, values in enumerate((counts, lefts)):
            ones, twos = int((values == 1).sum()), int((values == 2).sum())
            more = int((values > 2).sum())
            self._classes[row, number] = int(values.sum()), ones, twos, more
        line, raw, left = self._table[row], self._classes[row, 0], self._classes[row, 1]
        line[columns.HI], line[columns.OWN_DEPTH], line[columns.PARENT_DEPTH] = raw[0], depth, parent_depth
        line[columns.PARENT] = columns.NO_PARENT if parent < 0 else parent
        line[columns.LEVEL] = 0 if parent < 0 else self._table[parent, columns.LEVEL] + 1
        line[columns.RAW_1], line[columns.RAW_2] = raw[1], raw[2]
        line[columns.LEFT_1], line[columns.LEFT_2], line[columns.LEFT_TOTAL] = left[1], left[2], left[0]
        line[columns.START], line[columns.ENTRIES] = begin, tokens.size
        self._known[key] = row
        self._rows, self._entries = row + 1, end

    def _add_pairs(self, row: int, codes: np.ndarray, counts: np.ndarray) -> None:
        begin, end = self._pairs, self._pairs + codes.size
        while end > self._pair_keys.size:
            self._pair_keys, self._pair_counts = _doubled(self._pair_keys), _doubled(self._pair_counts)
        self._pair_keys[begin:end] = row * self._pair_width + codes
        self._pair_counts[begin:end] = counts
        self._pairs = end


def _doubled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])
