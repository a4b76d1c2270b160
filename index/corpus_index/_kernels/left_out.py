"""Heavy contexts without a document: what the document takes from their rows, found once for all its positions."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.intrinsics import WORD, equal_bits, lowest_bit, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.label_places import bucket_of, place_of, place_of_held
from corpus_index._kernels.nodes import CAP, node_around, symbol_of
from corpus_index._kernels.rows import find_row, first_at_least, first_at_least_before, first_at_least_near
from corpus_index._kernels.tallies import read, sort_tokens
from corpus_index._kernels.target_arrays import (
    END,
    FIRST,
    GONE_COLUMNS,
    HI,
    LEFT_1,
    LEFT_2,
    LEFT_TOTAL,
    LO,
    NO_PARENT,
    OWN_DEPTH,
    RAW_1,
    RAW_2,
)
from corpus_index._kernels.walk import step_range

_AHEAD = 8
_SOON = 4  # entries of a row between asking for their place, for what stands there, and reading it
_TOKENS_OF_A_POSITION = 256  # of a document, whose look takes as long as a position where both are interpreted


def work_of_documents(documents):
    """What leaving documents out adds to a call's work, whose unit is a position: a few looks at their tokens."""
    return 0 if documents is None else int((documents.last - documents.first).sum()) // _TOKENS_OF_A_POSITION


@kernel()
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


@kernel(forceinline=True)
def _tally_counts(following, a, e, scratch):
    """`tally_gone` without left extensions."""
    n = read(following, a, e, scratch.gone_counts, scratch.gone_tokens, np.int64(0))
    sort_tokens(scratch.gone_tokens, n, scratch.words, scratch.summary)
    return n


@kernel()
def tally_gone(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    depth,  # int64, symbols of the node
    count_runs,  # bool, whether left extensions are wanted
    ranks,  # (·,) uint32 or int64, of documents, ascending in each
    following,  # (·,) as next_tokens or int64, the token after each
    a,  # int64, the document's ranks in the node are ranks[a:e]
    e,  # int64
    scratch,  # Scratch
):
    """Tally what a document's ranks[a:e], those in a node, take from it; returns the number of tokens, ascending.

    following: the token after each rank. Of each token, scratch.gone_counts and gone_lefts hold how much; the caller
    sets them back to 0. A token loses a left extension where all its occurrences in a run are the document's.
    """
    if count_runs:
        _look_at_runs(index, next_tokens, endings, heavy, depth, ranks, following, a, e, scratch)
    return _tally_counts(following, a, e, scratch)


@kernel(forceinline=True)
def _tally_both(
    depth,  # int64, symbols of the node, below 255
    following,  # (·,) as next_tokens, the token after each rank
    lost_from,  # (·,) uint8, see `fill_lost_from`
    a,  # int64, the document's ranks in the node are entries a .. e − 1
    e,  # int64
    scratch,  # Scratch
):
    """`tally_gone` where left extensions are told; scratch.gone_counts holds counts + 2^32 · left extensions."""
    tokens, counts = scratch.gone_tokens, scratch.gone_counts
    n = 0
    for i in range(a, e):
        c = symbol_of(following, i, counts)
        tokens[n] = c
        n += counts[c] == 0
        counts[c] += 1 + (np.int64(np.int64(lost_from[i]) <= depth) << 32)
    sort_tokens(tokens, n, scratch.words, scratch.summary)
    return n


@kernel()
def _look_at_runs(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32
    endings,  # (ends,) uint64
    heavy,  # HeavyNodes
    depth,  # int64
    ranks,  # (·,) uint32 or int64
    following,  # (·,) as next_tokens or int64
    a,  # int64
    e,  # int64
    scratch,  # Scratch; gone_lefts: out
):
    """The left extensions that `tally_gone` wants, where no one has noted them down."""
    lefts, in_run = scratch.gone_lefts, scratch.in_run
    last = np.int64(next_tokens.size) - 1
    i = a
    while i < e:
        rank = min(np.int64(ranks[i]), last)
        lo, hi = node_around(index.text, index.nodes, rank, rank + 1, depth + 1)
        first = i
        while i < e and min(np.int64(ranks[i]), last) < hi:
            in_run[symbol_of(following, i, in_run)] += 1
            i += 1
            if i + _AHEAD < e:
                prefetch(index.nodes.common, np.int64(ranks[i + _AHEAD]))
        row = find_row(heavy.bounds, heavy.directory, heavy.shift, lo, hi) if hi - lo > heavy.light else np.int64(-1)
        for j in range(first, i):
            c = symbol_of(following, j, in_run)
            if in_run[c] > 0:
                if row >= 0:
                    held = np.int64(heavy.counts[place_of(heavy, row, c)])
                else:
                    held = _occurrences(index.steps, next_tokens, endings, c, lo, hi)
                lefts[c] += in_run[c] == held
                in_run[c] = 0


