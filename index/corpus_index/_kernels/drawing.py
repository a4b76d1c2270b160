"""Tokens drawn from targets: exactly from mixed ones, and tempered and cut from pairs over a base.

Naively: write a distribution out over V, temper and cut it, and see where a random number falls in its running sum.
Here an exact draw first falls on the pairs, on one of the rows (their masses follow from stored totals) or on the
base, and then only that part is looked through. A cut one merges the position's sorted pairs with the base, sorted
once for all, as far as the cut reaches.
"""

from __future__ import annotations

import numpy as np

from corpus_index._kernels.jit import kernel
from corpus_index._kernels.rows import first_above, sort_part
from corpus_index._kernels.rules import cut_of
from corpus_index._kernels.target_arrays import HI, LEFT_1, LEFT_2, LEFT_TOTAL, LO, RAW_1, RAW_2

TIES = 1e-6  # weights that differ by so little tie: targets are float32


@kernel()
def draw_exactly(heavy, mixed, base_sum, chances, out):
    """Draw a symbol for each position from targets without labels; −1 where the draw falls on the base."""
    num_rows = heavy.offsets.size - 1
    table = heavy.table
    for q in range(chances.size):
        refs = range(mixed.ref_offsets[q], mixed.ref_offsets[q + 1])
        of_base = mixed.rest[q] * base_sum
        total = of_base
        for i in range(mixed.pair_offsets[q], mixed.pair_offsets[q + 1]):
            total += mixed.pair_masses[i]
        for j in refs:
            row, left = mixed.ref_rows[j] % num_rows, mixed.ref_rows[j] >= num_rows
            entries = heavy.offsets[row + 1] - heavy.offsets[row]
            n1 = np.int64(table[row, LEFT_1 if left else RAW_1])
            n2 = np.int64(table[row, LEFT_2 if left else RAW_2])
            held = np.int64(table[row, LEFT_TOTAL]) if left else np.int64(table[row, HI]) - np.int64(table[row, LO])
            s, k1 = mixed.ref_coefficients[j, 0], mixed.ref_coefficients[j, 1]
            k2, k3 = mixed.ref_coefficients[j, 2], mixed.ref_coefficients[j, 3]
            total += s * held - k1 * n1 - k2 * n2 - k3 * (entries - n1 - n2)
        wanted = chances[q] * total - of_base
        out[q] = -1
        if wanted < 0.0:
            continue
        for i in range(mixed.pair_offsets[q], mixed.pair_offsets[q + 1]):
            out[q] = mixed.pair_tokens[i]
            wanted -= mixed.pair_masses[i]
            if wanted < 0.0:
                break
        for j in refs:
            if wanted < 0.0:
                break
            row, left = mixed.ref_rows[j] % num_rows, mixed.ref_rows[j] >= num_rows
            entries = heavy.offsets[row + 1] - heavy.offsets[row]
            n1 = np.int64(table[row, LEFT_1 if left else RAW_1])
            n2 = np.int64(table[row, LEFT_2 if left else RAW_2])
            held = np.int64(table[row, LEFT_TOTAL]) if left else np.int64(table[row, HI]) - np.int64(table[row, LO])
            s, k1 = mixed.ref_coefficients[j, 0], mixed.ref_coefficients[j, 1]
            k2, k3 = mixed.ref_coefficients[j, 2], mixed.ref_coefficients[j, 3]
            mass = s * held - k1 * n1 - k2 * n2 - k3 * (entries - n1 - n2)
            if wanted >= mass and j + 1 < mixed.ref_offsets[q + 1]:
                wanted -= mass
                continue
            counts = heavy.lefts if left else heavy.counts
            for k in range(heavy.offsets[row], heavy.offsets[row + 1]):  # rounding may leave the last one
                x = np.int64(counts[k])
                out[q] = heavy.tokens[k]
                wanted -= s * x - cut_of(x, k1, k2, k3)
                if wanted < 0.0:
                    break
            wanted = -1.0


@kernel(inline="always")
def _reach(powered, order, rest, threshold):
    """How many tokens of the sorted base have rest · powered ≥ threshold."""
    a, e = np.int64(0), np.int64(order.size)
    while a < e:
        middle = (a + e) >> 1
        if rest * powered[order[middle]] >= threshold:
            a = middle + 1
        else:
            e = middle
    return a


