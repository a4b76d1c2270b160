"""Stored continuation rows against a histogram of every node."""

from __future__ import annotations

from collections import Counter

import numpy as np
from corpus_index._kernels import rows
from hypothesis import given
from hypothesis import strategies as st


def naive(continuations: list[int], shared: list[int], light: int) -> dict[tuple[int, int], dict[int, int]]:
    """The rows of all nodes: for every depth, the maximal ranges that share as much."""
    found = {}
    for depth in range(max(shared) + 1):
        lo = 0
        for r in range(1, len(shared) + 1):
            if r == len(shared) or shared[r] < depth:
                counts = Counter(continuations[lo:r])
                if r - lo > light and len(counts) > 1:
                    found[lo, r] = dict(sorted(counts.items()))
                lo = r
    return found


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60), st.integers(1, 8))
def test_heavy_rows(ranks: list[tuple[int, int]], light: int) -> None:
    continuations, shared = [c for c, _ in ranks], [0] + [s for _, s in ranks[1:]]
    bounds, offsets, token_ids, counts = rows.heavy_rows(
        np.array(continuations, np.uint16), np.array(shared, np.uint16), 4, light, 0, len(ranks), True
    )
    actual = {
        (int(lo), int(hi)): dict(zip(token_ids[a:e].tolist(), counts[a:e].tolist(), strict=True))
        for (lo, hi), a, e in zip(bounds, offsets[:-1], offsets[1:], strict=True)
    }
    assert actual == naive(continuations, shared, light)


def test_rows_outgrow_their_first_room() -> None:
    """Thousands of nodes with all tokens each: the buffers are replaced while the pass is under way."""
    rng = np.random.default_rng(0)
    continuations = rng.integers(0, 40, 30_000).astype(np.uint16)
    shared = np.tile([0, 3, 2, 3, 1, 3, 2, 3], 30_000 // 8).astype(np.uint16)
    bounds, offsets, _, counts = rows.heavy_rows(continuations, shared, 40, 1, 0, 30_000, True)
    expected = naive(continuations.tolist(), shared.tolist(), 1)
    assert {tuple(pair) for pair in bounds.tolist()} == set(expected)
    assert np.add.reduceat(counts, offsets[:-1]).tolist() == (bounds[:, 1] - bounds[:, 0]).tolist()
