"""Continuation rows: the histogram of one range of next_tokens, and the rows of heavy contexts, made once for all.

A *node* is a range of ranks that some context has: an interval of the tree that the shared lengths describe (Abouelhoda,
Kurtz & Ohlebusch 2004). A row is its distinct continuations, ascending, with their counts. Rows are stored for nodes
wider than `light` whose continuations are not all the same; one pass over the tree, children before parents, makes a
row out of the rows of heavy children and the few ranks between them: O(N + size of all rows).
"""

from __future__ import annotations

import numpy as np
from numba import njit

from corpus_index._kernels.prefetch import prefetch


@njit(cache=True, nogil=True)
def _grown(array, used):
    larger = np.empty(max(1024, array.size * 2), array.dtype)
    larger[:used] = array[:used]
    return larger


@njit(cache=True, nogil=True)
def heavy_rows(next_tokens, deep, num_symbols, light, lo, hi, is_root):
    """The rows of all nodes within ranks lo .. hi−1 that are wider than light.

    deep: symbols that a rank shares with the rank before. The slice itself counts as a node only with is_root.
    Returns (bounds (R, 2), offsets (R + 1), token ids, counts), in the order in which the nodes are completed.
    """
    tally = np.zeros(num_symbols, np.int64)
    touched = np.empty(num_symbols, np.int64)
    bounds = np.empty((1024, 2), np.int64)
    offsets = np.zeros(1024, np.int64)
    row_tokens = np.empty(1024, next_tokens.dtype)
    row_counts = np.empty(1024, np.uint32)
    num_rows, used = 0, 0
    # finished heavy nodes that no finished heavy node holds: lo, hi, row (or −1 − token: the only continuation)
    top_lo, top_hi = np.empty(1024, np.int64), np.empty(1024, np.int64)
    top_row = np.empty(1024, np.int64)
    tops = 0
    # open nodes: depth and first rank
    open_depth, open_lo = np.empty(1024, np.int64), np.empty(1024, np.int64)
    open_depth[0], open_lo[0] = -1 if not is_root else 0, lo
    opened = 1
    for r in range(lo + 1, hi + 1):
        depth = np.int64(deep[r]) if r < hi else np.int64(-1)
        if depth == 0 and not is_root:
            depth = np.int64(-1)
        left = r - 1
        while opened > 0 and open_depth[opened - 1] > depth:
            opened -= 1
            left = open_lo[opened]
            if r - left > light:
                # which heavy nodes lie inside, and is there one continuation only?
                first = tops
                while first > 0 and top_lo[first - 1] >= left:
                    first -= 1
                found = 0
                place = left
                for t in range(first, tops + 1):
                    stop = top_lo[t] if t < tops else r
                    for k in range(place, stop):
                        c = np.int64(next_tokens[k])
                        if tally[c] == 0:
                            touched[found] = c
                            found += 1
                        tally[c] += 1
                    if t < tops:
                        row = top_row[t]
                        if row < 0:
                            c = -1 - row
                            if tally[c] == 0:
                                touched[found] = c
                                found += 1
                            tally[c] += top_hi[t] - top_lo[t]
                        else:
                            for k in range(offsets[row], offsets[row + 1]):
                                c = np.int64(row_tokens[k])
                                if tally[c] == 0:
                                    touched[found] = c
                                    found += 1
                                tally[c] += np.int64(row_counts[k])
                        place = top_hi[t]
                row = -1 - touched[0]
                if found == 1:
                    tally[touched[0]] = 0
                else:
                    while used + found > row_tokens.size:
                        row_tokens = _grown(row_tokens, used)
                        row_counts = _grown(row_counts, used)
                    if num_rows + 2 > offsets.size:
                        offsets = _grown(offsets, num_rows + 1)
                        wider = np.empty((bounds.shape[0] * 2, 2), np.int64)
                        wider[:num_rows] = bounds[:num_rows]
                        bounds = wider
                    if found * 16 > num_symbols:  # many: walking all symbols is cheaper than sorting
                        k = used
                        for c in range(num_symbols):
                            if tally[c] > 0:
                                row_tokens[k] = c
                                row_counts[k] = tally[c]
                                tally[c] = 0
                                k += 1
                    else:
                        ids = np.sort(touched[:found])
                        for k in range(found):
                            row_tokens[used + k] = ids[k]
                            row_counts[used + k] = tally[ids[k]]
                            tally[ids[k]] = 0
                    bounds[num_rows, 0], bounds[num_rows, 1] = left, r
                    used += found
                    row = num_rows
                    num_rows += 1
                    offsets[num_rows] = used
                tops = first
                if tops + 1 > top_lo.size:
                    top_lo, top_hi, top_row = _grown(top_lo, tops), _grown(top_hi, tops), _grown(top_row, tops)
                top_lo[tops], top_hi[tops], top_row[tops] = left, r, row
                tops += 1
        if depth >= 0 and (opened == 0 or open_depth[opened - 1] < depth):
            if opened + 1 > open_lo.size:
                open_depth, open_lo = _grown(open_depth, opened), _grown(open_lo, opened)
            open_depth[opened], open_lo[opened] = depth, left
            opened += 1
    return bounds[:num_rows], offsets[: num_rows + 1], row_tokens[:used], row_counts[:used]


