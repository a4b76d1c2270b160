"""Good–Turing discounts, as Katz's backoff takes them: how much of a count of 1, 2, … 5 is kept, by order.

A count of r is worth r* = (r + 1) · n_{r+1} / n_r, n_r being how many (context, token) have that count. Counts above
the threshold are trusted as they are, so the others' discounts are scaled to save just what the singletons are worth:
d_r = (r* / r − m) / (1 − m), m = (k + 1) · n_{k+1} / n_1 (Katz 1987, equation 7).
"""

from __future__ import annotations

from corpus_index._kernels.exclusion_sums import CLASSES
from corpus_index.core.matching import Matcher
from corpus_index.estimators.counts_of_counts import counts_of_counts


def good_turing_ratios(counts: list[int]) -> list[float]:
    """d_1, …, d_k from n_1, …, n_{k+1}: 1, no discount, where the formula isn't in (0, 1] or divides by 0.

    >>> [round(d, 3) for d in good_turing_ratios([100, 40, 22, 14, 10, 8])]
    [0.615, 0.663, 0.709, 0.794, 0.923]
    >>> good_turing_ratios([0, 3, 1, 0, 0, 0])
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    k = len(counts) - 1
    ratios = []
    for r in range(1, k + 1):
        ratio = 0.0
        if counts[0] > 0 and counts[r - 1] > 0:
            common = (k + 1) * counts[k] / counts[0]
            if common != 1:
                ratio = ((r + 1) * counts[r] / counts[r - 1] / r - common) / (1 - common)
        ratios.append(ratio if 0 < ratio <= 1 else 1.0)
    return ratios


def fit_ratios(index: Matcher, highest: int) -> tuple[tuple[tuple[float, ...], ...], dict[str, object]]:
    """The discounts of orders 0 … highest, and the facts that they stand on; O(N) an order."""
    counts = counts_of_counts(index, highest, left=False, most=CLASSES + 1)
    ratios = tuple(tuple(good_turing_ratios(row)) for row in counts.tolist())
    fallback = [order for order, row in enumerate(ratios) if 1.0 in row]
    return ratios, {"fallback_orders": fallback, "counts_of_counts": counts.tolist()}
