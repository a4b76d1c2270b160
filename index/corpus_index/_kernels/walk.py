"""Walk rows of tokens through the context order: for every position, the longest context that the corpus holds.

State of a row: `rank`, where its whole context would be inserted in context order (before equals); and the node
`lo, hi` of its longest known suffix, `depth` symbols long. One more token c moves all three ranks at once: contexts that
end in c are sorted as the contexts before them are, so a rank becomes first[c] + the number of c among the
continuations of smaller ranks (the backward step of Ferragina & Manzini 2000). If enough of the node is left, the match
has grown by one. If not, the new match ends at one of the two neighbours of the new rank: compare with their text, and
widen the range by the shared lengths. So no search starts over, whatever the order.

Every step is a handful of random reads. A row alone would wait for each; so `lanes` rows step together, stage by
stage, each stage asking for what the next will read.

`known` counts the symbols of a row's context since its last reset, the start symbol included where the start is known;
a match of all of them includes the start.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import prefetch

ROOM = 64  # ranks a block of the first minima; 64 blocks make one of the second, and so on


@njit(cache=True, nogil=True, inline="always")
def _count_before(near, far, start, a, e, shift, rank):
    """How many entries of one bucket (a .. e−1 of a list at start) are smaller than rank, plus a."""
    if shift <= 16:
        key = rank & 0xFFFF
        place, n = start + a, e - a
        while n > 8:
            half = n >> 1
            if np.int64(near[place + half - 1]) < key:
                place += half
                n -= half
            else:
                n = half
        stop = place + n
        while place < stop and np.int64(near[place]) < key:
            place += 1
        return place - start
    place, n = start + a, e - a
    while n > 0:
        half = n >> 1
        if np.int64(far[place + half]) < rank:
            place += half + 1
            n -= half + 1
        else:
            n = half
    return place - start


@njit(cache=True, nogil=True)
def document_start(doc_starts, doc_directory, doc_shift, position):
    """Where the document of a position starts."""
    d = np.int64(doc_directory[position >> doc_shift])
    n = doc_starts.size - 1
    if d + 8 < n and np.int64(doc_starts[d + 8]) <= position:
        end = n
        while d + 1 < end:
            middle = (d + end) >> 1
            if np.int64(doc_starts[middle]) <= position:
                d = middle
            else:
                end = middle
        return np.int64(doc_starts[d])
    while d + 1 < n and np.int64(doc_starts[d + 1]) <= position:
        d += 1
    return np.int64(doc_starts[d])


@njit(cache=True, nogil=True)
def _shared(tokens, doc_starts, doc_directory, doc_shift, position, ids, b, t, known, started, limit):
    """Symbols that the context of a corpus position shares with the row's, at most limit."""
    own = known - 1 if started else known  # tokens of the row's context
    stop = min(min(limit, own), position)
    k = 0
    while k < stop and np.int64(tokens[position - 1 - k]) == ids[b, t - k]:
        k += 1
    if k == 0:
        return k
    start = document_start(doc_starts, doc_directory, doc_shift, position)
    k = min(k, position - start)
    if started and k == own and k < limit and position - start == k:
        k += 1
    return k


@njit(cache=True, nogil=True)
def widen_left(common, minima, levels, lo, depth):
    """The first rank of the node of that depth (1 .. 255) that holds rank lo."""
    i = lo  # the last i ≤ lo with common[i] < depth; common[0] = 0 is one
    stop = i & ~np.int64(63)
    while i >= stop and np.int64(common[i]) >= depth:
        i -= 1
    if i >= stop:
        return i
    # whole blocks: climb while blocks are passed, then descend
    level = 0
    block = i >> 6
    while True:
        base = levels[level]
        stop = block & ~np.int64(63)
        while block >= stop and np.int64(minima[base + block]) >= depth:
            block -= 1
        if block >= stop:
            break
        block >>= 6
        level += 1
    while level > 0:
        level -= 1
        base = levels[level]
        block = (block << 6) + 63
        last = levels[level + 1] - base - 1
        if block > last:
            block = last
        while np.int64(minima[base + block]) >= depth:
            block -= 1
    i = min((block << 6) + 63, common.size - 1)
    while np.int64(common[i]) >= depth:
        i -= 1
    return i


@njit(cache=True, nogil=True)
def widen_right(common, minima, levels, hi, depth):
    """The rank after the last of the node of that depth (1 .. 255) that holds rank hi − 1."""
    n = common.size
    i = hi  # the first i ≥ hi with common[i] < depth, or n
    stop = min(n, (i | 63) + 1)
    while i < stop and np.int64(common[i]) >= depth:
        i += 1
    if i < stop or i >= n:
        return i
    level = 0
    block = i >> 6
    while True:
        base = levels[level]
        count = levels[level + 1] - base
        if block >= count:
            return n
        stop = min(count, (block | 63) + 1)
        while block < stop and np.int64(minima[base + block]) >= depth:
            block += 1
        if block < stop:
            break
        if block >= count:
            return n
        block >>= 6
        level += 1
    while level > 0:
        level -= 1
        base = levels[level]
        block <<= 6
        while np.int64(minima[base + block]) >= depth:
            block += 1
    i = block << 6
    while np.int64(common[i]) >= depth:
        i += 1
    return i


