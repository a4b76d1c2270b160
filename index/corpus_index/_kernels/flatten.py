"""From mixed targets to flat ones: the largest probabilities of each position, explicit.

The rows of heavy contexts are long, and many positions share them: a position weighs the few tokens of its context's
shortlist. What a row says of other tokens goes to the base, and is reported as cut. Or, exact and slow, whole rows are
added up.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from corpus_index._kernels.intrinsics import lowest_bit, prefetch
from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_above, place_in_row
from corpus_index._kernels.rules import cut_of
from corpus_index._kernels.selection import MOST_LOWEST, drop_lowest, keep_largest
from corpus_index._kernels.shortlists import HEADER, make_shortlists


class FlatWork(NamedTuple):
    """Room for the candidates of one list or target: tokens, values, a copy to sort, and where a token comes from.

    listed: the values of a shortlist's tokens. beside_tokens, beside_values, beside_places: the pairs whose tokens the
    list lacks, and how many of its tokens are smaller. lowest_values, lowest_places: see `selection.drop_lowest`.
    """

    tokens: np.ndarray
    values: np.ndarray
    sorting: np.ndarray
    own: np.ndarray
    inherited: np.ndarray
    listed: np.ndarray
    beside_tokens: np.ndarray
    beside_values: np.ndarray
    beside_places: np.ndarray
    lowest_values: np.ndarray
    lowest_places: np.ndarray

    @classmethod
    def empty(cls, num_symbols: int) -> FlatWork:
        """Room for two candidates a symbol."""
        room = 2 * num_symbols + 2
        return cls(
            tokens=np.zeros(room, np.int64),
            values=np.zeros(room, np.float64),
            sorting=np.zeros(room, np.float64),
            own=np.zeros(room, np.int64),
            inherited=np.zeros(room, np.int64),
            listed=np.zeros(room, np.float64),
            beside_tokens=np.zeros(room, np.int64),
            beside_values=np.zeros(room, np.float64),
            beside_places=np.zeros(room, np.int64),
            lowest_values=np.zeros(MOST_LOWEST),
            lowest_places=np.zeros(MOST_LOWEST, np.int64),
        )


@kernel(inline="always")
def _prefetch_place(mixed, lists, q, num_rows):
    """Ask where the shortlist of position q stands."""
    a = mixed.ref_offsets[q]
    if a < mixed.ref_offsets[q + 1]:
        row = mixed.ref_rows[a]
        prefetch(lists.places, row - num_rows if row >= num_rows else row)


@kernel(inline="always")
def _prefetch_list(mixed, lists, q, num_rows, size, kinds):
    """Ask for what position q will read."""
    a, e = mixed.ref_offsets[q], mixed.ref_offsets[q + 1]
    if a < e:
        row = mixed.ref_rows[a]
        place = lists.places[row - num_rows if row >= num_rows else row]
        if place >= 0:
            for line in range((HEADER + size * (1 + (e - a) * kinds)) // 16):
                prefetch(lists.blocks, place + 16 * line)


@kernel(forceinline=True)
def _weigh_list(counts, s, k1, k2, k3, values):
    """Add what one level of a list says. (A slice, from 0 on: else numba asks each index whether it is negative.)"""
    for t in range(counts.size):
        x = np.int64(counts[t])
        values[t] += s * x - cut_of(x, k1, k2, k3) if x > 0 else 0.0


@kernel()
def _count_smaller(tokens, token):
    """How many of a list's tokens are smaller: a sum in whole vectors, where bisecting would wait for every look."""
    n = np.int64(0)
    for t in range(tokens.size):
        n += tokens[t] < token
    return n


