"""From mixed targets to flat ones: the largest probabilities of each position, explicit.

The rows of heavy contexts are long, and many positions share them. So for each such context the tokens that its whole
backoff chain makes likeliest are chosen once, with their counts at every level of the chain (its *shortlist*); a
position that refers to it weighs those few numbers, which lie side by side. What a row says of other tokens goes to
the base, and is reported as cut. Or, exact and slow, whole rows are added up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import COUNTED, UNCOUNTED, lowest_bit, prefetch
from corpus_index._kernels.rows import place_in_row
from corpus_index._kernels.rules import LEAST_MASS, cut_of, node_weights
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


class FlatWork(NamedTuple):
    """Room for the candidates of one list: tokens, values, a copy to sort, and where a token comes from."""

    tokens: np.ndarray
    values: np.ndarray
    sorting: np.ndarray
    own: np.ndarray
    inherited: np.ndarray
    listed: np.ndarray


@njit(cache=True, nogil=True, **UNCOUNTED)
def kth_largest(values, n, k):
    """The k-th largest of values[:n], 1 ≤ k ≤ n, by quickselect; reorders them."""
    lo, hi = 0, n - 1
    target = k - 1
    while lo < hi:
        pivot = values[(lo + hi) >> 1]
        i, j = lo, hi
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            hi = j
        elif target >= i:
            lo = i
        else:
            break
    return values[target]


@njit(cache=True, nogil=True, **UNCOUNTED)
def _kth_smallest(values, n, k, smallest):
    """The k-th smallest of values[:n] for a small k: the k smallest so far, in order, take in what is smaller yet."""
    held = 0
    for i in range(n):
        value = values[i]
        if held < k or value < smallest[k - 1]:
            j = min(held, k - 1)
            while j > 0 and smallest[j - 1] > value:
                smallest[j] = smallest[j - 1]
                j -= 1
            smallest[j] = value
            held = min(held + 1, k)
    return smallest[k - 1]


@njit(cache=True, nogil=True, **COUNTED)  # sorting allocates
def _nucleus(values, n, top_p, threshold, spare):
    """The least of the largest n values that it takes for a sum of top_p, and how many equal to it are among them.

    threshold, spare: of those that come into question; they stay where all are needed, or ties of the last.
    """
    values[:n].sort()
    held = 0.0
    for i in range(n - 1, -1, -1):
        held += values[i]
        if held >= top_p:
            if values[i] > threshold:
                threshold = values[i]
                spare = n - i
                for j in range(i + 1, n):
                    spare -= values[j] > threshold
            break
    return threshold, spare


@njit(cache=True, nogil=True, **UNCOUNTED)
def keep_largest(tokens, values, n, always, top_k, top_p, sorting, used, out_tokens, out_probs):
    """Write the top_k largest of n values (and that of token `always`), in order; (used, their sum, what is cut).

    top_p below 1: of these only as many as it takes for a sum of top_p. The outputs have room for one more.
    """
    threshold, spare = -np.inf, n
    if n > top_k:
        others = 0
        for i in range(n):
            sorting[others] = values[i]
            others += tokens[i] != always
        room = top_k - (n - others)
        spare = 0
        threshold = np.inf
        if room > 0:
            spare = room
            if others - room < 24:
                threshold = _kth_smallest(sorting, others, others - room + 1, sorting[n:])
            else:
                threshold = kth_largest(sorting, others, room)
            for i in range(others):
                spare -= sorting[i] > threshold  # what is left are entries equal to the threshold that still fit
    if top_p < 1.0:
        others = 0
        for i in range(n):
            if values[i] >= threshold:
                sorting[others] = values[i]
                others += 1
        threshold, spare = _nucleus(sorting, others, top_p, threshold, spare)
    explicit = cut = 0.0
    for i in range(n):  # without branches: no one could guess which tokens stay
        token, value = tokens[i], values[i]
        tie = (value == threshold) & (token != always)
        keep = (value > threshold) | (token == always) | (tie & (spare > 0))
        spare -= tie
        rounded = np.float32(value)
        out_tokens[used] = token
        out_probs[used] = rounded
        used += keep & (value != 0.0)
        explicit += np.float64(rounded) if keep else 0.0
        cut += 0.0 if keep else value
    return used, explicit, cut


@njit(cache=True, nogil=True, **UNCOUNTED)
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
    runs = np.int64(table[row, OWN_DEPTH]) == depth
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
        runs,
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


@njit(cache=True, nogil=True, **UNCOUNTED)
def ready_shortlist(row, estimator, heavy, lists, size, most_levels, work, ancestors):
    """Where the block of a row's shortlist begins; it is made now if it isn't there, with those of its ancestors."""
    if lists.places[row] >= 0:
        return lists.places[row]
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


@njit(cache=True, nogil=True, **UNCOUNTED, inline="always")
def _prefetch_list(mixed, lists, q, num_rows, size, kinds):
    """Ask for what position q will read."""
    a, e = mixed.ref_offsets[q], mixed.ref_offsets[q + 1]
    if a < e:
        row = mixed.ref_rows[a]
        place = lists.places[row - num_rows if row >= num_rows else row]
        if place >= 0:
            for line in range((HEADER + size * (1 + (e - a) * kinds)) // 16):
                prefetch(lists.blocks, place + 16 * line)


@njit(cache=True, nogil=True, **UNCOUNTED)
def _weigh_list(counts, s, k1, k2, k3, values):
    """Add what one level of a list says. (A slice, from 0 on: else numba asks each index whether it is negative.)"""
    for t in range(counts.size):
        x = np.int64(counts[t])
        k = k1 if x == 1 else k2 if x == 2 else k3
        values[t] += s * x - k if x > 0 else 0.0


@njit(cache=True, nogil=True, **UNCOUNTED)
def _place_in_list(blocks, a, e, token):
    """The first place of blocks[a:e], ascending, whose token isn't smaller; e if there is none."""
    while a < e:
        middle = (a + e) >> 1
        if np.int64(blocks[middle]) < token:
            a = middle + 1
        else:
            e = middle
    return a