@njit(cache=True, nogil=True)
def _node(
    common, minima, levels, order, tokens, doc_starts, doc_directory, doc_shift,
    ids, b, t, known, started, lo, hi, depth,
):
    """Widen lo, hi, ranks that share depth symbols with the row's context, to all ranks that do."""
    n = common.size
    if depth == 0:
        return np.int64(0), n
    if depth <= 255:
        return widen_left(common, minima, levels, lo, depth), widen_right(common, minima, levels, hi, depth)
    # beyond what common tells: gallop to both sides, comparing with the text
    for side in range(2):
        good = lo if side == 0 else hi - 1
        sign = -1 if side == 0 else 1
        edge = np.int64(-1) if side == 0 else n
        step = np.int64(1)
        bad = edge
        while bad == edge and 0 <= good + sign * step < n:
            probe = good + sign * step
            if _shared(tokens, doc_starts, doc_directory, doc_shift, np.int64(order[probe]),
                       ids, b, t, known, started, depth) < depth:
                bad = probe
            else:
                good = probe
                step *= 2
        while abs(bad - good) > 1:
            probe = (good + bad) >> 1
            if _shared(tokens, doc_starts, doc_directory, doc_shift, np.int64(order[probe]),
                       ids, b, t, known, started, depth) < depth:
                bad = probe
            else:
                good = probe
        if side == 0:
            lo = good
        else:
            hi = good + 1
    return lo, hi


