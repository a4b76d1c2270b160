"""From mixed targets to flat ones: the largest probabilities of each position, explicit.

The rows of heavy contexts are long, and many positions share them: a position weighs the few tokens of its context's
shortlist. What a row says of other tokens goes to the base, and is reported as cut. Or, exact and slow, whole rows are
added up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from corpus_index._kernels.intrinsics import UNCOUNTED, lowest_bit, prefetch
from corpus_index._kernels.rows import place_in_row
from corpus_index._kernels.rules import cut_of
from corpus_index._kernels.selection import keep_largest
from corpus_index._kernels.shortlists import HEADER, ready_shortlist


class FlatWork(NamedTuple):
    """Room for the candidates of one list: tokens, values, a copy to sort, and where a token comes from."""

    tokens: np.ndarray
    values: np.ndarray
    sorting: np.ndarray
    own: np.ndarray
    inherited: np.ndarray
    listed: np.ndarray


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