@njit(cache=True, nogil=True, **UNCOUNTED, inline="always")
def _copy_part(blocks, start, values, a, e, work, n):
    """Copy entries a … e − 1 of a list behind the first n candidates; returns their number."""
    for k in range(a, e):
        work.tokens[n + k - a] = blocks[start + k]
        work.values[n + k - a] = values[k]
    return n + e - a


@njit(cache=True, nogil=True, **UNCOUNTED, inline="always")
def _change(gone, k, left, s, k1, k2, k3):
    """What leaving a document out changes at the k-th changed token."""
    x = np.int64(gone.left_before[k]) if left else np.int64(gone.before[k])
    y = np.int64(gone.left_after[k]) if left else np.int64(gone.after[k])
    change = cut_of(x, k1, k2, k3) - s * x
    return change + (s * y - cut_of(y, k1, k2, k3)) if y > 0 else change


@njit(cache=True, nogil=True, **UNCOUNTED)
def _without_document(mixed, gone, ref, left, blocks, start, listed, values):
    """Take a document's part out of the values of a list, at blocks[start : start + listed], for one reference."""
    number = mixed.ref_gone[ref]
    s, k1 = mixed.ref_coefficients[ref, 0], mixed.ref_coefficients[ref, 1]
    k2, k3 = mixed.ref_coefficients[ref, 2], mixed.ref_coefficients[ref, 3]
    a, e = gone.offsets[number], gone.offsets[number + 1]
    if e - a < listed:
        for k in range(a, e):
            t = place_in_row(blocks, start, start + listed, gone.tokens[k])
            if t >= 0:
                values[t - start] += _change(gone, k, left, s, k1, k2, k3)
    else:
        for t in range(listed):
            k = place_in_row(gone.tokens, a, e, np.int64(blocks[start + t]))
            if k >= 0:
                values[t] += _change(gone, k, left, s, k1, k2, k3)


