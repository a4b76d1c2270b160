"""Where the next tokens of many positions stand in the stored rows of their contexts, looked up together.

Naively, for each position: the narrowest stored row that holds its match, that row's parent, and so on; in each,
`place_in_row(label)`. Every step of that waits for memory. Here a block of positions goes through it stage by stage,
each stage asking for what the next will read; and a row is searched from a directory by the token's high bits.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import WORD, equal_bits, lowest_bit, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import place_in_row
from corpus_index._kernels.target_arrays import (
    BLOCK_BITS,
    BUCKET_SHIFT,
    BUCKETS,
    COLUMNS,
    ENTRIES,
    HI,
    LO,
    NO_PARENT,
    PARENT,
    START,
)

_ENTRIES = 4  # of a row for each of its buckets


@kernel()
def place_buckets(offsets, num_symbols, table):
    """Choose each row's bucket width, a power of two, and where its buckets begin; returns how many there are."""
    used = np.int64(0)
    for row in range(offsets.size - 1):
        entries = offsets[row + 1] - offsets[row]
        shift = np.int64(0)
        while (num_symbols >> shift) * _ENTRIES > entries:
            shift += 1
        table[row, START], table[row, ENTRIES] = offsets[row], entries
        table[row, BUCKETS], table[row, BUCKET_SHIFT] = used, shift
        used += ((num_symbols - 1) >> shift) + 2
    return used


@kernel()
def fill_buckets(tokens, table, offsets, buckets):
    """buckets[b] … buckets[b + 1] − 1: the entries of a row whose token, shifted, is b less the row's first bucket."""
    for row in range(offsets.size - 1):
        shift, bucket = np.int64(table[row, BUCKET_SHIFT]), np.int64(table[row, BUCKETS])
        last = np.int64(table[row + 1, BUCKETS]) if row + 2 < offsets.size else np.int64(buckets.size)
        first = bucket
        for k in range(offsets[row], offsets[row + 1]):
            while bucket <= first + (np.int64(tokens[k]) >> shift):
                buckets[bucket] = k
                bucket += 1
        while bucket < last:
            buckets[bucket] = offsets[row + 1]
            bucket += 1


@kernel()
def narrowest_row(table, narrowest, lo, hi):
    """The narrowest stored row that holds ranks lo … hi − 1, that of all ranks aside; NO_PARENT if there is none."""
    best, width = np.int64(NO_PARENT), np.int64(2**62)
    for block in range(lo >> BLOCK_BITS, (lo >> BLOCK_BITS) + 2):
        row = np.int64(narrowest[block])
        while row != NO_PARENT and not (np.int64(table[row, LO]) <= lo and hi <= np.int64(table[row, HI])):
            row = np.int64(table[row, PARENT])
        if row != NO_PARENT and np.int64(table[row, HI]) - np.int64(table[row, LO]) < width:
            best, width = row, np.int64(table[row, HI]) - np.int64(table[row, LO])
    return best


@kernel(inline="always")
def bucket_of(table, row, token):
    """The bucket of a row that holds a token, if the row does."""
    return np.int64(table[row, BUCKETS]) + (token >> np.int64(table[row, BUCKET_SHIFT]))


@kernel()
def place_of(heavy, row, token):
    """`place_in_row` of a stored row, from its buckets."""
    bucket = bucket_of(heavy.table, row, token)
    return place_in_row(heavy.tokens, np.int64(heavy.buckets[bucket]), np.int64(heavy.buckets[bucket + 1]), token)


@kernel(inline="always")
def place_of_held(heavy, row, token):
    """`place_of` a token that the row holds: 64 entries are compared at once, without a branch to guess."""
    bucket = bucket_of(heavy.table, row, token)
    first = np.int64(heavy.buckets[bucket])
    if first + WORD <= heavy.tokens.size:
        found = equal_bits(heavy.tokens, first, token)
        if found != 0:
            return first + lowest_bit(found)
    return place_in_row(heavy.tokens, first, np.int64(heavy.buckets[bucket + 1]), token)


@kernel()
def look_up(
    heavy,  # HeavyNodes
    lo,  # (Q,) int64, first rank of each position's match
    hi,  # (Q,) int64, and the one after its last
    labels,  # (Q,) int64, symbols; −1 or S: not to be found
    num_symbols,  # int64, S
    begin,  # int64, positions begin .. end − 1, at most BLOCK
    end,  # int64
    levels,  # int64, rows of a chain to look in, at most LEVELS
    by_left,  # bool, whether left extensions will be read
    rows,  # (BLOCK, LEVELS + 1) int64, out
    places,  # (BLOCK, LEVELS + 1) int64, out
    scratch,  # (3, BLOCK) int64
):
    """Fill rows and places (BLOCK, LEVELS + 1) for the positions begin … end − 1.

    rows[i, 0]: the narrowest stored row that holds position begin + i's match; rows[i, j + 1]: the parent of
    rows[i, j]; NO_PARENT ends them. places: of the label in it, −1 where it isn't. scratch (3, BLOCK).
    """
    narrowest, buckets, tokens, counts, lefts = (
        heavy.narrowest,
        heavy.buckets,
        heavy.tokens,
        heavy.counts,
        heavy.lefts,
    )
    table = heavy.table
    flat = table.reshape(-1)
    active, first, stop = scratch[0], scratch[1], scratch[2]
    for i in range(end - begin):
        prefetch(narrowest, lo[begin + i] >> BLOCK_BITS)
    for i in range(end - begin):
        for block in range(lo[begin + i] >> BLOCK_BITS, (lo[begin + i] >> BLOCK_BITS) + 2):
            row = np.int64(narrowest[block])
            if row != NO_PARENT:
                prefetch(flat, row * COLUMNS)
    n = 0
    for i in range(end - begin):
        row = narrowest_row(table, narrowest, lo[begin + i], hi[begin + i])
        rows[i, 0] = row
        if row != NO_PARENT:
            if 0 <= labels[begin + i] < num_symbols:
                prefetch(buckets, bucket_of(table, row, labels[begin + i]))
            active[n] = i
            n += 1
    for level in range(levels):
        for j in range(n):
            i = active[j]
            row, label = rows[i, level], labels[begin + i]
            first[j] = stop[j] = 0
            if 0 <= label < num_symbols:
                bucket = bucket_of(table, row, label)
                first[j], stop[j] = np.int64(buckets[bucket]), np.int64(buckets[bucket + 1])
                prefetch(tokens, (first[j] + stop[j]) >> 1)
            parent = np.int64(table[row, PARENT])
            rows[i, level + 1] = parent
            if parent != NO_PARENT:
                prefetch(flat, parent * COLUMNS)
        kept = 0
        for j in range(n):
            i = active[j]
            label, a, length = labels[begin + i], first[j], stop[j] - first[j]
            while length > 1:
                half = length >> 1
                a += half if np.int64(tokens[a + half]) <= label else 0
                length -= half
            prefetch(counts, a)
            if by_left:
                prefetch(lefts, a)
            found = (length == 1) & (np.int64(tokens[min(a, tokens.size - 1)]) == label)  # no branch
            places[i, level] = a if found else np.int64(-1)
            parent = rows[i, level + 1]
            if parent != NO_PARENT:
                if 0 <= label < num_symbols:
                    prefetch(buckets, bucket_of(table, parent, label))
                active[kept] = i
                kept += 1
        n = kept
