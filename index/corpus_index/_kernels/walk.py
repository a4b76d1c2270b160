"""Walk rows of tokens through the context order: for every position, the longest context that the corpus holds.

State of a row: the node `lo, hi` of its context's longest known suffix, `depth` symbols long. One more token c moves
both ranks at once: contexts that end in c are sorted as the contexts before them are, so a rank becomes first[c] + the
number of c among the continuations of smaller ranks (the backward step of Ferragina & Manzini 2000). If enough of the
node is left, the match has grown by one. If not, the new lo is where the suffix and c would be inserted (before
equals), and no longer suffix can match: the new match ends at one of the two neighbours of that place. Compare with
their text, and widen the range by the shared lengths. So no search starts over, whatever the order.

Every step is a handful of random reads. A row alone would wait for each; so `lanes` rows step together, stage by
stage, each stage asking for what the next will read.

The start symbol of a document counts as a symbol: it is the last of a context read backwards. `known` counts the
symbols of a row's context since its last reset, the start symbol included where the start is known; a match of all of
them includes it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from corpus_index._kernels.arrays import CompactSteps
from corpus_index._kernels.compact import compact_step
from corpus_index._kernels.intrinsics import instead_of, prefetch
from corpus_index._kernels.jit import by_layout, kernel
from corpus_index._kernels.nodes import (
    CAP,
    is_a,
    parent_depth,
    position_of,
    shared_with_row,
    widen_left,
    widen_right,
    widened,
)


class Walkers(NamedTuple):
    """The state of the rows that step together: shape (lanes,) each, `at` (lanes, 2).

    lo, hi, depth, known, started: see above. first, place, shift: of the row's next token. at: the directory entries
    that lo and hi will read. state: 0 done, 1 step, 2 the match broke, 3 deeper than max_order allows.
    """

    lo: np.ndarray
    hi: np.ndarray
    depth: np.ndarray
    known: np.ndarray
    started: np.ndarray
    first: np.ndarray
    place: np.ndarray
    shift: np.ndarray
    at: np.ndarray
    state: np.ndarray

    @classmethod
    def empty(cls, lanes: int) -> Walkers:
        """Memory for so many rows that step together."""
        return cls(
            lo=np.zeros(lanes, np.int64),
            hi=np.zeros(lanes, np.int64),
            depth=np.zeros(lanes, np.int64),
            known=np.zeros(lanes, np.int64),
            started=np.zeros(lanes, np.bool_),
            first=np.zeros(lanes, np.int64),
            place=np.zeros(lanes, np.int64),
            shift=np.zeros(lanes, np.int64),
            at=np.zeros((lanes, 2), np.int64),
            state=np.zeros(lanes, np.int8),
        )


@kernel(inline="always")
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


@kernel(work=lambda *arguments: 1)
def listed_step(steps, c, lo, hi):
    """`step_range` by the lists of ranks."""
    symbols, directory = steps.symbols, steps.directory
    first, place, base = np.int64(symbols[4 * c]), np.int64(symbols[4 * c + 1]), np.int64(symbols[4 * c + 2])
    shift = np.int64(symbols[4 * c + 3])
    b = base + (lo >> shift)
    new_lo = _count_before(steps.near, steps.far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, lo)
    b = base + (hi >> shift)
    new_hi = _count_before(steps.near, steps.far, place, np.int64(directory[b]), np.int64(directory[b + 1]), shift, hi)
    return first + new_lo, first + new_hi


@by_layout
def step_range(steps: Any, c: int, lo: int, hi: int) -> tuple[int, int]:
    """The ranks of the contexts made of a node's and one more token c (which the corpus holds and continues)."""
    return compact_step(steps, c, lo, hi) if isinstance(steps, CompactSteps) else listed_step(steps, c, lo, hi)


@instead_of(step_range)
def _overload_step_range(steps, c, lo, hi):
    if is_a(steps, CompactSteps):
        return lambda steps, c, lo, hi: compact_step(steps, c, lo, hi)
    return lambda steps, c, lo, hi: listed_step(steps, c, lo, hi)


@kernel(work=lambda steps, ngram, lo, hi: ngram.size)
def step_through(
    steps,  # StepArrays or CompactSteps
    ngram,  # (n,) int64, symbols
    lo,  # int64, a node
    hi,  # int64
):
    """The ranks of the contexts made of a node's and an n-gram; 0, 0 where no token follows any."""
    symbols = steps.symbols
    for c in ngram:
        if lo >= hi or 4 * c + 4 >= symbols.size or symbols[4 * c] == symbols[4 * c + 4]:
            return np.int64(0), np.int64(0)
        lo, hi = step_range(steps, c, lo, hi)
    return lo, hi


