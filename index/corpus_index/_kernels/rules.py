"""Rules: what an estimator makes of one order, (D1, D2, D3, s, γ), from a few totals of the context's row.

p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w), with D by count (1, 2, 3 and more).

    WITTEN_BELL     D = 0, s = 1 / (c + T), γ = T / (c + T)
    JELINEK_MERCER  D = 0, s = λ / c, γ = 1 − λ; λ by order and bit length of c
    DIRICHLET       D = 0, s = 1 / (c + a), γ = a / (c + a)
    DISCOUNT        D by order and count (1, 2, 3 and more), s = 1 / c, γ = Σ D_i N_i / c
    PITMAN_YOR      D by order, s = 1 / (c + θ), γ = (θ + D T) / (c + θ)
    AUTO            λ and D by bucket, s = λ / (c − Σ D_i N_i), γ = 1 − λ
    MAXIMUM         D = 0, s = 1 / c, γ = 0: the longest match alone

Under PITMAN_YOR and AUTO only contexts that branch count: a node's shorter orders, which stand at just the same places,
say nothing new and are passed over, so that no depth uses up the mass of what is below.

Where less than LEAST_MASS is passed on, it goes to the base distribution at once: the product of many γ would
underflow, and tokens that no long context has seen would have probability 0 inside a passage that the corpus repeats.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel

WITTEN_BELL, JELINEK_MERCER, DIRICHLET, DISCOUNT, PITMAN_YOR, MAXIMUM, ADD_K, AUTO = range(8)
KATZ, STUPID_BACKOFF, PPM_C = range(100, 103)  # with exclusion, as ADD_K: see exclusion.py

LEAST_MASS = 1e-15  # times the least base probability, still a normal float32


@kernel()
def bit_length(total, lengths):
    """The bit length of a count, less 1; at most lengths − 1."""
    length = np.int64(0)
    while total > 1 and length + 1 < lengths:
        total >>= 1
        length += 1
    return length


@kernel()
def bucket_of(table, order, total, distinct):
    """The line of AUTO's table for a context; line 0 holds the numbers of orders, counts (bit lengths) and shares."""
    orders, counts, shares = np.int64(table[0, 0]), np.int64(table[0, 1]), np.int64(table[0, 2])
    length = bit_length(total, counts)
    share = min(shares - 1, distinct * (shares - 1) // max(1, total))
    return 1 + ((min(order, orders) - 1) * counts + length) * shares + share


@kernel(forceinline=True, work=lambda *arguments: 1)
def weigh(rule, discounts, extra, order, total, n1, n2, n3):
    """(D1, D2, D3, s, γ) of one order; n1, n2, n3: distinct continuations with a count of 1, 2, 3 and more."""
    at = min(order, extra.shape[0] - 1)
    cut_at = min(order, discounts.shape[0] - 1)
    distinct = n1 + n2 + n3
    total = max(total, 1)  # an unchecked index may count none
    if rule == WITTEN_BELL:
        return 0.0, 0.0, 0.0, 1.0 / (total + distinct), distinct / (total + distinct)
    if rule == JELINEK_MERCER:
        weight = extra[at, bit_length(total, extra.shape[1])]
        return 0.0, 0.0, 0.0, weight / total, 1.0 - weight
    if rule == DIRICHLET:
        a = extra[at, 0]
        return 0.0, 0.0, 0.0, 1.0 / (total + a), a / (total + a)
    if rule == AUTO:
        line = bucket_of(extra, order, total, distinct)
        d1, d2, d3 = extra[line, 1], extra[line, 2], extra[line, 3]
        return d1, d2, d3, extra[line, 0] / max(total - d1 * n1 - d2 * n2 - d3 * n3, 1e-9), 1.0 - extra[line, 0]
    d1, d2, d3 = discounts[cut_at, 0], discounts[cut_at, 1], discounts[cut_at, 2]
    if rule == DISCOUNT:
        return d1, d2, d3, 1.0 / total, (d1 * n1 + d2 * n2 + d3 * n3) / total
    if rule == PITMAN_YOR:
        theta = extra[at, 0]
        return d1, d1, d1, 1.0 / (total + theta), (theta + d1 * distinct) / (total + theta)
    return 0.0, 0.0, 0.0, 1.0 / total, 0.0


@kernel(inline="always")
def cut_of(count, k1, k2, k3):
    """The coefficient of a count's class."""
    return k1 if count == 1 else k2 if count == 2 else k3


@kernel(forceinline=True)
def node_weights(
    estimator,  # EstimatorArrays
    depth,  # int64, the deepest order
    shallower,  # int64, the parent's depth
    top,  # bool, whether it is the first node that counts
    raw,  # bool, whether order `depth` counts occurrences anyway
    total,  # int64, sum of the counts
    n1,  # int64, how many of them are 1
    n2,  # int64, 2
    n3,  # int64, 3 and more
    left_total,  # int64, the same of left extensions
    m1,  # int64; as many as there are tokens: order `depth` needs nothing else of the left extensions
    m2,  # int64
    m3,  # int64
    remaining,  # float64, weight that deeper nodes left
):
    """What a node adds for its orders depth … shallower + 1: (weight left, left extensions?, s, k1, k2, k3).

    total, n1, n2, n3: sum of the counts, and how many are 1, 2, 3 and more; left_total, m1 …: of the left extensions.
    raw: whether order `depth` counts occurrences, since nothing can, or is known to, precede the context.
    Where each token has one left extension, as where the node's own depth is larger than `depth`, its mass is written
    without them: whoever asks, of one index or of counts that were added, adds up the same numbers in the same order.
    """
    s0 = k1 = k2 = k3 = 0.0
    use_left = False
    distinct = n1 + n2 + n3
    branching = estimator.rule == PITMAN_YOR or estimator.rule == AUTO
    for order in range(depth, depth - 1 if branching else shallower, -1):
        highest = top and order == depth and ((estimator.max_order < 0 and not branching) or raw)
        if not estimator.left or order == estimator.max_order or highest:
            d1, d2, d3, s, back = weigh(estimator.rule, estimator.discounts, estimator.extra, order, total, n1, n2, n3)
            s *= remaining
            s0 += s
            k1 += s * d1
            k2 += s * d2
            k3 += s * d3
        elif order < depth or m1 == distinct:  # one left extension each
            d1, d2, d3, s, back = weigh(
                estimator.rule, estimator.discounts, estimator.extra, order, distinct, distinct, 0, 0
            )
            s *= remaining * (1.0 - d1)
            k1 -= s
            k2 -= s
            k3 -= s
        else:
            d1, d2, d3, s, back = weigh(
                estimator.rule, estimator.discounts, estimator.extra, order, left_total, m1, m2, m3
            )
            s *= remaining
            use_left = True
            s0 += s
            k1 += s * d1
            k2 += s * d2
            k3 += s * d3
        remaining *= back
        if remaining < LEAST_MASS:
            break
    return remaining, use_left, s0, k1, k2, k3


@kernel()
def root_cut(discounts, count):
    """The discount of a count at order 0; 0 for a count of 0."""
    return discounts[0, min(count, 3) - 1] if count > 0 else 0.0
