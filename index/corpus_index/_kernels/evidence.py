"""Evidence: what the counts of every context of a position say of its label, without the position's own document.

The naive definition: for every suffix of a position's context that something outside of the left-out ranks follows, its
continuation counts there. The walk is that of `mixed`: light nodes are read, the totals of heavy ones come from their
stored rows, less what the left-out ranks take from them. That is the same for all positions of a document, so it is
kept while the document lasts: positions come document by document.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.left_out import tally_gone
from corpus_index._kernels.nodes import CAP, node_around, parent_depth, shared_by_ranks, symbol_of
from corpus_index._kernels.rows import find_row, first_at_least, place_in_row
from corpus_index._kernels.tallies import runs_of_one_token
from corpus_index._kernels.target_arrays import (
    HI,
    LEFT_1,
    LEFT_2,
    LEFT_TOTAL,
    LO,
    NOWHERE,
    OWN_DEPTH,
    RAW_1,
    RAW_2,
)

NUM_COLUMNS = 12
DEPTH, SHALLOWER, OWN, TOTAL, ONES, TWOS, MORE, OWN_LEFT, TOTAL_LEFT, ONES_LEFT, TWOS_LEFT, MORE_LEFT = range(
    NUM_COLUMNS
)


class Memo(NamedTuple):
    """What the document at hand takes from heavy nodes.

    seen: the document that each stored row was last asked for; totals (R, 8): ranks and classes that are left, raw and
    of left extensions; places (R, 2): where in tokens, counts and lefts the row's losses stand.
    """

    seen: np.ndarray
    totals: np.ndarray
    places: np.ndarray
    tokens: np.ndarray
    counts: np.ndarray
    lefts: np.ndarray

    @classmethod
    def empty(cls, num_rows: int, entries: int) -> Memo:
        """Nothing asked for yet, with room for so many tokens that rows lose."""
        return cls(
            seen=np.full(num_rows, -1, np.int64),
            totals=np.zeros((num_rows, 8), np.int64),
            places=np.zeros((num_rows, 2), np.int64),
            tokens=np.zeros(entries, np.int64),
            counts=np.zeros(entries, np.int64),
            lefts=np.zeros(entries, np.int64),
        )


@kernel()
def bounded_nodes(text, nodes, ranks, known, max_order, lo, hi, depths):
    """The nodes of some ranks' contexts, known symbols long, or of their last max_order (1 .. 254) symbols."""
    for q in range(ranks.size):
        depths[q] = min(known[q], max_order)
        lo[q], hi[q] = node_around(text, nodes, ranks[q], ranks[q] + 1, depths[q])


@kernel()
def _shift(values, old, new, at):
    """Move a token from the class of its old count to that of its new one."""
    if old > 0:
        values[at + min(old, 3)] -= 1
    if new > 0:
        values[at + min(new, 3)] += 1


@kernel()
def _heavy_node(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    scratch,  # Scratch
    memo,  # Memo
    used,  # int64, entries of the memo in use
    row,  # int64, a stored row
    depth,  # int64, symbols of its context
    document,  # int64, what is left out
    skip,  # (·,) int64, ranks of documents
    following,  # (·,) int64, the token after each
    a,  # int64, those left out are skip[a:e]
    e,  # int64
):
    """Fill the memo of a stored row without the ranks skip[a:e]; returns the memo's entries in use."""
    table, offsets = heavy.table, heavy.offsets
    start, stop = offsets[row], offsets[row + 1]
    totals = memo.totals[row]
    totals[0] = np.int64(table[row, HI]) - np.int64(table[row, LO]) - (e - a)
    totals[1], totals[2] = table[row, RAW_1], table[row, RAW_2]
    totals[3] = stop - start - totals[1] - totals[2]
    totals[4], totals[5], totals[6] = table[row, LEFT_TOTAL], table[row, LEFT_1], table[row, LEFT_2]
    totals[7] = stop - start - totals[5] - totals[6]
    n = tally_gone(index, next_tokens, endings, heavy, depth, True, skip, following, a, e, scratch)
    if used + n > memo.tokens.size:  # forget the rows before
        memo.seen[:] = -1
        used = 0
    memo.seen[row] = document
    memo.places[row, 0], memo.places[row, 1] = used, used + n
    for i in range(n):
        token = scratch.gone_tokens[i]
        k = place_in_row(heavy.tokens, start, stop, token)
        count, left = np.int64(heavy.counts[k]), np.int64(heavy.lefts[k])
        _shift(totals, count, count - scratch.gone_counts[token], 0)
        _shift(totals, left, left - scratch.gone_lefts[token], 4)
        totals[4] -= scratch.gone_lefts[token]
        memo.tokens[used + i] = token
        memo.counts[used + i] = scratch.gone_counts[token]
        memo.lefts[used + i] = scratch.gone_lefts[token]
        scratch.gone_counts[token] = scratch.gone_lefts[token] = 0
    return used + n


