"""Tables of whole numbers in flat arrays: sorted and added up."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corpus_index._kernels import union_pairs


def ranges(begins: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All whole numbers of some half-open ranges, and the number of the range that each is of."""
    sizes = ends - begins
    of = np.repeat(np.arange(sizes.size), sizes)
    return of, np.arange(of.size) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)


def added(rows: np.ndarray, codes: np.ndarray, *counts: np.ndarray) -> tuple[np.ndarray, ...]:
    """Entries of (row, code) in order, those that are equal added up."""
    if rows.size == 0:
        return rows, codes, *counts
    most = int(codes.max()) + 1
    if int(rows.max()) < 2**62 // most:  # one number for both sorts several times faster
        key = rows * most + codes
        order = np.argsort(key)
        key = key[order]
        first = np.flatnonzero(np.append(True, key[1:] != key[:-1]))
    else:
        order = np.lexsort((codes, rows))
        first = np.flatnonzero(np.append(True, (np.diff(rows[order]) != 0) | (np.diff(codes[order]) != 0)))
    places = order[first]
    return rows[places], codes[places], *(np.add.reduceat(part[order], first) for part in counts)


def counted(rows: np.ndarray, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct (row, code) in order, and how often each is there."""
    most = int(codes.max(initial=0)) + 1
    if int(rows.max(initial=0)) >= 2**62 // most:
        row, code, count = added(rows, codes, np.ones(rows.size, np.int64))
        return row, code, count
    key, count = np.unique(rows * most + codes, return_counts=True)
    return key // most, key % most, count


def merged(lists: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`added` of entries that stand in order in each of some lists, and are distinct there."""
    columns = [np.concatenate(column) for column in zip(*lists, strict=True)]
    bounds = np.append(0, np.cumsum([each[0].size for each in lists])).astype(np.int64)
    row, code, count = np.empty((3, columns[0].size), np.int64)
    used = union_pairs.merge_entries(bounds, *columns, np.empty(len(lists), np.int64), row, code, count)
    return row[:used], code[:used], count[:used]
