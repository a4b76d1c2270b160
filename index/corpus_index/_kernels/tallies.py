"""Reading a node's continuations: tallies by token, and in how many runs each stands (its left extensions)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from corpus_index._kernels.arrays import CompactText, OwnRanks
from corpus_index._kernels.intrinsics import instead_of, lowest_bit
from corpus_index._kernels.jit import by_layout, kernel
from corpus_index._kernels.nodes import CAP, is_a, node_around, shared_by_ranks, symbol_of
from corpus_index._kernels.rows import first_at_least


def own_of(text: Any, order: Any, documents: Any, a: int, e: int) -> Any:
    """What tells a document's own ranks, documents.ranks[a:e]: the order of the text, or, of a compact one, these."""
    if not isinstance(text, CompactText):
        return order
    return OwnRanks(order if documents is None else documents.ranks, a, e)


@instead_of(own_of)
def _overload_own_of(text, order, documents, a, e):
    if not is_a(text, CompactText):
        return lambda text, order, documents, a, e: order
    if isinstance(documents, types.NoneType):
        return lambda text, order, documents, a, e: OwnRanks(order, a, e)
    return lambda text, order, documents, a, e: OwnRanks(documents.ranks, a, e)


@kernel()
def _is_listed(own, rank):
    """Whether a rank is one of a document's."""
    k = first_at_least(own.ranks, own.a, own.e, rank)
    return k < own.e and np.int64(own.ranks[k]) == rank


@by_layout
def is_own(own: Any, rank: int, begin: int, end: int) -> bool:
    """Whether a rank is a document's own, by `own_of`; the document's positions are begin … end − 1."""
    return _is_listed(own, rank) if isinstance(own, OwnRanks) else begin <= int(own[rank]) < end


@instead_of(is_own)
def _overload_is_own(own, rank, begin, end):
    if is_a(own, OwnRanks):
        return lambda own, rank, begin, end: _is_listed(own, rank)
    return lambda own, rank, begin, end: begin <= np.int64(own[rank]) < end


@kernel(inline="always")
def classes(tally, tokens, n):
    """The sum of the tallies of n tokens, and how many of them are 1, 2, 3 and more; zeros don't count."""
    total = n1 = n2 = n3 = np.int64(0)
    for i in range(n):
        x = np.int64(tally[tokens[i]])
        total += x
        n1 += x == 1
        n2 += x == 2
        n3 += x > 2
    return total, n1, n2, n3


@kernel()
def read(next_tokens, a, e, tally, tokens, n):
    """Tally the continuations of ranks a .. e − 1; returns the number of distinct tokens so far."""
    for r in range(a, e):
        c = symbol_of(next_tokens, r, tally)
        tokens[n] = c  # no branch: half of the tokens are new, and no one could guess which
        n += tally[c] == 0
        tally[c] += 1
    return n


@kernel()
def read_others(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    own,  # of `own_of`
    a,  # int64, ranks a .. e − 1
    e,  # int64
    begin,  # int64, all but positions begin .. end − 1
    end,  # int64
    tally,  # (S,) uint32, in and out
    tokens,  # (S + 1,) int64, in and out
    n,  # int64, tokens so far
):
    """`read`, but for the ranks whose corpus position is in begin … end − 1: a document's own."""
    for r in range(a, e):
        keep = not is_own(own, r, begin, end)
        c = symbol_of(next_tokens, r, tally)
        tokens[n] = c
        n += keep and tally[c] == 0
        tally[c] += keep
    return n


@kernel()
def read_runs(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    text,  # TextArrays
    own,  # of `own_of`
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    a,  # int64, ranks a .. e − 1
    e,  # int64
    depth,  # int64, the node's symbols: where ranks share just that many, a run ends
    begin,  # int64, all but positions begin .. end − 1; equal: all
    end,  # int64
    tally,  # (S,) uint32, in and out
    lefts,  # (S,) uint32, in and out
    seen,  # (S,) uint32, the last run of each token, in and out
    tokens,  # (S + 1,) int64, in and out
    n,  # int64, tokens so far
):
    """`read_others`, and in how many runs (parted where ranks share just `depth` symbols) each token stands."""
    run = a
    for r in range(a, e):
        shared = np.int64(common[r])
        if shared == depth or shared == CAP:
            if shared == CAP and depth >= CAP and r > a:
                shared = shared_by_ranks(text, r - 1, r)
            run = r if shared == depth else run
        if begin < end and is_own(own, r, begin, end):
            continue
        c = symbol_of(next_tokens, r, tally)
        tokens[n] = c
        n += tally[c] == 0
        tally[c] += 1
        lefts[c] += np.int64(seen[c]) != run
        seen[c] = run
    return n


@kernel()
def runs_of_one_token(
    text,  # TextArrays
    nodes,  # NodeArrays
    lo,  # int64, the node's ranks lo .. hi − 1
    hi,  # int64
    depth,  # int64, its symbols
    skip,  # (·,) int64, ranks of documents, ascending in each
    g,  # int64, those left out are skip[g:g_end]
    g_end,  # int64
    sole_nodes,  # (·, 3) int64, nodes remembered: lo, hi, depth
    sole_runs,  # (·,) int64, their runs; as many, a power of two
):
    """In how many runs a token stands that is a node's only continuation, ranks in skip[g:g_end] aside."""
    if g == g_end and depth < CAP:
        memo = (lo ^ (hi * 31)) & (sole_runs.size - 1)
        if sole_nodes[memo, 0] != lo or sole_nodes[memo, 1] != hi or sole_nodes[memo, 2] != depth:
            runs = np.int64(1)
            for r in range(lo + 1, hi):
                runs += np.int64(nodes.common[r]) == depth
            sole_nodes[memo, 0], sole_nodes[memo, 1], sole_nodes[memo, 2] = lo, hi, depth
            sole_runs[memo] = runs
        return sole_runs[memo]
    runs, a = np.int64(0), lo
    while a < hi:
        _, e = node_around(text, nodes, a, a + 1, depth + 1)
        first = g
        while g < g_end and skip[g] < e:
            g += 1
        runs += g - first < e - a
        a = e
    return runs


@kernel()
def sort_tokens(tokens, n, words, summary):
    """Sort n distinct tokens; words, summary: zeros, as many bits as there are tokens, and a bit for each word."""
    if n > 16:
        for k in range(n):
            c = tokens[k]
            words[c >> 6] |= np.uint64(1) << np.uint64(c & 63)
            summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)
        k = 0
        for part in range(summary.size):
            bits = summary[part]
            summary[part] = 0
            while bits != 0:
                w = (part << 6) + lowest_bit(bits)
                bits &= bits - np.uint64(1)
                word = words[w]
                words[w] = 0
                while word != 0:
                    tokens[k] = (w << 6) + lowest_bit(word)
                    word &= word - np.uint64(1)
                    k += 1
    else:
        for k in range(1, n):
            x = tokens[k]
            j = k - 1
            while j >= 0 and tokens[j] > x:
                tokens[j + 1] = tokens[j]
                j -= 1
            tokens[j + 1] = x