@kernel()
def _read(
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    text,  # TextArrays
    common,  # (N,) uint8, symbols that a rank shares with the one before, at most 255
    a,  # int64, the node's ranks a .. e − 1
    e,  # int64
    depth,  # int64, its symbols
    skip,  # (·,) int64, ranks of documents, ascending in each
    g,  # int64, those left out are skip[g:g_end]
    g_end,  # int64
    scratch,  # Scratch
    n,  # int64, tokens in scratch
):
    """Tally the continuations of ranks a .. e − 1 but skip[g:g_end], and their runs; returns the distinct tokens."""
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    run = a
    for r in range(a, e):
        shared = np.int64(common[r])
        if shared == CAP and depth >= CAP and r > a:
            shared = shared_by_ranks(text, r - 1, r)
        if shared == depth:
            run = r
        while g < g_end and skip[g] < r:
            g += 1
        if g < g_end and skip[g] == r:
            continue
        c = symbol_of(next_tokens, r, tally)
        if tally[c] == 0:
            tokens[n] = c
            n += 1
        tally[c] += 1
        if np.int64(seen[c]) != run:
            lefts[c] += 1
            seen[c] = run
    return n


@kernel()
def _tally_classes(tally, tokens, n, out, at):
    """out[at : at + 4] = the sum of the tallies, and how many are 1, 2, 3 and more."""
    for k in range(at, at + 4):
        out[k] = 0
    for i in range(n):
        x = np.int64(tally[tokens[i]])
        out[at] += x
        out[at + min(x, 3)] += 1


