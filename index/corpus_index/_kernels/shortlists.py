"""Shortlists: of each heavy context the tokens that its whole backoff chain makes likeliest, chosen once.

With their counts at every level of the chain, side by side, so that a position that refers to the context weighs a few
numbers instead of long rows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import place_in_row
from corpus_index._kernels.rules import LEAST_MASS, cut_of, node_weights
from corpus_index._kernels.selection import kth_largest
from corpus_index._kernels.target_arrays import (
    HI,
    LEFT_1,
    LEFT_2,
    LEFT_TOTAL,
    LEVEL,
    LO,
    NO_PARENT,
    OWN_DEPTH,
    PARENT,
    PARENT_DEPTH,
    RAW_1,
    RAW_2,
)

HEADER = 3  # entries of a block before its tokens
MOST_CHAIN = 64  # lists inherit from at most so many ancestors: a run of one token makes chains of thousands


class Shortlists(NamedTuple):
    """Shortlists made so far, of at most `size` tokens each.

    blocks: all a position reads of a list lies together: tokens, levels, and the list's number; then the tokens,
    ascending, and for each level their counts and, where they matter, their left extensions (`size` entries each).
    places (R,): where each row's block begins, −1 where there is none yet. scores (S, size): the tokens' probabilities
    as far as they are explicit, by which they were chosen. used (2): lists, and entries of blocks.
    """

    places: np.ndarray
    blocks: np.ndarray
    scores: np.ndarray
    used: np.ndarray

    @classmethod
    def empty(cls, num_rows: int, lists: int, size: int, entries: int) -> Shortlists:
        """Room for so many lists of `size` tokens, with so many entries of blocks together."""
        return cls(
            places=np.full(num_rows, -1, np.int64),
            blocks=np.empty(entries, np.uint32),
            scores=np.empty((lists, size), np.float32),
            used=np.zeros(2, np.int64),
        )


@kernel()
def _make_shortlist(row, estimator, heavy, lists, size, most_levels, work):
    """Make the shortlist of a row whose parent's is there."""
    table = heavy.table
    parent = np.int64(table[row, PARENT])
    up = np.int64(table[row, PARENT_DEPTH])
    depth = np.int64(table[row, OWN_DEPTH])
    if estimator.max_order >= 0:
        depth = min(depth, estimator.max_order)
    depth = max(depth, up + 1)
    a, e = heavy.offsets[row], heavy.offsets[row + 1]
    total = np.int64(table[row, HI]) - np.int64(table[row, LO])
    n1, n2 = np.int64(table[row, RAW_1]), np.int64(table[row, RAW_2])
    m1, m2 = np.int64(table[row, LEFT_1]), np.int64(table[row, LEFT_2])
    if np.int64(table[row, OWN_DEPTH]) != depth:
        m1 = e - a
    passed, use_left, s, k1, k2, k3 = node_weights(
        estimator,
        depth,
        up,
        True,
        False,
        total,
        n1,
        n2,
        e - a - n1 - n2,
        np.int64(table[row, LEFT_TOTAL]),
        m1,
        m2,
        e - a - m1 - m2,
        1.0,
    )
    blocks = lists.blocks
    above = theirs_in = np.int64(-1)
    inherited = 0
    if parent != NO_PARENT and passed >= LEAST_MASS and np.int64(table[row, LEVEL]) % MOST_CHAIN != 0:
        above = lists.places[parent]
        inherited, theirs_in = np.int64(blocks[above]), np.int64(blocks[above + 2])
    # the row's own tokens, and the parent's list, both ascending
    n, i, k = 0, 0, a
    while k < e or i < inherited:
        token = np.int64(heavy.tokens[k]) if k < e else np.int64(2**62)
        theirs = np.int64(blocks[above + HEADER + i]) if i < inherited else np.int64(2**62)
        work.own[n] = work.inherited[n] = -1
        value = 0.0
        if token <= theirs:
            x = np.int64(heavy.lefts[k]) if use_left else np.int64(heavy.counts[k])
            value += s * x - cut_of(x, k1, k2, k3)
            work.own[n] = k
            k += 1
        if theirs <= token:
            value += passed * lists.scores[theirs_in, i]
            work.inherited[n] = i
            i += 1
        work.tokens[n] = min(token, theirs)
        work.values[n] = value
        n += 1
    threshold, spare = -np.inf, n
    if n > size:
        for j in range(n):
            work.sorting[j] = work.values[j]
        threshold = kth_largest(work.sorting, n, size)
        spare = size
        for j in range(n):
            spare -= work.values[j] > threshold
    number, place = lists.used[0], lists.used[1]
    levels = 1
    if above >= 0:
        levels = min(most_levels, 1 + np.int64(blocks[above + 1]))
    kinds = 2 if estimator.left else 1
    kept = 0
    for j in range(n):
        keep = work.values[j] > threshold
        if not keep and work.values[j] == threshold and spare > 0:
            keep = True
            spare -= 1
        if not keep:
            continue
        token = work.tokens[j]
        blocks[place + HEADER + kept] = token
        lists.scores[number, kept] = work.values[j]
        k, i, ancestor = work.own[j], work.inherited[j], row
        for level in range(levels):
            at = place + HEADER + size * (1 + kinds * level) + kept
            if level > 0 and i >= 0:
                theirs_at = above + HEADER + size * (1 + kinds * (level - 1)) + i
                for kind in range(kinds):
                    blocks[at + kind * size] = blocks[theirs_at + kind * size]
                continue
            if level > 0:
                ancestor = np.int64(table[ancestor, PARENT])
                k = place_in_row(heavy.tokens, heavy.offsets[ancestor], heavy.offsets[ancestor + 1], token)
            blocks[at] = heavy.counts[k] if k >= 0 else 0
            if estimator.left:
                blocks[at + size] = heavy.lefts[k] if k >= 0 else 0
        kept += 1
    blocks[place], blocks[place + 1], blocks[place + 2] = kept, levels, number
    lists.places[row] = place
    lists.used[0] += 1
    lists.used[1] += HEADER + size * (1 + kinds * levels)


@kernel()
def make_shortlists(row, estimator, heavy, lists, size, most_levels, work, ancestors):
    """Make a row's shortlist and those of its ancestors, where they aren't there; where the row's block begins."""
    kinds = 2 if estimator.left else 1
    chain = min(heavy.deepest_chain, MOST_CHAIN)
    most = chain * (HEADER + size * (1 + kinds * most_levels))
    if lists.used[0] + chain > lists.scores.shape[0] or lists.used[1] + most > lists.blocks.size:
        lists.places[:] = -1  # no room: begin anew
        lists.used[:] = 0
    n, at = 0, row
    while at != NO_PARENT and lists.places[at] < 0:
        ancestors[n] = at
        n += 1
        at = np.int64(heavy.table[at, PARENT]) if np.int64(heavy.table[at, LEVEL]) % MOST_CHAIN != 0 else NO_PARENT
    for i in range(n - 1, -1, -1):
        _make_shortlist(ancestors[i], estimator, heavy, lists, size, most_levels, work)
    return lists.places[row]