@njit(cache=True, nogil=True)
def match_rows(
    ids,
    starts,
    end_of_document,
    min_count,
    max_order,
    num_starts,
    tokens,
    order,
    common,
    minima,
    levels,
    symbols,
    near,
    far,
    directory,
    doc_starts,
    doc_directory,
    doc_shift,
    lanes,
    out_lo,
    out_hi,
    out_len,
):
    """Fill lo, hi and match_len for every position of ids (B, T); see `CorpusIndex.match`.

    ids: (B, T) int64, symbols of the index (num_symbols: one that the corpus lacks). starts: (B,) bool. levels: where
    each level of the minima begins, and the end. symbols: uint32, four a symbol: first, list,
    directory, shift.
    """
    num_rows, length = ids.shape
    n = order.size
    num_symbols = symbols.size // 4 - 1
    root_only = max_order == 0
    rank = np.zeros(lanes, np.int64)
    lo = np.zeros(lanes, np.int64)
    hi = np.zeros(lanes, np.int64)
    depth = np.zeros(lanes, np.int64)
    known = np.zeros(lanes, np.int64)
    started = np.zeros(lanes, np.bool_)
    first = np.zeros(lanes, np.int64)
    place = np.zeros(lanes, np.int64)
    shift = np.zeros(lanes, np.int64)
    at = np.zeros((lanes, 3), np.int64)  # directory places, for rank, lo, hi
    state = np.zeros(lanes, np.int8)  # 0 done, 1 step, 2 the match broke, 3 wider than max_order allows
    for row in range(0, num_rows, lanes):
        width = min(lanes, num_rows - row)
        for g in range(width):
            rank[g] = 0
            started[g] = starts[row + g]
            known[g] = 1 if started[g] else 0
            if started[g] and num_starts >= min_count and not root_only:
                lo[g], hi[g], depth[g] = 0, num_starts, 1
            else:
                lo[g], hi[g], depth[g] = 0, n, 0
        for t in range(length):
            for g in range(width):  # which directory entries?
                c = ids[row + g, t]
                if t + 1 < length:
                    prefetch(symbols, 4 * ids[row + g, t + 1])
                if c == end_of_document:
                    rank[g] = 0
                    started[g] = True
                    known[g] = 1
                    if num_starts >= min_count and not root_only:
                        lo[g], hi[g], depth[g] = 0, num_starts, 1
                    else:
                        lo[g], hi[g], depth[g] = 0, n, 0
                    state[g] = 0
                    continue
                known[g] += 1
                if c >= num_symbols or symbols[4 * c + 4] == symbols[4 * c]:  # continued nowhere
                    rank[g] = symbols[4 * min(c, num_symbols)]
                    lo[g], hi[g], depth[g] = 0, n, 0
                    state[g] = 0
                    continue
                state[g] = 1
                first[g] = symbols[4 * c]
                place[g] = symbols[4 * c + 1]
                s = np.int64(symbols[4 * c + 3])
                shift[g] = s
                base = np.int64(symbols[4 * c + 2])
                at[g, 0] = base + (rank[g] >> s)
                at[g, 1] = base + (lo[g] >> s)
                at[g, 2] = base + (hi[g] >> s)
                prefetch(directory, at[g, 0])
                prefetch(directory, at[g, 1])
                prefetch(directory, at[g, 2])
            for g in range(width):  # which part of the list?
                if state[g] == 1:
                    for k in range(3):
                        a = np.int64(directory[at[g, k]])
                        e = np.int64(directory[at[g, k] + 1])
                        middle = place[g] + ((a + e) >> 1)
                        if shift[g] <= 16:
                            prefetch(near, middle)
                        else:
                            prefetch(far, middle)
            for g in range(width):  # step, and see whether the match grew
                if state[g] == 1:
                    a, e = np.int64(directory[at[g, 0]]), np.int64(directory[at[g, 0] + 1])
                    new_rank = first[g] + _count_before(near, far, place[g], a, e, shift[g], rank[g])
                    if lo[g] == rank[g]:
                        new_lo = new_rank
                    else:
                        a, e = np.int64(directory[at[g, 1]]), np.int64(directory[at[g, 1] + 1])
                        new_lo = first[g] + _count_before(near, far, place[g], a, e, shift[g], lo[g])
                    a, e = np.int64(directory[at[g, 2]]), np.int64(directory[at[g, 2] + 1])
                    new_hi = first[g] + _count_before(near, far, place[g], a, e, shift[g], hi[g])
                    rank[g] = new_rank
                    if new_hi - new_lo >= min_count:
                        lo[g], hi[g] = new_lo, new_hi
                        depth[g] += 1
                        state[g] = 0
                        if max_order >= 0 and depth[g] > max_order:
                            depth[g] = max_order
                            state[g] = 3
                            prefetch(common, new_lo)
                            prefetch(common, new_hi)
                    elif depth[g] == 0:
                        lo[g], hi[g] = 0, n
                        state[g] = 0
                    else:
                        state[g] = 2
                        prefetch(order, new_rank - 1)
                        prefetch(order, new_rank)
                        prefetch(common, new_rank)
            for g in range(width):  # the neighbours' texts
                if state[g] == 2:
                    if rank[g] > 0:
                        prefetch(tokens, np.int64(order[rank[g] - 1]) - 1)
                    if rank[g] < n:
                        prefetch(tokens, np.int64(order[rank[g]]) - 1)
            for g in range(width):
                b = row + g
                if state[g] == 2:
                    limit = depth[g]
                    r = rank[g]
                    left = right = np.int64(0)
                    if r < n:
                        right = _shared(
                            tokens, doc_starts, doc_directory, doc_shift, np.int64(order[r]), ids, b, t, known[g], started[g], limit
                        )
                    if r > 0 and right < limit:
                        # common[r] is the smaller of the two shared lengths
                        if r < n and np.int64(common[r]) < right:
                            left = np.int64(common[r])
                        else:
                            left = _shared(
                                tokens, doc_starts, doc_directory, doc_shift, np.int64(order[r - 1]), ids, b, t, known[g], started[g], limit
                            )
                    d = max(left, right)
                    new_lo = r if right >= d else r - 1
                    new_hi = r + 1 if right >= d else r
                    while True:
                        new_lo, new_hi = _node(
                            common, minima, levels, order, tokens, doc_starts, doc_directory, doc_shift,
                            ids, b, t, known[g], started[g], new_lo, new_hi, d,
                        )
                        if d == 0 or new_hi - new_lo >= min_count:
                            break
                        # the parent: the longer of what the ranks outside share
                        up = np.int64(0)
                        for side in range(2):
                            i = new_lo if side == 0 else new_hi
                            if 0 < i < n:
                                x = np.int64(common[i])
                                if x == 255:
                                    outside = i - 1 if side == 0 else i
                                    x = _shared(tokens, doc_starts, doc_directory, doc_shift, np.int64(order[outside]), ids, b, t, known[g], started[g], d)
                                up = max(up, x)
                        d = up
                    lo[g], hi[g], depth[g] = new_lo, new_hi, d
                elif state[g] == 3:
                    lo[g], hi[g] = _node(
                        common, minima, levels, order, tokens, doc_starts, doc_directory, doc_shift,
                        ids, b, t, known[g], started[g], lo[g], hi[g], depth[g],
                    )
                out_lo[b, t] = lo[g]
                out_hi[b, t] = hi[g]
                out_len[b, t] = depth[g] - (1 if started[g] and depth[g] == known[g] else 0)


@njit(cache=True, nogil=True)
def step_range(symbols, near, far, directory, c, lo, hi):
    """The ranks of the contexts made of a node's and one more token c (which the corpus holds and continues)."""
    shift = np.int64(symbols[4 * c + 3])
    first, place, base = np.int64(symbols[4 * c]), np.int64(symbols[4 * c + 1]), np.int64(symbols[4 * c + 2])
    b = base + (lo >> shift)
    new_lo = _count_before(near, far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, lo)
    b = base + (hi >> shift)
    new_hi = _count_before(near, far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, hi)
    return first + new_lo, first + new_hi
