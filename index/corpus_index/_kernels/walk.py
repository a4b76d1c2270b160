"""Walk rows of tokens through the context order: for every position, the longest context that the corpus holds.

State of a row: `rank`, where its whole context would be inserted in context order (before equals); and the node
`lo, hi` of its longest known suffix, `depth` symbols long. One more token c moves all three ranks at once: contexts
that end in c are sorted as the contexts before them are, so a rank becomes first[c] + the number of c among the
continuations of smaller ranks (the backward step of Ferragina & Manzini 2000). If enough of the node is left, the match
has grown by one. If not, the new match ends at one of the two neighbours of the new rank: compare with their text, and
widen the range by the shared lengths. So no search starts over, whatever the order.

Every step is a handful of random reads. A row alone would wait for each; so `lanes` rows step together, stage by
stage, each stage asking for what the next will read.

A *node* is a range of ranks that share `depth` symbols, all that do; its parent is the next wider one. The start symbol
of a document counts as a symbol: it is the last of a context read backwards. `known` counts the symbols of a row's
context since its last reset, the start symbol included where the start is known; a match of all of them includes it.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import prefetch

CAP = 255  # common tells shared lengths up to here; beyond, the text does


@njit(cache=True, nogil=True, inline="always")
def _count_before(near, far, list_start, a, e, shift, rank):
    """How many entries of one bucket (a .. e−1 of the list) are smaller than rank, plus a."""
    if shift <= 16:
        key = rank & 0xFFFF
        place, n = list_start + a, e - a
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
        return place - list_start
    place, n = list_start + a, e - a
    while n > 0:
        half = n >> 1
        if np.int64(far[place + half]) < rank:
            place += half + 1
            n -= half + 1
        else:
            n = half
    return place - list_start


@njit(cache=True, nogil=True)
def step_range(steps, c, lo, hi):
    """The ranks of the contexts made of a node's and one more token c (which the corpus holds and continues)."""
    symbols, directory = steps.symbols, steps.directory
    first, place, base = np.int64(symbols[4 * c]), np.int64(symbols[4 * c + 1]), np.int64(symbols[4 * c + 2])
    shift = np.int64(symbols[4 * c + 3])
    b = base + (lo >> shift)
    new_lo = _count_before(steps.near, steps.far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, lo)
    b = base + (hi >> shift)
    new_hi = _count_before(steps.near, steps.far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, hi)
    return first + new_lo, first + new_hi


@njit(cache=True, nogil=True)
def _document_start(text, position):
    """Where the document of a position starts."""
    doc_starts = text.doc_starts
    d = np.int64(text.doc_directory[position >> text.document_shift])
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
def _shared_with_row(text, rank, ids, b, t, known, started, limit):
    """Symbols, at most limit, that the context of a rank shares with the row's at ids[b, t]."""
    position = np.int64(text.order[rank])
    tokens = text.tokens
    own = known - 1 if started else known  # tokens of the row's context
    stop = min(min(limit, own), position)
    k = 0
    while k < stop and np.int64(tokens[position - 1 - k]) == ids[b, t - k]:
        k += 1
    if k == 0:
        return k
    held = position - _document_start(text, position)
    k = min(k, held)
    if started and k == own and k == held and k < limit:
        k += 1
    return k


@njit(cache=True, nogil=True)
def _shared_by_ranks(text, r, s):
    """Symbols that the contexts of two ranks share."""
    tokens = text.tokens
    p, q = np.int64(text.order[r]), np.int64(text.order[s])
    p_held, q_held = p - _document_start(text, p), q - _document_start(text, q)
    stop = min(p_held, q_held)
    k = 0
    while k < stop and tokens[p - 1 - k] == tokens[q - 1 - k]:
        k += 1
    return k + 1 if k == p_held and k == q_held else k


@njit(cache=True, nogil=True)
def _widen_left(nodes, lo, depth):
    """The first rank of the node of that depth (1 .. 255) that holds rank lo."""
    common, minima, levels = nodes.common, nodes.minima, nodes.levels
    i = lo  # the last i ≤ lo with common[i] < depth; common[0] = 0 is one
    stop = i & ~np.int64(63)
    while i >= stop and np.int64(common[i]) >= depth:
        i -= 1
    if i >= stop:
        return i
    level, block = 0, i >> 6  # pass whole blocks, climbing; then descend
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
        block = min((block << 6) + 63, levels[level + 1] - base - 1)
        while np.int64(minima[base + block]) >= depth:
            block -= 1
    i = min((block << 6) + 63, common.size - 1)
    while np.int64(common[i]) >= depth:
        i -= 1
    return i


