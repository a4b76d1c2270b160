"""Continuation rows: the histogram of one range of next_tokens, and the rows of heavy contexts, made once for all.

A *node* is a range of ranks that some context has: an interval of the tree that the shared lengths describe
(Abouelhoda, Kurtz & Ohlebusch 2004). A row is its distinct continuations, ascending, with their counts. Rows are stored
for nodes wider than `light` whose continuations are not all the same; one pass over the tree, children before parents,
makes a row out of the rows of heavy children and the few ranks between them: O(N + size of all rows).
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import lowest_bit, prefetch
from corpus_index._kernels.jit import kernel


@kernel()
def first_at_least(values, a, e, x):
    """The first place in values[a:e], ascending, whose value isn't smaller than x; e if there is none."""
    while a < e:
        middle = (a + e) >> 1
        if values[middle] < x:
            a = middle + 1
        else:
            e = middle
    return a


@kernel()
def first_at_least_near(values, a, e, x):
    """`first_at_least`, in steps that double from a on: for a place that isn't far from there."""
    step = np.int64(1)
    while a + step < e and values[a + step] < x:
        a += step
        step += step
    return first_at_least(values, a, min(a + step, e), x)


@kernel()
def first_at_least_before(values, a, e, x):
    """`first_at_least`, in steps that double from e on downwards: for a place that isn't far from there."""
    step = np.int64(1)
    while e - step >= a and values[e - step] >= x:
        e -= step
        step += step
    return first_at_least(values, max(e - step, a), e, x)


@kernel()
def first_above(values, x):
    """The first place in values, ascending, whose value is larger than x; their number if there is none."""
    a, e = np.int64(0), np.int64(values.size)
    while a < e:
        middle = (a + e) >> 1
        if x < values[middle]:
            e = middle
        else:
            a = middle + 1
    return a


@kernel()
def sort_part(values, a, e):
    """Sort values[a:e] in place (Shell 1959): numba's own sort takes longer to compile than most kernels."""
    gap = np.int64(1)
    while 9 * gap < e - a:
        gap = 3 * gap + 1
    while gap > 0:
        for k in range(a + gap, e):
            x = values[k]
            j = k - gap
            while j >= a and values[j] > x:
                values[j + gap] = values[j]
                j -= gap
            values[j + gap] = x
        gap //= 3


@kernel(inline="always")
def add_to_tally(tally, words, summary, c, count):
    """Count a token; a bit for each, and for each word of bits, say which are counted."""
    words[c >> 6] |= np.uint64(1) << np.uint64(c & 63)  # a branch on tally[c] == 0 would be guessed wrong too often
    summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)
    tally[c] += count


@kernel()
def drain_tally(tally, words, summary, row_tokens, row_counts, place):
    """Write the tallied tokens, ascending, from place on, and clear the tally; returns the end."""
    for s in range(summary.size):
        while summary[s] != 0:
            w = (s << 6) + lowest_bit(summary[s])
            summary[s] &= summary[s] - np.uint64(1)
            word = words[w]
            words[w] = 0
            while word != 0:
                c = (w << 6) + lowest_bit(word)
                word &= word - np.uint64(1)
                row_tokens[place] = c
                row_counts[place] = tally[c]
                tally[c] = 0
                place += 1
    return place