@njit(cache=True, nogil=True, **UNCOUNTED)
def flat_targets(
    estimator,
    heavy,
    mixed,
    gone,
    lists,
    most_levels,
    work,
    ancestors,
    labels,
    leaves,
    top_k,
    top_p,
    first,
    stop,
    used,
    out_offsets,
    out_tokens,
    out_probs,
    out_rest,
    out_cut,
):
    """Fill positions first … stop − 1 with the top_k likeliest tokens of pairs and shortlists; returns entries used."""
    num_rows = heavy.offsets.size - 1
    size = lists.scores.shape[1]
    kinds = 2 if estimator.left else 1
    blocks = lists.blocks
    values = work.listed
    for q in range(first, stop):
        if q + 4 < stop:
            _prefetch_list(mixed, lists, q + 4, num_rows, size, kinds)
        j, j_end = mixed.ref_offsets[q], mixed.ref_offsets[q + 1]
        start = listed = np.int64(0)
        if j < j_end:
            row = mixed.ref_rows[j]
            row = row - num_rows if row >= num_rows else row
            place = ready_shortlist(row, estimator, heavy, lists, size, most_levels, work, ancestors)
            listed, levels = np.int64(blocks[place]), np.int64(blocks[place + 1])
            start = place + HEADER
            values[:listed] = 0.0
            for level in range(min(levels, j_end - j)):
                s, k1 = mixed.ref_coefficients[j + level, 0], mixed.ref_coefficients[j + level, 1]
                k2, k3 = mixed.ref_coefficients[j + level, 2], mixed.ref_coefficients[j + level, 3]
                at = start + size * (1 + kinds * level)
                if mixed.ref_rows[j + level] >= num_rows:
                    at += size
                _weigh_list(blocks[at : at + listed], s, k1, k2, k3, values)
                if mixed.ref_gone[j + level] >= 0:
                    left = mixed.ref_rows[j + level] >= num_rows
                    _without_document(mixed, gone, j + level, left, blocks, start, listed, values)
        # pairs of listed tokens add to the list, the others go between its parts
        n = done = np.int64(0)
        for i in range(mixed.pair_offsets[q], mixed.pair_offsets[q + 1]):
            token = np.int64(mixed.pair_tokens[i])
            t = _place_in_list(blocks, start + done, start + listed, token) - start
            n = _copy_part(blocks, start, values, done, t, work, n)
            same = t < listed and np.int64(blocks[start + t]) == token
            work.tokens[n] = token
            change = mixed.label_changes[q] if i == mixed.label_pairs[q] else 0.0
            work.values[n] = mixed.pair_masses[i] + (values[t] + change if same else 0.0)
            done = t + same
            n += 1
        n = _copy_part(blocks, start, values, done, listed, work, n)
        always = labels[q] if leaves else np.int64(-1)
        used, explicit, cut = keep_largest(
            work.tokens, work.values, n, always, top_k, top_p, work.sorting, used, out_tokens, out_probs
        )
        out_cut[q] = max(0.0, 1.0 - explicit - mixed.rest[q]) if listed > 0 else cut
        out_rest[q] = max(mixed.rest[q], 1.0 - explicit)  # rounding may leave nothing, or less, in the latter
        out_offsets[q + 1] = used
    return used


@njit(cache=True, nogil=True, **UNCOUNTED, inline="always")
def _mark(touched, summary, c):
    touched[c >> 6] |= np.uint64(1) << np.uint64(c & 63)
    summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)


@njit(cache=True, nogil=True, **UNCOUNTED)
def _add_up(heavy, mixed, gone, q, mass, touched, summary, work):
    """Position q's whole rows and pairs, added up: so many tokens, ascending, and their values in work."""
    num_rows = heavy.offsets.size - 1
    for j in range(mixed.ref_offsets[q], mixed.ref_offsets[q + 1]):
        row = mixed.ref_rows[j]
        counts = heavy.lefts if row >= num_rows else heavy.counts
        row = row - num_rows if row >= num_rows else row
        s, k1 = mixed.ref_coefficients[j, 0], mixed.ref_coefficients[j, 1]
        k2, k3 = mixed.ref_coefficients[j, 2], mixed.ref_coefficients[j, 3]
        for k in range(heavy.offsets[row], heavy.offsets[row + 1]):
            token = np.int64(heavy.tokens[k])
            x = np.int64(counts[k])
            _mark(touched, summary, token)
            mass[token] += s * x - cut_of(x, k1, k2, k3)
        number = mixed.ref_gone[j]
        if number >= 0:
            left = mixed.ref_rows[j] >= num_rows
            for k in range(gone.offsets[number], gone.offsets[number + 1]):
                mass[gone.tokens[k]] += _change(gone, k, left, s, k1, k2, k3)
    for i in range(mixed.pair_offsets[q], mixed.pair_offsets[q + 1]):
        token = np.int64(mixed.pair_tokens[i])
        _mark(touched, summary, token)
        mass[token] += mixed.pair_masses[i]
        if i == mixed.label_pairs[q]:
            mass[token] += mixed.label_changes[q]
    n = 0
    for part in range(summary.size):
        while summary[part] != 0:
            w = (part << 6) + lowest_bit(summary[part])
            summary[part] &= summary[part] - np.uint64(1)
            word = touched[w]
            touched[w] = 0
            while word != 0:
                c = (w << 6) + lowest_bit(word)
                word &= word - np.uint64(1)
                work.tokens[n] = c
                work.values[n] = mass[c]
                mass[c] = 0.0
                n += 1
    return n


