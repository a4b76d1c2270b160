"""The largest of some values: a position's likeliest tokens, by number or by the mass that they hold."""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import sort_part

MOST_LOWEST = 24  # more are dropped by keeping the largest


@kernel()
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


@kernel()
def drop_lowest(listed_tokens, work, beside, surplus, always):
    """Set the lowest `surplus` values of a list and of the pairs beside it to 0; returns their sum.

    surplus: 1 … MOST_LOWEST. always: a place (in the list, or after it among those beside) that stays, or −1. Of equal
    values those of the largest tokens go. lowest_values, lowest_places: the lowest so far, ascending.
    """
    listed = listed_tokens.size
    values, places = work.lowest_values, work.lowest_places
    held, cut = 0, 0.0
    for place in range(listed + beside):
        value = work.listed[place] if place < listed else work.beside_values[place - listed]
        if place == always or (held == surplus and value > values[surplus - 1]):
            continue
        token = np.int64(listed_tokens[place]) if place < listed else work.beside_tokens[place - listed]
        j = held
        while j > 0:
            other = places[j - 1]
            their = np.int64(listed_tokens[other]) if other < listed else work.beside_tokens[other - listed]
            if values[j - 1] < value or (values[j - 1] == value and their > token):
                break
            if j < surplus:
                values[j], places[j] = values[j - 1], other
            j -= 1
        if j < surplus:
            values[j], places[j] = value, place
            held = min(held + 1, surplus)
    for i in range(held):
        cut += values[i]
        place = places[i]
        if place < listed:
            work.listed[place] = 0.0
        else:
            work.beside_values[place - listed] = 0.0
    return cut


@kernel()
def _nucleus(values, n, top_p, threshold, spare):
    """The least of the largest n values that it takes for a sum of top_p, and how many equal to it are among them.

    threshold, spare: of those that come into question; they stay where all are needed, or ties of the last.
    """
    sort_part(values, 0, n)
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


@kernel()
def keep_largest(
    tokens,  # (n,) int64
    values,  # (n,) float64
    n,  # int64
    always,  # int64, a token that stays; −1: none
    top_k,  # int64, tokens at most
    top_p,  # float64, of their mass at most; 1: all
    sorting,  # (n,) float64, scratch
    used,  # int64, entries of the out arrays in use
    out_tokens,  # (E,) int64, with room for top_k + 1 more
    out_probs,  # (E,) float32
):
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