@kernel()
def lost_by_documents(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    by_left,  # bool, whether the base counts left extensions
    firsts,  # (D,) int64, each document's ranks are entries firsts .. lasts − 1
    lasts,  # (D,) int64
    ranks,  # (·,) uint32 or int64, ascending in each
    following,  # (·,) as next_tokens or int64, the token after each
    scratch,  # Scratch
    token_offsets,  # (D + 1,) int64, out: each document's tokens
    tokens,  # (·,) int64, out, ascending in each
    lost,  # (·,) int64, out: what the base's counts lose with it
):
    """What the empty context's counts, or left extensions, lose with each document, by token; see `Documents`."""
    used = 0
    for d in range(firsts.size):
        n = tally_gone(
            index,
            next_tokens,
            endings,
            heavy,
            0,
            by_left,
            ranks,
            following,
            firsts[d],
            lasts[d],
            scratch,
        )
        for i in range(n):
            c = scratch.gone_tokens[i]
            tokens[used + i] = c
            lost[used + i] = scratch.gone_lefts[c] if by_left else scratch.gone_counts[c]
            scratch.gone_counts[c] = scratch.gone_lefts[c] = 0
        used += n
        token_offsets[d + 1] = used


@kernel()
def count_document(
    following,  # (·,) as next_tokens, the token after each rank
    lost_from,  # (·,) uint8, see `fill_lost_from`
    by_left,  # bool, whether the base counts left extensions
    first,  # int64, the document's ranks are entries first .. last − 1
    last,  # int64
    lost,  # (S,) int64, zeros; out: what the base's counts lose with it
    tokens,  # (S + 1,) int64, out: those that lose something, in any order
):
    """What the base's counts lose with a document, by token; returns how many tokens do."""
    n = np.int64(0)
    if not by_left:
        return read(following, first, last, lost, tokens, n)
    i = first
    while i < last:  # few do: 64 at a time
        bits = ~np.uint64(0) >> np.uint64(max(np.int64(0), WORD - (last - i)))
        if i + WORD <= lost_from.size:
            bits &= equal_bits(lost_from, i, 0)
        while bits != 0:
            k = i + lowest_bit(bits)
            bits &= bits - np.uint64(1)
            if lost_from[k] == 0:
                c = symbol_of(following, k, lost)
                tokens[n] = c
                n += lost[c] == 0
                lost[c] += 1
        i += WORD
    return n


@kernel()
def add_losses(counts, lost, tokens, n, totals):
    """Add to totals (17): Σ lost, and by 4 · x + y how many counts of class x are of class y without what is lost.

    Classes: 0, 1, 2, 3 and more.
    """
    for i in range(n):
        x, less = np.int64(counts[tokens[i]]), lost[tokens[i]]
        totals[16] += less
        totals[4 * min(x, 3) + max(np.int64(0), min(x - less, 3))] += 1


@kernel(work=lambda documents, *rest: work_of_documents(documents))
def label_losses(
    documents,  # Documents; label_lost: out
    by_left,  # bool, whether the base counts left extensions
    counts,  # (S,) int64, the base's
    labels,  # (Q,) int64, symbols; −1 or S: unknown
    by_document,  # (Q,) int64, positions by document
    ends,  # (D,) int64, where each document's end there
    most,  # int64, tokens of the documents that are looked at
    lost,  # (S,) int64, zeros between uses
    tokens,  # (S + 1,) int64, scratch
    totals,  # (D, 17) int64, zeros; out: see `add_losses`
):
    """What the base's counts of the labels lose with their documents; of documents of at most so many tokens."""
    for d in range(ends.size):
        first, last = documents.first[d], documents.last[d]
        if last - first > most:
            continue
        n = count_document(documents.following, documents.lost_from, by_left, first, last, lost, tokens)
        for i in range(ends[d - 1] if d > 0 else 0, ends[d]):
            label = labels[by_document[i]]
            if 0 <= label < lost.size:
                documents.label_lost[by_document[i]] = lost[label]
        add_losses(counts, lost, tokens, n, totals[d])
        for i in range(n):
            lost[tokens[i]] = 0


