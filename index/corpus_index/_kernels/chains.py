"""Mixtures along backoff chains: their loss, its gradient, and one step of expectation maximisation.

Position q's chain is entries offsets[q] : offsets[q + 1], the deepest first; an entry's probability is
p = own + back · p of the entry after it, and below the last one base[q].
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel


@kernel()
def chain_gradient(offsets, own, back, base, below, by_own, by_back):
    """Σ −log p over the positions; by_own, by_back: its derivatives by every entry's own and back. below: scratch."""
    loss = 0.0
    for q in range(offsets.size - 1):
        p = base[q]
        for k in range(offsets[q + 1] - 1, offsets[q] - 1, -1):
            below[k] = p
            p = own[k] + back[k] * p
        loss -= np.log(p)
        slope = -1.0 / p
        for k in range(offsets[q], offsets[q + 1]):
            by_own[k] = slope
            by_back[k] = slope * below[k]
            slope *= back[k]
    return loss


@kernel()
def chain_losses(offsets, own, back, base, losses):
    """losses[q] = −log p of position q."""
    for q in range(offsets.size - 1):
        p = base[q]
        for k in range(offsets[q + 1] - 1, offsets[q] - 1, -1):
            p = own[k] + back[k] * p
        losses[q] = -np.log(p)


@kernel()
def expected_uses(offsets, share, bucket, weights, base, below, used, reached):
    """Add to used and reached, by bucket, how often a chain is expected to stop at an entry, and to come there.

    An entry's p = weight · share + (1 − weight) · p of the entry after it, its weight that of its bucket.
    """
    for q in range(offsets.size - 1):
        p = base[q]
        for k in range(offsets[q + 1] - 1, offsets[q] - 1, -1):
            weight = weights[bucket[k]]
            p = weight * share[k] + (1.0 - weight) * p
            below[k] = p
        come = 1.0
        for k in range(offsets[q], offsets[q + 1]):
            b = bucket[k]
            stop = come * weights[b] * share[k] / below[k]
            used[b] += stop
            reached[b] += come
            come -= stop


@kernel()
def distinct_entries(bucket, counts, slots, which, first):
    """Number the entries by (bucket, counts); returns how many there are.

    bucket (E,), counts (E, 5) int64; slots (2^k > E,) int32, −1s: scratch. which (E,) int32, out: the number of each
    entry; first (E,) int64, out: where each number stands first.
    """
    found = np.int64(0)
    mask = slots.size - 1
    for k in range(bucket.size):
        key = np.uint64(bucket[k])
        for i in range(5):
            key = key * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(counts[k, i])
        at = np.int64((key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
        number = np.int64(slots[at])
        while number >= 0:
            j = first[number]
            same = bucket[j] == bucket[k]
            for i in range(5):
                same = same and counts[j, i] == counts[k, i]
            if same:
                break
            at = (at + 1) & mask
            number = np.int64(slots[at])
        if number < 0:
            number = found
            slots[at] = number
            first[number] = k
            found += 1
        which[k] = number
    return found


@kernel()
def discount_gradient(
    offsets,  # (Q + 1,) int64
    which,  # (E,) int32, which of the U distinct entries each one is
    base,  # (Q,) float64
    bucket,  # (U,) int64
    counts,  # (U, 5) int64: c, Σ counts, how many are 1, 2, 3 and more
    values,  # (buckets, 4) float64: what an entry leaves to the next, back, and the discounts of counts of 1, 2, 3 …
    terms,  # (U, 2) float64, scratch: own and back of each distinct entry
    by_term,  # (U, 2) float64, scratch: the derivatives by them
    below,  # (entries of the longest chain,) float64, scratch
    slopes,  # (buckets, 4) float64, out: the derivatives by the values
):
    """Σ −log p of chains of discounted counts: an entry's own = (1 − back) · (c − D) / (Σ counts − Σ D)."""
    for u in range(bucket.size):
        v, x = values[bucket[u]], counts[u]
        left = x[1] - v[1] * x[2] - v[2] * x[3] - v[3] * x[4]
        terms[u, 0] = (1.0 - v[0]) * ((x[0] - v[min(x[0], 3)]) / left) if x[0] > 0 else 0.0
        terms[u, 1] = v[0]
    by_term[:] = 0.0
    loss, product = 0.0, 1.0
    for q in range(offsets.size - 1):
        p, first = base[q], offsets[q]
        for k in range(offsets[q + 1] - 1, first - 1, -1):
            u = which[k]
            below[k - first] = p
            p = terms[u, 0] + terms[u, 1] * p
        product *= p
        if product < 1e-150:  # one logarithm for many
            loss -= np.log(product)
            product = 1.0
        slope = -1.0 / p
        for k in range(first, offsets[q + 1]):
            u = which[k]
            by_term[u, 0] += slope
            by_term[u, 1] += slope * below[k - first]
            slope *= terms[u, 1]
    slopes[:] = 0.0
    for u in range(bucket.size):
        v, x, out = values[bucket[u]], counts[u], slopes[bucket[u]]
        out[0] += by_term[u, 1]
        if x[0] > 0:
            left = x[1] - v[1] * x[2] - v[2] * x[3] - v[3] * x[4]
            share = (x[0] - v[min(x[0], 3)]) / left
            by_share = by_term[u, 0] * (1.0 - v[0]) / left
            out[0] -= by_term[u, 0] * share
            out[min(x[0], 3)] -= by_share
            for i in range(1, 4):
                out[i] += by_share * share * x[i + 1]
    return loss - np.log(product)
