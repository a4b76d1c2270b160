"""Nodes of the context order: ranges of ranks that share their last symbols, found from a rank inside.

A *node* is a range of ranks that share `depth` symbols, all that do; its parent is the next wider one. The start symbol
of a document counts as a symbol: it is the last of a context read backwards.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types

from corpus_index._kernels.arrays import CompactText
from corpus_index._kernels.compact import compact_shared
from corpus_index._kernels.intrinsics import instead_of
from corpus_index._kernels.jit import by_layout, kernel

CAP = 255  # common tells shared lengths up to here; beyond, the text does


@kernel(inline="always")
def position_of(order, rank):
    """The corpus position of a rank; in bounds, whatever the file says."""
    return min(np.int64(order[rank]), np.int64(order.size) - 1)


@kernel(inline="always")
def symbol_of(next_tokens, rank, by_symbol):
    """The continuation of a rank; one that an array by symbol has, whatever the file says."""
    return min(np.int64(next_tokens[rank]), np.int64(by_symbol.size) - 1)


@kernel()
def document_of(text, position):
    """The document that holds a position: the last one that starts there or before."""
    doc_starts = text.doc_starts
    d = np.int64(text.doc_directory[position >> text.document_shift])
    n = doc_starts.size - 1
    if d + 8 < n and np.int64(doc_starts[d + 8]) <= position:
        end = n
        while d + 1 < end:
            middle = (d + end) >> 1
            if np.int64(doc_starts[middle]) <= position:
                d = middle
            else:
                end = middle
        return d
    while d + 1 < n and np.int64(doc_starts[d + 1]) <= position:
        d += 1
    return d


@kernel()
def document_start(text, position):
    """Where the document of a position starts."""
    return np.int64(text.doc_starts[document_of(text, position)])


@kernel()
def shared_with_row(text, rank, ids, b, t, known, started, limit):
    """Symbols, at most limit, that the context of a rank shares with the row's at ids[b, t]."""
    position = position_of(text.order, rank)
    tokens = text.tokens
    own = known - 1 if started else known  # tokens of the row's context
    stop = min(min(limit, own), position)
    k = 0
    while k < stop and np.int64(tokens[position - 1 - k]) == ids[b, t - k]:
        k += 1
    if k == 0:
        return k
    held = position - document_start(text, position)
    k = min(k, held)
    if started and k == own and k == held and k < limit:
        k += 1
    return k


@kernel(work=lambda *arguments: 256, unbounded=True)
def shared_texts(text, r, s):
    """`shared_by_ranks` of an index that has its text."""
    tokens = text.tokens
    p, q = position_of(text.order, r), position_of(text.order, s)
    p_held, q_held = p - document_start(text, p), q - document_start(text, q)
    stop = min(p_held, q_held)
    k = 0
    while k < stop and tokens[p - 1 - k] == tokens[q - 1 - k]:
        k += 1
    return k + 1 if k == p_held and k == q_held else k


def is_a(value_type: Any, tuple_class: Any) -> bool:
    """Whether numba's type of a value is that of a named tuple."""
    return isinstance(value_type, types.NamedTuple) and value_type.instance_class is tuple_class


@by_layout
def shared_by_ranks(text: Any, r: int, s: int) -> int:
    """Symbols that the contexts of two ranks share."""
    return compact_shared(text, int(r), int(s)) if isinstance(text, CompactText) else shared_texts(text, int(r), int(s))


@instead_of(shared_by_ranks)
def _overload_shared_by_ranks(text, r, s):
    if is_a(text, CompactText):
        return lambda text, r, s: compact_shared(text, r, s)
    return lambda text, r, s: shared_texts(text, r, s)


@kernel()
def widen_left(nodes, lo, depth):
    """The first rank of the node of that depth (1 .. 255) that holds rank lo."""
    common, minima, levels = nodes.common, nodes.minima, nodes.levels
    i = lo  # the last i ≤ lo with common[i] < depth; common[0] = 0 is one
    stop = i & ~np.int64(63)
    while i >= stop and np.int64(common[i]) >= depth:
        i -= 1
    if i >= stop:
        return i
    level, block = 0, i >> 6  # pass whole blocks, climbing; then descend
    while True:
        base = levels[level]
        stop = block & ~np.int64(63)
        while block >= stop and np.int64(minima[base + block]) >= depth:
            block -= 1
        if block >= stop:
            break
        block >>= 6
        level += 1
    while level > 0:
        level -= 1
        base = levels[level]
        block = min((block << 6) + 63, levels[level + 1] - base - 1)
        while np.int64(minima[base + block]) >= depth:
            block -= 1
    i = min((block << 6) + 63, common.size - 1)
    while np.int64(common[i]) >= depth:
        i -= 1
    return i