@kernel()
def fill_heavy_rows(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    deep,  # (N,) uint16, symbols shared with the rank before, at most 65,535
    light,  # int64, wider nodes have rows
    hi,  # int64, the end of the slice
    is_root,  # bool, whether the slice is a node itself
    state,  # (6,) int64: rank, first rank of the node just closed, open nodes, tops, rows, entries
    open_depth,  # (levels,) int64, a stack of the nodes that the rank is in: their depths
    open_lo,  # (levels,) int64, their first ranks
    top_lo,  # (·,) int64, heavy nodes that no finished heavy node holds: ranks top_lo .. top_hi − 1
    top_hi,  # (·,) int64
    top_row,  # (·,) int64, their rows, or −1 − the only token that continues them
    tally,  # (S,) uint32, zeros between uses
    words,  # (S / 64,) uint64, zeros between uses
    summary,  # (S / 4096,) uint64, zeros between uses
    bounds,  # (R, 2) int64, out: ranks of each row
    offsets,  # (R + 1,) int64, out: its entries
    row_tokens,  # (E,) uint16 or uint32, out
    row_counts,  # (E,) uint32, out
):
    """Go on writing rows until the slice ends at rank hi (True) or the next row may not fit (False); see heavy_rows.

    state: rank, first rank of the node just closed, open nodes, tops, rows, entries. open_…: a stack of the nodes that
    the rank is in, with their depths. top_…: finished heavy nodes that no finished heavy node holds; top_row is the
    row, or −1 − token where that is the only continuation. (No array is replaced in here: numba would count references
    at every rank, which took longer than all else.)
    """
    r, left, opened, tops, num_rows, used = state
    while r <= hi:
        depth = np.int64(deep[r]) if r < hi else np.int64(-1)
        if depth == 0 and not is_root:
            depth = np.int64(-1)
        while opened > 0 and open_depth[opened - 1] > depth:
            node_lo = open_lo[opened - 1]
            if r - node_lo > light:
                first = tops
                while first > 0 and top_lo[first - 1] >= node_lo:
                    first -= 1
                place = node_lo
                sole = np.int64(next_tokens[node_lo])  # the only continuation so far, or −1
                for t in range(first, tops + 1):
                    stop = top_lo[t] if t < tops else r
                    for k in range(place, stop):
                        if np.int64(next_tokens[k]) != sole:
                            sole = np.int64(-1)
                            break
                    if t < tops:
                        if top_row[t] != -1 - sole:
                            sole = np.int64(-1)
                        place = top_hi[t]
                    if sole < 0:
                        break
                row = -1 - sole
                if sole < 0:
                    if num_rows == bounds.shape[0] or used + min(r - node_lo, tally.size) > row_tokens.size:
                        state[0], state[1], state[2], state[3], state[4], state[5] = (
                            r,
                            left,
                            opened,
                            tops,
                            num_rows,
                            used,
                        )
                        return False
                    place = node_lo
                    for t in range(first, tops + 1):
                        stop = top_lo[t] if t < tops else r
                        for k in range(place, stop):
                            add_to_tally(tally, words, summary, np.int64(next_tokens[k]), 1)
                        if t < tops:
                            row = top_row[t]
                            if row < 0:
                                add_to_tally(tally, words, summary, -1 - row, top_hi[t] - top_lo[t])
                            else:
                                for k in range(offsets[row], offsets[row + 1]):
                                    add_to_tally(tally, words, summary, np.int64(row_tokens[k]), row_counts[k])
                            place = top_hi[t]
                    used = drain_tally(tally, words, summary, row_tokens, row_counts, used)
                    bounds[num_rows, 0], bounds[num_rows, 1] = node_lo, r
                    row = num_rows
                    num_rows += 1
                    offsets[num_rows] = used
                tops = first
                top_lo[tops], top_hi[tops], top_row[tops] = node_lo, r, row
                tops += 1
            opened -= 1
            left = node_lo
        if depth >= 0 and (opened == 0 or open_depth[opened - 1] < depth):
            open_depth[opened], open_lo[opened] = depth, left
            opened += 1
        left = r
        r += 1
    state[0], state[1], state[2], state[3], state[4], state[5] = r, left, opened, tops, num_rows, used
    return True


def _grown(array, size):
    larger = np.empty((size, *array.shape[1:]), array.dtype)
    larger[: array.shape[0]] = array
    return larger


