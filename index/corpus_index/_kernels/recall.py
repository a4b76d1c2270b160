"""What a row's own past says of the next token: the continuations of its last 0, 1, … tokens earlier in the row.

Naively: for each order, all earlier places of the row after the same last tokens, and the histogram of what came next.
Each position goes through its past twice, O(T²) a row: a comparison that mostly fails at once is cheaper than an index
of a few hundred tokens.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import sort_part
from corpus_index._kernels.rules import bit_length


@kernel()
def bucket_of(order, total, distinct, lengths):
    """The bucket of a context of so many tokens: by its count's bit length, and whether its continuations agree."""
    return (order * lengths + bit_length(total, lengths)) * 2 + (1 if distinct > 1 else 0)


@kernel()
def _past(row, begin, t, orders, deepest, tokens, totals, distinct):
    """Tally the continuations in row[begin : t + 1] of its last tokens, by order; returns the distinct tokens."""
    totals[:] = 0
    distinct[:] = 0
    n = 0
    for j in range(begin, t):
        m = 0
        while m + 1 < orders and j - m >= begin and row[j - m] == row[t - m]:
            m += 1
        c = row[j + 1]
        if deepest[c] < 0:
            tokens[n] = c
            n += 1
        for k in range(m + 1):
            totals[k] += 1
        for k in range(deepest[c] + 1, m + 1):
            distinct[k] += 1
        if m > deepest[c]:
            deepest[c] = m
    return n


@kernel(allocates=True)
def shares(rows, labels, end, orders, lengths, deepest, out_buckets, out_shares):
    """For each position and order, its bucket (−1: nothing comes before) and the label's share of the continuations.

    rows, labels (B, T); end: the token after which the past begins anew, or −1. deepest (V,): −1 everywhere.
    out_buckets, out_shares (B · T, orders).
    """
    tokens = np.empty(rows.shape[1], np.int64)
    totals, distinct = np.zeros(orders, np.int64), np.zeros(orders, np.int64)
    counts = np.zeros(orders, np.int64)
    for b in range(rows.shape[0]):
        row, begin = rows[b], 0
        for t in range(row.size):
            if row[t] == end:
                begin = t
            q = b * row.size + t
            out_buckets[q] = -1
            if labels[b, t] < 0:
                continue
            n = _past(row, begin, t, orders, deepest, tokens, totals, distinct)
            for i in range(n):
                deepest[tokens[i]] = -1
            counts[:] = 0
            for j in range(begin, t):
                if row[j + 1] == labels[b, t]:
                    m = 0
                    counts[0] += 1
                    while m + 1 < orders and j - m >= begin and row[j - m] == row[t - m]:
                        m += 1
                        counts[m] += 1
            for k in range(orders):
                if totals[k] > 0:
                    out_buckets[q, k] = bucket_of(k, totals[k], distinct[k], lengths)
                    out_shares[q, k] = counts[k] / totals[k]


@kernel(allocates=True)
def masses(
    rows,  # (B, T) int64, token ids
    end,  # int64, the token after which the past begins anew, or −1
    weights,  # (buckets,) float64, λ
    orders,  # int64, contexts of 0 .. orders − 1 tokens
    lengths,  # int64, bit lengths of counts
    deepest,  # (V,) int64, −1 between uses
    mass,  # (V,) float64, zeros between uses
    out_kept,  # (B · T,) float64, mass that the index keeps
    out_offsets,  # (B · T + 1,) int64, where each position's entries begin
    out_tokens,  # (E,) int64, ascending in each; empty: entries are only counted
    out_masses,  # (E,) float64
):
    """For each position the mass that the index keeps, and what the row's past gives to which tokens (ascending).

    weights: of the buckets. deepest (V,): −1, mass (V,): 0 everywhere. Returns the entries, as many as the past of a
    row has distinct tokens at each position; with empty outputs they are only counted.
    """
    tokens = np.empty(rows.shape[1], np.int64)
    totals, distinct = np.zeros(orders, np.int64), np.zeros(orders, np.int64)
    each = np.zeros(orders + 1)
    write = out_tokens.size > 0
    used = 0
    for b in range(rows.shape[0]):
        row, begin = rows[b], 0
        for t in range(row.size):
            if row[t] == end:
                begin = t
            q = b * row.size + t
            n = _past(row, begin, t, orders, deepest, tokens, totals, distinct)
            if write:
                kept = 1.0
                for k in range(orders - 1, -1, -1):
                    each[k] = 0.0
                    if totals[k] > 0:
                        weight = weights[bucket_of(k, totals[k], distinct[k], lengths)]
                        each[k] = kept * weight / totals[k]
                        kept *= 1.0 - weight
                for k in range(1, orders):  # a place that agrees in k tokens counts in all shorter orders too
                    each[k] += each[k - 1]
                for j in range(begin, t):
                    m = 0
                    while m + 1 < orders and j - m >= begin and row[j - m] == row[t - m]:
                        m += 1
                    mass[row[j + 1]] += each[m]
                sort_part(tokens, 0, n)
                for i in range(n):
                    out_tokens[used + i] = tokens[i]
                    out_masses[used + i] = mass[tokens[i]]
                    mass[tokens[i]] = 0.0
                out_kept[q] = kept
            for i in range(n):
                deepest[tokens[i]] = -1
            used += n
            out_offsets[q + 1] = used
    return used


@kernel()
def merge(
    offsets,  # (Q + 1,) int64, pairs of the index's targets
    tokens,  # (E,) int64, ascending in each
    probs,  # (E,) float32
    kept,  # (Q,) float64, their share
    own_offsets,  # (Q + 1,) int64, pairs of the row's past
    own_tokens,  # (F,) int64, ascending in each
    own_masses,  # (F,) float64
    out_offsets,  # (Q + 1,) int64, where each position's entries begin
    out_tokens,  # (E + F,) int64
    out_probs,  # (E + F,) float32
):
    """kept · (tokens, probs) plus (own_tokens, own_masses) at each position, both ascending; returns the entries."""
    used = 0
    for q in range(kept.size):
        i, i_end = offsets[q], offsets[q + 1]
        j, j_end = own_offsets[q], own_offsets[q + 1]
        while i < i_end or j < j_end:
            token = tokens[i] if i < i_end else np.int64(2**62)
            if j < j_end and own_tokens[j] < token:
                token = own_tokens[j]
            value = 0.0
            if i < i_end and tokens[i] == token:
                value += kept[q] * np.float64(probs[i])
                i += 1
            if j < j_end and own_tokens[j] == token:
                value += own_masses[j]
                j += 1
            out_tokens[used], out_probs[used] = token, value
            used += 1
        out_offsets[q + 1] = used
    return used
