"""Every n-gram of the corpus as a line of text: one scan over the context order for each order.

An n-gram is (h, w): a context h of n − 1 symbols, a node, and a token w that follows it. The nodes of one order are
neighbours in context order, and nest in those of the order below, so what the lower order says of (h, w) is kept by
rank and replaced as the orders go up. The context h·w, whose backoff weight stands behind the n-gram, needs no search:
of the occurrences of w that are followed, the j-th in context order leads to the j-th rank of w's own contexts.
"""

from __future__ import annotations

import math

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import position_of, symbol_of

TAB, SPACE, MINUS, POINT, ZERO, NEWLINE = 9, 32, 45, 46, 48, 10
NOTHING = -99.0
"""The log10 that stands for a probability of 0 in ARPA files."""
DECIMALS = 7
UNIT = 10_000_000


@kernel(allocates=True)
def count_ngrams(next_tokens, common, known, num_symbols, max_order, out):
    """out[n] = how many distinct (h, w) there are, h a context of n symbols, n = 0 .. max_order.

    A token is new after h if it was last seen before h's node began. known: as in `counting.count_counts`.
    """
    begins = np.zeros(max_order + 1, np.int64)
    last = np.full(num_symbols, -1, np.int64)
    for r in range(next_tokens.size):
        for order in range(np.int64(common[r]) + 1, max_order + 1):
            begins[order] = r
        c = symbol_of(next_tokens, r, last)
        order = min(max_order, np.int64(known[r]))
        while order >= 0 and last[c] < begins[order]:
            out[order] += 1
            order -= 1
        last[c] = r


@kernel()
def _node_end(common, lo, order):
    """Where the node of that order which begins at rank lo ends."""
    hi = lo + 1
    while hi < common.size and np.int64(common[hi]) >= order:
        hi += 1
    return hi


@kernel()
def _count_row(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    lo,  # int64, the node's ranks lo .. hi − 1
    hi,  # int64
    order,  # int64, its symbols
    by_runs,  # bool, left extensions instead of occurrences
    tally,  # (S,) int64, zeros between uses
    seen,  # (S,) int64, −1 between uses
    ids,  # (S,) int64, its tokens, out
):
    """Count a node's continuations into tally, which must be zero, and list them in ids; how many there are.

    by_runs: in how many runs that share one more symbol each stands, not how often (see `counting`). Contexts that
    begin with their document share no more, so there each occurrence is a run: the raw count, as it should be.
    """
    size, run = 0, lo
    for r in range(lo, hi):
        if by_runs and r > lo and np.int64(common[r]) == order:
            run = r
        c = symbol_of(next_tokens, r, tally)
        if tally[c] == 0:
            ids[size] = c
            size += 1
        if not by_runs:
            tally[c] += 1
        elif seen[c] != run:
            seen[c] = run
            tally[c] += 1
    return size


@kernel()
def _cut(discounts, order, count):
    """The discount of a count."""
    return discounts[min(order, discounts.shape[0] - 1), min(count, 3) - 1]


@kernel()
def _totals(tally, ids, size, discounts, order):
    """The sum of a row's counts, and the share of it that the discounts take."""
    total, cuts = np.int64(0), 0.0
    for i in range(size):
        count = tally[ids[i]]
        total += count
        cuts += _cut(discounts, order, count)
    return total, cuts / total


@kernel()
def _log10(value):
    return math.log10(value) if value > 0.0 else NOTHING


@kernel(allocates=True)
def backoff_weights(next_tokens, common, known, num_symbols, discounts, order, max_order, out):
    """out[lo] = log10 of the backoff weight of each context of `order` symbols, a node from rank lo."""
    tally, seen = np.zeros(num_symbols, np.int64), np.full(num_symbols, -1, np.int64)
    ids = np.empty(num_symbols, np.int64)
    lo = 0
    while lo < next_tokens.size:
        hi = _node_end(common, lo, order)
        if np.int64(known[lo]) >= order:
            size = _count_row(next_tokens, common, lo, hi, order, order < max_order, tally, seen, ids)
            _, backoff = _totals(tally, ids, size, discounts, order)
            out[lo] = _log10(backoff)
            for i in range(size):
                tally[ids[i]] = 0
        lo = hi


