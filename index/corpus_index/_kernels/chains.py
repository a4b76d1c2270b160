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
def discount_gradient(offsets, bucket, counts, base, values, below, slopes):
    """Σ −log p of chains of discounted counts; slopes: its derivatives by the values.

    values (buckets, 4): what an entry leaves to the next, back, and the discounts D of counts of 1, 2, 3 and more. An
    entry's own = (1 − back) · (c − D) / (Σ counts − Σ D); counts (E, 5): c, Σ counts, how many are 1, 2, 3 and more.
    """
    slopes[:] = 0.0
    loss = 0.0
    for q in range(offsets.size - 1):
        p = base[q]
        for k in range(offsets[q + 1] - 1, offsets[q] - 1, -1):
            below[k] = p
            v, x = values[bucket[k]], counts[k]
            left = x[1] - v[1] * x[2] - v[2] * x[3] - v[3] * x[4]
            share = (x[0] - v[min(x[0], 3)]) / left if x[0] > 0 else 0.0
            p = (1.0 - v[0]) * share + v[0] * p
        loss -= np.log(p)
        slope = -1.0 / p
        for k in range(offsets[q], offsets[q + 1]):
            v, x, out = values[bucket[k]], counts[k], slopes[bucket[k]]
            left = x[1] - v[1] * x[2] - v[2] * x[3] - v[3] * x[4]
            share = (x[0] - v[min(x[0], 3)]) / left if x[0] > 0 else 0.0
            out[0] += slope * (below[k] - share)
            if x[0] > 0:
                by_share = slope * (1.0 - v[0]) / left
                out[min(x[0], 3)] -= by_share
                for i in range(1, 4):
                    out[i] += by_share * share * x[i + 1]
            slope *= v[0]
    return loss
