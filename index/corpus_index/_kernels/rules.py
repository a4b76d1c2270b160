"""Rules: what an estimator makes of one order, (D1, D2, D3, s, γ), from a few totals of the context's row.

p_n(w) = (c(w) − D) · s + γ · p_{n−1}(w), with D by count (1, 2, 3 and more).

    WITTEN_BELL     D = 0, s = 1 / (c + T), γ = T / (c + T)
    JELINEK_MERCER  D = 0, s = λ / c, γ = 1 − λ; λ by order and bit length of c
    DIRICHLET       D = 0, s = 1 / (c + a), γ = a / (c + a)
    DISCOUNT        D by order and count (1, 2, 3 and more), s = 1 / c, γ = Σ D_i N_i / c
    PITMAN_YOR      D by order, s = 1 / (c + θ), γ = (θ + D T) / (c + θ)
    MAXIMUM         D = 0, s = 1 / c, γ = 0: the longest match alone
    ADD_K           D = 0, s = 1 / (c + k V), γ' = k V / (c + k V) on the base at once
"""

from __future__ import annotations

from numba import njit

WITTEN_BELL, JELINEK_MERCER, DIRICHLET, DISCOUNT, PITMAN_YOR, MAXIMUM, ADD_K = range(7)


@njit(cache=True, nogil=True)
def weigh(rule, discounts, extra, order, total, n1, n2, n3):
    """(D1, D2, D3, s, γ) of one order; n1, n2, n3: distinct continuations with a count of 1, 2, 3 and more."""
    at = min(order, extra.shape[0] - 1)
    cut_at = min(order, discounts.shape[0] - 1)
    distinct = n1 + n2 + n3
    if rule == WITTEN_BELL:
        return 0.0, 0.0, 0.0, 1.0 / (total + distinct), distinct / (total + distinct)
    if rule == JELINEK_MERCER:
        bucket, rest = 0, total
        while rest > 1 and bucket + 1 < extra.shape[1]:
            rest >>= 1
            bucket += 1
        weight = extra[at, bucket]
        return 0.0, 0.0, 0.0, weight / total, 1.0 - weight
    if rule == DIRICHLET:
        a = extra[at, 0]
        return 0.0, 0.0, 0.0, 1.0 / (total + a), a / (total + a)
    d1, d2, d3 = discounts[cut_at, 0], discounts[cut_at, 1], discounts[cut_at, 2]
    if rule == DISCOUNT:
        return d1, d2, d3, 1.0 / total, (d1 * n1 + d2 * n2 + d3 * n3) / total
    if rule == PITMAN_YOR:
        theta = extra[at, 0]
        return d1, d1, d1, 1.0 / (total + theta), (theta + d1 * distinct) / (total + theta)
    if rule == ADD_K:
        k = extra[0, 0]
        return 0.0, 0.0, 0.0, 1.0 / (total + k), k / (total + k)
    return 0.0, 0.0, 0.0, 1.0 / total, 0.0