@njit(cache=True, nogil=True)
def _widen_right(nodes, hi, depth):
    """The rank after the last of the node of that depth (1 .. 255) that holds rank hi − 1."""
    common, minima, levels = nodes.common, nodes.minima, nodes.levels
    n = common.size
    i = hi  # the first i ≥ hi with common[i] < depth, or n
    stop = min(n, (i | 63) + 1)
    while i < stop and np.int64(common[i]) >= depth:
        i += 1
    if i < stop or i >= n:
        return i
    level, block = 0, i >> 6
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
def _gallop(text, start, sign, depth, ids, b, t, known, started, member):
    """The farthest rank from start, going by sign, that still shares depth symbols.

    With whom: with the row at ids[b, t], or with the context of rank member where that isn't negative.
    """
    n = text.order.size
    good, bad = start, np.int64(-1) if sign < 0 else n
    step = np.int64(1)
    doubling = True
    while abs(bad - good) > 1:
        probe = good + sign * step if doubling else (good + bad) >> 1
        if probe < 0 or probe >= n:
            doubling = False
            continue
        if member < 0:
            length = _shared_with_row(text, probe, ids, b, t, known, started, depth)
        else:
            length = _shared_by_ranks(text, probe, member)
        if length >= depth:
            good = probe
            step *= 2
        else:
            bad = probe
            doubling = False
    return good


@njit(cache=True, nogil=True)
def _node(text, nodes, lo, hi, depth, ids, b, t, known, started, member):
    """Widen lo, hi, ranks that share depth symbols, to all ranks that do; the last arguments as in _gallop."""
    if depth == 0:
        return np.int64(0), text.order.size
    if depth <= CAP:
        return _widen_left(nodes, lo, depth), _widen_right(nodes, hi, depth)
    return (
        _gallop(text, lo, -1, depth, ids, b, t, known, started, member),
        _gallop(text, hi - 1, 1, depth, ids, b, t, known, started, member) + 1,
    )


@njit(cache=True, nogil=True)
def _parent_depth(text, nodes, lo, hi):
    """The depth of a node's parent: the longer of what its first and last rank share with the ranks outside."""
    up = np.int64(0)
    for i in (lo, hi):
        if 0 < i < text.order.size:
            length = np.int64(nodes.common[i])
            if length == CAP:
                length = _shared_by_ranks(text, i - 1, i)
            up = max(up, length)
    return up


@njit(cache=True, nogil=True)
def _broken_match(text, nodes, rank, limit, min_count, ids, b, t, known, started):
    """The node of a row whose match broke: its longest suffix, up to limit symbols, with enough occurrences."""
    n = text.order.size
    left = right = np.int64(0)
    if rank < n:
        right = _shared_with_row(text, rank, ids, b, t, known, started, limit)
    if rank > 0 and right < limit:
        # of two neighbours' shared lengths, common tells the smaller
        if rank < n and np.int64(nodes.common[rank]) < min(right, CAP):
            left = np.int64(nodes.common[rank])
        else:
            left = _shared_with_row(text, rank - 1, ids, b, t, known, started, limit)
    depth = max(left, right)
    lo = rank if right >= depth else rank - 1
    hi = rank + 1 if right >= depth else rank
    while True:
        lo, hi = _node(text, nodes, lo, hi, depth, ids, b, t, known, started, np.int64(-1))
        if depth == 0 or hi - lo >= min_count:
            return lo, hi, depth
        depth = _parent_depth(text, nodes, lo, hi)