@njit(cache=True, nogil=True)
def gather_rows(chosen, offsets, row_tokens, row_counts, out_offsets, out_tokens, out_counts):
    """Copy the chosen rows, in that order."""
    place = 0
    for i in range(chosen.size):
        row = chosen[i]
        for k in range(offsets[row], offsets[row + 1]):
            out_tokens[place] = row_tokens[k]
            out_counts[place] = row_counts[k]
            place += 1
        out_offsets[i + 1] = place


@njit(cache=True, nogil=True, inline="always")
def find_row(row_bounds, row_directory, row_shift, lo, hi):
    """The stored row of a node, or −1; row_bounds (2·R): lo and hi of each row, sorted."""
    bucket = lo >> row_shift
    a, e = np.int64(row_directory[bucket]), np.int64(row_directory[bucket + 1])
    while a < e:
        middle = (a + e) >> 1
        x = np.int64(row_bounds[2 * middle])
        if x < lo or (x == lo and np.int64(row_bounds[2 * middle + 1]) < hi):
            a = middle + 1
        else:
            e = middle
    if 2 * a < row_bounds.size and np.int64(row_bounds[2 * a]) == lo and np.int64(row_bounds[2 * a + 1]) == hi:
        return a
    return np.int64(-1)


@njit(cache=True, nogil=True)
def rows_of_nodes(
    next_tokens, num_symbols, light, row_bounds, row_directory, row_shift, lo, hi, depth, ahead,
    row, own_offsets, own_tokens, own_counts,
):
    """The continuation rows of Q nodes: stored ones by number, others written to the own arrays.

    row[q]: below R the stored row, else R + the place among the own rows. A node wider than light that has no stored
    row has one continuation only, unless it is deeper than stored rows go (65,535). Returns the number of own rows.
    """
    tally = np.zeros(num_symbols, np.uint32)
    num_stored = row_bounds.size // 2
    num_own, used = 0, 0
    own_offsets[0] = 0
    for q in range(lo.size):
        if q + 2 * ahead < lo.size:
            prefetch(next_tokens, lo[q + 2 * ahead])
            prefetch(row_directory, lo[q + 2 * ahead] >> row_shift)
        if q + ahead < lo.size and hi[q + ahead] - lo[q + ahead] > light:
            b = lo[q + ahead] >> row_shift
            prefetch(row_bounds, np.int64(row_directory[b]) + np.int64(row_directory[b + 1]))
        a, e = lo[q], hi[q]
        width = e - a
        if width > light:
            found = find_row(row_bounds, row_directory, row_shift, a, e)
            if found >= 0:
                row[q] = found
                continue
        row[q] = num_stored + num_own
        start = used
        if width == 1 or (width > light and depth[q] < 65535):
            own_tokens[used] = next_tokens[a]
            own_counts[used] = width
            used += 1
        else:
            for k in range(a, e):
                c = np.int64(next_tokens[k])
                if tally[c] == 0:
                    own_tokens[used] = c
                    used += 1
                tally[c] += 1
            if used - start > 24:
                own_tokens[start:used].sort()
            else:
                for k in range(start + 1, used):
                    x = own_tokens[k]
                    j = k - 1
                    while j >= start and own_tokens[j] > x:
                        own_tokens[j + 1] = own_tokens[j]
                        j -= 1
                    own_tokens[j + 1] = x
            for k in range(start, used):
                own_counts[k] = tally[own_tokens[k]]
                tally[own_tokens[k]] = 0
        num_own += 1
        own_offsets[num_own] = used
    return num_own