@kernel()
def widen_right(nodes, hi, depth):
    """The rank after the last of the node of that depth (1 .. 255) that holds rank hi − 1."""
    common, minima, levels = nodes.common, nodes.minima, nodes.levels
    n = common.size
    i = hi  # the first i ≥ hi with common[i] < depth, or n
    stop = min(n, (i | 63) + 1)
    while i < stop and np.int64(common[i]) >= depth:
        i += 1
    if i < stop or i >= n:
        return i
    level, block = 0, i >> 6
    while True:
        base = levels[level]
        count = levels[level + 1] - base
        if block >= count:
            return n
        stop = min(count, (block | 63) + 1)
        while block < stop and np.int64(minima[base + block]) >= depth:
            block += 1
        if block < stop:
            break
        if block >= count:
            return n
        block >>= 6
        level += 1
    while level > 0:
        level -= 1
        base = levels[level]
        block = min(block << 6, levels[level + 1] - base - 1)
        while np.int64(minima[base + block]) >= depth:  # the level above begins with 0
            block += 1
    i = min(n, block << 6)
    while i < n and np.int64(common[i]) >= depth:
        i += 1
    return i


@kernel()
def _gallop(
    text,  # TextArrays
    start,  # int64, a rank that shares depth symbols
    sign,  # int64, −1: to smaller ranks, 1: to larger ones
    depth,  # int64
    ids,  # (B, T) int64, rows
    b,  # int64, the row
    t,  # int64, its position
    known,  # int64, symbols of the row's context
    started,  # bool, whether it begins with its document's start
    member,  # int64, a rank to compare with instead of the row; −1: the row
):
    """The farthest rank from start, going by sign, that still shares depth symbols.

    With whom: with the row at ids[b, t], or with the context of rank member where that isn't negative.
    """
    n = text.num_tokens
    good, bad = start, np.int64(-1) if sign < 0 else n
    step = np.int64(1)
    doubling = True
    while abs(bad - good) > 1:
        probe = good + sign * step if doubling else (good + bad) >> 1
        if probe < 0 or probe >= n:
            doubling = False
            continue
        if member < 0:
            length = shared_with_row(text, probe, ids, b, t, known, started, depth)
        else:
            length = shared_by_ranks(text, probe, member)
        if length >= depth:
            good = probe
            step *= 2
        else:
            bad = probe
            doubling = False
    return good


@kernel()
def widened(
    text,  # TextArrays
    nodes,  # NodeArrays
    lo,  # int64, ranks lo .. hi − 1 share depth symbols
    hi,  # int64
    depth,  # int64
    ids,  # (B, T) int64, rows
    b,  # int64, the row
    t,  # int64, its position
    known,  # int64, symbols of the row's context
    started,  # bool, whether it begins with its document's start
    member,  # int64, a rank to compare with instead of the row; −1: the row
):
    """Widen lo, hi, ranks that share depth symbols, to all ranks that do; the last arguments as in _gallop."""
    if depth == 0:
        return np.int64(0), text.num_tokens
    if depth <= CAP:
        return widen_left(nodes, lo, depth), widen_right(nodes, hi, depth)
    return (
        _gallop(text, lo, -1, depth, ids, b, t, known, started, member),
        _gallop(text, hi - 1, 1, depth, ids, b, t, known, started, member) + 1,
    )


@kernel()
def parent_depth(text, nodes, lo, hi, depth):
    """The depth of a node's parent: the longer of what its first and last rank share with the ranks outside.

    Less than the node's own depth, whatever the file says: who goes from parent to parent comes to an end.
    """
    up = np.int64(0)
    for i in (lo, hi):
        if 0 < i < text.num_tokens:
            length = np.int64(nodes.common[i])
            if length == CAP and depth > CAP:  # copies share thousands of symbols
                length = shared_by_ranks(text, i - 1, i)
            up = max(up, length)
    return min(up, depth - 1)


@kernel()
def _gallop_ranks(text, start, sign, depth):
    """The farthest rank from start, going by sign, whose context still shares depth symbols with that of start."""
    good, bad = start, np.int64(-1) if sign < 0 else text.num_tokens
    step = np.int64(1)
    doubling = True
    while abs(bad - good) > 1:
        probe = good + sign * step if doubling else (good + bad) >> 1
        doubling = doubling and 0 <= probe < text.num_tokens
        if 0 <= probe < text.num_tokens:
            if shared_by_ranks(text, probe, start) >= depth:
                good = probe
                step *= 2
            else:
                bad = probe
                doubling = False
    return good


@kernel()
def node_around(text, nodes, lo, hi, depth):
    """The node of that depth that holds ranks lo .. hi − 1, which share as many symbols."""
    if depth == 0:
        return np.int64(0), text.num_tokens
    if depth <= CAP:
        return widen_left(nodes, lo, depth), widen_right(nodes, hi, depth)
    return _gallop_ranks(text, lo, -1, depth), _gallop_ranks(text, hi - 1, 1, depth) + 1
