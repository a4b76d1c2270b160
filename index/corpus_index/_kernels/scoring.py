"""Probabilities of all tokens of many texts from n-gram tables: a step of the walk each, and two reads.

The walk is that of `walk`, bounded. A context that grows by a token c is the n-gram (context, c): its probability
stands at the class of its ranks. Where it doesn't grow, shorter contexts are tried: c follows one of them if the
occurrence of c before the context's first rank, or the one after it, is among its ranks. The backoff weights of the
longer ones are multiplied:

    p(c | h) = backoff(h) · p(c | h without its first symbol) where the corpus lacks h·c

An n-gram that stands only where documents end has no ranks; positions where one may be missing are reported.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.intrinsics import LANE, below_bits, count_bits, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.ngram_tables import BACKOFF, CONTEXT, PROB, RANK, class_of
from corpus_index._kernels.rows import first_at_least
from corpus_index._kernels.walk import Walkers, step_range

_IDLE, _STEP, _GREW, _BROKE, _UNFOLLOWED = range(5)  # what a text's token does
ODD = 6  # numbers that are said of a position whose n-gram may stand at ends of documents only


class Scorers(NamedTuple):
    """The state of the texts that are scored together, beside that of `Walkers`: shape (lanes,) each.

    member: a rank of the context's class. inserted: where a broken context would be. before, after: the ranks of the
    occurrences of the token around it, or bounds of them: before from above, after from below. found: a place in the
    tables. weight: of the backoffs.
    """

    walkers: Walkers
    member: np.ndarray
    inserted: np.ndarray
    before: np.ndarray
    after: np.ndarray
    found: np.ndarray
    weight: np.ndarray

    @classmethod
    def empty(cls, lanes: int) -> Scorers:
        """Memory for so many texts that are scored together."""
        return cls(
            walkers=Walkers.empty(lanes),
            member=np.zeros(lanes, np.int64),
            inserted=np.zeros(lanes, np.int64),
            before=np.zeros(lanes, np.int64),
            after=np.zeros(lanes, np.int64),
            found=np.zeros(lanes, np.int64),
            weight=np.zeros(lanes, np.float64),
        )


@kernel(inline="always")
def _count_before(near, far, list_start, a, e, shift, rank):
    """`walk._count_before`, most buckets in one comparison."""
    if shift <= 16:
        key = rank & 0xFFFF
        place, n = list_start + a, e - a
        while n > LANE:
            half = n >> 1
            place += half if np.int64(near[place + half - 1]) < key else 0
            n -= half
        if place + LANE <= near.size:
            bits = below_bits(near, place, key) & ~(~np.uint64(0) << np.uint64(n))
            return place + count_bits(bits) - list_start
        stop = place + n
        while place < stop and np.int64(near[place]) < key:
            place += 1
        return place - list_start
    return first_at_least(far, list_start + a, list_start + e, rank) - list_start


@kernel()
def _ends_in(endings, tables, n, member, c):
    """Whether a document ends with c after the context of n symbols whose class holds a rank."""
    place = class_of(tables, n, member)
    lo, hi = tables.contexts[CONTEXT * place + RANK], tables.contexts[CONTEXT * (place + 1) + RANK]
    key = np.uint64(c) << np.uint64(32)
    at = first_at_least(endings, np.int64(0), endings.size, key | np.uint64(lo))
    return at < endings.size and endings[at] < key | np.uint64(hi)


@kernel()
def score_texts(
    index,  # IndexArrays
    tables,  # NgramTables
    base,  # (S + 1,) float64, probabilities of the empty context; the last one: of a token that the corpus lacks
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    ending,  # (S / 64,) uint64, a bit for each symbol that ends a document
    max_order,  # int64, symbols of a context
    end_of_document,  # int64, the symbol after which a context begins anew; −1: none
    ids,  # (Q,) int64, symbols of all texts; S: the corpus lacks it
    begins,  # (P,) int64, where each piece of text begins
    scored,  # (P,) int64, its first token that is to be scored
    ends,  # (P,) int64
    whole,  # (P,) bool, whether it begins where a document does
    scorers,  # Scorers, as many as step together
    out,  # (Q,) float64, probabilities
    odd,  # (room, ODD) int64: place, context's ranks lo, hi, its symbols, whether with the start, label
):
    """Score some pieces of text; returns how many positions are reported in odd."""
    symbols, near, far, directory = index.steps
    n = index.text.num_tokens
    num_symbols = symbols.size // 4 - 1
    num_starts = np.int64(index.num_starts)
    lines, stride, probs = tables.lines, tables.stride, tables.probs
    contexts, weights = tables.contexts, tables.weights
    lo, hi, depth, known, started, first, place, shift, at, state = scorers.walkers
    member, inserted, found, weight = scorers.member, scorers.inserted, scorers.found, scorers.weight
    lower, upper = scorers.before, scorers.after
    lanes = lo.size
    reported = np.int64(0)
    for piece in range(0, begins.size, lanes):
        width = min(lanes, begins.size - piece)
        length = np.int64(0)
        for g in range(width):
            started[g] = whole[piece + g]
            known[g] = 1 if started[g] else 0
            lo[g], hi[g], depth[g], member[g] = 0, n, 0, 0
            if started[g] and num_starts > 0:
                hi[g], depth[g] = num_starts, 1
            length = max(length, ends[piece + g] - begins[piece + g])
        for t in range(length):
            for g in range(width):  # which directory entries?
                q = begins[piece + g] + t
                if q >= ends[piece + g]:
                    state[g] = _IDLE
                    continue
                c = ids[q]
                if q + 1 < ids.size:
                    prefetch(symbols, 4 * ids[q + 1])
                known[g] += 1
                if c >= num_symbols or symbols[4 * c + 4] == symbols[4 * c]:
                    state[g] = _UNFOLLOWED
                    continue
                state[g] = _STEP
                first[g] = symbols[4 * c]
                place[g] = symbols[4 * c + 1]
                s = np.int64(symbols[4 * c + 3])
                shift[g] = s
                start = np.int64(symbols[4 * c + 2])
                at[g, 0] = start + (lo[g] >> s)
                at[g, 1] = start + (hi[g] >> s)
                prefetch(directory, at[g, 0])
                prefetch(directory, at[g, 1])
            for g in range(width):  # which part of the list?
                if state[g] == _STEP:
                    for k in range(2):
                        middle = place[g] + ((np.int64(directory[at[g, k]]) + np.int64(directory[at[g, k] + 1])) >> 1)
                        if shift[g] <= 16:
                            prefetch(near, middle)
                        else:
                            prefetch(far, middle)
            for g in range(width):  # step, and see whether the context grew
                if state[g] == _STEP:
                    s = shift[g]
                    a, e = np.int64(directory[at[g, 0]]), np.int64(directory[at[g, 0] + 1])
                    j = _count_before(near, far, place[g], a, e, s, lo[g])
                    k_a, k_e = np.int64(directory[at[g, 1]]), np.int64(directory[at[g, 1] + 1])
                    k = _count_before(near, far, place[g], k_a, k_e, s, hi[g])
                    new_lo, new_hi = min(first[g] + j, n), min(first[g] + k, n)
                    if new_hi > new_lo:
                        state[g] = _GREW
                        lo[g], hi[g], member[g] = new_lo, new_hi, new_lo
                        depth[g] += 1
                        prefetch(lines, (new_lo >> 6) * stride)
                    else:
                        state[g] = _BROKE
                        inserted[g] = new_lo
                        if s <= 16:
                            high = lo[g] >> 16 << 16
                            lower[g], upper[g] = ((lo[g] >> s) << s) - 1, ((lo[g] >> s) + 1) << s
                            if j > a:
                                lower[g] = high | np.int64(near[place[g] + j - 1])
                            if j < e:
                                upper[g] = high | np.int64(near[place[g] + j])
                        else:
                            lower[g], upper[g] = ((lo[g] >> s) << s) - 1, ((lo[g] >> s) + 1) << s
                            if j > a:
                                lower[g] = far[place[g] + j - 1]
                            if j < e:
                                upper[g] = far[place[g] + j]
                        found[g] = j - a + ((e - j) << 32)
                        for m in range(max(depth[g] - 2, 1), depth[g] + 1):
                            prefetch(contexts, CONTEXT * class_of(tables, m, member[g]))
            for g in range(width):  # what is said of the n-gram; or the longest context that the token follows
                if state[g] == _GREW:
                    found[g] = class_of(tables, depth[g], member[g])
                    if depth[g] > max_order:
                        prefetch(probs, found[g])
                        at[g, 0] = class_of(tables, max_order, member[g])
                        prefetch(contexts, CONTEXT * at[g, 0])
                    else:
                        prefetch(contexts, CONTEXT * found[g])
                elif state[g] == _BROKE:
                    c = ids[begins[piece + g] + t]
                    exact_lower, exact_upper = (found[g] & 0xFFFFFFFF) > 0, (found[g] >> 32) > 0
                    x, m = inserted[g], depth[g]
                    w = 1.0
                    rank = first[g]
                    while m > 0:
                        p = CONTEXT * class_of(tables, m, member[g])
                        if m < depth[g]:
                            begin, end = np.int64(contexts[p + RANK]), np.int64(contexts[p + CONTEXT + RANK])
                            if exact_lower and lower[g] >= begin:
                                rank = x - 1
                                break
                            if exact_upper and upper[g] < end:
                                rank = x
                                break
                            if lower[g] >= begin or upper[g] < end:
                                rank, stop = step_range(index.steps, c, begin, end)
                                if stop > rank:
                                    break
                        w *= weights[p + BACKOFF]
                        m -= 1
                    if m == 0:
                        rank = first[g]
                    q = begins[piece + g] + t
                    if (ending[c >> 6] >> np.uint64(c & 63)) & np.uint64(1) and q >= scored[piece + g]:
                        if _ends_in(endings, tables, m + 1, member[g], c):
                            odd[reported, 0], odd[reported, 1], odd[reported, 2] = q, lo[g], hi[g]
                            odd[reported, 3], odd[reported, 5] = depth[g], c
                            odd[reported, 4] = started[g] and depth[g] == known[g] - 1
                            reported += 1
                    weight[g], inserted[g], depth[g] = w, max(0, min(rank, n - 1)), m + 1
                    prefetch(lines, (inserted[g] >> 6) * stride)
            for g in range(width):
                if state[g] == _GREW:
                    q = begins[piece + g] + t
                    if depth[g] > max_order:
                        p = probs[found[g]]
                        depth[g] = max_order
                        lo[g] = contexts[CONTEXT * at[g, 0] + RANK]
                        hi[g] = contexts[CONTEXT * (at[g, 0] + 1) + RANK]
                    else:
                        p = weights[CONTEXT * found[g] + PROB]
                    if q >= scored[piece + g]:
                        out[q] = p
                elif state[g] == _BROKE:
                    found[g] = CONTEXT * class_of(tables, depth[g], inserted[g])
                    prefetch(contexts, found[g])
            for g in range(width):
                q = begins[piece + g] + t
                if state[g] == _BROKE:
                    if q >= scored[piece + g]:
                        out[q] = weight[g] * weights[found[g] + PROB]
                    lo[g], hi[g] = contexts[found[g] + RANK], contexts[found[g] + CONTEXT + RANK]
                    member[g] = inserted[g]
                elif state[g] == _UNFOLLOWED:
                    c = ids[q]
                    w = base[min(c, num_symbols)]
                    for m in range(1, depth[g] + 1):
                        w *= weights[CONTEXT * class_of(tables, m, member[g]) + BACKOFF]
                    if q >= scored[piece + g]:
                        out[q] = w
                        if depth[g] > 0 and c < num_symbols and _ends_in(endings, tables, 1, member[g], c):
                            odd[reported, 0], odd[reported, 1], odd[reported, 2] = q, lo[g], hi[g]
                            odd[reported, 3], odd[reported, 5] = depth[g], c
                            odd[reported, 4] = started[g] and depth[g] == known[g] - 1
                            reported += 1
                    lo[g], hi[g], depth[g], member[g] = 0, n, 0, 0
                if state[g] != _IDLE and ids[q] == end_of_document:
                    started[g], known[g] = True, 1
                    lo[g], hi[g], depth[g], member[g] = 0, n, 0, 0
                    if num_starts > 0:
                        hi[g], depth[g] = num_starts, 1
    return reported
