"""Tables that give an n-gram's probability in two reads: one float by n-gram, one backoff weight by context.

An n-gram (h, w) is the context h·w, so what belongs to it is kept by the *class* of ranks that share its symbols.
Classes of one length stand side by side in context order: a class's number is how many begin at or before any of its
ranks, less one. Of every 64 ranks a line of memory has, for each length, a bit for each rank at which a class begins
and the number of those before. Naively: a dictionary from every n-gram to its probability and its backoff weight.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.intrinsics import WORD, count_bits
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import symbol_of

FIELDS = 3  # of a line, for each length: 64 bits, and how many begin before, as three 32-bit numbers


class NgramTables(NamedTuple):
    """What an estimator says of every n-gram; lengths are of n-grams, 1 .. max_order + 1.

    lines (blocks · stride,): see above, stride numbers for 64 ranks. places (max_order + 2,): where the contexts of
    each length begin, one more of them than there are classes; 0 for the longest n-grams, which are no contexts.
    contexts (C · 3,): the first rank of each class, its backoff weight and the probability of its last symbol after the
    others, the latter two in `weights`, which is the same memory as float32. probs: of the longest n-grams.
    """

    lines: np.ndarray
    stride: int
    places: np.ndarray
    contexts: np.ndarray
    weights: np.ndarray
    probs: np.ndarray


RANK, BACKOFF, PROB = range(3)
CONTEXT = 3  # numbers of a context


@kernel()
def fill_lines(common, stride, longest, lines, counts):
    """Mark where the classes of 1 .. longest symbols begin; counts[n] becomes the number of those of n symbols."""
    counts[:] = 0
    for rank in range(common.size):
        line = (rank >> 6) * stride
        if rank & (WORD - 1) == 0:
            for n in range(1, longest + 1):
                lines[line + FIELDS * n - 1] = counts[n]
        word, bit = (rank >> 5) & 1, np.uint32(1) << np.uint32(rank & 31)
        shared = np.int64(common[rank]) if rank > 0 else np.int64(0)
        for n in range(shared + 1, longest + 1):
            lines[line + FIELDS * (n - 1) + word] |= bit
            counts[n] += 1


@kernel(allocates=True)
def fill_firsts(common, max_order, places, contexts):
    """The first rank of every context of 1 .. max_order symbols, and behind those of one length the number of ranks."""
    used = places.copy()
    for rank in range(common.size):
        shared = np.int64(common[rank]) if rank > 0 else np.int64(0)
        for n in range(shared + 1, max_order + 1):
            contexts[CONTEXT * used[n] + RANK] = rank
            used[n] += 1
    for n in range(1, max_order + 1):
        contexts[CONTEXT * used[n] + RANK] = common.size


@kernel(inline="always")
def class_of(tables, n, rank):
    """The place of the class of n symbols that holds a rank."""
    at = (rank >> 6) * tables.stride + FIELDS * (n - 1)
    bits = np.uint64(tables.lines[at]) | (np.uint64(tables.lines[at + 1]) << np.uint64(32))
    bits &= ~np.uint64(0) >> np.uint64(63 - (rank & 63))
    return tables.places[n] + np.int64(tables.lines[at + 2]) + count_bits(bits) - 1


@kernel()
def fill_order(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    known,  # (N,) uint8, of `mark_short_contexts`
    discounts,  # (orders, 3) float64
    order,  # int64, symbols of the contexts
    max_order,  # int64, of the model
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    ending_of,  # (S,) int64, the next of `endings` of each symbol; moves on
    followed_of,  # (S,) int64, the rank that its next followed occurrence leads to; moves on
    probabilities,  # (N,) float64, of each rank's token by the order below; replaced by this order's
    tally,  # (S,) int64, zeros between uses
    seen,  # (S,) int64, −1 between uses
    leads_to,  # (S,) int64, −1 between uses
    values,  # (S,) float64
    symbols,  # (S,) int64
    tables,  # NgramTables, to be filled
):
    """The backoff weights of all contexts of `order` symbols, and the probabilities of what follows them."""
    cuts_of = discounts[min(order, discounts.shape[0] - 1)]
    by_runs = order < max_order
    place, hi = tables.places[order], np.int64(0)
    while hi < next_tokens.size:
        lo, hi = hi, np.int64(tables.contexts[CONTEXT * (place + 1) + RANK])
        size, run = 0, lo
        for r in range(lo, hi):
            if by_runs and r > lo and np.int64(common[r]) == order:
                run = r
            c = symbol_of(next_tokens, r, tally)
            if tally[c] == 0:
                symbols[size] = c
                size += 1
                values[c] = probabilities[r]
            if not by_runs:
                tally[c] += 1
            elif seen[c] != run:
                seen[c] = run
                tally[c] += 1
            e = ending_of[c]
            if e < endings.size and endings[e] == (np.uint64(c) << np.uint64(32)) | np.uint64(r):
                ending_of[c] = e + 1
            else:
                if leads_to[c] < 0:
                    leads_to[c] = followed_of[c]
                followed_of[c] += 1
        if np.int64(known[lo]) >= order:
            total, cuts = np.int64(0), 0.0
            for i in range(size):
                count = tally[symbols[i]]
                total += count
                cuts += cuts_of[min(count, 3) - 1]
            backoff = cuts / total
            tables.weights[CONTEXT * place + BACKOFF] = backoff
            for i in range(size):
                c = symbols[i]
                count = tally[c]
                values[c] = (count - cuts_of[min(count, 3) - 1]) / total + backoff * values[c]
                if leads_to[c] >= 0:
                    rank = min(leads_to[c], next_tokens.size - 1)
                    at = class_of(tables, order + 1, rank)
                    if order == max_order:
                        tables.probs[at] = values[c]
                    else:
                        tables.weights[CONTEXT * at + PROB] = values[c]
            for r in range(lo, hi):
                probabilities[r] = values[symbol_of(next_tokens, r, tally)]
        for i in range(size):
            c = symbols[i]
            tally[c] = 0
            leads_to[c] = seen[c] = -1
        place += 1