@kernel()
def _broken_match(
    text,  # TextArrays
    nodes,  # NodeArrays
    rank,  # int64, where the broken context would be inserted
    limit,  # int64, symbols that may still match
    min_count,  # int64, ranks of a match at least
    ids,  # (B, T) int64, rows
    b,  # int64, the row
    t,  # int64, its position
    known,  # int64, symbols of the row's context
    started,  # bool, whether it begins with its document's start
):
    """The node of a row whose match broke: its longest suffix, up to limit symbols, with enough occurrences."""
    n = text.num_tokens
    left = right = np.int64(0)
    if rank < n:
        right = shared_with_row(text, rank, ids, b, t, known, started, limit)
    if rank > 0 and right < limit:
        # of two neighbours' shared lengths, common tells the smaller
        if rank < n and np.int64(nodes.common[rank]) < min(right, CAP):
            left = np.int64(nodes.common[rank])
        else:
            left = shared_with_row(text, rank - 1, ids, b, t, known, started, limit)
    depth = max(left, right)
    lo = rank if right >= depth else rank - 1
    hi = rank + 1 if right >= depth else rank
    while True:
        lo, hi = widened(text, nodes, lo, hi, depth, ids, b, t, known, started, np.int64(-1))
        if depth == 0 or hi - lo >= min_count:
            return lo, hi, depth
        depth = parent_depth(text, nodes, lo, hi, depth)


@kernel(work=lambda index, ids, *rest: ids.size)
def match_rows(
    index,  # IndexArrays
    ids,  # (B, T) int64, symbols; S: the corpus lacks it
    starts,  # (B,) bool, which rows begin where a document does
    end_of_document,  # int64, the symbol after which a context begins anew; −1: none
    min_count,  # int64, ranks of a match at least
    max_order,  # int64, symbols of it at most; −1: no bound
    walkers,  # Walkers, as long as many rows step together
    out_lo,  # (B, T) int64, the match: ranks lo .. hi − 1
    out_hi,  # (B, T) int64
    out_depth,  # (B, T) int32, its symbols
    out_len,  # (B, T) int32, its tokens
):
    """Fill lo, hi, depth and match_len for every position of ids (B, T); see `CorpusIndex.match`.

    ids: (B, T) int64, symbols of the index (its number of symbols for a token that the corpus lacks). starts: (B,)
    bool. max_order: −1 for no bound. walkers: scratch memory, as long as many rows are to step together.
    """
    num_rows, length = ids.shape
    text, nodes = index.text, index.nodes
    order, common, tokens = text.order, nodes.common, text.tokens
    symbols, near, far, directory = index.steps
    n = order.size
    num_symbols = symbols.size // 4 - 1
    num_starts = np.int64(index.num_starts)
    start_matches = num_starts >= min_count and max_order != 0
    lanes = walkers.lo.size
    lo, hi, depth, known, started, first, place, shift, at, state = walkers
    for row in range(0, num_rows, lanes):
        width = min(lanes, num_rows - row)
        for g in range(width):
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
                    started[g] = True
                    known[g] = 1
                    if start_matches:
                        lo[g], hi[g], depth[g] = 0, num_starts, 1
                    else:
                        lo[g], hi[g], depth[g] = 0, n, 0
                    continue
                known[g] += 1
                if c >= num_symbols or symbols[4 * c + 4] == symbols[4 * c]:  # continued nowhere
                    lo[g], hi[g], depth[g] = 0, n, 0
                    continue
                state[g] = 1
                first[g] = symbols[4 * c]
                place[g] = symbols[4 * c + 1]
                s = np.int64(symbols[4 * c + 3])
                shift[g] = s
                base = np.int64(symbols[4 * c + 2])
                at[g, 0] = base + (lo[g] >> s)
                at[g, 1] = base + (hi[g] >> s)
                prefetch(directory, at[g, 0])
                prefetch(directory, at[g, 1])
            for g in range(width):  # which part of the list?
                if state[g] == 1:
                    for k in range(2):
                        a, e = np.int64(directory[at[g, k]]), np.int64(directory[at[g, k] + 1])
                        middle = place[g] + ((a + e) >> 1)
                        if shift[g] <= 16:
                            prefetch(near, middle)
                        else:
                            prefetch(far, middle)
            for g in range(width):  # step, and see whether the match grew
                if state[g] == 1:
                    a, e = np.int64(directory[at[g, 0]]), np.int64(directory[at[g, 0] + 1])
                    before = _count_before(near, far, place[g], a, e, shift[g], lo[g])
                    new_lo = first[g] + before
                    if at[g, 1] == at[g, 0]:
                        a, e = before, min(e, before + hi[g] - lo[g])
                    else:
                        a, e = np.int64(directory[at[g, 1]]), np.int64(directory[at[g, 1] + 1])
                    new_hi = first[g] + _count_before(near, far, place[g], a, e, shift[g], hi[g])
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
                        lo[g] = new_lo
                        state[g] = 2
                        prefetch(order, new_lo - 1)
                        prefetch(order, new_lo)
                        prefetch(common, new_lo)
            for g in range(width):  # the neighbours' texts
                if state[g] == 2:
                    if lo[g] > 0:
                        prefetch(tokens, np.int64(order[lo[g] - 1]) - 1)
                    if lo[g] < n:
                        prefetch(tokens, np.int64(order[lo[g]]) - 1)
            for g in range(width):
                b = row + g
                if state[g] == 2:
                    lo[g], hi[g], depth[g] = _broken_match(
                        text, nodes, lo[g], depth[g], min_count, ids, b, t, known[g], started[g]
                    )
                elif state[g] == 3 and 0 < depth[g] <= CAP:
                    lo[g] = widen_left(nodes, lo[g], depth[g])
                    hi[g] = widen_right(nodes, hi[g], depth[g])
                elif state[g] == 3:
                    lo[g], hi[g] = widened(
                        text, nodes, lo[g], hi[g], depth[g], ids, b, t, known[g], started[g], np.int64(-1)
                    )
                out_lo[b, t] = lo[g]
                out_hi[b, t] = hi[g]
                out_depth[b, t] = depth[g]
                out_len[b, t] = depth[g] - (1 if started[g] and depth[g] == known[g] else 0)


