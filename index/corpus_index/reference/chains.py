"""The naive twin of the counts of a chain: every suffix of a context, counted by scans of the corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from corpus_index.reference.counts import LeaveOut, adjusted_counts, chain, left_counts
from corpus_index.reference.engine import ReferenceIndex


class OrderCounts(NamedTuple):
    """One order of a chain: how often each token follows, and after how many distinct symbols.

    lefts: occurrences where nothing can precede the context, or nothing is known to and the position leaves itself out.
    """

    order: int
    counts: Counter[int]
    lefts: Counter[int]


def counts_of_chain(
    index: ReferenceIndex, known: Sequence[int], *, max_order: int | None = None, leave_out: LeaveOut = None
) -> list[OrderCounts]:
    """The orders of a chain, the empty context first, after leaving out.

    >>> index = ReferenceIndex([[1, 2, 1, 2, 3]], vocab_size=4)
    >>> [(order, dict(counts)) for order, counts, lefts in counts_of_chain(index, [0, 1, 2])]
    [(0, {1: 2, 2: 2, 3: 1}), (1, {1: 1, 3: 1}), (2, {1: 1, 3: 1})]
    """
    found = []
    for order, suffix in enumerate(chain(index, known, max_order=max_order, leave_out=leave_out)):
        before = known[len(known) - order - 1] if order < len(known) else None
        lefts = adjusted_counts(index, suffix, leave_out, before)
        found.append(OrderCounts(order, left_counts(index, suffix, leave_out), lefts))
    return found