@kernel()
def _write_number(out, at, value):
    """Write a number with its decimals to out[at:], a plain 0 where they are all 0; where it ends."""
    scaled = np.int64(np.round(abs(value) * UNIT))
    if scaled == 0:
        out[at] = ZERO
        return at + 1
    if value < 0.0:
        out[at] = MINUS
        at += 1
    whole, part = scaled // UNIT, scaled % UNIT
    width, rest = 1, whole
    while rest >= 10:
        rest //= 10
        width += 1
    for i in range(width):
        out[at + width - 1 - i] = ZERO + whole % 10
        whole //= 10
    at += width
    out[at] = POINT
    for i in range(DECIMALS):
        out[at + DECIMALS - i] = ZERO + part % 10
        part //= 10
    return at + DECIMALS + 1


@kernel()
def _write_bytes(out, at, source, begin, end):
    for i in range(begin, end):
        out[at] = source[i]
        at += 1
    return at


@kernel(allocates=True)
def write_ngrams(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    known,  # (N,) uint8, of `mark_short_contexts`
    positions,  # (N,) uint32, the position of each rank
    tokens,  # (N,) uint16 or uint32, the corpus
    num_symbols,  # int64, S
    discounts,  # (orders, 3) float64
    order,  # int64, symbols of the contexts
    max_order,  # int64, of the model
    words,  # (·,) uint8, what each symbol is called, and last the start of a document
    word_offsets,  # (S + 2,) int64, where each word begins
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    ending_of,  # (S,) int64, the next of `endings` of each symbol; moves on
    followed_of,  # (S,) int64, the rank that its next followed occurrence leads to; moves on
    backoffs,  # (N,) float32, log10 of the next order's weights, by the first rank of their nodes
    probabilities,  # (N,) float32, of each rank's token by the order below; replaced by this order's
    begin,  # int64, the rank of the first node
    line_bytes,  # int64, of the longest line
    out,  # (·,) uint8
):
    """Lines of the n-grams whose contexts have `order` symbols, from the node at rank `begin` on, as room allows.

    Returns
    -------
    stop, used : int
        The rank of the first node that is not written, and the bytes that are; stop = begin where out is too small.
    """
    tally, seen = np.zeros(num_symbols, np.int64), np.full(num_symbols, -1, np.int64)
    ids, leads_to = np.empty(num_symbols, np.int64), np.full(num_symbols, -1, np.int64)
    values = np.empty(num_symbols, np.float64)
    prefix = np.empty(line_bytes, np.uint8)
    extends = order < max_order
    lo, used = begin, 0
    while lo < next_tokens.size:
        hi = _node_end(common, lo, order)
        symbols = np.int64(known[lo])
        if used + min(hi - lo, num_symbols) * line_bytes > out.size:
            break
        if extends:
            for r in range(lo, hi):
                c = symbol_of(next_tokens, r, tally)
                e = ending_of[c]
                if e < endings.size and endings[e] == (np.uint64(c) << np.uint64(32)) | np.uint64(r):
                    ending_of[c] = e + 1
                else:
                    if leads_to[c] < 0:
                        leads_to[c] = followed_of[c]
                    followed_of[c] += 1
        if symbols >= order:
            size = _count_row(next_tokens, common, lo, hi, order, extends, tally, seen, ids)
            total, backoff = _totals(tally, ids, size, discounts, order)
            width, position = 0, position_of(positions, lo)
            for back in range(order, 0, -1):
                word = (
                    symbol_of(tokens, max(0, position - back), tally)
                    if back < order or symbols > order
                    else num_symbols
                )
                width = _write_bytes(prefix, width, words, word_offsets[word], word_offsets[word + 1])
                prefix[width] = SPACE
                width += 1
            for r in range(lo, hi):
                values[symbol_of(next_tokens, r, tally)] = probabilities[r]
            for i in range(size):
                c = ids[i]
                count = tally[c]
                values[c] = (count - _cut(discounts, order, count)) / total + backoff * values[c]
                used = _write_number(out, used, min(0.0, _log10(values[c])))
                out[used] = TAB
                used = _write_bytes(out, used + 1, prefix, 0, width)
                used = _write_bytes(out, used, words, word_offsets[c], word_offsets[c + 1])
                if extends:
                    out[used] = TAB
                    used = _write_number(
                        out, used + 1, backoffs[min(leads_to[c], backoffs.size - 1)] if leads_to[c] >= 0 else 0.0
                    )
                out[used] = NEWLINE
                used += 1
                tally[c] = 0
            for r in range(lo, hi):
                probabilities[r] = values[symbol_of(next_tokens, r, tally)]
        for r in range(lo, hi):
            leads_to[symbol_of(next_tokens, r, tally)] = -1
        lo = hi
    return lo, used
