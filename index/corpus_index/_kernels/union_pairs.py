"""The (symbol before, token) pairs of nodes of one index, and those of several merged; see `sharded.shard_answers`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.intrinsics import prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.nodes import document_start, position_of, symbol_of
from corpus_index._kernels.rows import first_at_least, first_at_least_near

NOT_READ = -1
_LANES = 16  # pairs that are sought at a time, so that their cold reads overlap


class KeptPairs(NamedTuple):
    """The pairs of the rows that a store keeps, those of each token together.

    Attributes
    ----------
    row_offsets : ndarray of shape (H + 1,), int64
        Row h's tokens are row_offsets[h] : row_offsets[h + 1] of the next two.
    tokens : ndarray of shape (M,)
        Ids, ascending in each row.
    before : ndarray of shape (M,), uint32
        How many pairs of the row are of smaller tokens.
    offsets : ndarray of shape (H + 1,), int64
        Row h's pairs are offsets[h] : offsets[h + 1] of the next two.
    codes : ndarray of shape (N,), int64
        Ascending in each row.
    counts : ndarray of shape (N,), uint32
        How often each occurs.
    """

    row_offsets: np.ndarray
    tokens: np.ndarray
    before: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    counts: np.ndarray


@kernel()
def fill_pairs(
    text,  # TextArrays
    next_tokens,  # (N,) uint16 or uint32
    ids,  # (num_symbols,) int64, the id of each symbol
    lo,  # (n,) int64
    hi,  # (n,) int64
    ends,  # (n,) bool: the node ends at the depth, else one symbol stands before all its occurrences
    depths,  # (n,) int64
    width,  # int64, more than any id + 1
    ahead,  # int64, ranks whose places are asked for ahead
    codes,  # (sum of hi − lo,) int64, to be filled: id · width + id before + 1, or + 0 at the start of a document
):
    """The pair of each occurrence of each node."""
    used = np.int64(0)
    for node in range(lo.size):  # the ranks first, so that what comes can be asked for ahead, of whatever node it is
        for rank in range(lo[node], hi[node]):
            codes[used] = rank if ends[node] or rank == lo[node] else NOT_READ
            used += 1
    used = np.int64(0)
    for node in range(lo.size):
        before = np.int64(0)
        for rank in range(lo[node], hi[node]):
            if used + 2 * ahead < codes.size and codes[used + 2 * ahead] >= 0:
                prefetch(text.order, codes[used + 2 * ahead])
                prefetch(next_tokens, codes[used + 2 * ahead])
            if used + ahead < codes.size and codes[used + ahead] >= 0:
                position = position_of(text.order, codes[used + ahead])
                prefetch(text.tokens, position - 1)
                prefetch(text.doc_directory, position >> text.document_shift)
            if ends[node] or rank == lo[node]:
                position = position_of(text.order, rank)
                place = position - depths[node] - 1
                before = np.int64(0)
                if place >= document_start(text, position):
                    before = ids[symbol_of(text.tokens, place, ids)] + 1
            codes[used] = ids[symbol_of(next_tokens, rank, ids)] * width + before
            used += 1


@kernel()
def merge_entries(
    bounds,  # (S + 1,) int64: list k is bounds[k] : bounds[k + 1] of the next three
    rows,  # (n,) int64
    codes,  # (n,) int64; (row, code) ascend in each list, and are distinct there
    counts,  # (n,) int64
    at,  # (S,) int64, scratch
    merged_rows,  # (n,) int64, to be filled, as the next two
    merged_codes,  # (n,) int64
    merged_counts,  # (n,) int64
):
    """The entries of several lists in order, equal ones added up; returns how many there are."""
    used = np.int64(0)
    for k in range(at.size):
        at[k] = bounds[k]
    while True:
        least = np.int64(-1)
        row, code = np.int64(0), np.int64(0)
        for k in range(at.size):
            i = at[k]
            if i < bounds[k + 1] and (least < 0 or rows[i] < row or (rows[i] == row and codes[i] < code)):
                least, row, code = k, rows[i], codes[i]
        if least < 0:
            return used
        i = at[least]
        if used > 0 and merged_rows[used - 1] == row and merged_codes[used - 1] == code:
            merged_counts[used - 1] += counts[i]
        else:
            merged_rows[used], merged_codes[used], merged_counts[used] = row, code, counts[i]
            used += 1
        at[least] = i + 1


@kernel()
def sum_pairs(
    rows,  # (n,) int64; (row, code) ascend
    codes,  # (n,) int64, of pairs
    counts,  # (n,) int64
    width,  # int64
    token_rows,  # (n,) int64, to be filled, as the next three
    tokens,  # (n,) int64
    token_counts,  # (n,) int64
    lefts,  # (n,) int64
):
    """The tokens of each row with their counts and distinct symbols before; returns how many there are."""
    used = np.int64(0)
    for i in range(rows.size):
        token = codes[i] // width
        if used == 0 or token_rows[used - 1] != rows[i] or tokens[used - 1] != token:
            token_rows[used], tokens[used], token_counts[used], lefts[used] = rows[i], token, 0, 0
            used += 1
        token_counts[used - 1] += counts[i]
        lefts[used - 1] += 1
    return used


@kernel()
def find_tokens(
    kept,  # KeptPairs
    numbers,  # (n,) int64, of kept rows
    tokens,  # (n,) int64, which their rows have; quick where those of one row stand together and ascend
    begins,  # (n,) int64, to be filled: where in its row's pairs those of the token begin
    ends,  # (n,) int64, to be filled
):
    """Where the pairs of tokens stand in kept rows."""
    entry = np.int64(0)
    for i in range(numbers.size):
        number = numbers[i]
        stop = kept.row_offsets[number + 1]
        if i > 0 and numbers[i - 1] == number and tokens[i - 1] <= tokens[i]:
            entry = first_at_least_near(kept.tokens, entry, stop, tokens[i])
        else:
            entry = first_at_least(kept.tokens, kept.row_offsets[number], stop, tokens[i])
        start = kept.offsets[number]
        begins[i] = start + kept.before[entry]
        ends[i] = start + kept.before[entry + 1] if entry + 1 < stop else kept.offsets[number + 1]


@kernel()
def count_pairs(
    known,  # (N,) int64, codes
    counts,  # (N,) of whole numbers, how often each occurs
    begins,  # (n,) int64: a pair is one of known[begins[i] : ends[i]], which ascend; out: its place
    ends,  # (n,) int64
    wanted,  # (n,) int64, the pairs
    totals,  # (n,) int64, to be filled
):
    """How often each pair occurs in its row."""
    for first in range(0, wanted.size, _LANES):
        stop = min(wanted.size, first + _LANES)
        for i in range(first, stop):
            prefetch(known, (begins[i] + ends[i]) >> 1)
        for i in range(first, stop):
            begins[i] = first_at_least(known, begins[i], ends[i], wanted[i])
            prefetch(counts, begins[i])
        for i in range(first, stop):
            totals[i] = counts[begins[i]]