@njit(cache=True, nogil=True)
def match_rows(index, ids, starts, end_of_document, min_count, max_order, lanes, out_lo, out_hi, out_depth, out_len):
    """Fill lo, hi, depth and match_len for every position of ids (B, T); see `CorpusIndex.match`.

    ids: (B, T) int64, symbols of the index (its number of symbols for a token that the corpus lacks). starts: (B,)
    bool. max_order: −1 for no bound.
    """
    num_rows, length = ids.shape
    text, nodes = index.text, index.nodes
    order, common, tokens = text.order, nodes.common, text.tokens
    symbols, near, far, directory = index.steps
    n = order.size
    num_symbols = symbols.size // 4 - 1
    num_starts = np.int64(index.num_starts)
    start_matches = num_starts >= min_count and max_order != 0
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
    state = np.zeros(lanes, np.int8)  # 0 done, 1 step, 2 the match broke, 3 deeper than max_order allows
    for row in range(0, num_rows, lanes):
        width = min(lanes, num_rows - row)
        for g in range(width):
            rank[g] = 0
            started[g] = starts[row + g]
            known[g] = 1 if started[g] else 0
            if started[g] and start_matches:
                lo[g], hi[g], depth[g] = 0, num_starts, 1
            else:
                lo[g], hi[g], depth[g] = 0, n, 0
        for t in range(length):
            for g in range(width):  # which directory entries?
                c = ids[row + g, t]
                if t + 1 < length:
                    prefetch(symbols, 4 * ids[row + g, t + 1])
                state[g] = 0
                if c == end_of_document:
                    rank[g] = 0
                    started[g] = True
                    known[g] = 1
                    if start_matches:
                        lo[g], hi[g], depth[g] = 0, num_starts, 1
                    else:
                        lo[g], hi[g], depth[g] = 0, n, 0
                    continue
                known[g] += 1
                if c >= num_symbols or symbols[4 * c + 4] == symbols[4 * c]:  # continued nowhere
                    rank[g] = symbols[4 * min(c, num_symbols)]
                    lo[g], hi[g], depth[g] = 0, n, 0
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
                for k in range(3):
                    prefetch(directory, at[g, k])
            for g in range(width):  # which part of the list?
                if state[g] == 1:
                    for k in range(3):
                        a, e = np.int64(directory[at[g, k]]), np.int64(directory[at[g, k] + 1])
                        middle = place[g] + ((a + e) >> 1)
                        if shift[g] <= 16:
                            prefetch(near, middle)
                        else:
                            prefetch(far, middle)
            for g in range(width):  # step, and see whether the match grew
                if state[g] == 1:
                    a, e = np.int64(directory[at[g, 0]]), np.int64(directory[at[g, 0] + 1])
                    new_rank = first[g] + _count_before(near, far, place[g], a, e, shift[g], rank[g])
                    new_lo = new_rank
                    if lo[g] != rank[g]:
                        a, e = np.int64(directory[at[g, 1]]), np.int64(directory[at[g, 1] + 1])
                        new_lo = first[g] + _count_before(near, far, place[g], a, e, shift[g], lo[g])
                    a, e = np.int64(directory[at[g, 2]]), np.int64(directory[at[g, 2] + 1])
                    new_hi = first[g] + _count_before(near, far, place[g], a, e, shift[g], hi[g])
                    rank[g] = new_rank
                    state[g] = 0
                    if new_hi - new_lo >= min_count:
                        lo[g], hi[g] = new_lo, new_hi
                        depth[g] += 1
                        if max_order >= 0 and depth[g] > max_order:
                            depth[g] = max_order
                            state[g] = 3
                            prefetch(common, new_lo)
                            prefetch(common, new_hi)
                    elif depth[g] == 0:
                        lo[g], hi[g] = 0, n
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
                    lo[g], hi[g], depth[g] = _broken_match(
                        text, nodes, rank[g], depth[g], min_count, ids, b, t, known[g], started[g]
                    )
                elif state[g] == 3 and 0 < depth[g] <= CAP:
                    lo[g] = _widen_left(nodes, lo[g], depth[g])
                    hi[g] = _widen_right(nodes, hi[g], depth[g])
                elif state[g] == 3:
                    lo[g], hi[g] = _node(
                        text, nodes, lo[g], hi[g], depth[g], ids, b, t, known[g], started[g], np.int64(-1)
                    )
                out_lo[b, t] = lo[g]
                out_hi[b, t] = hi[g]
                out_depth[b, t] = depth[g]
                out_len[b, t] = depth[g] - (1 if started[g] and depth[g] == known[g] else 0)