@kernel()
def sample_ranks(order, shift, sampled):
    """sampled[i] = the rank of corpus position i << shift."""
    mask = (np.int64(1) << shift) - 1
    for r in range(order.size):
        position = position_of(order, r)
        if position & mask == 0:
            sampled[position >> shift] = r


@kernel(allocates=True)
def document_ranks(index, sampled, shift, lanes, starts, first_ranks, offsets, ranks):
    """The rank of every position of some documents: ranks[offsets[d] + i] is the i-th position's of document d.

    starts, first_ranks: the documents' first positions, and their ranks. A document is cut where ranks are sampled, so
    that `lanes` pieces step together, however few and uneven the documents: each step waits for memory.
    """
    tokens, n = index.text.tokens, index.text.num_tokens
    symbols, near, far, directory = index.steps
    last = symbols.size // 4 - 2  # symbol
    position = np.zeros(lanes, np.int64)
    size = np.zeros(lanes, np.int64)
    place = np.zeros(lanes, np.int64)
    rank = np.zeros(lanes, np.int64)
    bucket = np.zeros(lanes, np.int64)
    document = done = np.int64(0)
    while document < starts.size:
        width = 0
        while width < lanes and document < starts.size:  # the next pieces
            left = offsets[document + 1] - offsets[document] - done
            if left <= 0:
                document += 1
                done = np.int64(0)
                continue
            p = starts[document] + done
            rank[width] = first_ranks[document] if done == 0 else np.int64(sampled[p >> shift])
            position[width] = p
            size[width] = min(left, (((p >> shift) + 1) << shift) - p)
            place[width] = offsets[document] + done
            ranks[place[width]] = rank[width]
            prefetch(tokens, p)
            done += size[width]
            width += 1
        for t in range(1, np.int64(1) << shift):
            for g in range(width):
                if t < size[g]:
                    c = min(last, np.int64(tokens[position[g] + t - 1]))
                    held = symbols[4 * c + 4] != symbols[4 * c]
                    bucket[g] = np.int64(symbols[4 * c + 2]) + (rank[g] >> np.int64(symbols[4 * c + 3])) if held else 0
                    prefetch(directory, bucket[g])
            for g in range(width):
                if t < size[g]:
                    c = min(last, np.int64(tokens[position[g] + t - 1]))
                    a, e = np.int64(directory[bucket[g]]), np.int64(directory[bucket[g] + 1])
                    middle = np.int64(symbols[4 * c + 1]) + ((a + e) >> 1)
                    if np.int64(symbols[4 * c + 3]) <= 16:
                        prefetch(near, middle)
                    else:
                        prefetch(far, middle)
            for g in range(width):
                if t < size[g]:
                    c = min(last, np.int64(tokens[position[g] + t - 1]))
                    a, e = np.int64(directory[bucket[g]]), np.int64(directory[bucket[g] + 1])
                    if symbols[4 * c + 4] == symbols[4 * c]:  # continued nowhere, whatever the text says
                        a = e = np.int64(0)
                    shift_of, list_start = np.int64(symbols[4 * c + 3]), np.int64(symbols[4 * c + 1])
                    before = _count_before(near, far, list_start, a, e, shift_of, rank[g])
                    rank[g] = min(n - 1, np.int64(symbols[4 * c]) + before)
                    ranks[place[g] + t] = rank[g]


@kernel()
def mark_short_contexts(index, next_tokens, most, known):
    """known[r] = symbols of the context of rank r, where they are at most `most` (< 255): near documents' starts."""
    steps = index.steps
    num_symbols = steps.symbols.size // 4 - 1
    for start in range(index.num_starts):
        r = np.int64(start)
        for symbols in range(1, most + 1):
            known[r] = symbols
            c = min(num_symbols - 1, np.int64(next_tokens[r]))
            if steps.symbols[4 * c + 4] == steps.symbols[4 * c]:
                break
            lo, hi = step_range(steps, c, r, r + 1)
            if lo >= hi:
                break
            r = lo