@kernel(forceinline=True)
def _add_pairs(mixed, q, listed_tokens, always, work):
    """Add position q's pairs to the list's values, or put them beside it; (how many are beside, the place of always).

    The place of token `always`: in the list, or after it among those beside; −1 if it is in neither.
    """
    listed = listed_tokens.size
    n, place_of_always = 0, np.int64(-1)
    for i in range(mixed.pair_offsets[q], mixed.pair_offsets[q + 1]):
        token, mass = mixed.pair_tokens[i], mixed.pair_masses[i]
        t = _count_smaller(listed_tokens, np.uint32(token))
        place = listed + n
        if t < listed and np.int64(listed_tokens[t]) == token:
            change = mixed.label_changes[q] if i == mixed.label_pairs[q] else 0.0
            work.listed[t] = mass + (work.listed[t] + change)  # the change takes back what the list says
            place = t
        else:
            work.beside_tokens[n], work.beside_values[n], work.beside_places[n] = token, mass, t
            n += 1
        if token == always:
            place_of_always = place
    if place_of_always < 0 and always >= 0:
        t = _count_smaller(listed_tokens, np.uint32(always))
        if t < listed and np.int64(listed_tokens[t]) == always:
            place_of_always = t
    return n, place_of_always


@kernel(forceinline=True)
def _merge(listed_tokens, work, beside, zeros, used, out_tokens, out_values):
    """Write the list and the pairs beside it in the order of their tokens, with zeros or not; returns entries used."""
    done = np.int64(0)
    for j in range(beside + 1):
        t = work.beside_places[j] if j < beside else listed_tokens.size
        for k in range(done, t):
            value = work.listed[k]
            out_tokens[used], out_values[used] = listed_tokens[k], value
            used += zeros | (value != 0.0)
        done = t
        if j < beside:
            value = work.beside_values[j]
            out_tokens[used], out_values[used] = work.beside_tokens[j], value
            used += zeros | (value != 0.0)
    return used


@kernel()
def _sum(values):
    """The sum in double precision; four at a time, since each addition waits for the one before."""
    a = b = c = d = 0.0
    whole = values.size & ~3
    for i in range(0, whole, 4):
        a += np.float64(values[i])
        b += np.float64(values[i + 1])
        c += np.float64(values[i + 2])
        d += np.float64(values[i + 3])
    for i in range(whole, values.size):
        a += np.float64(values[i])
    return (a + b) + (c + d)


@kernel(inline="always")
def _change(gone, k, left, s, k1, k2, k3):
    """What leaving a document out changes at the k-th changed token."""
    x = np.int64(gone.left_before[k]) if left else np.int64(gone.before[k])
    y = np.int64(gone.left_after[k]) if left else np.int64(gone.after[k])
    change = cut_of(x, k1, k2, k3) - s * x
    return change + (s * y - cut_of(y, k1, k2, k3)) if y > 0 else change


@kernel()
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


