"""Counts of a node of few ranks from bit masks: one bit a rank, no scratch memory.

A token's ranks are a mask, its count the bits that are set. Its left extensions are the runs (parted where ranks share
just the node's depth) with a bit set: adding ones to all bits of a run but the last carries into the last one if any of
them is set, and not beyond.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from corpus_index._kernels.arrays import OwnRanks
from corpus_index._kernels.intrinsics import WORD, count_bits, equal_bits, instead_of, lowest_bit, range_bits
from corpus_index._kernels.jit import by_layout, kernel
from corpus_index._kernels.nodes import CAP, is_a
from corpus_index._kernels.rows import first_at_least


@kernel()
def _listed_bits(own, start):
    """Bit k: whether rank start + k is one of a document's, for k < WORD."""
    bits, k = np.uint64(0), first_at_least(own.ranks, own.a, own.e, start)
    while k < own.e and np.int64(own.ranks[k]) < start + WORD:
        bits |= np.uint64(1) << np.uint64(np.int64(own.ranks[k]) - start)
        k += 1
    return bits


@by_layout
def own_bits(own: Any, start: int, begin: int, length: int) -> np.uint64:
    """Bit k: whether rank start + k is a document's own, by `own_of`; its positions are `length` from `begin` on."""
    return _listed_bits(own, start) if isinstance(own, OwnRanks) else range_bits(own, start, begin, length)


@instead_of(own_bits)
def _overload_own_bits(own, start, begin, length):
    if is_a(own, OwnRanks):
        return lambda own, start, begin, length: _listed_bits(own, start)
    return lambda own, start, begin, length: range_bits(own, start, begin, length)


@kernel(inline="always")
def is_narrow(num_ranks, a, e, depth):
    """Whether `count_narrow` can count a node."""
    return e - a <= 2 * WORD and a + 2 * WORD <= num_ranks and depth < CAP


@kernel(forceinline=True)
def count_narrow(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    own,  # of `own_of`
    a,  # int64, the node's ranks a .. e − 1, at most 128
    e,  # int64
    depth,  # int64, its symbols, below 255
    begin,  # int64, all but positions begin .. end − 1; equal: all
    end,  # int64
    by_left,  # bool, whether left extensions are wanted
    label,  # int64, −1: none
    keep,  # bool, whether tokens, tally and lefts are to be filled
    tally,  # (S,) uint32, out
    lefts,  # (S,) uint32, out
    tokens,  # (S + 1,) int64, out
):
    """What `classes` says of the counts and of the left extensions of ranks a … e − 1, both of the label, and n.

    The ranks of positions begin .. end − 1, a document's own, don't count.

    keep: whether n distinct tokens, their tallies and lefts are written, as `read` and `read_runs` do; if not, n is 0.
    Ranks are the bits of two words; the second one is empty for most nodes.
    """
    one, ones = np.uint64(1), ~np.uint64(0)
    two, b = e - a > WORD, a + WORD
    bits = ones if two else ones >> np.uint64(b - e)
    more = ones >> np.uint64(b + WORD - e) if two else np.uint64(0)
    last = np.uint64(0) if two else one << np.uint64(e - a - 1)  # of each run; beyond e it doesn't matter
    last_of_more = one << np.uint64(e - b - 1) if two else np.uint64(0)
    if by_left:
        last |= equal_bits(common, a, depth) >> one
        if two:
            starts = equal_bits(common, b, depth)
            last |= starts << np.uint64(WORD - 1)
            last_of_more |= starts >> one
    if begin < end:
        bits &= ~own_bits(own, a, begin, end - begin)
        if two:
            more &= ~own_bits(own, b, begin, end - begin)
    total = count_bits(bits) + count_bits(more)
    n1 = n2 = n3 = m1 = m2 = m3 = left_total = own = own_left = n = np.int64(0)
    while bits | more != 0:
        found = np.int64(next_tokens[a + lowest_bit(bits) if bits != 0 else b + lowest_bit(more)])
        c = min(found, np.int64(tally.size) - 1)  # in bounds, whatever the file says
        ranks = equal_bits(next_tokens, a, found) & bits
        bits ^= ranks
        x = count_bits(ranks)
        if two:
            ranks_of_more = equal_bits(next_tokens, b, found) & more
            more ^= ranks_of_more
            x += count_bits(ranks_of_more)
        n1 += x == 1
        n2 += x == 2
        n3 += x > 2
        own = x if c == label else own
        if keep:
            tokens[n] = c
            tally[c] = x
            n += 1
        if by_left:
            carried = (ranks & ~last) + ~last
            x = count_bits((carried | ranks) & last)
            if two:
                carry = np.uint64(carried < ~last)
                carried = (ranks_of_more & ~last_of_more) + ~last_of_more + carry
                x += count_bits((carried | ranks_of_more) & last_of_more)
            left_total += x
            m1 += x == 1
            m2 += x == 2
            m3 += x > 2
            own_left = x if c == label else own_left
            if keep:
                lefts[c] = x
    return total, n1, n2, n3, left_total, m1, m2, m3, own, own_left, n