@kernel(inline="always")
def _first_slot(slots, key):
    """Where the search for a key in a hash table of 2^k keys begins."""
    return ((key * 0x9E3779B1) >> 15) & (slots.shape[0] - 1)  # a product's low bits are those of a key's low bits


@kernel(inline="always")
def _slot_of(slots, key):
    """Where a key (not 0) stands in a hash table of 2^k keys, or the place that it would have."""
    at = _first_slot(slots, key)
    while slots[at, 0] != 0 and slots[at, 0] != key:
        at = (at + 1) & (slots.shape[0] - 1)
    return at


@kernel()
def rehash(slots, new_slots):
    """Copy a hash table into a larger one."""
    for i in range(slots.shape[0]):
        if slots[i, 0] != 0:
            at = _slot_of(new_slots, slots[i, 0])
            new_slots[at, 0], new_slots[at, 1] = slots[i, 0], slots[i, 1]


@kernel()
def prefetch_slots(heavy, documents, gone, rows, begin, end):
    """Ask for the slots of the rows (·, levels) of positions begin .. end − 1 without their documents."""
    flat = gone.slots.reshape(-1)
    for i in range(end - begin):
        document = documents.of[begin + i]
        level = 0
        while document >= 0 and level < rows.shape[1] and rows[i, level] != NO_PARENT:
            key = documents.numbers[document] * (heavy.offsets.size - 1) + rows[i, level] + 1
            prefetch(flat, 2 * _first_slot(gone.slots, key))
            level += 1


@kernel(forceinline=True)
def known_gone(heavy, documents, gone, document, row):
    """The number of a stored row without a document; −1 if it isn't there yet: see `gone_row`."""
    slots = gone.slots
    key = documents.numbers[document] * (heavy.offsets.size - 1) + row + 1
    at = _slot_of(slots, key)
    return slots[at, 1] if slots[at, 0] == key else np.int64(-1)


@kernel(forceinline=True)
def four_totals(totals, number, first):
    """Columns first … first + 3 of what a row without a document is: a sum, and how many are 1, 2, 3 and more."""
    return (
        np.int64(totals[number, first]),
        np.int64(totals[number, first + 1]),
        np.int64(totals[number, first + 2]),
        np.int64(totals[number, first + 3]),
    )


@kernel(forceinline=True)
def prefetch_gone(heavy, documents, gone, rows, document):
    """Ask for what is known of rows (levels,) without a document."""
    totals = gone.totals.reshape(-1)
    level = 0
    while document >= 0 and level < rows.size and rows[level] != NO_PARENT:
        key = documents.numbers[document] * (heavy.offsets.size - 1) + rows[level] + 1
        at = _first_slot(gone.slots, key)
        if gone.slots[at, 0] == key:
            number = gone.slots[at, 1]
            prefetch(totals, GONE_COLUMNS * number)
            prefetch(gone.tokens, (gone.offsets[number] + gone.offsets[number + 1]) >> 1)
        level += 1


@kernel(forceinline=True)
def _prefetch_entries(heavy, row, tokens, i, n):
    """Ask for what finding the entries of the tokens after the i-th in a row will read: first where, then what."""
    if i + 2 * _SOON < n:
        prefetch(heavy.buckets, bucket_of(heavy.table, row, tokens[i + 2 * _SOON]))
    if 0 <= i + _SOON < n:
        place = np.int64(heavy.buckets[bucket_of(heavy.table, row, tokens[i + _SOON])])
        prefetch(heavy.tokens, place)
        prefetch(heavy.tokens, place + WORD - 1)
        prefetch(heavy.counts, place)


