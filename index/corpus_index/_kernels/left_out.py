"""Heavy contexts without a document: what the document takes from their rows, found once for all its positions."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import COUNTED, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.label_places import place_of
from corpus_index._kernels.nodes import node_around
from corpus_index._kernels.rows import find_row, first_at_least
from corpus_index._kernels.tallies import sort_tokens
from corpus_index._kernels.target_arrays import HI, LEFT_1, LEFT_2, LEFT_TOTAL, LO, OWN_DEPTH, RAW_1, RAW_2
from corpus_index._kernels.walk import step_range

_AHEAD = 8


@kernel(**COUNTED)
def _occurrences(steps, next_tokens, endings, c, a, e):
    """How often token c continues the ranks a .. e − 1."""
    if e - a <= 64:
        found = np.int64(0)
        for r in range(a, e):
            found += np.int64(next_tokens[r]) == c
        return found
    found = np.int64(0)
    if steps.symbols[4 * c + 4] != steps.symbols[4 * c]:
        lo, hi = step_range(steps, c, a, e)
        found = hi - lo
    key = np.uint64(c) << np.uint64(32)
    n = np.int64(endings.size)
    last = first_at_least(endings, np.int64(0), n, key | np.uint64(e))
    found += last - first_at_least(endings, np.int64(0), n, key | np.uint64(a))
    return found


@kernel(**COUNTED)
def tally_gone(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    depth,  # int64, symbols of the node
    count_runs,  # bool, whether left extensions are wanted
    ranks,  # (·,) int64, of documents, ascending in each
    following,  # (·,) int64, the token after each
    a,  # int64, the document's ranks in the node are ranks[a:e]
    e,  # int64
    scratch,  # Scratch
):
    """Tally what a document's ranks[a:e], those in a node, take from it; returns the number of tokens, ascending.

    following: the token after each rank. Of each token, scratch.gone_counts and gone_lefts hold how much; the caller
    sets them back to 0. A token loses a left extension where all its occurrences in a run are the document's.
    """
    tokens, counts, lefts, in_run = scratch.gone_tokens, scratch.gone_counts, scratch.gone_lefts, scratch.in_run
    n = 0
    for i in range(a, e):
        c = np.int64(following[i])
        tokens[n] = c
        n += counts[c] == 0
        counts[c] += 1
    i = a
    while count_runs and i < e:
        lo, hi = node_around(index.text, index.nodes, ranks[i], ranks[i] + 1, depth + 1)
        first = i
        while i < e and ranks[i] < hi:
            in_run[following[i]] += 1
            i += 1
            if i + _AHEAD < e:
                prefetch(index.nodes.common, ranks[i + _AHEAD])
        row = find_row(heavy.bounds, heavy.directory, heavy.shift, lo, hi) if hi - lo > heavy.light else np.int64(-1)
        for j in range(first, i):
            c = np.int64(following[j])
            if in_run[c] > 0:
                if row >= 0:
                    held = np.int64(heavy.counts[place_of(heavy, row, c)])
                else:
                    held = _occurrences(index.steps, next_tokens, endings, c, lo, hi)
                lefts[c] += in_run[c] == held
                in_run[c] = 0
    sort_tokens(tokens, n, scratch.words, scratch.summary)
    return n


@kernel(**COUNTED)
def lost_by_documents(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    by_left,  # bool, whether the base counts left extensions
    offsets,  # (D + 1,) int64, each document's ranks
    ranks,  # (·,) int64, ascending in each
    following,  # (·,) int64, the token after each
    scratch,  # Scratch
    token_offsets,  # (D + 1,) int64, out: each document's tokens
    tokens,  # (·,) int64, out, ascending in each
    lost,  # (·,) int64, out: what the base's counts lose with it
):
    """What the empty context's counts, or left extensions, lose with each document, by token; see `Documents`."""
    used = 0
    for d in range(offsets.size - 1):
        n = tally_gone(
            index, next_tokens, endings, heavy, 0, by_left, ranks, following, offsets[d], offsets[d + 1], scratch
        )
        for i in range(n):
            c = scratch.gone_tokens[i]
            tokens[used + i] = c
            lost[used + i] = scratch.gone_lefts[c] if by_left else scratch.gone_counts[c]
            scratch.gone_counts[c] = scratch.gone_lefts[c] = 0
        used += n
        token_offsets[d + 1] = used