@njit(cache=True, nogil=True)
def backoff_chains(index, lo, hi, depth, begin, offsets, out_lo, out_hi, out_depth, ahead):
    """Write the chain of nodes of each position from `begin` on, deepest first, the root left out.

    offsets[q − begin] .. offsets[q − begin + 1] of the out arrays hold position q's chain. Stops before a chain that
    may not fit; returns the position to go on from. A node stands for the orders from its depth down to the next one's
    plus 1.
    """
    text, nodes = index.text, index.nodes
    ids = np.empty((1, 1), np.int64)
    used = 0
    offsets[0] = 0
    for q in range(begin, lo.size):
        if used + depth[q] > out_lo.size:
            return q
        if q + ahead < lo.size:
            prefetch(nodes.common, lo[q + ahead])
            prefetch(nodes.common, hi[q + ahead])
        a, e, d = lo[q], hi[q], np.int64(depth[q])
        while d > 0:
            out_lo[used], out_hi[used], out_depth[used] = a, e, d
            used += 1
            up = _parent_depth(text, nodes, a, e)
            a, e = _node(text, nodes, a, e, up, ids, 0, 0, 0, False, a)
            d = up
        offsets[q - begin + 1] = used
    return np.int64(lo.size)


@njit(cache=True, nogil=True)
def first_disorder(text, nodes, next_tokens, ranks):
    """The first of some ranks that is out of order, or whose common or continuation is wrong; or −1."""
    for i in range(ranks.size):
        r = ranks[i]
        position = np.int64(text.order[r])
        if position >= text.order.size or next_tokens[r] != text.tokens[position]:
            return r
        if r == 0:
            if nodes.common[r] != 0:
                return r
            continue
        shared = _shared_by_ranks(text, r - 1, r)
        if min(shared, CAP) != np.int64(nodes.common[r]):
            return r
        before = np.int64(text.order[r - 1])
        p_held = before - _document_start(text, before)
        q_held = position - _document_start(text, position)
        if shared > min(p_held, q_held) or shared == p_held:
            continue  # equal up to the start, or the one before is the other's beginning
        if shared == q_held or text.tokens[before - 1 - shared] >= text.tokens[position - 1 - shared]:
            return r
    return np.int64(-1)


@njit(cache=True, nogil=True)
def first_misstep(text, steps, next_tokens, ranks):
    """The first of some ranks from which the step by its continuation doesn't lead to the next position; or −1."""
    for i in range(ranks.size):
        r = ranks[i]
        position = np.int64(text.order[r]) + 1
        continued = position < text.order.size and _document_start(text, position) != position
        c = np.int64(next_tokens[r])
        if steps.symbols[4 * c + 4] == steps.symbols[4 * c]:
            if continued:
                return r
            continue
        lo, hi = step_range(steps, c, r, r + 1)
        if hi - lo != (1 if continued else 0) or (continued and np.int64(text.order[lo]) != position):
            return r
    return np.int64(-1)


@njit(cache=True, nogil=True)
def document_ranks(index, next_tokens, first_ranks, offsets, ranks):
    """The rank of every position of some documents: ranks[offsets[d] + i] is the i-th position's of document d.

    first_ranks: the ranks of their first positions. The documents step together, since each step waits for memory.
    """
    longest = np.int64(0)
    for d in range(first_ranks.size):
        longest = max(longest, offsets[d + 1] - offsets[d])
        if offsets[d + 1] > offsets[d]:
            ranks[offsets[d]] = first_ranks[d]
    for i in range(1, longest):
        for d in range(first_ranks.size):
            place = offsets[d] + i
            if place < offsets[d + 1]:
                r = ranks[place - 1]
                ranks[place] = step_range(index.steps, np.int64(next_tokens[r]), r, r + 1)[0]


@njit(cache=True, nogil=True)
def mark_short_contexts(index, next_tokens, most, known):
    """known[r] = symbols of the context of rank r, where they are at most `most` (< 255): near documents' starts."""
    steps = index.steps
    for start in range(index.num_starts):
        r = np.int64(start)
        for symbols in range(1, most + 1):
            known[r] = symbols
            c = np.int64(next_tokens[r])
            if steps.symbols[4 * c + 4] == steps.symbols[4 * c]:
                break
            lo, hi = step_range(steps, c, r, r + 1)
            if lo == hi:
                break
            r = lo