@kernel()
def gone_row(
    index,  # IndexArrays
    next_tokens,  # (N,) uint16 or uint32, the continuation of each rank
    endings,  # (ends,) uint64, token << 32 | rank where a document ends, ascending
    heavy,  # HeavyNodes
    by_left,  # bool, whether the estimator counts left extensions
    documents,  # Documents
    document,  # int64, which one is left out
    row,  # int64, a stored row
    inner,  # int64, the number of a row within it without the document; −1: none is known
    scratch,  # Scratch
    gone,  # GoneRows
):
    """The number of a stored row without a document, made now; −1 if there is no room for it."""
    key = documents.numbers[document] * (heavy.offsets.size - 1) + row + 1
    at = _slot_of(gone.slots, key)
    table, ranks = heavy.table, documents.ranks
    first, last = documents.first[document], documents.last[document]
    if inner >= 0:
        a = first_at_least_before(ranks, first, np.int64(gone.totals[inner, FIRST]), np.int64(table[row, LO]))
        e = first_at_least_near(ranks, np.int64(gone.totals[inner, END]), last, np.int64(table[row, HI]))
    else:
        a = first_at_least(ranks, first, last, np.int64(table[row, LO]))
        e = first_at_least_near(ranks, a, last, np.int64(table[row, HI]))
    number = gone.used[0]
    entry = gone.offsets[number]
    empty = e - a == np.int64(table[row, HI]) - np.int64(table[row, LO])  # then no token has to be told
    gone.used[1] = np.int64(0) if empty else max(np.int64(0), entry + (e - a) - gone.tokens.size)
    gone.used[2] = np.int64(number == gone.totals.shape[0])
    if gone.used[1] > 0 or gone.used[2] > 0:
        return np.int64(-1)
    if empty:
        gone.totals[number] = 0
        gone.totals[number, FIRST], gone.totals[number, END] = a, e
        gone.offsets[number + 1] = entry
        gone.slots[at, 0], gone.slots[at, 1] = key, number
        gone.used[0] += 1
        return number
    depth = np.int64(table[row, OWN_DEPTH])
    counts, lefts = scratch.gone_counts, scratch.gone_lefts
    following, lost_from = documents.following, documents.lost_from
    if by_left and depth < CAP:
        n = _tally_both(depth, following, lost_from, a, e, scratch)
    elif not by_left:
        n = _tally_counts(following, a, e, scratch)
    else:
        n = tally_gone(index, next_tokens, endings, heavy, depth, by_left, ranks, following, a, e, scratch)
        for i in range(n):
            c = scratch.gone_tokens[i]
            counts[c] += lefts[c] << 32
            lefts[c] = 0
    place, stop = heavy.offsets[row], heavy.offsets[row + 1]
    n1, n2 = np.int64(table[row, RAW_1]), np.int64(table[row, RAW_2])
    n3 = stop - place - n1 - n2
    left_total = np.int64(table[row, LEFT_TOTAL])
    m1, m2 = np.int64(table[row, LEFT_1]), np.int64(table[row, LEFT_2])
    m3 = stop - place - m1 - m2
    for i in range(-2 * _SOON, n):
        _prefetch_entries(heavy, row, scratch.gone_tokens, i, n)
        if i < 0:
            continue
        c = scratch.gone_tokens[i]
        both = counts[c]
        counts[c] = 0
        place = place_of_held(heavy, row, c)
        x = np.int64(heavy.counts[place])
        y = x - (both & 0xFFFFFFFF)
        n1 += np.int64(y == 1) - np.int64(x == 1)
        n2 += np.int64(y == 2) - np.int64(x == 2)
        n3 += np.int64(y > 2) - np.int64(x > 2)
        gone.tokens[entry + i], gone.before[entry + i], gone.after[entry + i] = c, x, y
        if by_left:
            x = np.int64(heavy.lefts[place])
            y = x - (both >> 32)
            left_total -= both >> 32
            m1 += np.int64(y == 1) - np.int64(x == 1)
            m2 += np.int64(y == 2) - np.int64(x == 2)
            m3 += np.int64(y > 2) - np.int64(x > 2)
            gone.left_before[entry + i], gone.left_after[entry + i] = x, y
    total = np.int64(table[row, HI]) - np.int64(table[row, LO]) - (e - a)
    totals = gone.totals
    totals[number, 0], totals[number, 1], totals[number, 2], totals[number, 3] = total, n1, n2, n3
    totals[number, 4], totals[number, 5], totals[number, 6], totals[number, 7] = left_total, m1, m2, m3
    totals[number, FIRST], totals[number, END] = a, e
    gone.offsets[number + 1] = entry + n
    gone.slots[at, 0], gone.slots[at, 1] = key, number
    gone.used[0] += 1
    return number