@kernel()
def _walk(sorted_weights, n, powered, order, explicit, rest, most, goal):
    """The weight of the `most`-th token from the likeliest down, or of the first at which the sum reaches the goal.

    0 where the tokens end before.
    """
    i, j, count, total = n - 1, np.int64(0), np.int64(0), 0.0
    while True:
        while j < order.size and explicit[order[j]]:
            j += 1
        if i < 0 and j == order.size:
            return 0.0
        of_base = rest * powered[order[j]] if j < order.size else -1.0
        if i >= 0 and sorted_weights[i] >= of_base:
            weight = sorted_weights[i]
            i -= 1
        else:
            weight = of_base
            j += 1
        count += 1
        total += weight
        if count >= most or total >= goal:
            return weight


@kernel()
def _masses(
    tokens,  # (E,) int64, all pairs'
    weights,  # (·,) float64, of the position's pairs
    a,  # int64, its pairs are tokens[a : a + n]
    n,  # int64
    powered,  # (V,) float64, the base, tempered
    order,  # (V,) int64, its tokens, likeliest first
    place,  # (V,) int64, where each stands there
    cumulative,  # (V + 1,) float64, sums in that order
    rest,  # float64, tempered
    threshold,  # float64
):
    """What pairs and base hold at or above a threshold, and how far the base reaches."""
    reach = _reach(powered, order, rest, threshold)
    of_pairs, twice, inside = 0.0, 0.0, np.int64(0)
    for i in range(n):
        of_pairs += weights[i] if weights[i] >= threshold else 0.0
        c = tokens[a + i]
        if place[c] < reach:
            twice += powered[c]
            inside += 1
    of_base = max(0.0, rest * (cumulative[reach] - twice)) if inside < reach else 0.0
    return of_pairs, of_base, reach


@kernel()
def draw_cut(
    offsets,  # (Q + 1,) int64, each position's pairs
    tokens,  # (E,) int64
    probs,  # (E,) float32
    rests,  # (Q,) float32
    base,  # (V,) float64
    powered,  # (V,) float64, base ** power
    order,  # (V,) int64, its tokens, likeliest first
    place,  # (V,) int64, where each stands there
    cumulative,  # (V + 1,) float64, sums in that order
    power,  # float64, 1 / temperature
    top_k,  # int64
    top_p,  # float64
    chances,  # (Q,) float64, in 0 .. 1
    explicit,  # (V,) bool, False between uses
    weights,  # (longest,) float64, scratch
    sorting,  # (longest,) float64, scratch
    out,  # (Q,) int64, the tokens drawn
):
    """Draw a token for each position of sparse + rest · base, raised to a power and cut to the top_k, then the top_p.

    powered: base ** power; order: its tokens, likeliest first; place: where each stands there; cumulative (V + 1): sums
    in that order. explicit (V): False throughout.
    """
    for q in range(offsets.size - 1):
        a, n = offsets[q], offsets[q + 1] - offsets[q]
        rest = max(0.0, np.float64(rests[q])) ** power
        for i in range(n):
            c = tokens[a + i]
            weight = max(0.0, np.float64(probs[a + i]) + np.float64(rests[q]) * base[c])
            weights[i] = sorting[i] = weight if power == 1.0 else weight**power
            explicit[c] = True
        threshold = 0.0
        if top_k < order.size or top_p < 1.0:
            sort_part(sorting, 0, n)
        if top_k < order.size:
            threshold = (1.0 - TIES) * _walk(sorting, n, powered, order, explicit, rest, top_k, np.inf)
        if top_p < 1.0:
            of_pairs, of_base, _ = _masses(tokens, weights, a, n, powered, order, place, cumulative, rest, threshold)
            goal = (1.0 - 1e-12) * top_p * (of_pairs + of_base)
            least = _walk(sorting, n, powered, order, explicit, rest, order.size + n + 1, goal)
            threshold = max(threshold, (1.0 - TIES) * least)
        of_pairs, of_base, reach = _masses(tokens, weights, a, n, powered, order, place, cumulative, rest, threshold)
        wanted = chances[q] * (of_pairs + of_base)
        if wanted < of_pairs or of_base == 0.0:
            for i in range(n):
                if weights[i] >= threshold and weights[i] > 0.0:
                    out[q] = tokens[a + i]
                    wanted -= weights[i]
                    if wanted < 0.0:
                        break
        else:  # in the base's order, the pairs' tokens passed over
            wanted = (wanted - of_pairs) / rest
            held = 0
            for i in range(n):
                if place[tokens[a + i]] < reach:
                    sorting[held] = place[tokens[a + i]]
                    held += 1
            sort_part(sorting, 0, held)
            for i in range(held):
                passed = np.int64(sorting[i])
                if cumulative[passed] > wanted:
                    break
                wanted += powered[order[passed]]
            at = min(first_above(cumulative, wanted) - 1, reach - 1)
            while at > 0 and explicit[order[at]]:  # rounding
                at -= 1
            out[q] = order[at]
        for i in range(n):
            explicit[tokens[a + i]] = False
