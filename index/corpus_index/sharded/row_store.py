"""Rows of the union's wide contexts, made when they are first asked for and kept: few, and asked again and again.

In the form of an index's own stored rows (`HeavyNodes`), so that targets refer to them and shortlists are made of them.
A context is known by the ranges of ranks that it has in each shard.
"""

from __future__ import annotations

import threading

import numpy as np

from corpus_index._kernels import target_arrays as columns
from corpus_index._kernels import union_nodes
from corpus_index._kernels.arrays import read_only
from corpus_index._kernels.target_arrays import HeavyNodes
from corpus_index._kernels.union_pairs import KeptPairs
from corpus_index.core.chains import KeptRows

_ROWS, _ENTRIES = 1 << 12, 1 << 20  # room at first; it doubles
_MOST_ENTRIES = 1 << 25  # what comes then is made anew for each batch


class RowStore:
    """The rows that were kept so far; safe to be used by several threads.

    Parameters
    ----------
    num_symbols : int
        V.
    left : bool
        Whether rows have left extensions: then the pairs that these count are kept too.
    light : int
        Contexts with more occurrences, in all shards, and several continuations are kept.
    """

    def __init__(self, num_symbols: int, left: bool, light: int) -> None:
        self.light = light
        self._lock = threading.Lock()
        self._lines, self._places = np.zeros((0, 0), np.int64), _free_places(_ROWS)
        kind = np.uint16 if num_symbols <= 2**16 else np.uint32
        self._rows = self._entries = 0
        self._table = np.zeros((_ROWS, columns.COLUMNS), np.uint32)
        self._classes = np.zeros((_ROWS, 2, 4), np.int64)
        self._offsets = np.zeros(_ROWS + 1, np.int64)
        self._tokens, self._counts = np.zeros(_ENTRIES, kind), np.zeros(_ENTRIES, np.uint32)
        self._lefts = np.zeros(_ENTRIES, np.uint32)
        self.keeps_pairs = left
        self._pairs = 0
        self._pair_offsets = np.zeros(_ROWS + 1, np.int64)
        self._pairs_before = np.zeros(_ENTRIES if left else 0, np.uint32)  # of the entry's row
        self._pair_codes, self._pair_counts = np.zeros(_ENTRIES, np.int64), np.zeros(_ENTRIES, np.uint32)

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
                light=self.light,
                deepest=0,
                deepest_chain=64,
                offsets=read_only(self._offsets),
                tokens=read_only(self._tokens),
                counts=read_only(self._counts),
                lefts=read_only(self._lefts),
            )

    def stored(self) -> KeptRows:
        """The rows as counting takes them."""
        with self._lock:
            return KeptRows(self._offsets, self._tokens, self._counts, self._lefts, self._classes)

    def pairs(self) -> KeptPairs:
        """The pairs of the rows; none where rows have no left extensions."""
        with self._lock:
            of_tokens = self._offsets, self._tokens, self._pairs_before
            return KeptPairs(*of_tokens, self._pair_offsets, self._pair_codes, self._pair_counts)

    def find(self, nodes: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The rows of wanted nodes, one line of numbers each; −1 where there is none."""
        found = np.full(wanted.size, -1, np.int64)
        with self._lock:
            if self._rows:
                union_nodes.find_lines(nodes, wanted, self._lines, self._places, found)
        return found

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
        sides = tuple(_classes_of_rows(values, offsets) for values in (counts, lefts))
        classes = np.stack(sides, axis=1)
        numbers = np.full(depths.size, -1, np.int64)
        with self._lock:
            if self._lines.size == 0:
                self._lines = np.zeros((self._table.shape[0], nodes.shape[1]), np.int64)
            begun = self._rows
            # another thread may have kept them since
            union_nodes.find_lines(nodes, np.arange(depths.size), self._lines, self._places, numbers)
            sizes = np.diff(offsets)
            pair_sizes = np.zeros_like(sizes) if pairs is None else np.diff(pairs[0])
            parents, levels = parents.copy(), np.empty(depths.size, np.int64)
            kept = self._table, self._rows, self._entries, self._pairs, _MOST_ENTRIES
            end = union_nodes.number_rows(parents, sizes, pair_sizes, classes[:, 0, 0], *kept, numbers, levels)
            new = np.flatnonzero(numbers >= begun)
            self._make_room(end, self._entries + int(sizes[new].sum()))
            self._lines[begun:end] = nodes[new]
            if pairs is not None:
                self._add_pairs(pair_sizes, new, *pairs[1:])
            lines = depths[new], parents[new], parent_depths[new], levels[: new.size], classes[new]
            self._add(sizes, new, (tokens, counts, lefts), *lines)
            if 2 * self._rows > self._places.size:
                self._places, begun = _free_places(2 * self._rows), 0
            union_nodes.add_lines(self._lines, begun, self._rows, self._places)
        return numbers

    def _make_room(self, rows: int, entries: int) -> None:
        while rows > self._table.shape[0]:
            more = np.zeros(self._table.shape[0], np.int64)
            self._table, self._classes = _doubled(self._table), _doubled(self._classes)
            self._lines = _doubled(self._lines)
            self._offsets, self._pair_offsets = np.append(self._offsets, more), np.append(self._pair_offsets, more)
        while entries > self._tokens.size:
            self._tokens, self._counts = _doubled(self._tokens), _doubled(self._counts)
            self._lefts, self._pairs_before = _doubled(self._lefts), _doubled(self._pairs_before)

    def _add(
        self,
        sizes: np.ndarray,
        new: np.ndarray,
        values: tuple[np.ndarray, np.ndarray, np.ndarray],
        depths: np.ndarray,
        parents: np.ndarray,
        parent_depths: np.ndarray,
        levels: np.ndarray,
        classes: np.ndarray,
    ) -> None:
        """Append some of the rows whose values stand one after the other, `sizes` of each."""
        rows = slice(self._rows, self._rows + new.size)
        begins = self._entries + np.append(0, np.cumsum(sizes[new]))
        entries, here = slice(self._entries, int(begins[-1])), _of_some(sizes, new)
        for kept, given in zip((self._tokens, self._counts, self._lefts), values, strict=True):
            kept[entries] = given[here]
        if self.keeps_pairs:
            before = np.cumsum(values[2][here]) - values[2][here]
            self._pairs_before[entries] = before - np.repeat(before[begins[:-1] - self._entries], sizes[new])
        self._offsets[rows.start + 1 : rows.stop + 1] = begins[1:]
        self._classes[rows] = classes
        table, raw, left = self._table[rows], classes[:, 0], classes[:, 1]
        table[:, columns.HI], table[:, columns.RAW_1], table[:, columns.RAW_2] = raw[:, 0], raw[:, 1], raw[:, 2]
        table[:, columns.LEFT_1], table[:, columns.LEFT_2] = left[:, 1], left[:, 2]
        table[:, columns.LEFT_TOTAL], table[:, columns.LEVEL] = left[:, 0], levels
        table[:, columns.OWN_DEPTH], table[:, columns.PARENT_DEPTH] = depths, parent_depths
        table[:, columns.PARENT] = np.where(parents < 0, columns.NO_PARENT, parents)
        table[:, columns.START], table[:, columns.ENTRIES] = begins[:-1], sizes[new]
        self._rows, self._entries = rows.stop, entries.stop

    def _add_pairs(self, sizes: np.ndarray, new: np.ndarray, codes: np.ndarray, counts: np.ndarray) -> None:
        ends = self._pairs + np.cumsum(sizes[new])
        end = int(ends[-1]) if ends.size else self._pairs
        while end > self._pair_codes.size:
            self._pair_codes, self._pair_counts = _doubled(self._pair_codes), _doubled(self._pair_counts)
        here = _of_some(sizes, new)
        self._pair_codes[self._pairs : end], self._pair_counts[self._pairs : end] = codes[here], counts[here]
        self._pair_offsets[self._rows + 1 : self._rows + new.size + 1] = ends
        self._pairs = end


def _of_some(sizes: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """A mask over the entries of all rows, those of some of them."""
    wanted = np.zeros(sizes.size, np.bool_)
    wanted[rows] = True
    return np.repeat(wanted, sizes)


def _doubled(array: np.ndarray) -> np.ndarray:
    return np.concatenate([array, np.zeros_like(array)])


def _free_places(lines: int) -> np.ndarray:
    """A table for that many lines and as many again before it is made anew."""
    return np.full(1 << (4 * lines).bit_length(), union_nodes.FREE, np.int64)


def _classes_of_rows(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The sum of each row, and how many are 1, 2, 3 and more: (n, 4); no row is empty."""
    parts = values, values == 1, values == 2, values > 2
    return np.stack([np.add.reduceat(part, offsets[:-1], dtype=np.int64) for part in parts], axis=1)