@kernel(work=lambda *arguments: arguments[13] - arguments[12])
def flat_targets(
    estimator,  # EstimatorArrays
    heavy,  # HeavyNodes
    mixed,  # Mixed
    gone,  # GoneRows, or None: nothing is left out
    lists,  # Shortlists
    most_levels,  # int64, of a shortlist
    work,  # FlatWork
    ancestors,  # (·,) int64, room for a row's ancestors
    labels,  # (Q,) int64, symbols; −1: unknown
    leaves,  # bool, whether labels are left out, and so always listed
    top_k,  # int64, tokens at most
    top_p,  # float64, of their mass at most; 1: all
    first,  # int64, positions first .. stop − 1
    stop,  # int64
    used,  # int64, entries of the out arrays in use
    out_offsets,  # (Q + 1,) int64, where each position's entries begin
    out_tokens,  # (E,) int64
    out_probs,  # (E,) float32
    out_rest,  # (Q,) float32, mass left to the base
    out_cut,  # (Q,) float32, mass of the tokens that were cut
):
    """Fill positions first … stop − 1 with the top_k likeliest tokens of pairs and shortlists; returns entries used."""
    num_rows = heavy.offsets.size - 1
    size = lists.scores.shape[1]
    kinds = 2 if estimator.left else 1
    blocks = lists.blocks
    values = work.listed
    for q in range(first, stop):
        if q + 8 < stop:
            _prefetch_place(mixed, lists, q + 8, num_rows)
        if q + 4 < stop:
            _prefetch_list(mixed, lists, q + 4, num_rows, size, kinds)
        j, j_end = mixed.ref_offsets[q], mixed.ref_offsets[q + 1]
        start = listed = np.int64(0)
        if j < j_end:
            row = mixed.ref_rows[j]
            row = row - num_rows if row >= num_rows else row
            place = lists.places[row]
            if place < 0:
                place = make_shortlists(row, estimator, heavy, lists, size, most_levels, work, ancestors)
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
                if gone is not None:
                    if mixed.ref_gone[j + level] >= 0:
                        left = mixed.ref_rows[j + level] >= num_rows
                        _without_document(mixed, gone, j + level, left, blocks, start, listed, values)
        listed_tokens = blocks[start : start + listed]
        always = labels[q] if leaves else np.int64(-1)
        beside, place = _add_pairs(mixed, q, listed_tokens, always, work)
        surplus = listed + beside - top_k
        if top_p < 1.0 or surplus > MOST_LOWEST:
            n = _merge(listed_tokens, work, beside, True, np.int64(0), work.tokens, work.values)
            used, explicit, cut = keep_largest(
                work.tokens, work.values, n, always, top_k, top_p, work.sorting, used, out_tokens, out_probs
            )
        else:
            cut = drop_lowest(listed_tokens, work, beside, surplus, place) if surplus > 0 else 0.0
            begin = used
            used = _merge(listed_tokens, work, beside, False, used, out_tokens, out_probs)
            explicit = _sum(out_probs[begin:used])
        out_cut[q] = max(0.0, 1.0 - explicit - mixed.rest[q]) if listed > 0 else cut
        out_rest[q] = max(mixed.rest[q], 1.0 - explicit)  # rounding may leave nothing, or less, in the latter
        out_offsets[q + 1] = used
    return used


@kernel(inline="always")
def _mark(touched, summary, c):
    touched[c >> 6] |= np.uint64(1) << np.uint64(c & 63)
    summary[c >> 12] |= np.uint64(1) << np.uint64((c >> 6) & 63)


@kernel()
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
        if gone is not None:
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


@kernel()
def whole_targets(
    heavy,  # HeavyNodes
    mixed,  # Mixed
    gone,  # GoneRows, or None: nothing is left out
    mass,  # (S,) float64, zeros between uses
    touched,  # (S / 64,) uint64, zeros between uses
    summary,  # (S / 4096,) uint64, zeros between uses
    work,  # FlatWork
    labels,  # (Q,) int64, symbols; −1: unknown
    leaves,  # bool, whether labels are left out, and so always listed
    top_k,  # int64, tokens at most
    top_p,  # float64, of their mass at most; 1: all
    first,  # int64, positions first .. stop − 1
    stop,  # int64
    used,  # int64, entries of the out arrays in use
    out_offsets,  # (Q + 1,) int64, where each position's entries begin
    out_tokens,  # (E,) int64
    out_probs,  # (E,) float32
    out_rest,  # (Q,) float32, mass left to the base
    out_cut,  # (Q,) float32, mass of the tokens that were cut
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


@kernel()
def sampled_targets(
    heavy,  # HeavyNodes
    mixed,  # Mixed
    gone,  # GoneRows, or None: nothing is left out
    mass,  # (S,) float64, zeros between uses
    touched,  # (S / 64,) uint64, zeros between uses
    summary,  # (S / 4096,) uint64, zeros between uses
    work,  # FlatWork
    base_sums,  # (S,) float64, the base's probabilities added up
    chances,  # (Q, D) float64, in 0 .. 1, ascending in each row
    used,  # int64, entries of the out arrays in use
    out_offsets,  # (Q + 1,) int64, where each position's entries begin
    out_tokens,  # (E,) int64
    out_probs,  # (E,) float32, shares of the draws
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
            token = min(first_above(base_sums, wanted), base_sums.size - 1)
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