@njit(cache=True, nogil=True, **UNCOUNTED)
def whole_targets(
    heavy,
    mixed,
    gone,
    mass,
    touched,
    summary,
    work,
    labels,
    leaves,
    top_k,
    top_p,
    first,
    stop,
    used,
    out_offsets,
    out_tokens,
    out_probs,
    out_rest,
    out_cut,
):
    """`flat_targets` with whole rows instead of shortlists; mass, touched, summary: zeros, by symbol and its bits."""
    for q in range(first, stop):
        n = _add_up(heavy, mixed, gone, q, mass, touched, summary, work)
        always = labels[q] if leaves else np.int64(-1)
        used, explicit, cut = keep_largest(
            work.tokens, work.values, n, always, top_k, top_p, work.sorting, used, out_tokens, out_probs
        )
        out_cut[q] = cut
        out_rest[q] = max(mixed.rest[q], 1.0 - explicit)  # rounding may leave nothing, or less, in the latter
        out_offsets[q + 1] = used
    return used


@njit(cache=True, nogil=True, **UNCOUNTED)
def sampled_targets(
    heavy,
    mixed,
    gone,
    mass,
    touched,
    summary,
    work,
    base_sums,
    chances,
    used,
    out_offsets,
    out_tokens,
    out_probs,
):
    """Draws from whole targets instead: each token's share of them. chances (Q, D): in 0 .. 1, ascending by position.

    base_sums: the base's probabilities by symbol, added up.
    """
    draws = chances.shape[1]
    for q in range(chances.shape[0]):
        n = _add_up(heavy, mixed, gone, q, mass, touched, summary, work)
        rest = mixed.rest[q] / base_sums[-1]
        hole, hole_begin, hole_size = np.int64(-1), 0.0, 0.0
        total = 0.0
        for i in range(n):
            if work.values[i] < 0.0 and hole < 0:  # the label, for its occurrence in the base: take it whole from there
                hole = work.tokens[i]
                hole_begin = base_sums[hole - 1] if hole > 0 else 0.0
                hole_size = base_sums[hole] - hole_begin
                work.values[i] += rest * hole_size
            work.values[i] = max(0.0, work.values[i])
            total += work.values[i]
        total += rest * (base_sums[-1] - hole_size)
        i, reached, drawn = 0, 0.0, 0
        for i in range(n):  # explicit tokens, which the ascending chances pass one by one
            reached += work.values[i]
            work.own[i] = 0
            while drawn < draws and chances[q, drawn] * total < reached:
                work.own[i] += 1
                drawn += 1
        while drawn < draws:  # the rest of them fall on the base
            wanted = (chances[q, drawn] * total - reached) / max(rest, 1e-300)
            if hole >= 0 and wanted >= hole_begin:
                wanted += hole_size
            token = np.searchsorted(base_sums, wanted, side="right")
            token = min(token, base_sums.size - 1)
            k = place_in_row(work.tokens, 0, n, token) if n > 0 else np.int64(-1)
            if k < 0:  # in its place, to keep the order
                k = n
                while k > 0 and work.tokens[k - 1] > token:
                    work.tokens[k] = work.tokens[k - 1]
                    work.own[k] = work.own[k - 1]
                    k -= 1
                work.tokens[k] = token
                work.own[k] = 0
                n += 1
            work.own[k] += 1
            drawn += 1
        for k in range(n):
            if work.own[k] > 0:
                out_tokens[used] = work.tokens[k]
                out_probs[used] = work.own[k] / draws
                used += 1
        out_offsets[q + 1] = used
    return used