def heavy_rows(next_tokens, deep, num_symbols, light, lo, hi, is_root):
    """The rows of all nodes within ranks lo .. hi−1 that are wider than light and have two continuations or more.

    deep: symbols that a rank shares with the rank before, up to 65,535. The slice itself counts as a node only with
    is_root.
    Returns (bounds (R, 2), offsets (R + 1), token ids, counts), in the order in which the nodes are completed.
    """
    levels, tops = 65_537, (hi - lo) // (light + 1) + 1
    open_depth, open_lo = np.empty(levels, np.int64), np.empty(levels, np.int64)
    top_lo, top_hi, top_row = np.empty(tops, np.int64), np.empty(tops, np.int64), np.empty(tops, np.int64)
    tally = np.zeros(num_symbols, np.uint32)  # with a bit set of two levels over its non-zero entries
    words = np.zeros((num_symbols >> 6) + 1, np.uint64)
    summary = np.zeros((num_symbols >> 12) + 1, np.uint64)
    bounds, offsets = np.empty((1024, 2), np.int64), np.zeros(1025, np.int64)
    room = num_symbols + (hi - lo) // 8
    row_tokens, row_counts = np.empty(room, next_tokens.dtype), np.empty(room, np.uint32)
    open_depth[0], open_lo[0] = 0 if is_root else -1, lo
    state = np.array([lo + 1, lo, 1, 0, 0, 0], np.int64)
    while not fill_heavy_rows(
        next_tokens,
        deep,
        light,
        hi,
        is_root,
        state,
        open_depth,
        open_lo,
        top_lo,
        top_hi,
        top_row,
        tally,
        words,
        summary,
        bounds,
        offsets,
        row_tokens,
        row_counts,
    ):
        if state[4] == bounds.shape[0]:
            bounds, offsets = _grown(bounds, 2 * bounds.shape[0]), _grown(offsets, 2 * bounds.shape[0] + 1)
        else:
            size = row_tokens.size * 3 // 2 + num_symbols
            row_tokens, row_counts = _grown(row_tokens, size), _grown(row_counts, size)
    num_rows, used = int(state[4]), int(state[5])
    return bounds[:num_rows], offsets[: num_rows + 1], row_tokens[:used], row_counts[:used]


@kernel()
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


@kernel(inline="always")
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


@kernel(allocates=True, work=lambda *arguments: arguments[7].size + arguments[13].size)
def rows_of_nodes(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    num_symbols,  # int64, S
    light,  # int64, wider nodes have rows
    deepest,  # int64, up to so many symbols
    row_bounds,  # (2 R,) uint32, lo and hi of each stored row, sorted
    row_directory,  # (·,) uint32, the first row of each block of ranks
    row_shift,  # int64, of such a block
    lo,  # (Q,) int64, the nodes: ranks lo .. hi − 1
    hi,  # (Q,) int64
    depth,  # (Q,) int32 or int64, their symbols (or one less)
    ahead,  # int64, entries between asking for memory and reading it
    row,  # (Q,) int64, out: below R a stored row, else R + number of an own one
    own_offsets,  # (Q + 1,) int64, out
    own_tokens,  # (E,) uint16 or uint32, out, ascending in each
    own_counts,  # (E,) uint32, out
):
    """The continuation rows of Q nodes: stored ones by number, others written to the own arrays.

    row[q]: below R the stored row, else R + the place among the own rows. A node wider than light that has no stored
    row has one continuation only, unless it is as deep as `deepest`, where rows end. Returns the number of own rows.
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
        if width == 1 or (width > light and depth[q] < deepest):
            own_tokens[used] = min(np.int64(next_tokens[a]), num_symbols - 1)
            own_counts[used] = width
            used += 1
        else:
            for k in range(a, e):
                c = min(np.int64(next_tokens[k]), num_symbols - 1)
                if tally[c] == 0:
                    own_tokens[used] = c
                    used += 1
                tally[c] += 1
            if used - start > 24:
                sort_part(own_tokens, start, used)
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


@kernel()
def place_in_row(token_ids, a, e, token):
    """Where a token stands in the row token_ids[a:e], ascending; −1 where it doesn't."""
    n = e - a
    if n == 0:
        return np.int64(-1)
    while n > 1:  # without a branch to guess
        half = n >> 1
        a += half if np.int64(token_ids[a + half]) <= token else 0
        n -= half
    return a if np.int64(token_ids[a]) == token else np.int64(-1)