@kernel(**COUNTED, inline="always")
def _place_of_key(keys, key):
    """Where a key (not 0) stands in a hash table of 2^k keys, or the place that it would have."""
    at = (key * 0x9E3779B1) & (keys.size - 1)
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & (keys.size - 1)
    return at


@kernel(**COUNTED)
def rehash(keys, numbers, new_keys, new_numbers):
    """Copy a hash table into a larger one."""
    for i in range(keys.size):
        if keys[i] != 0:
            at = _place_of_key(new_keys, keys[i])
            new_keys[at], new_numbers[at] = keys[i], numbers[i]


@kernel(**COUNTED)
def gone_row(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    by_left,  # bool, whether the estimator counts left extensions
    documents,  # Documents
    document,  # int64, which one is left out
    row,  # int64, a stored row
    scratch,  # Scratch
    gone,  # GoneRows
):
    """The number of a stored row without a document, made now if it isn't there; −1 if there is no room for it."""
    key = document * (heavy.offsets.size - 1) + row + 1
    at = _place_of_key(gone.keys, key)
    if gone.keys[at] == key:
        return gone.numbers[at]
    table, ranks = heavy.table, documents.ranks
    first, last = documents.offsets[document], documents.offsets[document + 1]
    a = first_at_least(ranks, first, last, np.int64(table[row, LO]))
    e = first_at_least(ranks, first, last, np.int64(table[row, HI]))
    number = gone.used[0]
    entry = gone.offsets[number]
    if 2 * (number + 1) > gone.keys.size or number == gone.totals.shape[0] or entry + (e - a) > gone.tokens.size:
        gone.used[1] = e - a + 1
        return np.int64(-1)
    depth = np.int64(table[row, OWN_DEPTH])
    n = tally_gone(index, next_tokens, endings, heavy, depth, by_left, ranks, documents.following, a, e, scratch)
    place, stop = heavy.offsets[row], heavy.offsets[row + 1]
    n1, n2 = np.int64(table[row, RAW_1]), np.int64(table[row, RAW_2])
    n3 = stop - place - n1 - n2
    left_total = np.int64(table[row, LEFT_TOTAL])
    m1, m2 = np.int64(table[row, LEFT_1]), np.int64(table[row, LEFT_2])
    m3 = stop - place - m1 - m2
    for i in range(n):
        c = scratch.gone_tokens[i]
        place = place_of(heavy, row, c)
        x = np.int64(heavy.counts[place])
        y = x - scratch.gone_counts[c]
        n1 += np.int64(y == 1) - np.int64(x == 1)
        n2 += np.int64(y == 2) - np.int64(x == 2)
        n3 += np.int64(y > 2) - np.int64(x > 2)
        gone.tokens[entry + i], gone.before[entry + i], gone.after[entry + i] = c, x, y
        if by_left:
            x = np.int64(heavy.lefts[place])
            y = x - scratch.gone_lefts[c]
            left_total -= scratch.gone_lefts[c]
            m1 += np.int64(y == 1) - np.int64(x == 1)
            m2 += np.int64(y == 2) - np.int64(x == 2)
            m3 += np.int64(y > 2) - np.int64(x > 2)
            gone.left_before[entry + i], gone.left_after[entry + i] = x, y
        scratch.gone_counts[c] = scratch.gone_lefts[c] = 0
    total = np.int64(table[row, HI]) - np.int64(table[row, LO]) - (e - a)
    totals = gone.totals
    totals[number, 0], totals[number, 1], totals[number, 2], totals[number, 3] = total, n1, n2, n3
    totals[number, 4], totals[number, 5], totals[number, 6], totals[number, 7] = left_total, m1, m2, m3
    gone.offsets[number + 1] = entry + n
    gone.keys[at], gone.numbers[at] = key, number
    gone.used[0] += 1
    return number