@kernel()
def evidence(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    scratch,  # Scratch
    memo,  # Memo
    lo,  # (Q,) int64, the positions' nodes: ranks lo .. hi − 1
    hi,  # (Q,) int64
    depths,  # (Q,) int64, their symbols
    known,  # (Q,) int64, symbols of the whole context, a start included; −1: the start isn't known
    labels,  # (Q,) int64, symbols, or S for one that the corpus lacks
    documents,  # (Q,) int64, which run of doc_ranks is left out; −1: none
    doc_offsets,  # (D + 1,) int64
    doc_ranks,  # (·,) int64, run d at doc_offsets[d] : doc_offsets[d + 1], ascending
    doc_following,  # (·,) int64, what follows each of doc_ranks
    begin,  # int64, the first position
    offsets,  # (Q + 1,) int64, from `begin` on: where each one's nodes begin in out
    out,  # (E, 12) int64, the nodes, the deepest first; see the columns above
):
    """Fill the evidence of positions begin, begin + 1, … while there is room; returns the first one that had none.

    lo, hi, depths (Q,): the positions' nodes. known (Q,): symbols of their whole contexts, the start of the document
    included; −1 where the start isn't known. labels (Q,): symbols, or their number for one that the corpus lacks.
    documents (Q,): which of the runs doc_ranks[doc_offsets[d] : doc_offsets[d + 1]], ascending, is left out; −1: none.
    doc_following: what follows each of doc_ranks.
    out (E, 12), from offsets[q − begin] on: position q's nodes, the deepest first; see the columns above. Nodes that
    nothing else follows are passed over, and so is the root. A node of one run has 1 as each left count.
    """
    text, nodes, common = index.text, index.nodes, index.nodes.common
    tally, lefts, seen, tokens = scratch.tally, scratch.lefts, scratch.seen, scratch.tokens
    used = memo_used = np.int64(0)
    last = np.int64(-2)
    memo.seen[:] = -1
    offsets[0] = 0
    for q in range(begin, lo.size):
        if used + depths[q] > out.shape[0]:
            return q
        a, e, depth, label, document = lo[q], hi[q], np.int64(depths[q]), labels[q], documents[q]
        if document != last:  # rows that were asked for without another one aren't taken for this one's
            memo_used = np.int64(0)
            last = document
        doc_a = doc_e = np.int64(0)
        if document >= 0:
            doc_a, doc_e = doc_offsets[document], doc_offsets[document + 1]
        while depth > 0:
            g = first_at_least(doc_ranks, doc_a, doc_e, a)
            g_end = first_at_least(doc_ranks, doc_a, doc_e, e)
            up = parent_depth(text, nodes, a, e, depth)
            row = find_row(heavy.bounds, heavy.directory, heavy.shift, a, e) if e - a > heavy.light else np.int64(-1)
            line = out[used]
            line[DEPTH], line[SHALLOWER] = depth, up
            for column in range(OWN, NUM_COLUMNS):
                line[column] = 0
            if e - a == g_end - g:
                pass
            elif e - a > heavy.light and row < 0 and depth < heavy.deepest:  # all continue alike
                c = symbol_of(next_tokens, a, tally)
                line[TOTAL] = (e - a) - (g_end - g)
                line[TOTAL_LEFT] = runs_of_one_token(
                    text, nodes, a, e, depth, doc_ranks, g, g_end, scratch.sole_nodes, scratch.sole_runs
                )
                line[TOTAL + min(line[TOTAL], 3)] = line[TOTAL_LEFT + min(line[TOTAL_LEFT], 3)] = 1
                if c == label:
                    line[OWN], line[OWN_LEFT] = line[TOTAL], line[TOTAL_LEFT]
                used += 1
            elif row >= 0:
                if memo.seen[row] != document or document < 0:
                    memo_used = _heavy_node(
                        index,
                        next_tokens,
                        endings,
                        heavy,
                        scratch,
                        memo,
                        memo_used,
                        row,
                        depth,
                        document,
                        doc_ranks,
                        doc_following,
                        g,
                        g_end,
                    )
                for k in range(4):  # element by element: numba words an error for each copy of a slice
                    line[TOTAL + k], line[TOTAL_LEFT + k] = memo.totals[row, k], memo.totals[row, 4 + k]
                k = place_in_row(heavy.tokens, heavy.offsets[row], heavy.offsets[row + 1], label)
                if k >= 0:
                    line[OWN], line[OWN_LEFT] = heavy.counts[k], heavy.lefts[k]
                    for i in range(memo.places[row, 0], memo.places[row, 1]):
                        if memo.tokens[i] == label:
                            line[OWN] -= memo.counts[i]
                            line[OWN_LEFT] -= memo.lefts[i]
                            break
                if np.int64(heavy.table[row, OWN_DEPTH]) != depth:  # cut off inside a run
                    distinct = line[ONES] + line[TWOS] + line[MORE]
                    line[OWN_LEFT] = min(line[OWN], 1)
                    line[TOTAL_LEFT] = line[ONES_LEFT] = distinct
                    line[TWOS_LEFT] = line[MORE_LEFT] = 0
                used += 1
            else:
                n = _read(next_tokens, text, common, a, e, depth, doc_ranks, g, g_end, scratch, 0)
                _tally_classes(tally, tokens, n, line, TOTAL)
                _tally_classes(lefts, tokens, n, line, TOTAL_LEFT)
                if label < tally.size:
                    line[OWN], line[OWN_LEFT] = tally[label], lefts[label]
                for i in range(n):
                    tally[tokens[i]] = lefts[tokens[i]] = 0
                    seen[tokens[i]] = NOWHERE
                used += 1
            if depth == known[q] and e - a > g_end - g:  # nothing can precede the start
                for column in range(OWN, MORE + 1):
                    line[OWN_LEFT - OWN + column] = line[column]
            a, e = node_around(text, nodes, a, e, up)
            depth = up
        offsets[q - begin + 1] = used
    return np.int64(lo.size)
